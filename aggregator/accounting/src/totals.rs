//! What the pods of an AppWrapper have used in all, those that ended included (docs/accounting.md §7).
//!
//! Owns the way from totals that agents report, each since a start of its own, to totals of an AppWrapper that never fall
//! while it lives. Pure: (what was known, the cluster, a report) to what is known. What names no pod of an AppWrapper that
//! the cluster has, or had within the hour, is dropped here, whatever a report says.
//!
//! Nothing is ever added twice: each pod's last seen totals are kept for as long as the cluster has the pod, and for an
//! hour after, because its agent may only then tell the last of them.
mod devices;
mod gains;
mod held;
mod life;
mod pods;
mod possible;
mod row;
mod seed;
mod since;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use devices::Device;
use gains::Gains;
use held::NodeHeld;
use mcad_wire::reading::Report;
use pods::{Counted, NodePods};
use possible::Possible;

use crate::cluster::Cluster;
use crate::measure::{NamedPods, OwnCgroup};
use crate::now::Now;
use crate::object::{AppWrapperName, Pod};
use crate::table::Table;
use life::Life;
pub use possible::{Counter, Jumps};
pub use seed::Differ;

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
    nodes: Table<Arc<str>, KnownNode>,
    tidied: Option<Now>,
}

/// One AppWrapper, in one life of it.
#[derive(Debug)]
struct Known {
    uid: Arc<str>,
    total: Total,
}

/// What was last seen of one node: side by side, as each of its reports tells of all of it.
#[derive(Debug, Default)]
struct KnownNode {
    /// Absent: it has not reported, or the cluster no longer has it.
    life: Option<Life>,
    /// When its last report came here. Absent: none did, or it came from a file, and then says nothing of the time that passed.
    came: Option<Now>,
    /// How many CPUs it had.
    cpus: Option<u32>,
    pods: NodePods,
    held: NodeHeld,
    /// What somebody holds of its GPUs and MIG instances, in order of UUID.
    devices: Vec<Device>,
}

impl Totals {
    /// The total of an AppWrapper in this life of it.
    pub fn of(&self, name: &AppWrapperName, uid: &str) -> Total {
        self.appwrappers.get(name).filter(|known| *known.uid == *uid).map(|known| known.total).unwrap_or_default()
    }

    /// Takes in a report that names these pods, and answers how often each counter in it grew by more than it can. One that is
    /// older than what is known of its node is none.
    pub fn take(&mut self, cluster: &Cluster, report: &Report<'_>, named: &NamedPods<'_>, now: Now) -> Jumps {
        let Some(node) = cluster.node(report.node) else { return Jumps::default() };
        let name = &node.name;
        let node = match self.nodes.get_mut(name) {
            Some(known) => known,
            None => self.nodes.entry(name.clone()).or_default(),
        };
        let life = Life::of(report, node.life.as_ref());
        if node.life.as_ref().is_some_and(|known| known.is_later_than(&life)) {
            return Jumps::default();
        }
        let cpus = report.machine.as_ref().and_then(|machine| machine.cpus_online);
        // Some of those that it had may be off by now, and did their work before.
        let most_cpus = cpus.map(|cpus| cpus.max(node.cpus.unwrap_or(0)));
        let mut possible = Possible::new(&life, node.life.as_ref(), node.came, now, most_cpus);
        let mut gains = Gains::new(cluster);
        // Ended ones first: where a pod's cgroup was made anew, both are listed.
        for pod in report.cgroups.iter().flat_map(|all| &all.ended_pods) {
            let there = cluster.pod_of_uid(pod.uid);
            node.pods.take((&mut gains, &mut possible), name, (pod.uid, there), &Counted::of_ended(pod), &life);
        }
        for OwnCgroup { cgroup, pod, .. } in &named.cgroups {
            node.pods.take(
                (&mut gains, &mut possible),
                name,
                (cgroup.pod_uid, *pod),
                &Counted::of_cgroup(cgroup),
                &life,
            );
        }
        devices::take(node, (&mut gains, &mut possible), report, named, &life);
        (node.life, node.came, node.cpus) = (Some(life), Some(now), cpus);
        for (appwrapper, gained) in gains.all() {
            self.total_of(&appwrapper.name, &appwrapper.uid).add(gained);
        }
        self.tidy(cluster, now);
        possible.jumps
    }

    /// The last report of a node came from a file: when it was read says nothing of when it was made.
    pub fn came_from_file(&mut self, node: &str) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.came = None;
        }
    }

    /// Whether something of this pod is kept, though the cluster may no longer have it.
    pub fn remembers(&self, node: &str, uid: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.pods.get(uid).is_some())
    }

    /// A pod is about to be gone from the cluster; its agent may still tell what it used.
    pub fn pod_gone(&mut self, cluster: &Cluster, pod: &Pod, now: Now) {
        let (Some(owner), Some(node)) = (&pod.owner, &pod.node) else { return };
        let Some(appwrapper) = cluster.appwrapper(owner).filter(|_| !pod.cgroup_uid.is_empty()) else { return };
        self.nodes.entry(node.clone()).or_default().pods.gone(&pod.cgroup_uid, appwrapper, now);
    }

    /// Forgets what the cluster no longer has: AppWrappers at once, pods after an hour.
    pub fn tidy(&mut self, cluster: &Cluster, now: Now) {
        if self.tidied.is_some_and(|last| now.since(last) < TIDY_EVERY) {
            return;
        }
        self.tidied = Some(now);
        self.appwrappers.retain(|name, known| cluster.appwrapper(name).is_some_and(|there| there.uid == known.uid));
        self.nodes.retain(|name, known| {
            known.pods.tidy(cluster, name, now);
            known.held.tidy(cluster, name, now);
            if !cluster.has_node(name) {
                (known.life, known.devices) = (None, Vec::new());
            }
            known.life.is_some() || !known.pods.all().is_empty() || !known.held.all().is_empty()
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
