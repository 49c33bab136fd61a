//! Joins what agents reported with what the cluster is into one [`Snapshot`]. Owns which figure comes from where; pure: no
//! clock, no lock, no text. Everything that `/metrics`, the page and scripts show is in the snapshot.
//!
//! With `--cluster local` there is no Kubernetes: the agents are the nodes, and only what they measured is known. Pods are
//! not, so all that is used is the system's.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcad_wire::report::{Cgroups, Gpus, Report};

use crate::cluster::Cluster;
use crate::input::Input;
use crate::measure::{Used, memory_used_bytes};
use crate::node_name::NodeName;
use crate::now::Now;
pub use crate::reported::{CgroupSource, GpuSource};
use crate::reported::{Sources, Stored};
use crate::resource::Resource;
use crate::snapshot as kubernetes;
use crate::snapshot::verdict::Fits;
use crate::totals::Totals;
use crate::views::{Views, next_of};

/// Nanodevices in a device, nanocores in a core.
const NANO: f64 = 1e9;

/// The cluster, as far as it is known.
#[derive(Debug)]
pub enum View<'a> {
    /// No Kubernetes: every agent is a node.
    Local,
    /// Kubernetes' nodes are the nodes.
    Kubernetes {
        /// What the API server says.
        cluster: &'a Cluster,
        /// What was last worked out about fit on nodes.
        fits: &'a Fits,
        /// When the snapshot was made that it was worked out from.
        fitted: Option<Now>,
        /// What pods used in all.
        totals: &'a Totals,
        /// The nodes, as far as they are made, and what the figures are made by.
        views: &'a mut Views,
        /// Whether old reports count.
        ages: Ages,
        /// What ages of Kubernetes' objects are told against, in ms since the Unix epoch. Absent: it is not known.
        told_at_ms: Option<i64>,
    },
}

/// Whether the age of a report says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ages {
    /// A report older than three intervals no longer counts.
    Count,
    /// Reports are as old as the dump beside them.
    DoNot,
}

/// Everything that is shown, of one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was made.
    pub made: Now,
    /// Whether this replica speaks for the cluster.
    pub role: Role,
    /// The nodes, by name.
    pub nodes: Vec<Node>,
    /// The sums over the nodes, without Kubernetes.
    pub cluster: BTreeMap<Resource, ClusterFigures>,
    /// When the snapshot was made that fit on nodes was worked out from. Absent: it was not yet.
    pub fitted: Option<Now>,
    /// What rests on Kubernetes' objects. Absent: there is no Kubernetes.
    pub kubernetes: Option<kubernetes::Snapshot>,
    /// What is said of the dump that they come from. Absent: they do not come from one.
    pub input: Option<Arc<Input>>,
}

/// Which of the replicas this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It exposes cluster families.
    Leader,
    /// It is warm and exposes only its own health.
    Standby,
}

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// What is known of its agent.
    pub agent: Agent,
    /// Its figures. A resource that it does not have is not there.
    pub figures: BTreeMap<Resource, Figures>,
    /// Its cgroups, only while its agent is up.
    pub cgroups: Option<NodeCgroups>,
    /// Where figures of its GPUs come from. Absent: there are none, or its agent is down.
    pub gpu_source: Option<GpuSource>,
}

/// The agent of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Whether there should be one.
    pub expectation: Expectation,
    /// Whether it reports.
    pub health: AgentHealth,
    /// Time since its last report. Absent: it never reported, or its reports are replayed and have no age.
    pub report_age: Option<Duration>,
    /// How far its node's clock is ahead of this process's, in ms. Absent: not known, or it is silent.
    pub clock_skew_ms: Option<i64>,
}

/// Whether a node should have an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It should.
    Expected,
    /// It may have one.
    NotExpected,
}

/// Whether an agent reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentHealth {
    /// It does.
    Up,
    /// It has not for three intervals.
    Down,
}

/// The cgroups of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeCgroups {
    /// Where their figures come from. Absent: from somewhere that this version does not know.
    pub source: Option<CgroupSource>,
    /// How many there were, listed or not.
    pub seen: Option<u32>,
    /// How many found no room in the agent's maps.
    pub dropped: Option<u32>,
    /// CPU time of those that the report lists, by path, each once. Empty where pods stand for them.
    pub cpu_ns: Vec<(String, u64)>,
}

/// One resource of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// What the machine has.
    pub installed: Option<u64>,
    /// Less what is lost or unhealthy.
    pub healthy: Option<u64>,
    /// What is used.
    pub used: Used,
}

/// One resource of all nodes that show theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterFigures {
    /// The sums.
    pub sums: Figures,
    /// How many nodes `used` comes from.
    pub nodes_measured: u64,
}

/// Makes the snapshot of `now`.
pub fn merge(view: View<'_>, reports: &[(NodeName, Arc<Stored>)], now: Now) -> Snapshot {
    let snapshot = |nodes, cluster, fitted, kubernetes| Snapshot {
        made: now,
        role: Role::Leader,
        nodes,
        cluster,
        fitted,
        kubernetes,
        input: None,
    };
    match view {
        View::Local => {
            let nodes: Vec<_> = reports.iter().map(|(name, stored)| local_node(name, stored, now)).collect();
            let sums = sums(&nodes);
            snapshot(nodes, sums, None, None)
        }
        View::Kubernetes { cluster, fits, fitted, totals, views, ages, told_at_ms } => {
            let counts = |stored: &Stored| ages == Ages::DoNot || !stored.is_silent(now);
            let nodes = if cluster.knows_nodes() { views.all(cluster, reports, counts) } else { Vec::new() };
            let options = views.options();
            let mut kubernetes = kubernetes::Snapshot::new(cluster, nodes, told_at_ms, options);
            kubernetes.with_fits(fits);
            kubernetes.with_totals(totals);
            // Node by node, whether its agent reports; nothing where the nodes are not known.
            let mut reports = reports;
            let views = kubernetes.nodes.iter().flat_map(|nodes| &nodes.nodes);
            let nodes = views.filter_map(|view| {
                let name = NodeName::new(&view.node.name).ok()?;
                let chosen = options.agent_nodes.selects(|key| view.node.label(key));
                let expectation = if chosen { Expectation::Expected } else { Expectation::NotExpected };
                let stored = next_of(&mut reports, name.as_str());
                let report_age = stored.filter(|_| ages == Ages::Count).map(|stored| stored.age(now));
                let counting = stored.filter(|stored| counts(stored));
                Some(agent_node(name, expectation, counting.map(|stored| &**stored), report_age, ages))
            });
            snapshot(nodes.collect(), BTreeMap::new(), fitted, Some(kubernetes))
        }
    }
}

/// A node of Kubernetes, as far as its agent goes.
fn agent_node(
    name: NodeName,
    expectation: Expectation,
    counting: Option<&Stored>,
    report_age: Option<Duration>,
    ages: Ages,
) -> Node {
    Node {
        name,
        agent: Agent {
            expectation,
            health: if counting.is_some() { AgentHealth::Up } else { AgentHealth::Down },
            report_age,
            clock_skew_ms: counting.filter(|_| ages == Ages::Count).and_then(Stored::clock_skew_ms),
        },
        figures: BTreeMap::new(),
        // Pods stand for the cgroups.
        cgroups: counting.map(|stored| node_cgroups(stored.sources())),
        gpu_source: counting.and_then(|stored| stored.sources().gpus),
    }
}

impl Used {
    /// It comes from a measurement.
    pub fn is_measured(&self) -> bool {
        *self != Self::default()
    }

    /// Adds another node's.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.appwrapper, other.appwrapper);
        add(&mut self.other, other.other);
        add(&mut self.system, other.system);
    }
}

fn local_node(name: &NodeName, stored: &Stored, now: Now) -> Node {
    let (expectation, report_age) = (Expectation::Expected, Some(stored.age(now)));
    if stored.is_silent(now) {
        let agent = Agent { expectation, health: AgentHealth::Down, report_age, clock_skew_ms: None };
        return Node { name: name.clone(), agent, figures: BTreeMap::new(), cgroups: None, gpu_source: None };
    }
    let report = stored.report();
    Node {
        name: name.clone(),
        agent: Agent { expectation, health: AgentHealth::Up, report_age, clock_skew_ms: stored.clock_skew_ms() },
        figures: local_figures(stored, &report),
        cgroups: Some(local_cgroups(stored.sources(), report.cgroups.as_ref())),
        gpu_source: stored.sources().gpus,
    }
}

fn local_figures(stored: &Stored, report: &Report) -> BTreeMap<Resource, Figures> {
    let Report { machine, gpus, .. } = report;
    let machine = machine.clone().unwrap_or_default();
    let millicores = machine.cpus_online.map(|cpus| u64::from(cpus) * 1000);
    let cpu = Figures {
        installed: millicores,
        healthy: millicores,
        used: Used { system: stored.cpu_busy_nanocores(), ..Used::default() },
    };
    let total = machine.memory_total_bytes;
    let used = memory_used_bytes(total, [machine.memory_free_bytes, machine.memory_inactive_file_bytes]);
    let memory = Figures { installed: total, healthy: total, used: Used { system: used, ..Used::default() } };
    let mut figures = gpus.as_ref().map(local_devices).unwrap_or_default();
    figures.insert(Resource::Cpu, cpu);
    figures.insert(Resource::Memory, memory);
    figures
}

/// One device, a GPU or a MIG instance.
struct Device {
    healthy: bool,
    utilization_ratio: Option<f64>,
}

/// GPUs, and MIG instances under the name that the device plugin's `mixed` strategy gives them: there is no kubelet to
/// say which strategy, or how many replicas.
fn local_devices(gpus: &Gpus) -> BTreeMap<Resource, Figures> {
    let mut devices: BTreeMap<Resource, Vec<Device>> = BTreeMap::new();
    let (mig, whole): (Vec<_>, Vec<_>) = gpus.devices.iter().partition(|gpu| gpu.mig_mode == Some(true));
    let remembered = gpus.remembered.unwrap_or(0) as usize;
    let expected = (gpus.devices.len() + gpus.lost_bus_ids.len()).max(remembered);
    if gpus.driver_version.is_empty() && expected == 0 {
        return BTreeMap::new();
    }
    devices.insert(
        Resource::extended("nvidia.com/gpu"),
        whole.iter().map(|gpu| Device::new(&gpu.unhealthy_reasons, gpu.utilization_ratio)).collect(),
    );
    for instance in mig.iter().flat_map(|gpu| &gpu.mig_instances) {
        // As the device plugin has it: 1g.10gb+me is nvidia.com/mig-1g.10gb.me.
        let name = format!("nvidia.com/mig-{}", instance.profile.replace('+', "."));
        let device = Device::new(&instance.unhealthy_reasons, instance.utilization_ratio);
        devices.entry(Resource::extended(&name)).or_default().push(device);
    }
    let lost = expected - gpus.devices.len();
    let figures = devices.into_iter().map(|(resource, devices)| {
        let lost = if resource == Resource::extended("nvidia.com/gpu") { lost } else { 0 };
        (resource, device_figures(&devices, lost))
    });
    figures.collect()
}

impl Device {
    fn new(unhealthy_reasons: &[String], utilization_ratio: Option<f64>) -> Self {
        Self { healthy: unhealthy_reasons.is_empty(), utilization_ratio }
    }
}

fn device_figures(devices: &[Device], lost: usize) -> Figures {
    let healthy = devices.iter().filter(|device| device.healthy).count();
    // A broken device that tells no figure does no work; a healthy one that tells none leaves the sum unknown.
    let known = devices.iter().filter(|device| device.healthy || device.utilization_ratio.is_some());
    let ratios: Option<Vec<f64>> = known.map(|device| device.utilization_ratio).collect();
    // Each is rounded by itself, so that no order of adding shows.
    let used = ratios.map(|ratios| ratios.into_iter().map(|ratio| (ratio * NANO).round() as u64).sum());
    Figures {
        installed: Some((devices.len() + lost) as u64),
        healthy: Some(healthy as u64),
        used: Used { system: used, ..Used::default() },
    }
}

/// With each cgroup's CPU time.
fn local_cgroups(sources: Sources, cgroups: Option<&Cgroups>) -> NodeCgroups {
    // A path that was removed and made again during the walk is there twice; ids grow, so the later one is meant.
    let mut by_path: BTreeMap<&str, (u64, Option<u64>)> = BTreeMap::new();
    // Agents may list pods by UID alone; a cgroup is shown by its path, and without one it is not.
    let named = cgroups.iter().flat_map(|cgroups| &cgroups.cgroups).filter(|cgroup| !cgroup.path.is_empty());
    for cgroup in named {
        let known = by_path.entry(&cgroup.path).or_insert((cgroup.id, cgroup.cpu_ns));
        if cgroup.id > known.0 {
            *known = (cgroup.id, cgroup.cpu_ns);
        }
    }
    let cpu_ns = by_path.into_iter().filter_map(|(path, (_, cpu_ns))| Some((path.to_owned(), cpu_ns?)));
    NodeCgroups { cpu_ns: cpu_ns.collect(), ..node_cgroups(sources) }
}

/// What is known of them together.
fn node_cgroups(sources: Sources) -> NodeCgroups {
    let Sources { cgroups: source, seen, dropped, .. } = sources;
    NodeCgroups { source, seen, dropped, cpu_ns: Vec::new() }
}

fn sums(nodes: &[Node]) -> BTreeMap<Resource, ClusterFigures> {
    // Every machine has these two, so that none is measured is known.
    let both = [Resource::Cpu, Resource::Memory].map(|resource| (resource, ClusterFigures::default()));
    let mut cluster = BTreeMap::from(both);
    for (resource, figures) in nodes.iter().flat_map(|node| &node.figures) {
        let all = cluster.entry(resource.clone()).or_default();
        add(&mut all.sums.installed, figures.installed);
        add(&mut all.sums.healthy, figures.healthy);
        add(&mut all.sums.used.appwrapper, figures.used.appwrapper);
        add(&mut all.sums.used.other, figures.used.other);
        add(&mut all.sums.used.system, figures.used.system);
        all.nodes_measured += u64::from(figures.used.is_measured());
    }
    cluster
}

fn add(sum: &mut Option<u64>, amount: Option<u64>) {
    if let Some(amount) = amount {
        *sum = Some(sum.unwrap_or(0).saturating_add(amount));
    }
}
