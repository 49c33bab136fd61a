//! Totals: what the pods of an AppWrapper have used since the AppWrapper was created, including pods that ended (docs/accounting.md §7).
//!
//! Owns how agents' counters, each of which starts at its own time, become totals of an AppWrapper that never fall during its life. Pure:
//! from (what was known, the cluster, a report) to what is known. Entries that belong to no pod of an AppWrapper that the cluster has, or
//! had within the last hour, are dropped here, whatever a report contains.
//!
//! Nothing is ever added twice: the last seen counters of each pod are kept for as long as the cluster has the pod and for an hour longer,
//! because its agent may report the final values only then.
mod devices;
mod gains;
mod held;
mod life;
mod parts;
mod pods;
mod possible;
mod row;
mod since;
mod split;
mod state_transfer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use devices::DeviceTotals;
use gains::Gains;
use held::NodeHeld;
use mcad_wire::reading::Report;
use parts::NodeParts;
use pods::{Counted, NodePods};
use possible::Possible;

use crate::cluster::Cluster;
use crate::cluster::owner::ByOwner;
use crate::gpu_use::{HeldOnNode, Uses};
use crate::measure::{NamedPods, OwnCgroup, PodName};
use crate::now::Now;
use crate::object::{AppWrapper, AppWrapperName, Pod};
use crate::options::PodMetrics;
use crate::table::Table;
use life::Life;
pub use possible::{Counter, Jumps};
pub use state_transfer::Differ;

/// How long the final values of a pod that is gone are awaited. Agents keep these values for as long.
const GONE: Duration = Duration::from_hours(1);

/// What the pods of one AppWrapper have used in total. `None` if a value was never measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// CPU time.
    pub cpu_ns: Option<u64>,
    /// Time that its pods held devices, summed over devices.
    pub gpu_held_ns: Option<u64>,
    /// The part of that time in which the devices were busy.
    pub gpu_busy_ns: Option<u64>,
    /// The rest of that time, by cause. `None` if the devices did not idle.
    pub gpu_idle_ns: Option<Box<Uses>>,
    /// Processes that were OOM-killed.
    pub oom_kills: Option<u64>,
    /// Run-queue wait: time that tasks were ready to run and waited for a CPU.
    pub run_queue_wait_ns: Option<u64>,
}

impl Total {
    /// Adds what was gained. `None` if a value was not measured this time.
    fn add(&mut self, gained: &Total) {
        add(&mut self.cpu_ns, gained.cpu_ns);
        add(&mut self.gpu_held_ns, gained.gpu_held_ns);
        add(&mut self.gpu_busy_ns, gained.gpu_busy_ns);
        add(&mut self.oom_kills, gained.oom_kills);
        add(&mut self.run_queue_wait_ns, gained.run_queue_wait_ns);
        gained.gpu_idle_ns.iter().for_each(|idle| self.add_idle(idle));
    }

    /// Adds the idle part of this time.
    fn add_idle(&mut self, uses: &Uses) {
        for (cause, ns) in uses.idle().filter(|(_, ns)| *ns > 0) {
            self.gpu_idle_ns.get_or_insert_default().add(cause, ns);
        }
    }
}

/// The totals of all AppWrappers. The per-node state that they depend on is kept with the node: [`NodeTotals`].
#[derive(Debug, Default)]
pub struct Totals {
    appwrappers: Table<AppWrapperName, Known>,
    /// Time that devices were held, by pods of AppWrappers, including those that are gone, and by other pods. `None` if that was never
    /// known of any node.
    held_ns: Option<ByOwner<Uses>>,
    pod_metrics: PodMetrics,
}

/// One AppWrapper, from its creation to its deletion.
#[derive(Debug)]
struct Known {
    uid: Arc<str>,
    total: Total,
}

/// What was last seen of one node, in one place, because every report of the node covers all of it.
#[derive(Debug, Default)]
pub struct NodeTotals {
    /// `None` if the node has not reported, or if the cluster no longer has it.
    life: Option<Life>,
    /// When its last report arrived here. `None` if no report arrived, or if the report came from a file and so does not show how much time
    /// passed.
    came: Option<Now>,
    /// How many CPUs it had.
    cpus: Option<u32>,
    pods: NodePods,
    held: NodeHeld,
    /// The GPUs and MIG instances that somebody holds, sorted by UUID.
    devices: Vec<DeviceTotals>,
    parts: NodeParts,
    /// When the last report was sampled that said who holds devices, in ms since the Unix epoch.
    held_at_ms: Option<u64>,
    /// In the interval before the last report, by AppWrapper: parts of devices, in billionths. `None` if it is not known who holds them.
    held_now: Option<Arc<HeldOnNode>>,
    /// Of each pod that holds devices, how long they idled, by cause. Only if pod metrics are on.
    pods_idle_ns: BTreeMap<PodName, Box<Uses>>,
}

/// What was last seen of each node, by name.
pub trait ByNode {
    /// The state of a node. `None` if nothing was seen of it.
    fn get(&self, node: &str) -> Option<&NodeTotals>;
    /// The same; if nothing was seen of the node, an empty state.
    fn get_or_new(&mut self, node: Arc<str>) -> &mut NodeTotals;
}

impl Totals {
    /// Nothing was seen yet.
    pub fn new(pod_metrics: PodMetrics) -> Self {
        Self { pod_metrics, ..Self::default() }
    }

    /// Time that devices were held, by pods of AppWrappers, including those that are gone, and by other pods: busy, and idle by cause. `None`
    /// if that was never known of any node.
    pub fn held_ns(&self) -> Option<&ByOwner<Uses>> {
        self.held_ns.as_ref()
    }

    /// The total of the AppWrapper with this name and UID.
    pub fn of(&self, name: &AppWrapperName, uid: &str) -> Total {
        self.appwrappers
            .get(name)
            .filter(|known| *known.uid == *uid)
            .map(|known| known.total.clone())
            .unwrap_or_default()
    }

    /// Takes a report of a node: `node` is what was last seen of it, `named` the pods that the report names. Returns how often each counter
    /// in it grew by more than is possible. A report that is older than what is known of its node is ignored.
    pub fn take(
        &mut self,
        cluster: &Cluster,
        (name, node): (&Arc<str>, &mut NodeTotals),
        report: &Report<'_>,
        named: &NamedPods<'_>,
        now: Now,
    ) -> Jumps {
        let life = Life::of(report, node.life.as_ref());
        if node.life.as_ref().is_some_and(|known| known.is_later_than(&life)) {
            return Jumps::default();
        }
        let cpus = report.machine.as_ref().and_then(|machine| machine.cpus_online);
        // Some of the CPUs that it had may be offline by now, but did work before.
        let most_cpus = cpus.map(|cpus| cpus.max(node.cpus.unwrap_or(0)));
        let mut possible = Possible::new(&life, node.life.as_ref(), node.came, now, most_cpus);
        let mut gains = Gains::new(cluster);
        // Ended pods first: if a pod's cgroup was created again, both cgroups are listed.
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
        let gain = devices::take(node, (&mut gains, &mut possible), report, named, &life);
        node.held_now = gain.as_ref().map(|gain| gain.now.as_slice().into());
        if let Some(gain) = gain {
            let held_ns = self.held_ns.get_or_insert_default();
            held_ns.appwrapper.add_all(&gain.held.appwrapper);
            held_ns.other.add_all(&gain.held.other);
            let kept = gain.pods.into_iter().filter(|_| self.pod_metrics == PodMetrics::On);
            kept.for_each(|(pod, uses)| node.pods_idle_ns.entry(pod).or_default().add_all(&uses));
        }
        (node.life, node.came, node.cpus) = (Some(life), Some(now), cpus);
        for (appwrapper, gained) in gains.all() {
            self.total_of(&appwrapper.name, &appwrapper.uid).add(&gained);
        }
        possible.jumps
    }

    /// Drops AppWrappers that the cluster no longer has.
    pub fn tidy(&mut self, cluster: &Cluster) {
        self.appwrappers.retain(|name, known| cluster.appwrapper(name).is_some_and(|there| there.uid == known.uid));
    }

    /// The total of an AppWrapper that the cluster has.
    fn total(&mut self, cluster: &Cluster, name: &AppWrapperName) -> Option<&mut Total> {
        Some(self.total_of(name, &cluster.appwrapper(name)?.uid))
    }

    /// The total of an AppWrapper that the cluster has with this UID.
    fn total_of(&mut self, name: &AppWrapperName, uid: &Arc<str>) -> &mut Total {
        let new = || Known { uid: uid.clone(), total: Total::default() };
        let known = self.appwrappers.entry(name.clone()).or_insert_with(new);
        if known.uid != *uid {
            *known = new();
        }
        &mut known.total
    }
}

impl NodeTotals {
    /// Notes that the last report came from a file: when it was read does not show when it was made.
    pub fn came_from_file(&mut self) {
        self.came = None;
    }

    /// What pods did with devices in the interval before the last report, by AppWrapper: parts of devices, in billionths. `None` if it is not
    /// known who holds them.
    pub fn held_now(&self) -> Option<&Arc<HeldOnNode>> {
        self.held_now.as_ref()
    }

    /// Of each pod that holds devices, how long they were busy and idled, by cause. Nothing if pod metrics are off.
    pub fn pods_idle_ns(&self) -> impl Iterator<Item = (&PodName, &Uses)> {
        self.pods_idle_ns.iter().map(|(pod, uses)| (pod, &**uses))
    }

    /// Whether anything is kept about this pod, even if the cluster no longer has it.
    pub fn remembers(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some()
    }

    /// The node of a pod that counts in an AppWrapper's totals, the UID of the pod's cgroups, and the AppWrapper.
    pub fn is_counted<'a>(cluster: &'a Cluster, pod: &'a Pod) -> Option<(&'a Arc<str>, &'a Arc<str>, &'a AppWrapper)> {
        let appwrapper = cluster.appwrapper(pod.owner.as_ref()?).filter(|_| !pod.cgroup_uid.is_empty())?;
        Some((pod.node.as_ref()?, &pod.cgroup_uid, appwrapper))
    }

    /// Notes that a pod of the node is about to leave the cluster; its agent may still report what it used.
    pub fn gone(&mut self, uid: &Arc<str>, appwrapper: &AppWrapper, now: Now) {
        self.pods.gone(uid, appwrapper, now);
    }

    /// Drops pods an hour after they are gone. Drops everything else that the cluster no longer has immediately.
    pub fn tidy(&mut self, cluster: &Cluster, node: &str, now: Now) {
        self.pods.tidy(cluster, node, now);
        self.held.tidy(cluster, node, now);
        self.pods_idle_ns.retain(|(namespace, pod), _| self.held.has_pod(namespace, pod));
        if !cluster.has_node(node) {
            (self.life, self.devices, self.held_now) = (None, Vec::new(), None);
            (self.parts, self.held_at_ms) = (NodeParts::default(), None);
        }
    }

    /// Whether nothing is known of the node.
    pub fn is_empty(&self) -> bool {
        self.life.is_none() && self.pods.all().is_empty() && self.held.all().is_empty()
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
