//! The devices that kubelet handed out to pods of a node, and their holders.
use std::sync::Arc;

use super::Assigned;
use crate::hardware::uuid_of;
use crate::object::Pod;

/// The devices that kubelet handed out to pods of a node.
pub(super) struct HeldDevices<'a> {
    /// Sorted by device and holder.
    devices: Vec<HeldDevice<'a>>,
    /// UIDs, as in cgroups, of the pods for which kubelet lists devices of claims.
    pub(super) claiming: Vec<&'a str>,
    /// Those among them that hold a GPU without a UUID.
    pub(super) unnamed: Vec<&'a str>,
}

/// A device that a container holds.
pub(super) struct HeldDevice<'a> {
    pub(super) pod: &'a Pod,
    container: &'a str,
    pub(super) resource: &'a str,
    /// The id in kubelet's list.
    pub(super) id: &'a str,
    /// The UUID of the device behind the id.
    pub(super) uuid: &'a str,
}

impl<'a> HeldDevices<'a> {
    pub(super) fn new(assigned: &[Assigned<'a>]) -> Self {
        let mut held = Vec::with_capacity(assigned.len());
        let (mut claiming, mut unnamed) = (Vec::new(), Vec::new());
        for of in assigned {
            claiming.extend(of.is_claimed().then_some(&*of.pod.cgroup_uid));
            unnamed.extend(of.is_unnamed_gpu().then_some(&*of.pod.cgroup_uid));
            let (resource, container, pod) = (of.resource(), of.assignment.container, of.pod);
            held.extend(of.ids().map(|id| HeldDevice { pod, container, resource, id, uuid: uuid_of(id) }));
        }
        held.sort_unstable_by(|a, b| a.uuid.cmp(b.uuid).then_with(|| a.holder().cmp(&b.holder())));
        Self { devices: held, claiming, unnamed }
    }

    pub(super) fn all(&self) -> &[HeldDevice<'a>] {
        &self.devices
    }

    /// The entries of one device: as many as held parts of it.
    pub(super) fn of(&self, uuid: &str) -> &[HeldDevice<'a>] {
        let from = self.devices.partition_point(|device| device.uuid < uuid);
        let count = self.devices[from..].iter().take_while(|device| device.uuid == uuid).count();
        &self.devices[from..from + count]
    }

    /// The holders of a device, each once.
    pub(super) fn holders_of(&self, uuid: &str) -> impl Iterator<Item = &HeldDevice<'a>> {
        self.of(uuid).chunk_by(|a, b| a.holder() == b.holder()).filter_map(<[_]>::first)
    }
}

impl<'a> HeldDevice<'a> {
    /// Namespace, pod, container.
    pub(super) fn holder(&self) -> [&'a str; 3] {
        [&self.pod.namespace, &self.pod.name, self.container]
    }

    /// The same, as shared text.
    pub(super) fn kept_holder(&self) -> [Arc<str>; 3] {
        [self.pod.namespace.clone(), self.pod.name.clone(), self.container.into()]
    }

    /// The UID of its pod, as cgroups have it. Empty if it is not known.
    pub(super) fn cgroup_uid(&self) -> &'a str {
        &self.pod.cgroup_uid
    }
}
