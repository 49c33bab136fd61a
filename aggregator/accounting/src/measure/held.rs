//! The devices that kubelet gave to pods of a node: who holds which.
use std::sync::Arc;

use mcad_wire::reading::Assignment;

use super::Assigned;
use crate::hardware::uuid_of;
use crate::object::Pod;

/// What kubelet gave to pods of a node, in order of device and holder.
pub(super) struct HeldDevices<'a>(Vec<HeldDevice<'a>>);

/// A device in the hands of a container.
pub(super) struct HeldDevice<'a> {
    pub(super) pod: &'a Pod,
    container: &'a str,
    pub(super) resource: &'a str,
    /// As kubelet writes it.
    pub(super) id: &'a str,
    /// The device that it is of.
    pub(super) uuid: &'a str,
}

impl<'a> HeldDevices<'a> {
    pub(super) fn new(assigned: &[Assigned<'a>]) -> Self {
        let mut held = Vec::with_capacity(assigned.len());
        for Assigned { assignment, pod, .. } in assigned {
            let Assignment { container, resource, ref device_ids, .. } = **assignment;
            let device = |id| HeldDevice { pod, container, resource, id, uuid: uuid_of(id) };
            held.extend(device_ids.iter().map(|id| device(id)));
        }
        held.sort_unstable_by(|a, b| a.uuid.cmp(b.uuid).then_with(|| a.holder().cmp(&b.holder())));
        Self(held)
    }

    pub(super) fn all(&self) -> &[HeldDevice<'a>] {
        &self.0
    }

    /// Those of one device: as many as parts of it are held.
    pub(super) fn of(&self, uuid: &str) -> &[HeldDevice<'a>] {
        let from = self.0.partition_point(|device| device.uuid < uuid);
        let count = self.0[from..].iter().take_while(|device| device.uuid == uuid).count();
        &self.0[from..from + count]
    }

    /// Who holds it, each once.
    pub(super) fn holders_of(&self, uuid: &str) -> impl Iterator<Item = &HeldDevice<'a>> {
        self.of(uuid).chunk_by(|a, b| a.holder() == b.holder()).filter_map(<[_]>::first)
    }
}

impl<'a> HeldDevice<'a> {
    /// Namespace, pod, container.
    pub(super) fn holder(&self) -> [&'a str; 3] {
        [&self.pod.namespace, &self.pod.name, self.container]
    }

    /// The same, to be kept.
    pub(super) fn kept_holder(&self) -> [Arc<str>; 3] {
        [self.pod.namespace.clone(), self.pod.name.clone(), self.container.into()]
    }
}
