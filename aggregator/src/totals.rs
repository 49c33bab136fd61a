//! What the pods of an AppWrapper have used in all, those that ended included (docs/accounting.md §6).
//!
//! Owns the way from totals that agents report, each since a start of its own, to totals of an AppWrapper that never fall
//! while it lives. Pure: (what was known, the cluster, a report) to what is known. What names no pod of an AppWrapper that
//! the cluster has, or had within the hour, is dropped here, whatever a report says.
//!
//! Nothing is ever added twice: each pod's last seen totals are kept for as long as the cluster has the pod, and for an
//! hour after, because its agent may only then tell the last of them.
mod seed;
mod since;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mcad_wire::report::{Assignment, Cgroup, EndedPod, Report};

use crate::clock::Now;
use crate::cluster::Cluster;
use crate::hardware::{MIG_PREFIX, SHARED, uuid_of};
use crate::measure::own_cgroups;
use crate::object::{AppWrapperName, Pod};
use crate::resource::NVIDIA_GPU;
pub use seed::Differ;
use since::{Life, Since, of_kernel, of_probe};

/// How long the totals of a pod that is gone are waited for. Agents keep them for as long.
const GONE: Duration = Duration::from_hours(1);

/// How often what is no longer needed is looked for.
const TIDY_EVERY: Duration = Duration::from_mins(1);

/// What the pods of one AppWrapper have used in all. Absent: nothing of it was ever measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Time on processors.
    pub cpu_ns: Option<u64>,
    /// Time that devices were in the hands of its pods, added up over them.
    pub gpu_held_ns: Option<u64>,
    /// Of that, time that they were busy.
    pub gpu_busy_ns: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Time that tasks were ready to run and waited for a processor.
    pub run_queue_wait_ns: Option<u64>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Totals {
    appwrappers: HashMap<AppWrapperName, Known>,
    /// Pods by the UID that their cgroups carry.
    cgroups: HashMap<Arc<str>, PodCgroup>,
    /// Pods by name: kubelet lists no UID.
    devices: HashMap<PodName, PodDevices>,
    /// What nodes last said of their GPUs.
    nodes: HashMap<Arc<str>, NodeGpus>,
    tidied: Option<Now>,
}

/// One AppWrapper, in one life of it.
#[derive(Debug)]
struct Known {
    uid: Arc<str>,
    total: Total,
}

/// What was last seen of the cgroup of a pod.
#[derive(Debug)]
struct PodCgroup {
    owner: AppWrapperName,
    /// The UID of its AppWrapper.
    owner_uid: Arc<str>,
    node: Arc<str>,
    gone: Option<Now>,
    /// Boot and id of the cgroup that the rest is about.
    cgroup: Option<(Arc<str>, u64)>,
    cpu_ns: u64,
    oom_kills: u64,
    run_queue_wait_ns: u64,
}

/// What a report counts of a pod's own cgroup, living or gone.
struct Counted {
    id: u64,
    cpu_ns: Option<u64>,
    oom_kills: Option<u64>,
    run_queue_wait_ns: Option<u64>,
}

impl Counted {
    fn of_cgroup(cgroup: &Cgroup) -> Self {
        let Cgroup { id, cpu_ns, oom_kills, run_queue_wait_ns, .. } = *cgroup;
        Self { id, cpu_ns, oom_kills, run_queue_wait_ns }
    }

    fn of_ended(pod: &EndedPod) -> Self {
        let EndedPod { id, cpu_ns, oom_kills, run_queue_wait_ns, .. } = *pod;
        Self { id, cpu_ns, oom_kills, run_queue_wait_ns }
    }
}

type PodName = (Arc<str>, Arc<str>);

/// What was last seen of the devices of the pods that had a name, one after the other.
#[derive(Debug, Default)]
struct PodDevices {
    gone: Option<Now>,
    /// By container and resource.
    held_ns: BTreeMap<(String, String), Since>,
}

/// What a node last said of its GPUs, and when.
#[derive(Debug)]
struct NodeGpus {
    life: Life,
    /// By UUID.
    devices: HashMap<String, Device>,
}

/// A GPU or a MIG instance, as it was last seen.
#[derive(Debug, Default)]
struct Device {
    busy_ns: Since,
    /// Who held it, and how many parts of it: pods by UID, or by name where they have none.
    holders: BTreeMap<Arc<str>, u64>,
}

impl Totals {
    /// The total of an AppWrapper in this life of it.
    pub fn of(&self, name: &AppWrapperName, uid: &str) -> Total {
        self.appwrappers.get(name).filter(|known| *known.uid == *uid).map(|known| known.total).unwrap_or_default()
    }

    /// Takes in a report. One that is older than what is known of its node is none.
    pub fn take(&mut self, cluster: &Cluster, report: &Report, now: Now) {
        let Some(node) = cluster.node(&report.node) else { return };
        let node = node.name.clone();
        let life = Life::of(report);
        if self.nodes.get(&node).is_some_and(|known| known.life.is_later_than(&life)) {
            return;
        }
        // Ended ones first: where a pod's cgroup was made anew, both are listed.
        for pod in report.cgroups.iter().flat_map(|all| &all.ended_pods) {
            self.take_cgroup(cluster, &node, &pod.uid, &Counted::of_ended(pod), &life);
        }
        for (uid, cgroup) in own_cgroups(report) {
            self.take_cgroup(cluster, &node, uid, &Counted::of_cgroup(cgroup), &life);
        }
        self.take_devices(cluster, &node, report, life);
        self.tidy(cluster, now);
    }

    /// Whether something of this pod is kept, though the cluster may no longer have it.
    pub fn remembers(&self, uid: &str) -> bool {
        self.cgroups.contains_key(uid)
    }

    /// A pod is about to be gone from the cluster; its agent may still tell what it used.
    pub fn pod_gone(&mut self, cluster: &Cluster, pod: &Pod, now: Now) {
        let (Some(owner), Some(node)) = (&pod.owner, &pod.node) else { return };
        let Some(appwrapper) = cluster.appwrapper(owner).filter(|_| !pod.cgroup_uid.is_empty()) else { return };
        let new = || PodCgroup::new(owner, &appwrapper.uid, node);
        self.cgroups.entry(pod.cgroup_uid.clone()).or_insert_with(new).gone.get_or_insert(now);
    }

    /// Forgets what the cluster no longer has: AppWrappers at once, pods after an hour.
    pub fn tidy(&mut self, cluster: &Cluster, now: Now) {
        if self.tidied.is_some_and(|last| now.since(last) < TIDY_EVERY) {
            return;
        }
        self.tidied = Some(now);
        self.appwrappers.retain(|name, known| cluster.appwrapper(name).is_some_and(|there| there.uid == known.uid));
        self.nodes.retain(|name, _| cluster.has_node(name));
        self.cgroups.retain(|uid, known| kept(&mut known.gone, cluster.pod_of_uid(uid).is_some(), now));
        self.devices.retain(|(namespace, name), known| {
            let there = cluster.pod(namespace, name).is_some();
            kept(&mut known.gone, there, now)
        });
    }

    /// The total of an AppWrapper that the cluster has.
    fn total(&mut self, cluster: &Cluster, name: &AppWrapperName) -> Option<&mut Total> {
        let uid = &cluster.appwrapper(name)?.uid;
        let new = || Known { uid: uid.clone(), total: Total::default() };
        let known = self.appwrappers.entry(name.clone()).or_insert_with(new);
        if known.uid != *uid {
            *known = new();
        }
        Some(&mut known.total)
    }

    fn take_cgroup(&mut self, cluster: &Cluster, node: &Arc<str>, uid: &str, cgroup: &Counted, life: &Life) {
        let there = cluster.pod_of_uid(uid);
        let owner = match there {
            Some(pod) if pod.node.as_ref() == Some(node) => pod.owner.clone(),
            Some(_) => None,
            None => self.cgroups.get(uid).filter(|gone| gone.node == *node).map(|gone| gone.owner.clone()),
        };
        let Some(owner) = owner else { return };
        let Some(appwrapper) = cluster.appwrapper(&owner) else { return };
        let known = self.cgroups.entry(uid.into()).or_insert_with(|| PodCgroup::new(&owner, &appwrapper.uid, node));
        if there.is_some() {
            known.belong(&owner, &appwrapper.uid, node);
        } else if known.owner_uid != appwrapper.uid {
            return;
        }
        if !known.be(life.boot(), cgroup.id) {
            return;
        }
        let cpu_ns = cgroup.cpu_ns.map(|total| of_kernel(&mut known.cpu_ns, total));
        let oom_kills = cgroup.oom_kills.map(|total| of_kernel(&mut known.oom_kills, total));
        let wait_ns = cgroup.run_queue_wait_ns.map(|total| of_probe(&mut known.run_queue_wait_ns, total));
        let Some(total) = self.total(cluster, &owner) else { return };
        add(&mut total.cpu_ns, cpu_ns);
        add(&mut total.oom_kills, oom_kills);
        add(&mut total.run_queue_wait_ns, wait_ns);
    }

    fn take_devices(&mut self, cluster: &Cluster, node: &Arc<str>, report: &Report, life: Life) {
        let mut devices = self.nodes.remove(node).map(|before| before.devices).unwrap_or_default();
        // Where kubelet could not be asked, or the driver, what was last known is what the next report is held against.
        if let Some(assignments) = &report.assignments {
            let held: Vec<_> = assignments.assigned.iter().filter_map(|a| Held::new(cluster, node, a)).collect();
            for held in &held {
                self.take_held(cluster, held, &life);
            }
            let holders = holders(&held);
            if report.gpus.is_some() {
                devices.retain(|uuid, _| holders.contains_key(&**uuid));
            }
            for (uuid, busy_ns) in busy(report) {
                // One that nobody holds has nobody to tell of.
                let Some(holders) = holders.get(uuid) else { continue };
                let device = devices.entry(uuid.to_owned()).or_default();
                self.take_busy(cluster, device, holders, busy_ns, &life);
            }
        }
        self.nodes.insert(node.clone(), NodeGpus { life, devices });
    }

    fn take_held(&mut self, cluster: &Cluster, held: &Held<'_>, life: &Life) {
        let (Some(held_ns), Some(owner)) = (held.assignment.held_ns, &held.pod.owner) else { return };
        if cluster.appwrapper(owner).is_none() {
            return;
        }
        let Assignment { container, resource, device_ids, .. } = held.assignment;
        let name = (held.pod.namespace.clone(), held.pod.name.clone());
        let last = self.devices.entry(name).or_default().held_ns.entry((container.clone(), resource.clone()));
        let more = last.or_default().of_agent(held_ns, life, device_ids.len() as u64);
        if let Some(total) = self.total(cluster, owner) {
            add(&mut total.gpu_held_ns, Some(more));
        }
    }

    /// Gives what a device did since it was last seen to those who hold it now and held it then: whose work the rest was,
    /// nobody knows. Of a shared one, to each in proportion to the parts that it holds.
    fn take_busy(&mut self, cluster: &Cluster, device: &mut Device, holders: &Holders<'_>, busy_ns: u64, life: &Life) {
        let is_same_boot = device.busy_ns.is_of_boot(life);
        let more = device.busy_ns.of_agent(busy_ns, life, 1);
        let parts = holders.values().map(|(_, parts)| *parts).sum::<u64>().max(device.holders.values().sum());
        for (key, (pod, now)) in holders {
            let Some(then) = device.holders.get(key).filter(|_| is_same_boot) else { continue };
            let share = u128::from(more) * u128::from(*now.min(then)) / u128::from(parts);
            if let Some(total) = pod.owner.as_ref().and_then(|owner| self.total(cluster, owner)) {
                add(&mut total.gpu_busy_ns, u64::try_from(share).ok());
            }
        }
        device.holders = holders.iter().map(|(key, (_, parts))| (key.clone(), *parts)).collect();
    }
}

impl PodCgroup {
    fn new(owner: &AppWrapperName, owner_uid: &Arc<str>, node: &Arc<str>) -> Self {
        Self {
            owner: owner.clone(),
            owner_uid: owner_uid.clone(),
            node: node.clone(),
            gone: None,
            cgroup: None,
            cpu_ns: 0,
            oom_kills: 0,
            run_queue_wait_ns: 0,
        }
    }

    /// What the cluster says of the pod, which it has.
    fn belong(&mut self, owner: &AppWrapperName, owner_uid: &Arc<str>, node: &Arc<str>) {
        if self.owner != *owner {
            self.owner = owner.clone();
        }
        self.owner_uid = owner_uid.clone();
        self.node = node.clone();
        self.gone = None;
    }

    /// A pod whose cgroup was made anew, as after a reboot, counts from 0 in it. False of one that it had before: all that is to be
    /// had of that was added by then, and as ids grow it is known by its id.
    fn be(&mut self, boot: &Arc<str>, id: u64) -> bool {
        match &self.cgroup {
            Some((known_boot, known_id)) if known_boot == boot && id < *known_id => return false,
            Some((known_boot, known_id)) if known_boot == boot && id == *known_id => {}
            Some(_) | None => {
                self.cgroup = Some((boot.clone(), id));
                (self.cpu_ns, self.oom_kills, self.run_queue_wait_ns) = (0, 0, 0);
            }
        }
        true
    }
}

/// GPUs in the hands of a container of a bound, unfinished pod.
struct Held<'a> {
    pod: &'a Pod,
    assignment: &'a Assignment,
}

impl<'a> Held<'a> {
    fn new(cluster: &'a Cluster, node: &Arc<str>, assignment: &'a Assignment) -> Option<Self> {
        let pod = cluster.pod(&assignment.namespace, &assignment.pod)?;
        (is_gpu(&assignment.resource) && pod.held_node() == Some(node)).then_some(Self { pod, assignment })
    }
}

/// Pods that hold a device, by UID, or by name where they have none, and how many parts of it.
type Holders<'a> = BTreeMap<Arc<str>, (&'a Pod, u64)>;

/// Who holds which device, by the device's UUID.
fn holders<'a>(held: &[Held<'a>]) -> HashMap<&'a str, Holders<'a>> {
    let mut all: HashMap<&str, Holders<'_>> = HashMap::new();
    for Held { pod, assignment } in held {
        let key = if pod.uid.is_empty() { format!("{}/{}", pod.namespace, pod.name).into() } else { pod.uid.clone() };
        for id in &assignment.device_ids {
            all.entry(uuid_of(id)).or_default().entry(key.clone()).or_insert((pod, 0)).1 += 1;
        }
    }
    all
}

/// GPUs and MIG instances whose busy time is known.
fn busy(report: &Report) -> impl Iterator<Item = (&str, u64)> {
    let gpus = report.gpus.iter().flat_map(|gpus| &gpus.devices);
    gpus.flat_map(|gpu| {
        let instances = gpu.mig_instances.iter().map(|instance| (&*instance.uuid, instance.busy_ns));
        instances.chain([(&*gpu.uuid, gpu.busy_ns)]).filter_map(|(uuid, busy_ns)| Some((uuid, busy_ns?)))
    })
}

/// NVIDIA's, whole, in parts or as MIG instances.
fn is_gpu(resource: &str) -> bool {
    resource == NVIDIA_GPU || resource.strip_prefix(NVIDIA_GPU) == Some(SHARED) || resource.starts_with(MIG_PREFIX)
}

/// Whether to keep what is known of a pod.
fn kept(gone: &mut Option<Now>, is_there: bool, now: Now) -> bool {
    if is_there {
        *gone = None;
        return true;
    }
    now.since(*gone.get_or_insert(now)) < GONE
}

fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}
