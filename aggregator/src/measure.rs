//! What agents' reports say of the nodes and pods that the cluster has.
//!
//! Owns the joins: reports to nodes by name, cgroups to pods by UID, devices to pods by the names kubelet lists; and what
//! is used, by whom. What names no node or pod of the cluster is dropped here, whatever a report says. Pure.
mod pods;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mcad_wire::report::{Assignments, Cgroup, EndedPod, Gpus as ReportedGpus, Report};

use crate::cluster::Cluster;
use crate::hardware::{DeviceIds, Facts, Found, Gpu, Gpus, Health, Instance, uuid_of};
use crate::merge::Used;
use crate::object::{AppWrapperName, Node, Pod};
use crate::resource::Resource;
use crate::snapshot::PodMetrics;
use crate::store::Stored;

pub use pods::PodFigures;

/// Nanocores in a core, nanodevices in a device.
const NANO: f64 = 1e9;

/// What was measured, joined to the cluster.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// By node.
    pub nodes: HashMap<Arc<str>, MeasuredNode>,
    /// What AppWrappers use, where all their bound, unfinished pods are measured.
    pub appwrappers: BTreeMap<AppWrapperName, Usage>,
    /// Pods one by one, in order of namespace and name; only if asked for.
    pub pods: Vec<PodFigures>,
}

/// What was measured on one node.
#[derive(Clone, Debug, Default)]
pub struct MeasuredNode {
    /// The hardware.
    pub found: Found,
    /// What is used, by resource: nanocores, bytes, nanodevices.
    pub used: BTreeMap<Resource, Used>,
    /// GPUs and MIG instances, in order of UUID.
    pub devices: Vec<Device>,
}

/// What is used now. Absent: not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Cores busy, in billionths.
    pub nanocores: Option<u64>,
    /// Working set.
    pub bytes: Option<u64>,
    /// GPUs busy, in billionths.
    pub nanodevices: Option<u64>,
}

/// A GPU or a MIG instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its UUID.
    pub uuid: Arc<str>,
    /// Product name; of an instance, its parent's.
    pub model: Arc<str>,
    /// PCI address; of an instance, its parent's.
    pub bus_id: Arc<str>,
    /// The parent and profile of a MIG instance.
    pub mig: Option<(Arc<str>, Arc<str>)>,
    /// Why it should not be used; none: it is healthy.
    pub unhealthy_reasons: Vec<Arc<str>>,
    /// Part of the last sampling period in which a kernel ran on it.
    pub utilization_ratio: Option<f64>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Memory it has.
    pub memory_total_bytes: Option<u64>,
    /// Xid events by code.
    pub xid_errors: Vec<(u64, u64)>,
    /// Who holds it: namespace, pod, container. Absent: unknown.
    pub holders: Option<BTreeSet<[Arc<str>; 3]>>,
}

/// Joins reports that still count to the cluster.
pub fn measure<'a>(
    cluster: &Cluster,
    reports: impl Iterator<Item = (&'a str, &'a Stored)>,
    pod_metrics: PodMetrics,
) -> Measured {
    let mut measured = Measured::default();
    let mut pods = HashMap::new();
    for (name, stored) in reports {
        let Some(node) = cluster.node(name) else { continue };
        let joined = Joined::new(cluster, node, stored);
        pods.extend(joined.pod_usage());
        if pod_metrics == PodMetrics::On {
            measured.pods.extend(joined.pod_figures());
        }
        measured.nodes.insert(node.name.clone(), joined.measured());
    }
    measured.pods.sort_by(|a, b| a.name.cmp(&b.name));
    measured.appwrappers = by_appwrapper(cluster, &pods);
    measured
}

/// Namespace and name.
pub type PodName = (Arc<str>, Arc<str>);

/// A pod of the cluster that is looked at, by its address: it stays where it is meanwhile.
type PodAddress = *const Pod;

/// One node, its report, and those of its pods that the report knows.
struct Joined<'a> {
    stored: &'a Stored,
    found: Found,
    pods: Vec<JoinedPod<'a>>,
    /// Those whose cgroup is gone.
    ended_pods: Vec<(&'a Pod, &'a EndedPod)>,
    /// Absent: kubelet could not be asked.
    held: Option<Vec<HeldDevice<'a>>>,
}

struct JoinedPod<'a> {
    pod: &'a Pod,
    cgroup: &'a Cgroup,
}

struct HeldDevice<'a> {
    pod: &'a Pod,
    container: &'a str,
    resource: &'a str,
    /// As kubelet writes it.
    id: &'a str,
}

impl<'a> Joined<'a> {
    fn new(cluster: &'a Cluster, node: &'a Node, stored: &'a Stored) -> Self {
        let report = &stored.report;
        let held = report.assignments.as_ref().map(|assignments| held(cluster, node, assignments));
        let facts = facts(report, held.as_deref());
        Self {
            found: Found::new(&facts, node),
            pods: joined_pods(cluster, node, report),
            ended_pods: ended_pods(cluster, node, report),
            stored,
            held,
        }
    }

    fn measured(self) -> MeasuredNode {
        let mut used: BTreeMap<Resource, Used> = self.gpus_used();
        used.insert(Resource::Cpu, self.cpu_used());
        used.insert(Resource::Memory, self.memory_used());
        used.retain(|_, used| used.is_measured());
        MeasuredNode { used, devices: self.devices(), found: self.found }
    }

    fn cpu_used(&self) -> Used {
        let total = self.stored.cpu_busy_nanocores();
        self.by_owner(total, |joined| pod_nanocores(self.stored, joined.cgroup))
    }

    fn memory_used(&self) -> Used {
        let total = self.stored.report.machine.as_ref().and_then(|machine| {
            let kept = machine.memory_total_bytes?.checked_sub(machine.memory_free_bytes?)?;
            kept.checked_sub(machine.memory_inactive_file_bytes?)
        });
        self.by_owner(total, |joined| working_set_bytes(joined.cgroup))
    }

    /// Nothing where the cgroups could not be read, or one of them tells no figure: the parts would not add up.
    fn by_owner(&self, total: Option<u64>, figure: impl Fn(&JoinedPod<'_>) -> Option<u64>) -> Used {
        if self.stored.report.cgroups.is_none() {
            return Used::default();
        }
        let mut pods = [0_u64; 2];
        for joined in &self.pods {
            let Some(figure) = figure(joined) else { return Used::default() };
            let sum = &mut pods[usize::from(joined.pod.owner.is_none())];
            *sum = sum.saturating_add(figure);
        }
        let [appwrapper, other] = pods;
        let system = total.map(|total| total.saturating_sub(appwrapper).saturating_sub(other));
        Used { appwrapper: Some(appwrapper), other: Some(other), system }
    }

    /// GPUs busy by the resource they are handed out as.
    fn gpus_used(&self) -> BTreeMap<Resource, Used> {
        let mut used: BTreeMap<Resource, Used> = BTreeMap::new();
        let mut unknown = BTreeSet::new();
        let Some(held) = &self.held else { return used };
        for (uuid, ratio, healthy) in devices_of(&self.stored.report) {
            let Some(resource) = self.found.resource_of(uuid) else { continue };
            let sums = used.entry(resource.clone()).or_insert_with(|| Used {
                appwrapper: Some(0),
                other: Some(0),
                system: Some(0),
            });
            // A broken device that tells no figure does no work; a healthy one that tells none leaves the sum unknown.
            let Some(ratio) = ratio.or_else(|| (!healthy).then_some(0.0)) else {
                unknown.insert(resource.clone());
                continue;
            };
            let busy = (ratio * NANO).round() as u64;
            let holders: Vec<_> = held.iter().filter(|device| uuid_of(device.id) == uuid).collect();
            let ours = holders.iter().filter(|device| device.pod.owner.is_some()).count() as u64;
            let appwrapper = if holders.is_empty() { 0 } else { busy * ours / holders.len() as u64 };
            let add = |sum: &mut Option<u64>, more: u64| *sum = sum.map(|sum| sum + more);
            add(&mut sums.appwrapper, appwrapper);
            add(if holders.is_empty() { &mut sums.system } else { &mut sums.other }, busy - appwrapper);
        }
        used.retain(|resource, _| !unknown.contains(resource));
        used
    }

    fn pod_usage(&self) -> Vec<(PodAddress, Usage)> {
        let usage = |joined: &JoinedPod<'_>| Usage {
            nanocores: pod_nanocores(self.stored, joined.cgroup),
            bytes: working_set_bytes(joined.cgroup),
            nanodevices: self.pod_nanodevices(joined.pod),
        };
        self.pods.iter().map(|joined| (std::ptr::from_ref(joined.pod), usage(joined))).collect()
    }

    /// A pod's share of what its devices do: with time slices, one part of as many as hold the device.
    fn pod_nanodevices(&self, pod: &Pod) -> Option<u64> {
        let held = self.held.as_ref()?;
        let mut holds = held.iter().filter(|device| std::ptr::eq(device.pod, pod)).peekable();
        if holds.peek().is_none() {
            return Some(0);
        }
        let devices = devices_of(&self.stored.report);
        let mut sum = 0;
        for device in holds {
            let uuid = uuid_of(device.id);
            // What NVML does not list is no GPU, or a lost one: it is not busy.
            let Some((_, ratio, _)) = devices.iter().rfind(|(known, ..)| *known == uuid) else { continue };
            let holders = held.iter().filter(|other| uuid_of(other.id) == uuid).count() as u64;
            sum += ((*ratio)? * NANO).round() as u64 / holders;
        }
        Some(sum)
    }

    fn devices(&self) -> Vec<Device> {
        let holders = |uuid: &str| {
            let held = self.held.as_ref()?.iter().filter(|device| uuid_of(device.id) == uuid);
            let who = |d: &HeldDevice<'_>| [d.pod.namespace.clone(), d.pod.name.clone(), d.container.into()];
            Some(held.map(who).collect())
        };
        let words = |words: &[String]| words.iter().map(|word| word.as_str().into()).collect();
        let mut devices = Vec::new();
        for gpu in self.stored.report.gpus.iter().flat_map(|gpus| &gpus.devices) {
            let model: Arc<str> = gpu.model.as_str().into();
            let bus_id: Arc<str> = gpu.bus_id.as_str().into();
            for instance in &gpu.mig_instances {
                let reasons = instance.unhealthy_reasons.iter().chain(&gpu.unhealthy_reasons);
                devices.push(Device {
                    uuid: instance.uuid.as_str().into(),
                    model: model.clone(),
                    bus_id: bus_id.clone(),
                    mig: Some((gpu.uuid.as_str().into(), instance.profile.as_str().into())),
                    unhealthy_reasons: words(
                        &reasons.cloned().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
                    ),
                    utilization_ratio: instance.utilization_ratio,
                    memory_used_bytes: instance.memory_used_bytes,
                    memory_total_bytes: instance.memory_total_bytes,
                    xid_errors: Vec::new(),
                    holders: holders(&instance.uuid),
                });
            }
            devices.push(Device {
                uuid: gpu.uuid.as_str().into(),
                model,
                bus_id,
                mig: None,
                unhealthy_reasons: words(&gpu.unhealthy_reasons),
                utilization_ratio: gpu.utilization_ratio,
                memory_used_bytes: gpu.memory_used_bytes,
                memory_total_bytes: gpu.memory_total_bytes,
                xid_errors: gpu.xid_errors.iter().map(|errors| (errors.xid, errors.count)).collect(),
                holders: holders(&gpu.uuid),
            });
        }
        devices.sort_by(|a, b| a.uuid.cmp(&b.uuid));
        // A UUID is one device, whatever the driver says.
        devices.dedup_by(|a, b| a.uuid == b.uuid);
        devices
    }
}

/// What kubelet gave to bound, unfinished pods of this node; the rest of its list is of pods that have ended.
fn held<'a>(cluster: &'a Cluster, node: &Node, assignments: &'a Assignments) -> Vec<HeldDevice<'a>> {
    let mut held = Vec::new();
    for assigned in &assignments.assigned {
        let pod = cluster.pod(&assigned.namespace, &assigned.pod);
        let Some(pod) = pod.filter(|pod| pod.held_node() == Some(&node.name)) else { continue };
        let (container, resource) = (&*assigned.container, &*assigned.resource);
        held.extend(assigned.device_ids.iter().map(|id| HeldDevice { pod, container, resource, id }));
    }
    held
}

/// The own cgroup of each pod that the report lists, by the pod's UID.
pub(crate) fn own_cgroups(report: &Report) -> BTreeMap<&str, &Cgroup> {
    let mut by_uid: BTreeMap<&str, &Cgroup> = BTreeMap::new();
    let of_pods = |cgroup: &&Cgroup| !cgroup.pod_uid.is_empty() && cgroup.container_id.is_empty();
    for cgroup in report.cgroups.iter().flat_map(|all| &all.cgroups).filter(of_pods) {
        // One that was removed and made again during the walk is there twice; ids grow, so the later one is meant.
        let known = by_uid.entry(&cgroup.pod_uid).or_insert(cgroup);
        if known.id < cgroup.id {
            *known = cgroup;
        }
    }
    by_uid
}

/// The pods of this node whose own cgroup the report lists, each once.
fn joined_pods<'a>(cluster: &'a Cluster, node: &Node, report: &'a Report) -> Vec<JoinedPod<'a>> {
    let join = |(uid, cgroup)| {
        let pod = cluster.pod_of_uid(uid).filter(|pod| pod.node.as_ref() == Some(&node.name))?;
        Some(JoinedPod { pod, cgroup })
    };
    own_cgroups(report).into_iter().filter_map(join).collect()
}

/// The pods of this node that the cluster has and whose cgroup is gone.
fn ended_pods<'a>(cluster: &'a Cluster, node: &Node, report: &'a Report) -> Vec<(&'a Pod, &'a EndedPod)> {
    let join = |ended: &'a EndedPod| {
        let pod = cluster.pod_of_uid(&ended.uid).filter(|pod| pod.node.as_ref() == Some(&node.name))?;
        Some((pod, ended))
    };
    report.cgroups.iter().flat_map(|all| &all.ended_pods).filter_map(join).collect()
}

fn facts(report: &Report, held: Option<&[HeldDevice<'_>]>) -> Facts {
    let machine = report.machine.clone().unwrap_or_default();
    let assigned = held.map(|held| {
        let mut ids = DeviceIds::new();
        for device in held {
            ids.entry(device.resource.into()).or_default().push(device.id.into());
        }
        ids
    });
    let advertised = report.assignments.as_ref().map(|assignments| {
        let mut ids = DeviceIds::new();
        for of in &assignments.allocatable {
            ids.entry(of.resource.as_str().into())
                .or_default()
                .extend(of.device_ids.iter().map(|id| id.as_str().into()));
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

/// Nothing without a driver: then nobody has looked.
fn gpus(gpus: &ReportedGpus) -> Option<Gpus> {
    if gpus.driver_version.is_empty() && gpus.devices.is_empty() {
        return None;
    }
    let health = |reasons: &[String]| if reasons.is_empty() { Health::Healthy } else { Health::Unhealthy };
    let devices = gpus.devices.iter().map(|gpu| {
        let instances = gpu.mig_instances.iter().map(|instance| Instance {
            uuid: instance.uuid.as_str().into(),
            profile: instance.profile.as_str().into(),
            health: health(&instance.unhealthy_reasons),
        });
        Gpu {
            uuid: gpu.uuid.as_str().into(),
            health: health(&gpu.unhealthy_reasons),
            mig: (gpu.mig_mode == Some(true)).then(|| instances.collect()),
        }
    });
    Some(Gpus { devices: devices.collect(), lost: gpus.lost_bus_ids.len() as u32, remembered: gpus.remembered })
}

/// What is handed out: UUID, utilisation, and whether it is healthy.
fn devices_of(report: &Report) -> Vec<(&str, Option<f64>, bool)> {
    let mut devices = Vec::new();
    for gpu in report.gpus.iter().flat_map(|gpus| &gpus.devices) {
        let healthy = gpu.unhealthy_reasons.is_empty();
        if gpu.mig_mode == Some(true) {
            let instances = gpu.mig_instances.iter();
            devices.extend(
                instances.map(|mig| (&*mig.uuid, mig.utilization_ratio, healthy && mig.unhealthy_reasons.is_empty())),
            );
        } else {
            devices.push((&*gpu.uuid, gpu.utilization_ratio, healthy));
        }
    }
    devices
}

/// Cores that a pod kept busy between the last two reports, in billionths. One whose cgroup is new since the first of them
/// used all its time between them.
fn pod_nanocores(stored: &Stored, cgroup: &Cgroup) -> Option<u64> {
    let cpu_ns = cgroup.cpu_ns?;
    let baseline = stored.baseline.as_ref()?;
    let is_new = baseline.cgroup_cpu_ns.binary_search_by_key(&cgroup.id, |(id, _)| *id).is_err();
    if is_new && !baseline.cgroup_cpu_ns.is_empty() {
        let elapsed_ns =
            stored.report.uptime_ns.checked_sub(baseline.uptime_ns).filter(|elapsed_ns| *elapsed_ns > 0)?;
        return u64::try_from(u128::from(cpu_ns) * 1_000_000_000 / u128::from(elapsed_ns)).ok();
    }
    stored.cgroup_nanocores(cgroup.id, cpu_ns)
}

fn working_set_bytes(cgroup: &Cgroup) -> Option<u64> {
    Some(cgroup.memory_bytes?.saturating_sub(cgroup.memory_inactive_file_bytes?))
}

/// Where a pod that is bound and unfinished was not measured, its AppWrapper's sum is not known.
fn by_appwrapper(cluster: &Cluster, pods: &HashMap<PodAddress, Usage>) -> BTreeMap<AppWrapperName, Usage> {
    if pods.is_empty() {
        return BTreeMap::new();
    }
    let mut sums: HashMap<&AppWrapperName, Usage> = HashMap::new();
    for pod in cluster.pods().filter(|pod| pod.held_node().is_some()) {
        let Some(owner) = &pod.owner else { continue };
        let usage = pods.get(&std::ptr::from_ref(pod)).copied().unwrap_or_default();
        let sum = sums.entry(owner).or_insert(Usage { nanocores: Some(0), bytes: Some(0), nanodevices: Some(0) });
        let add = |sum: Option<u64>, more: Option<u64>| Some(sum?.saturating_add(more?));
        sum.nanocores = add(sum.nanocores, usage.nanocores);
        sum.bytes = add(sum.bytes, usage.bytes);
        sum.nanodevices = add(sum.nanodevices, usage.nanodevices);
    }
    sums.into_iter().map(|(name, usage)| (name.clone(), usage)).collect()
}
