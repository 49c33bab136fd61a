//! The devices of pods: for how long a pod held them, and what a GPU did in whose hands. Owns what is last known of both.
use std::sync::Arc;

use mcad_wire::reading::{Assignment, Report};

use super::gains::Gains;
use super::held::{HeldName, NodeHeld};
use super::life::Life;
use super::possible::{Counter, Possible};
use super::since::Since;
use super::{KnownNode, add};
use crate::hardware::shares::SHARED;
use crate::hardware::{MIG_PREFIX, uuid_of};
use crate::measure::{Assigned, NamedPods};
use crate::object::Pod;
use crate::resource::NVIDIA_GPU;

/// A GPU or a MIG instance, as it was last seen.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) uuid: Box<str>,
    pub(super) busy_ns: Since,
    /// Who held it, and how many parts of it: pods by UID, or by name where they have none; in order of them.
    pub(super) holders: Box<[(Arc<str>, u64)]>,
}

impl Device {
    fn new(uuid: &str) -> Self {
        Self { uuid: uuid.into(), busy_ns: Since::default(), holders: Box::default() }
    }

    /// How many parts of it somebody held.
    fn parts_of(&self, holder: &Arc<str>) -> Option<u64> {
        let at = self.holders.binary_search_by(|(known, _)| known.cmp(holder)).ok()?;
        Some(self.holders[at].1)
    }
}

/// Takes in what the report of a node tells of devices, of which it names these in the hands of pods.
pub(super) fn take(
    node: &mut KnownNode,
    (gains, possible): (&mut Gains<'_>, &mut Possible),
    report: &Report<'_>,
    named: &NamedPods<'_>,
    life: &Life,
) {
    // Where kubelet could not be asked, or the driver, what was last known is what the next report is held against.
    let Some(assigned) = &named.assigned else { return };
    let of_gpus = assigned.iter().filter(|assigned| is_gpu(assigned.assignment.resource));
    for assigned in of_gpus.clone() {
        take_held(&mut node.held, (gains, possible), assigned, life);
    }
    let holders = holders(of_gpus);
    let devices = &mut node.devices;
    if report.gpus.is_some() {
        devices.retain(|device| !of_device(&holders, &device.uuid).is_empty());
    }
    for (uuid, busy_ns) in busy(report) {
        // One that nobody holds has nobody to tell of.
        let holders = of_device(&holders, uuid);
        if holders.is_empty() {
            continue;
        }
        let at = devices.binary_search_by(|device| (*device.uuid).cmp(uuid)).unwrap_or_else(|free| {
            devices.insert(free, Device::new(uuid));
            free
        });
        take_busy((gains, possible), &mut devices[at], holders, busy_ns, life);
    }
}

fn take_held(
    known: &mut NodeHeld,
    (gains, possible): (&mut Gains<'_>, &mut Possible),
    Assigned { assignment, pod, .. }: &Assigned<'_>,
    life: &Life,
) {
    let (Some(held_ns), Some(owner)) = (assignment.held_ns, &pod.owner) else { return };
    let Some((_, gained)) = gains.of(owner) else { return };
    let Assignment { container, resource, ref device_ids, .. } = **assignment;
    let last = known.get_or_new(HeldName { namespace: &pod.namespace, pod: &pod.name, container, resource });
    let more = last.of_agent(held_ns, life, device_ids.len() as u64, (Counter::GpuHeld, possible));
    add(&mut gained.gpu_held_ns, Some(more));
}

/// Gives what a device did since it was last seen to those who hold it now and held it then: whose work the rest was,
/// nobody knows. Of a shared one, to each in proportion to the parts that it holds.
fn take_busy(
    (gains, possible): (&mut Gains<'_>, &mut Possible),
    device: &mut Device,
    holders: &[Holder<'_>],
    busy_ns: u64,
    life: &Life,
) {
    let is_same_boot = device.busy_ns.is_of_boot(life);
    let more = device.busy_ns.of_agent(busy_ns, life, 1, (Counter::GpuBusy, possible));
    let parts_now: u64 = holders.iter().map(|holder| holder.parts).sum();
    let parts = parts_now.max(device.holders.iter().map(|(_, parts)| parts).sum());
    for Holder { key, pod, parts: now, .. } in holders {
        let Some(then) = device.parts_of(key).filter(|_| is_same_boot) else { continue };
        let share = u128::from(more) * u128::from(*now.min(&then)) / u128::from(parts);
        if let Some((_, gained)) = pod.owner.as_ref().and_then(|owner| gains.of(owner)) {
            add(&mut gained.gpu_busy_ns, u64::try_from(share).ok());
        }
    }
    let now = holders.iter().map(|holder| (&holder.key, holder.parts));
    if !now.clone().eq(device.holders.iter().map(|(key, parts)| (key, *parts))) {
        device.holders = now.map(|(key, parts)| (key.clone(), parts)).collect();
    }
}

/// A pod that holds a device, and how many parts of it.
struct Holder<'a> {
    uuid: &'a str,
    /// Its UID, or its name where it has none.
    key: Arc<str>,
    pod: &'a Pod,
    parts: u64,
}

/// Who holds which device, in order of both.
fn holders<'a>(assigned: impl Iterator<Item = &'a Assigned<'a>>) -> Vec<Holder<'a>> {
    let mut all = Vec::with_capacity(assigned.size_hint().1.unwrap_or(0));
    for Assigned { assignment, pod, .. } in assigned {
        let key = if pod.uid.is_empty() { format!("{}/{}", pod.namespace, pod.name).into() } else { pod.uid.clone() };
        let of = |id| Holder { uuid: uuid_of(id), key: Arc::clone(&key), pod, parts: 1 };
        all.extend(assignment.device_ids.iter().map(|id| of(id)));
    }
    all.sort_unstable_by(|a, b| a.uuid.cmp(b.uuid).then_with(|| a.key.cmp(&b.key)));
    all.dedup_by(|next, first| {
        let is_same = next.uuid == first.uuid && next.key == first.key;
        first.parts += if is_same { next.parts } else { 0 };
        is_same
    });
    all
}

/// Those who hold one device.
fn of_device<'h, 'a>(holders: &'h [Holder<'a>], uuid: &str) -> &'h [Holder<'a>] {
    let from = holders.partition_point(|holder| holder.uuid < uuid);
    let count = holders[from..].partition_point(|holder| holder.uuid == uuid);
    &holders[from..from + count]
}

/// GPUs and MIG instances whose busy time is known.
fn busy<'a>(report: &'a Report<'a>) -> impl Iterator<Item = (&'a str, u64)> {
    let gpus = report.gpus.iter().flat_map(|gpus| &gpus.devices);
    gpus.flat_map(|gpu| {
        let instances = gpu.mig_instances.iter().map(|instance| (instance.uuid, instance.busy_ns));
        instances.chain([(gpu.uuid, gpu.busy_ns)]).filter_map(|(uuid, busy_ns)| Some((uuid, busy_ns?)))
    })
}

/// NVIDIA's, whole, in parts or as MIG instances.
fn is_gpu(resource: &str) -> bool {
    resource == NVIDIA_GPU || resource.strip_prefix(NVIDIA_GPU) == Some(SHARED) || resource.starts_with(MIG_PREFIX)
}
