//! The devices of pods: how long a pod held them, and what it did with them in that time. Owns what was last known of both.
use std::sync::Arc;

use mcad_wire::parts::Part;
use mcad_wire::reading::Report;

use super::gains::Gains;
use super::held::{HeldName, NodeHeld};
use super::life::Life;
use super::possible::{Counter, Possible};
use super::since::Since;
use super::split::{Gang, Holding, by_busy, refine, split};
use super::{NodeTotals, add};
use crate::cluster::Cluster;
use crate::cluster::owner::ByOwner;
use crate::gpu_use::{Use, Uses};
use crate::hardware::{ResourceNames, uuid_of};
use crate::measure::{Assigned, NamedPods, PodName};
use crate::object::start::Start;
use crate::object::{AppWrapperName, Pod};
use crate::resource::NVIDIA_GPU;

/// Billionths of a part of a device.
const NANO: u64 = 1_000_000_000;

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

/// What pods did with the devices of one node, by one report.
#[derive(Debug, Default)]
pub(super) struct NodeGain {
    /// For pods of AppWrappers and other pods: the time that they held devices since the report before.
    pub(super) held: ByOwner<Uses>,
    /// In the last interval, by AppWrapper: parts of devices, in billionths.
    pub(super) now: Vec<(Option<AppWrapperName>, Uses)>,
    /// Of single pods: the time that they held devices since the report before.
    pub(super) pods: Vec<(PodName, Uses)>,
}

/// Takes a report's values of devices. `named` states which devices pods hold. `None` if that is not known.
pub(super) fn take(
    node: &mut NodeTotals,
    (gains, possible): (&mut Gains<'_>, &mut Possible),
    report: &Report<'_>,
    named: &NamedPods<'_>,
    life: &Life,
) -> Option<NodeGain> {
    // If kubelet or the driver could not be queried, the last known values remain the baseline for the next report.
    let assigned = named.assigned.as_ref()?;
    let gpus = report.gpus.as_ref();
    let resources = gpus.map_or_else(ResourceNames::default, |gpus| ResourceNames::of(gpus.resource, gpus.part_prefix));
    // A GPU that is held through a claim counts under NVIDIA's name: NVIDIA's driver is the only one whose devices are joined by UUID.
    let is_gpu = |resource: &str| resources.has(resource) || resource == NVIDIA_GPU;
    let mut gain = NodeGain::default();
    let mut holders = Vec::with_capacity(assigned.len());
    for assigned in assigned.iter().filter(|assigned| is_gpu(assigned.resource())) {
        let held = take_held(&mut node.held, (gains, possible), assigned, life);
        add_holders(&mut holders, assigned, held);
    }
    if gpus.is_none() && holders.is_empty() {
        return None;
    }
    let holders = merged(holders);
    let parts = node.parts.take(report, life);
    let busy = take_busy_of_all(&mut node.devices, possible, report, &holders, life);
    let interval = node.interval(report, life);
    let mut gangs = Gangs::default();
    for of_device in holders.chunk_by(|a, b| a.uuid == b.uuid) {
        let all_parts = of_device.iter().map(|holder| holder.parts).sum();
        for holder in of_device {
            let Holder { uuid, pod, parts: held_parts, held_ns, start, .. } = *holder;
            let busy_ns = busy.iter().find(|(of, _)| std::ptr::eq(*of, holder)).map(|(_, busy_ns)| *busy_ns);
            let holding = Holding { held_ns: held_ns.unwrap_or(0), parts: held_parts, all_parts };
            let mut uses = if parts.has(uuid) {
                split(holding, parts.of_pod(uuid, &pod.cgroup_uid).as_ref(), parts.vacant(uuid))
            } else {
                by_busy(holding.held_ns, busy_ns)
            };
            // If nobody else holds it, it was busy for this pod, also where the agent cannot tell whose processes are on it.
            if let (1, Some(busy_ns)) = (of_device.len(), busy_ns) {
                let missing_ns = busy_ns.saturating_sub(uses.of(Use::BUSY));
                uses.shift(Use::Part(Part::Unknown), Use::BUSY, missing_ns);
            }
            refine(&mut uses, held_parts, interval, start, || gangs.of(gains.cluster(), pod));
            let is_all_unknown = uses.of(Use::Part(Part::Unknown)) == uses.sum();
            let is_busy_known =
                busy_ns.is_some() || (is_busy_known(report, uuid) && parts.has(uuid) && !is_all_unknown);
            let busy_ns = match held_ns {
                Some(_) => (is_busy_known || uses.of(Use::BUSY) > 0).then_some(uses.of(Use::BUSY)),
                // An agent that does not say for how long devices are held.
                None => busy_ns,
            };
            if let Some((_, gained)) = pod.owner.as_ref().and_then(|owner| gains.of(owner)) {
                add(&mut gained.gpu_busy_ns, busy_ns);
                gained.add_idle(&uses);
            }
            gain.add(holder, &uses);
        }
    }
    Some(gain)
}

/// How much longer this container held devices. `None` if the agent does not say, or if it cannot be counted yet.
fn take_held(
    known: &mut NodeHeld,
    (gains, possible): (&mut Gains<'_>, &mut Possible),
    assigned: &Assigned<'_>,
    life: &Life,
) -> Option<u64> {
    let (assignment, pod) = (assigned.assignment, assigned.pod);
    let held_ns = assignment.held_ns?;
    if pod.owner.as_ref().is_some_and(|owner| gains.may_come(owner)) {
        return None;
    }
    let (container, resource) = (assignment.container, assigned.name());
    let last = known.get_or_new(HeldName { namespace: &pod.namespace, pod: &pod.name, container, resource });
    let devices = assigned.ids().count() as u64;
    let more = last.of_agent(held_ns, life, devices, (Counter::GpuHeld, possible));
    if let Some((_, gained)) = pod.owner.as_ref().and_then(|owner| gains.of(owner)) {
        add(&mut gained.gpu_held_ns, Some(more));
    }
    Some(more)
}

impl NodeGain {
    /// Adds what a pod did with a device.
    fn add(&mut self, holder: &Holder<'_>, uses: &Uses) {
        let Holder { pod, parts, start, .. } = *holder;
        self.held.of_mut(pod.owner.as_ref()).add_all(uses);
        let mut now = uses.scaled_to(parts.saturating_mul(NANO));
        if uses.sum() == 0 {
            let has_started = matches!(start, Start::At(_) | Start::Before | Start::BackOff);
            let of = if has_started { Use::Part(Part::Unknown) } else { Use::Starting };
            now.add(of, parts.saturating_mul(NANO));
        }
        match self.now.iter_mut().rfind(|(owner, _)| *owner == pod.owner) {
            Some((_, sum)) => sum.add_all(&now),
            None => self.now.push((pod.owner.clone(), now)),
        }
        let name = (&pod.namespace, &pod.name);
        match self.pods.iter_mut().rfind(|((namespace, pod), _)| (namespace, pod) == name) {
            Some((_, sum)) => sum.add_all(uses),
            None => self.pods.push(((pod.namespace.clone(), pod.name.clone()), *uses)),
        }
    }
}

/// Divides the held time of a container among its devices.
fn add_holders<'a>(holders: &mut Vec<Holder<'a>>, of: &Assigned<'a>, held: Option<u64>) {
    let pod = of.pod;
    let mut ids: Vec<&str> = of.ids().collect();
    ids.sort_unstable();
    let start = pod.start_of(of.assignment.container);
    let devices = ids.len() as u64;
    for (at, id) in ids.into_iter().enumerate() {
        // What does not divide goes to the first.
        let share = |held: u64| held / devices + if at == 0 { held % devices } else { 0 };
        let (uuid, held_ns) = (uuid_of(id), held.map(share));
        holders.push(Holder { uuid, key: key_of(pod), pod, parts: 1, held_ns, start });
    }
}

impl NodeTotals {
    /// The time since the last report that said who holds devices, in ms since the Unix epoch. `None` if the agent does not say.
    fn interval(&mut self, report: &Report<'_>, life: &Life) -> Option<(i64, i64)> {
        let sampled = |ms: u64| i64::try_from(ms).ok().filter(|ms| *ms > 0);
        let same_agent = self.life.as_ref().is_some_and(|known| known.is_same_agent(life));
        let before_ms = self.held_at_ms.replace(report.sampled_at_ms);
        // What an agent counted before anybody heard of it began when it started.
        let from_ms = before_ms.filter(|_| same_agent).unwrap_or(report.started_at_ms.max(before_ms.unwrap_or(0)));
        Some((sampled(from_ms)?, sampled(report.sampled_at_ms)?))
    }
}

/// Until when AppWrappers wait for their pods, each looked up once.
#[derive(Default)]
struct Gangs<'a>(Vec<(&'a AppWrapperName, Gang)>);

impl<'a> Gangs<'a> {
    fn of(&mut self, cluster: &Cluster, pod: &'a Pod) -> Gang {
        let Some(owner) = &pod.owner else { return Gang::Since(None) };
        if let Some((_, gang)) = self.0.iter().find(|(known, _)| *known == owner) {
            return *gang;
        }
        let gang = match cluster.unbound_pods_of(owner) {
            _ if cluster.appwrapper(owner).is_none() => Gang::Since(None),
            0 => Gang::Since(cluster.last_bound_at_ms(owner)),
            _ => Gang::Incomplete,
        };
        self.0.push((owner, gang));
        gang
    }
}

/// How long each device was busy for which of its holders, as far as that is known, by an agent that does not split time.
fn take_busy_of_all<'h, 'a>(
    devices: &mut Vec<DeviceTotals>,
    possible: &mut Possible,
    report: &Report<'_>,
    holders: &'h [Holder<'a>],
    life: &Life,
) -> Vec<(&'h Holder<'a>, u64)> {
    if report.gpus.is_some() {
        devices.retain(|device| !of_device(holders, &device.uuid).is_empty());
    }
    let mut all = Vec::with_capacity(holders.len());
    for (uuid, busy_ns) in busy(report) {
        // A device that no pod holds adds to no total.
        let holders = of_device(holders, uuid);
        if holders.is_empty() {
            continue;
        }
        let at = devices.binary_search_by(|device| (*device.uuid).cmp(uuid)).unwrap_or_else(|free| {
            devices.insert(free, DeviceTotals::new(uuid));
            free
        });
        take_busy(possible, &mut devices[at], holders, busy_ns, life, &mut all);
    }
    all
}

/// Gives the busy time of a device since it was last seen to the pods that hold it now and held it then; who caused the rest is unknown. For
/// a shared device, each pod gets time in proportion to the parts that it holds.
fn take_busy<'h, 'a>(
    possible: &mut Possible,
    device: &mut DeviceTotals,
    holders: &'h [Holder<'a>],
    busy_ns: u64,
    life: &Life,
    all: &mut Vec<(&'h Holder<'a>, u64)>,
) {
    let is_same_boot = device.busy_ns.is_of_boot(life);
    let more = device.busy_ns.of_agent(busy_ns, life, 1, (Counter::GpuBusy, possible));
    let parts_now: u64 = holders.iter().map(|holder| holder.parts).sum();
    let parts = parts_now.max(device.holders.iter().map(|(_, parts)| parts).sum());
    for holder in holders {
        let Some(then) = device.parts_of(&holder.key).filter(|_| is_same_boot) else { continue };
        let share = u128::from(more) * u128::from(holder.parts.min(then)) / u128::from(parts);
        all.push((holder, u64::try_from(share).unwrap_or(u64::MAX)));
    }
    let now = holders.iter().map(|holder| (&holder.key, holder.parts));
    if !now.clone().eq(device.holders.iter().map(|(key, parts)| (key, *parts))) {
        device.holders = now.map(|(key, parts)| (key.clone(), parts)).collect();
    }
}

/// A pod that holds a device.
struct Holder<'a> {
    uuid: &'a str,
    /// Its UID, or its name if it has no UID.
    key: Arc<str>,
    pod: &'a Pod,
    /// How many parts of the device it holds.
    parts: u64,
    /// How much longer it held them. `None` if that is not known.
    held_ns: Option<u64>,
    /// When the first of its containers that hold the device started.
    start: Start,
}

fn key_of(pod: &Pod) -> Arc<str> {
    if pod.uid.is_empty() { format!("{}/{}", pod.namespace, pod.name).into() } else { pod.uid.clone() }
}

/// Which pod holds which device, sorted by device and pod, each once.
fn merged(mut all: Vec<Holder<'_>>) -> Vec<Holder<'_>> {
    all.sort_unstable_by(|a, b| a.uuid.cmp(b.uuid).then_with(|| a.key.cmp(&b.key)));
    all.dedup_by(|next, first| {
        let is_same = next.uuid == first.uuid && next.key == first.key;
        if is_same {
            first.parts += next.parts;
            add(&mut first.held_ns, next.held_ns);
            first.start = first.start.first(next.start);
        }
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

fn is_busy_known(report: &Report<'_>, uuid: &str) -> bool {
    busy(report).any(|(of, _)| of == uuid)
}

/// GPUs and MIG instances whose busy time is known.
fn busy<'a>(report: &'a Report<'a>) -> impl Iterator<Item = (&'a str, u64)> {
    let gpus = report.gpus.iter().flat_map(|gpus| &gpus.devices);
    gpus.flat_map(|gpu| {
        let instances = gpu.mig_instances.iter().map(|instance| (instance.uuid, instance.busy_ns));
        instances.chain([(gpu.uuid, gpu.busy_ns)]).filter_map(|(uuid, busy_ns)| Some((uuid, busy_ns?)))
    })
}
