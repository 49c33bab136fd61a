//! What an agent's report contains about its node, and about the pods that the cluster has on this node.
//!
//! Owns the joins: cgroups to pods by UID, devices to pods by the names in kubelet's list; and what is used, by pods of AppWrappers, by
//! other pods and by the system. Entries that belong to no pod of the node are dropped here, whatever a report contains. Pure.
mod alone;
mod devices;
mod held;
mod named;
mod pods;
mod share;
mod strays;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcad_wire::reading::{Cgroup, EndedPod, Gpus as ReportedGpus, Report};

use crate::cluster::Cluster;
use crate::hardware::{DeviceIds, Facts, Found, Gpu, Gpus, Health, Instance, ResourceNames};
use crate::object::{AppWrapperName, Node, Pod};
use crate::options::{Options, PodMetrics};
use crate::reported::Stored;
use crate::resource::Resource;

pub use alone::measure_alone;
pub use devices::Device;
use devices::Evidence;
use held::HeldDevices;
pub use named::{Assigned, NamedPods, OwnCgroup, Places};
pub use pods::PodFigures;
pub use share::Share;
use strays::Rights;

/// Nanocores in a core, nanodevices in a device.
const NANO: f64 = 1e9;

/// The measurements of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeasuredNode {
    /// What is used, by resource: nanocores, bytes, nanodevices.
    pub used: BTreeMap<Resource, Used>,
    /// GPUs and MIG instances, sorted by UUID.
    pub devices: Box<[Device]>,
    /// What its pods use, by their AppWrapper, each once.
    pub appwrappers: Box<[(AppWrapperName, Share)]>,
    /// Its pods one by one, if pod metrics are on.
    pub pods: Box<[PodFigures]>,
    /// CPU time of its cgroups by path, sorted, each once; only without Kubernetes, where there are no pods.
    pub cgroup_cpu_ns: Box<[(Box<str>, u64)]>,
}

/// What is used of one resource, by user. `None` if it was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// By pods of AppWrappers.
    pub appwrapper: Option<u64>,
    /// By other pods.
    pub other: Option<u64>,
    /// By everything that is not a pod.
    pub system: Option<u64>,
}

impl Used {
    /// Whether any value was measured.
    pub fn is_measured(&self) -> bool {
        *self != Self::default()
    }

    /// What all users use. `None` if use outside of pods was not measured: a sum with an unknown part is unknown. Without Kubernetes all
    /// use is outside of pods.
    pub fn in_all(&self) -> Option<u64> {
        let pods = [self.appwrapper, self.other].into_iter().flatten();
        Some(pods.fold(self.system?, u64::saturating_add))
    }

    /// Adds the values of another node.
    pub fn add(&mut self, other: &Self) {
        let add = |sum: &mut Option<u64>, amount: Option<u64>| {
            if let Some(amount) = amount {
                *sum = Some(sum.unwrap_or(0).saturating_add(amount));
            }
        };
        add(&mut self.appwrapper, other.appwrapper);
        add(&mut self.other, other.other);
        add(&mut self.system, other.system);
    }
}

/// What is used now. `None` if it was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Busy cores, in billionths.
    pub nanocores: Option<u64>,
    /// Working set, in bytes.
    pub bytes: Option<u64>,
    /// Busy GPUs, in billionths.
    pub nanodevices: Option<u64>,
}

/// The hardware and the measurements in a node's report, which names the pods `named`. `known` are the devices of the previous report: they
/// save time and change no result.
pub fn measure<'a>(
    cluster: &'a Cluster,
    node: &'a Node,
    (stored, report): (&'a Stored, &'a Report<'a>),
    named: &NamedPods<'a>,
    known: Box<[Device]>,
    options: &Options,
) -> (Found<'a>, MeasuredNode) {
    let joined = Joined::new(cluster, node, (stored, report), named);
    let measured = joined.measured(known, options);
    (joined.found, measured)
}

/// The same if Pods are not known: then who uses what, and who holds which device, is unknown.
pub fn measure_hardware<'a>(
    node: &Node,
    (stored, report): (&Stored, &'a Report<'a>),
    known: Box<[Device]>,
    options: &Options,
) -> (Found<'a>, MeasuredNode) {
    let unclaimed_memory_percent = options.unclaimed_memory_percent;
    let evidence = Evidence { stored, held: None, rights: None, unclaimed_memory_percent };
    let devices = devices::updated(known, report, evidence);
    (Found::of(facts(report, None), node), MeasuredNode { devices, ..MeasuredNode::default() })
}

/// Namespace and name.
pub type PodName = (Arc<str>, Arc<str>);

/// One node, its report, and the pods of the node that the report names.
struct Joined<'a> {
    cluster: &'a Cluster,
    stored: &'a Stored,
    report: &'a Report<'a>,
    found: Found<'a>,
    pods: Vec<JoinedPod<'a>>,
    devices: Vec<ListedDevice<'a>>,
    /// Pods whose cgroup is gone.
    ended_pods: Vec<(&'a Pod, &'a EndedPod<'a>)>,
    /// `None` if kubelet could not be queried.
    held: Option<HeldDevices<'a>>,
}

struct JoinedPod<'a> {
    pod: &'a Pod,
    cgroup: &'a Cgroup<'a>,
    nanocores: Option<u64>,
}

/// A device that is handed out, as the driver lists it.
struct ListedDevice<'a> {
    uuid: &'a str,
    utilization_ratio: Option<f64>,
    healthy: bool,
}

impl<'a> Joined<'a> {
    fn new(
        cluster: &'a Cluster,
        node: &'a Node,
        (stored, report): (&'a Stored, &'a Report<'a>),
        named: &NamedPods<'a>,
    ) -> Self {
        let held = named.assigned.as_deref().map(HeldDevices::new);
        let facts = facts(report, held.as_ref());
        Self {
            found: Found::of(facts, node),
            pods: joined_pods(node, stored, &named.cgroups),
            devices: devices_of(report),
            ended_pods: ended_pods(cluster, node, report),
            cluster,
            stored,
            report,
            held,
        }
    }

    fn measured(&self, known: Box<[Device]>, options: &Options) -> MeasuredNode {
        let mut used: BTreeMap<Resource, Used> = self.gpus_used();
        used.insert(Resource::Cpu, self.cpu_used());
        used.insert(Resource::Memory, self.memory_used());
        used.retain(|_, used| used.is_measured());
        let pods = match options.pod_metrics {
            PodMetrics::On => self.pod_measurements().into(),
            PodMetrics::Off => Box::default(),
        };
        let held = self.held.as_ref();
        let evidence = Evidence {
            stored: self.stored,
            held,
            rights: held.and_then(|held| Rights::new(self.cluster, self.report, held)),
            unclaimed_memory_percent: options.unclaimed_memory_percent,
        };
        let devices = devices::updated(known, self.report, evidence);
        MeasuredNode { used, devices, appwrappers: self.appwrappers(), pods, cgroup_cpu_ns: Box::default() }
    }

    fn cpu_used(&self) -> Used {
        let total = self.stored.cpu_busy_nanocores();
        self.by_owner(total, |joined| joined.nanocores)
    }

    fn memory_used(&self) -> Used {
        let total = self.report.machine.as_ref().and_then(|machine| {
            memory_used_bytes(
                machine.memory_total_bytes,
                [machine.memory_free_bytes, machine.memory_inactive_file_bytes],
            )
        });
        self.by_owner(total, |joined| working_set_bytes(joined.cgroup))
    }

    /// `None` for all if the cgroups could not be read, or if the value of one pod is missing: the parts would not add up.
    fn by_owner(&self, total: Option<u64>, value: impl Fn(&JoinedPod<'_>) -> Option<u64>) -> Used {
        if self.report.cgroups.is_none() {
            return Used::default();
        }
        let mut pods = [0_u64; 2];
        for joined in &self.pods {
            let Some(value) = value(joined) else { return Used::default() };
            let sum = &mut pods[usize::from(joined.pod.owner.is_none())];
            *sum = sum.saturating_add(value);
        }
        let [appwrapper, other] = pods;
        let system = total.map(|total| total.saturating_sub(appwrapper).saturating_sub(other));
        Used { appwrapper: Some(appwrapper), other: Some(other), system }
    }

    /// Busy GPUs, by the resource under which they are handed out.
    fn gpus_used(&self) -> BTreeMap<Resource, Used> {
        let mut used: BTreeMap<Resource, Used> = BTreeMap::new();
        let mut unknown = BTreeSet::new();
        let Some(held) = &self.held else { return used };
        for ListedDevice { uuid, utilization_ratio, healthy } in &self.devices {
            let Some(resource) = self.found.resource_of(uuid) else { continue };
            let sums = used.entry(resource.clone()).or_insert_with(|| Used {
                appwrapper: Some(0),
                other: Some(0),
                system: Some(0),
            });
            // An unhealthy device without a value counts as idle; a healthy one without a value makes the sum unknown.
            let Some(ratio) = utilization_ratio.or_else(|| (!healthy).then_some(0.0)) else {
                unknown.insert(resource.clone());
                continue;
            };
            let busy = (ratio * NANO).round() as u64;
            let holders = held.of(uuid);
            let ours = holders.iter().filter(|device| device.pod.owner.is_some()).count() as u64;
            let appwrapper = (busy * ours).checked_div(holders.len() as u64).unwrap_or(0);
            let add = |sum: &mut Option<u64>, more: u64| *sum = sum.map(|sum| sum + more);
            add(&mut sums.appwrapper, appwrapper);
            add(if holders.is_empty() { &mut sums.system } else { &mut sums.other }, busy - appwrapper);
        }
        used.retain(|resource, _| !unknown.contains(resource));
        used
    }

    /// What bound, unfinished pods use, by their AppWrapper.
    fn appwrappers(&self) -> Box<[(AppWrapperName, Share)]> {
        let mut shares: BTreeMap<&AppWrapperName, Share> = BTreeMap::new();
        for JoinedPod { pod, cgroup, nanocores } in self.pods.iter().filter(|joined| joined.pod.held_node().is_some()) {
            let Some(owner) = &pod.owner else { continue };
            shares.entry(owner).or_default().put(Usage {
                nanocores: *nanocores,
                bytes: working_set_bytes(cgroup),
                nanodevices: self.pod_nanodevices(pod),
            });
        }
        shares.into_iter().map(|(name, share)| (name.clone(), share)).collect()
    }

    /// A pod's share of the use of its devices. The holders of a time-sliced device count as using equal parts of it.
    fn pod_nanodevices(&self, pod: &Pod) -> Option<u64> {
        let held = self.held.as_ref()?;
        let mut holds = held.all().iter().filter(|device| std::ptr::eq(device.pod, pod)).peekable();
        if holds.peek().is_none() {
            return Some(0);
        }
        let mut sum = 0;
        for held::HeldDevice { uuid, .. } in holds {
            // A device that NVML does not list is not a GPU, or is lost: it is not busy.
            let Some(listed) = self.devices.iter().rfind(|listed| listed.uuid == *uuid) else { continue };
            let holders = held.of(uuid).len() as u64;
            sum += (listed.utilization_ratio? * NANO).round() as u64 / holders;
        }
        Some(sum)
    }
}

/// The pods of this node.
fn joined_pods<'a>(node: &Node, stored: &Stored, own: &[OwnCgroup<'a>]) -> Vec<JoinedPod<'a>> {
    let mut joined = Vec::with_capacity(own.len());
    for OwnCgroup { cgroup, pod, .. } in own {
        let Some(pod) = pod.filter(|pod| pod.node.as_ref() == Some(&node.name)) else { continue };
        joined.push(JoinedPod { pod, cgroup, nanocores: pod_nanocores(stored, cgroup) });
    }
    joined
}

/// The pods of this node that the cluster has and whose cgroup is gone.
fn ended_pods<'a>(cluster: &'a Cluster, node: &Node, report: &'a Report<'a>) -> Vec<(&'a Pod, &'a EndedPod<'a>)> {
    let join = |ended: &'a EndedPod<'a>| {
        let pod = cluster.pod_of_uid(ended.uid).filter(|pod| pod.node.as_ref() == Some(&node.name))?;
        Some((pod, ended))
    };
    report.cgroups.iter().flat_map(|all| &all.ended_pods).filter_map(join).collect()
}

fn facts<'a>(report: &'a Report<'a>, held: Option<&HeldDevices<'a>>) -> Facts<'a> {
    let machine = report.machine.clone().unwrap_or_default();
    let assigned = held.map(|held| {
        let mut ids = DeviceIds::new();
        for device in held.all() {
            ids.entry(device.resource).or_default().push(device.id);
        }
        ids
    });
    let advertised = report.assignments.as_ref().map(|assignments| {
        let mut ids = DeviceIds::new();
        for of in &assignments.allocatable {
            ids.entry(of.resource).or_default().extend(of.device_ids.iter().copied());
        }
        ids
    });
    Facts {
        cpus_online: machine.cpus_online,
        memory_total_bytes: machine.memory_total_bytes,
        gpus: report.gpus.as_ref().and_then(gpus),
        assigned,
        advertised,
    }
}

/// `None` if there is no driver: then GPUs were not examined.
fn gpus<'a>(gpus: &'a ReportedGpus<'a>) -> Option<Gpus<'a>> {
    if gpus.driver_version.is_empty() && gpus.devices.is_empty() {
        return None;
    }
    let health = |reasons: &[&str]| if reasons.is_empty() { Health::Healthy } else { Health::Unhealthy };
    let devices = gpus.devices.iter().map(|gpu| {
        let instances = gpu.mig_instances.iter().map(|instance| Instance {
            uuid: instance.uuid,
            profile: instance.profile,
            health: health(&instance.unhealthy_reasons),
        });
        Gpu {
            uuid: gpu.uuid,
            health: health(&gpu.unhealthy_reasons),
            mig: (gpu.mig_mode == Some(true)).then(|| instances.collect()),
        }
    });
    Some(Gpus {
        devices: devices.collect(),
        lost: gpus.lost_bus_ids.len() as u32,
        remembered: gpus.remembered,
        names: ResourceNames::of(gpus.resource, gpus.part_prefix),
    })
}

fn devices_of<'a>(report: &'a Report<'a>) -> Vec<ListedDevice<'a>> {
    let mut devices = Vec::with_capacity(report.gpus.as_ref().map_or(0, |gpus| gpus.devices.len()));
    for gpu in report.gpus.iter().flat_map(|gpus| &gpus.devices) {
        let healthy = gpu.unhealthy_reasons.is_empty();
        if gpu.mig_mode == Some(true) {
            devices.extend(gpu.mig_instances.iter().map(|mig| ListedDevice {
                uuid: mig.uuid,
                utilization_ratio: mig.utilization_ratio,
                healthy: healthy && mig.unhealthy_reasons.is_empty(),
            }));
        } else {
            devices.push(ListedDevice { uuid: gpu.uuid, utilization_ratio: gpu.utilization_ratio, healthy });
        }
    }
    devices
}

/// Cores that a pod kept busy between the last two reports, in billionths. If the pod's cgroup is newer than the earlier report, all its
/// CPU time lies between them.
fn pod_nanocores(stored: &Stored, cgroup: &Cgroup<'_>) -> Option<u64> {
    let cpu_ns = cgroup.cpu_ns?;
    let baseline = stored.baseline.as_ref()?;
    let is_new = baseline.cgroup_cpu_ns.binary_search_by_key(&cgroup.id, |(id, _)| *id).is_err();
    if is_new && !baseline.cgroup_cpu_ns.is_empty() {
        let elapsed_ns = stored.elapsed_ns(baseline)?;
        return u64::try_from(u128::from(cpu_ns) * 1_000_000_000 / u128::from(elapsed_ns)).ok();
    }
    stored.cgroup_nanocores(cgroup.id, cpu_ns)
}

/// Memory in use on a machine: the total minus free memory and minus the page cache that the kernel reclaims first. `None` if one of them
/// is unknown, or if they are inconsistent.
pub fn memory_used_bytes(total: Option<u64>, [free, inactive_file]: [Option<u64>; 2]) -> Option<u64> {
    total?.checked_sub(free?)?.checked_sub(inactive_file?)
}

fn working_set_bytes(cgroup: &Cgroup<'_>) -> Option<u64> {
    Some(cgroup.memory_bytes?.saturating_sub(cgroup.memory_inactive_file_bytes?))
}
