//! The devices of pods: for how long a pod held them, and what a GPU did in whose hands. Owns what is last known of both.
use std::sync::Arc;

use mcad_wire::reading::{Assignment, Report};

use super::gains::Gains;
use super::since::{Life, Since};
use super::{Now, Totals, add};
use crate::cluster::Cluster;
use crate::hardware::{MIG_PREFIX, SHARED, uuid_of};
use crate::object::Pod;
use crate::resource::NVIDIA_GPU;

/// Namespace and name.
pub(super) type PodName = (Arc<str>, Arc<str>);

/// What was last seen of the devices of the pods that had a name, one after the other.
#[derive(Debug, Default)]
pub(super) struct PodDevices {
    pub(super) gone: Option<Now>,
    /// In order of container and resource.
    held: Vec<HeldTime>,
}

/// For how long a container held devices of a resource.
#[derive(Debug)]
pub(super) struct HeldTime {
    pub(super) container: Box<str>,
    pub(super) resource: Box<str>,
    pub(super) held_ns: Since,
}

impl PodDevices {
    pub(super) fn all(&self) -> &[HeldTime] {
        &self.held
    }

    pub(super) fn of(&self, container: &str, resource: &str) -> Option<&Since> {
        Some(&self.held[self.find(container, resource).ok()?].held_ns)
    }

    pub(super) fn of_mut(&mut self, container: &str, resource: &str) -> &mut Since {
        let at = self.find(container, resource).unwrap_or_else(|free| {
            let (container, resource) = (container.into(), resource.into());
            self.held.insert(free, HeldTime { container, resource, held_ns: Since::default() });
            free
        });
        &mut self.held[at].held_ns
    }

    fn find(&self, container: &str, resource: &str) -> Result<usize, usize> {
        self.held.binary_search_by(|held| (&*held.container, &*held.resource).cmp(&(container, resource)))
    }
}

/// What a node last said of its GPUs, and when.
#[derive(Debug)]
pub(super) struct NodeGpus {
    pub(super) life: Life,
    /// In order of UUID.
    pub(super) devices: Vec<Device>,
}

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

impl Totals {
    pub(super) fn take_devices(&mut self, gains: &mut Gains<'_>, node: &Arc<str>, report: &Report<'_>, life: Life) {
        let mut devices =
            self.nodes.get_mut(node).map(|before| std::mem::take(&mut before.devices)).unwrap_or_default();
        // Where kubelet could not be asked, or the driver, what was last known is what the next report is held against.
        if let Some(assignments) = &report.assignments {
            let cluster = gains.cluster();
            let assigned = assignments.assigned.iter();
            let held: Vec<_> = assigned.filter_map(|assignment| Held::new(cluster, node, assignment)).collect();
            for held in &held {
                self.take_held(gains, held, &life);
            }
            let holders = holders(&held);
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
                take_busy(gains, &mut devices[at], holders, busy_ns, &life);
            }
        }
        match self.nodes.get_mut(node) {
            Some(known) => *known = NodeGpus { life, devices },
            None => drop(self.nodes.insert(node.clone(), NodeGpus { life, devices })),
        }
    }

    fn take_held(&mut self, gains: &mut Gains<'_>, held: &Held<'_>, life: &Life) {
        let (Some(held_ns), Some(owner)) = (held.assignment.held_ns, &held.pod.owner) else { return };
        let Some((_, gained)) = gains.of(owner) else { return };
        let Assignment { container, resource, device_ids, .. } = held.assignment;
        let name = (held.pod.namespace.clone(), held.pod.name.clone());
        let last = self.devices.entry(name).or_default().of_mut(container, resource);
        add(&mut gained.gpu_held_ns, Some(last.of_agent(held_ns, life, device_ids.len() as u64)));
    }
}

/// Gives what a device did since it was last seen to those who hold it now and held it then: whose work the rest was,
/// nobody knows. Of a shared one, to each in proportion to the parts that it holds.
fn take_busy(gains: &mut Gains<'_>, device: &mut Device, holders: &[Holder<'_>], busy_ns: u64, life: &Life) {
    let is_same_boot = device.busy_ns.is_of_boot(life);
    let more = device.busy_ns.of_agent(busy_ns, life, 1);
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

/// GPUs in the hands of a container of a bound, unfinished pod.
struct Held<'a> {
    pod: &'a Pod,
    assignment: &'a Assignment<'a>,
}

impl<'a> Held<'a> {
    fn new(cluster: &'a Cluster, node: &Arc<str>, assignment: &'a Assignment<'a>) -> Option<Self> {
        let pod = cluster.pod(assignment.namespace, assignment.pod)?;
        (is_gpu(assignment.resource) && pod.held_node() == Some(node)).then_some(Self { pod, assignment })
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
fn holders<'a>(held: &[Held<'a>]) -> Vec<Holder<'a>> {
    let mut all = Vec::with_capacity(held.len());
    for Held { pod, assignment } in held {
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
