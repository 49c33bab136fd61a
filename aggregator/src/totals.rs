//! What the pods of an AppWrapper have used in all, those that ended included (docs/accounting.md §6).
//!
//! Owns the way from totals that agents report, each since a start of its own, to totals of an AppWrapper that never fall
//! while it lives. Pure: (what was known, the cluster, a report) to what is known. What names no pod of an AppWrapper that
//! the cluster has, or had within the hour, is dropped here, whatever a report says.
//!
//! Nothing is ever added twice: each pod's last seen totals are kept for as long as the cluster has the pod, and for an
//! hour after, because its agent may only then tell the last of them.
mod devices;
mod gains;
mod seed;
mod since;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use mcad_wire::reading::{Cgroup, EndedPod, Report};

use crate::clock::Now;
use crate::cluster::Cluster;
use crate::measure::OwnCgroup;
use crate::object::{AppWrapperName, Pod};
use crate::table::Table;
use devices::{NodeGpus, PodDevices, PodName};
use gains::Gains;
pub use seed::Differ;
use since::{Life, of_kernel, of_probe};

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

impl Total {
    /// Adds what was gained. Absent: nothing of it was measured this time.
    fn add(&mut self, gained: Total) {
        add(&mut self.cpu_ns, gained.cpu_ns);
        add(&mut self.gpu_held_ns, gained.gpu_held_ns);
        add(&mut self.gpu_busy_ns, gained.gpu_busy_ns);
        add(&mut self.oom_kills, gained.oom_kills);
        add(&mut self.run_queue_wait_ns, gained.run_queue_wait_ns);
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Totals {
    appwrappers: Table<AppWrapperName, Known>,
    /// Pods by the UID that their cgroups carry.
    cgroups: Table<Arc<str>, PodCgroup>,
    /// Pods by name: kubelet lists no UID.
    devices: Table<PodName, PodDevices>,
    /// What nodes last said of their GPUs.
    nodes: Table<Arc<str>, NodeGpus>,
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
    fn of_cgroup(cgroup: &Cgroup<'_>) -> Self {
        let Cgroup { id, cpu_ns, oom_kills, run_queue_wait_ns, .. } = *cgroup;
        Self { id, cpu_ns, oom_kills, run_queue_wait_ns }
    }

    fn of_ended(pod: &EndedPod<'_>) -> Self {
        let EndedPod { id, cpu_ns, oom_kills, run_queue_wait_ns, .. } = *pod;
        Self { id, cpu_ns, oom_kills, run_queue_wait_ns }
    }
}

impl Totals {
    /// The total of an AppWrapper in this life of it.
    pub fn of(&self, name: &AppWrapperName, uid: &str) -> Total {
        self.appwrappers.get(name).filter(|known| *known.uid == *uid).map(|known| known.total).unwrap_or_default()
    }

    /// Takes in a report, whose [`own_cgroups`](crate::measure::own_cgroups) are these. One that is older than what is known of its
    /// node is none.
    pub fn take(&mut self, cluster: &Cluster, report: &Report<'_>, own: &[OwnCgroup<'_>], now: Now) {
        let Some(node) = cluster.node(report.node) else { return };
        let node = &node.name;
        let known = self.nodes.get(node).map(|known| &known.life);
        let life = Life::of(report, known);
        if known.is_some_and(|known| known.is_later_than(&life)) {
            return;
        }
        let mut gains = Gains::new(cluster);
        // Ended ones first: where a pod's cgroup was made anew, both are listed.
        for pod in report.cgroups.iter().flat_map(|all| &all.ended_pods) {
            let there = cluster.pod_of_uid(pod.uid);
            self.take_cgroup(&mut gains, node, (pod.uid, there), &Counted::of_ended(pod), &life);
        }
        for OwnCgroup { cgroup, pod, .. } in own {
            self.take_cgroup(&mut gains, node, (cgroup.pod_uid, *pod), &Counted::of_cgroup(cgroup), &life);
        }
        self.take_devices(&mut gains, node, report, life);
        for (appwrapper, gained) in gains.all() {
            self.total_of(&appwrapper.name, &appwrapper.uid).add(gained);
        }
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
        Some(self.total_of(name, &cluster.appwrapper(name)?.uid))
    }

    /// The total of an AppWrapper that the cluster has with that UID.
    fn total_of(&mut self, name: &AppWrapperName, uid: &Arc<str>) -> &mut Total {
        let new = || Known { uid: uid.clone(), total: Total::default() };
        let known = self.appwrappers.entry(name.clone()).or_insert_with(new);
        if known.uid != *uid {
            *known = new();
        }
        &mut known.total
    }

    /// Of a pod by its UID, and that pod, wherever it is, where the cluster has it.
    fn take_cgroup(
        &mut self,
        gains: &mut Gains<'_>,
        node: &Arc<str>,
        (uid, there): (&str, Option<&Pod>),
        cgroup: &Counted,
        life: &Life,
    ) {
        let owner = match there {
            Some(pod) if pod.node.as_ref() == Some(node) => pod.owner.as_ref(),
            Some(_) => None,
            None => self.cgroups.get(uid).filter(|gone| gone.node == *node).map(|gone| &gone.owner),
        };
        let Some((appwrapper, gained)) = owner.and_then(|owner| gains.of(owner)) else { return };
        let new = || PodCgroup::new(&appwrapper.name, &appwrapper.uid, node);
        // By the pod's own text, which is near when it is looked for again.
        let uid = there.map_or_else(|| uid.into(), |pod| pod.cgroup_uid.clone());
        let known = self.cgroups.entry(uid).or_insert_with(new);
        if there.is_some() {
            known.belong(&appwrapper.name, &appwrapper.uid, node);
        } else if known.owner_uid != appwrapper.uid {
            return;
        }
        if !known.be(life.boot(), cgroup.id) {
            return;
        }
        let cpu_ns = cgroup.cpu_ns.map(|total| of_kernel(&mut known.cpu_ns, total));
        let oom_kills = cgroup.oom_kills.map(|total| of_kernel(&mut known.oom_kills, total));
        let wait_ns = cgroup.run_queue_wait_ns.map(|total| of_probe(&mut known.run_queue_wait_ns, total));
        add(&mut gained.cpu_ns, cpu_ns);
        add(&mut gained.oom_kills, oom_kills);
        add(&mut gained.run_queue_wait_ns, wait_ns);
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
        if self.owner_uid != *owner_uid {
            self.owner_uid = owner_uid.clone();
        }
        if self.node != *node {
            self.node = node.clone();
        }
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
