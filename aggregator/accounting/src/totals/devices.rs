//! The devices of pods: how long a pod held them, and how long they were busy for which holder. Owns what was last known of both.
use std::sync::Arc;

use mcad_wire::reading::Report;

use super::gains::Gains;
use super::held::{HeldName, NodeHeld};
use super::life::Life;
use super::possible::{Counter, Possible};
use super::since::Since;
use super::{NodeTotals, add};
use crate::hardware::{ResourceNames, uuid_of};
use crate::measure::{Assigned, NamedPods};
use crate::object::Pod;
use crate::resource::NVIDIA_GPU;

/// A GPU or a MIG instance, as it was last seen.
#[derive(Debug)]
pub(super) struct DeviceTotals {
    pub(super) uuid: Box<str>,
    pub(super) busy_ns: Since,
    /// The holders and how many parts of the device each held: pods by UID, or by name if they have no UID; sorted by pod.
    pub(super) holders: Box<[(Arc<str>, u64)]>,
}

impl DeviceTotals {
    fn new(uuid: &str) -> Self {
        Self { uuid: uuid.into(), busy_ns: Since::default(), holders: Box::default() }
    }

    /// How many parts of the device a holder held.
    fn parts_of(&self, holder: &Arc<str>) -> Option<u64> {
        let at = self.holders.binary_search_by(|(known, _)| known.cmp(holder)).ok()?;
        Some(self.holders[at].1)
    }
}

/// Takes a report's values of devices. `named` states which devices pods hold.
pub(super) fn take(
    node: &mut NodeTotals,
    (gains, possible): (&mut Gains<'_>, &mut Possible),
    report: &Report<'_>,
    named: &NamedPods<'_>,
    life: &Life,
) {
    // If kubelet or the driver could not be queried, the last known values remain the baseline for the next report.
    let Some(assigned) = &named.assigned else { return };
    let gpus = report.gpus.as_ref();
    let resources = gpus.map_or_else(ResourceNames::default, |gpus| ResourceNames::of(gpus.resource, gpus.part_prefix));
    // A GPU that is held through a claim counts under NVIDIA's name: NVIDIA's driver is the only one whose devices are joined by UUID.
    let is_gpu = |resource: &str| resources.has(resource) || resource == NVIDIA_GPU;
    let of_gpus = assigned.iter().filter(|assigned| is_gpu(assigned.resource()));
    for assigned in of_gpus.clone() {
        take_held(&mut node.held, (gains, possible), assigned, life);
    }
    let holders = holders(of_gpus);
    let devices = &mut node.devices;
    if report.gpus.is_some() {
        devices.retain(|device| !of_device(&holders, &device.uuid).is_empty());
    }
    for (uuid, busy_ns) in busy(report) {
        // A device that no pod holds adds to no total.
        let holders = of_device(&holders, uuid);
        if holders.is_empty() {
            continue;
        }
        let at = devices.binary_search_by(|device| (*device.uuid).cmp(uuid)).unwrap_or_else(|free| {
            devices.insert(free, DeviceTotals::new(uuid));
            free
        });
        take_busy((gains, possible), &mut devices[at], holders, busy_ns, life);
    }
}

fn take_held(
    known: &mut NodeHeld,
    (gains, possible): (&mut Gains<'_>, &mut Possible),
    assigned: &Assigned<'_>,
    life: &Life,
) {
    let (assignment, pod) = (assigned.assignment, assigned.pod);
    let (Some(held_ns), Some(owner)) = (assignment.held_ns, &pod.owner) else { return };
    let Some((_, gained)) = gains.of(owner) else { return };
    let (container, resource) = (assignment.container, assigned.name());
    let last = known.get_or_new(HeldName { namespace: &pod.namespace, pod: &pod.name, container, resource });
    let devices = assigned.ids().count() as u64;
    let more = last.of_agent(held_ns, life, devices, (Counter::GpuHeld, possible));
    add(&mut gained.gpu_held_ns, Some(more));
}

/// Adds the busy time of a device since it was last seen to the pods that hold it now and held it then; who caused the rest is unknown. For
/// a shared device, each pod gets time in proportion to the parts that it holds.
fn take_busy(
    (gains, possible): (&mut Gains<'_>, &mut Possible),
    device: &mut DeviceTotals,
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

/// A pod that holds a device, and how many parts of the device.
struct Holder<'a> {
    uuid: &'a str,
    /// Its UID, or its name if it has no UID.
    key: Arc<str>,
    pod: &'a Pod,
    parts: u64,
}

/// Which pod holds which device, sorted by device and pod.
fn holders<'a>(assigned: impl Iterator<Item = &'a Assigned<'a>>) -> Vec<Holder<'a>> {
    let mut all = Vec::with_capacity(assigned.size_hint().1.unwrap_or(0));
    for of in assigned {
        let pod = of.pod;
        let key = if pod.uid.is_empty() { format!("{}/{}", pod.namespace, pod.name).into() } else { pod.uid.clone() };
        all.extend(of.ids().map(|id| Holder { uuid: uuid_of(id), key: Arc::clone(&key), pod, parts: 1 }));
    }
    all.sort_unstable_by(|a, b| a.uuid.cmp(b.uuid).then_with(|| a.key.cmp(&b.key)));
    all.dedup_by(|next, first| {
        let is_same = next.uuid == first.uuid && next.key == first.key;
        first.parts += if is_same { next.parts } else { 0 };
        is_same
    });
    all
}

/// The holders of one device.
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
