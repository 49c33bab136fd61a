//! One node: whether it accepts new pods, its ladder, its devices.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcad_accounting::ladder::NodeState;
use mcad_accounting::measure::Device;
use mcad_accounting::object::{Effect, Taint};
use mcad_accounting::options::GpuMetrics;
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::agent::{self, AgentHealth};
use mcad_accounting::views::NodeView;
use serde::Serialize;

use super::Unanswered;
use super::amount::{Rounding, count, list, printable, span, words};
use super::ladder::{ByResource, LadderEntry, Shares};

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeEntry {
    /// Its name.
    pub name: String,
    /// Whether it accepts new pods: `admissible`, or why not. `None` without Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Taints that repel pods, as `key=value:effect`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// Its agent.
    pub agent: Agent,
    /// The ladder.
    pub ladder: ByResource<LadderEntry>,
    /// Resources whose units are shares of devices, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub shares: BTreeMap<String, Shares>,
    /// GPUs and MIG instances in order of UUID. `None` if no agent reports, or it did not examine GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Vec<GpuEntry>>,
    /// All cgroups. Empty with Kubernetes, where pods are shown instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<CgroupEntry>,
}

/// The agent of a node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agent {
    /// `up` or `down`.
    pub state: &'static str,
    /// Time since its last report. `None` if it never reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_age_seconds: Option<f64>,
    /// How it reads cgroups: `bpf`, `cgroupfs` or `none`. `None` while it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_source: Option<&'static str>,
    /// Whether its GPUs are simulated by `fake-nvml`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_fake_gpus: bool,
}

/// The most nodes that are named in a sentence.
const NAMED: usize = 5;

/// A sentence about nodes whose GPUs are simulated, by name. `None` if there are none.
pub fn simulated<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Option<String> {
    some(nodes).map(|nodes| format!("FAKE: the GPUs of {nodes} are simulated."))
}

/// Sentences about nodes whose GPUs have stray processes or unclaimed memory, by name.
pub fn amiss(nodes: &[NodeEntry]) -> impl Iterator<Item = String> {
    let with = |is: fn(&GpuEntry) -> bool| {
        some(nodes.iter().filter(|node| node.gpus.iter().flatten().any(is)).map(|node| &*node.name))
    };
    let strays = with(|gpu| gpu.strays.is_some_and(|strays| strays > 0));
    let unclaimed = with(|gpu| gpu.unclaimed_memory_bytes.is_some_and(|bytes| bytes > 0));
    let strays =
        strays.map(|nodes| format!("GPUs of {nodes} have processes of no pod, or of pods that do not hold them."));
    let unclaimed =
        unclaimed.map(|nodes| format!("GPUs of {nodes} have memory in use that a dead process left behind."));
    strays.into_iter().chain(unclaimed)
}

/// The first of these names. `None` if there are none.
fn some<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut nodes = nodes.into_iter().map(printable);
    let mut names: Vec<_> = nodes.by_ref().take(NAMED).collect();
    let more = nodes.count() as u64;
    if more > 0 {
        names.push(count(more, "more node", "more nodes"));
    }
    (!names.is_empty()).then(|| list(&names))
}

/// The names of the nodes whose GPUs are simulated.
pub fn with_fake_gpus(nodes: &[NodeEntry]) -> impl Iterator<Item = &str> {
    nodes.iter().filter(|node| node.agent.has_fake_gpus).map(|node| &*node.name)
}

/// A cgroup of a machine without Kubernetes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CgroupEntry {
    /// Its path below the root of the cgroup file system.
    pub path: String,
    /// CPU time that it and all cgroups below it have used.
    pub cpu_seconds: f64,
}

impl Agent {
    /// A sentence on whether the agent reports and what that means for the node's values.
    pub fn sentence(&self) -> String {
        match (self.state, self.report_age_seconds) {
            ("up", Some(age)) => format!("The agent reported {} ago.", span(age)),
            ("up", None) => "The agent reports.".to_owned(),
            (_, Some(age)) => {
                format!("The agent has not reported for {}: hardware values are those declared by kubelet.", span(age))
            }
            (_, None) => {
                "No agent reports: hardware values are those declared by kubelet, and usage is unknown.".to_owned()
            }
        }
    }
}

/// A GPU or a MIG instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GpuEntry {
    /// Its UUID.
    pub uuid: String,
    /// Product name; for an instance, that of its parent.
    pub model: String,
    /// PCI address; for an instance, that of its parent.
    pub bus_id: String,
    /// The profile of a MIG instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_profile: Option<String>,
    /// The UUID of a MIG instance's GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Whether the device works.
    pub healthy: bool,
    /// Why the device does not work. Empty if it works.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhealthy_reasons: Vec<String>,
    /// Fraction of the last sampling period in which a kernel ran on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization_ratio: Option<f64>,
    /// Memory in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// Total memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// The containers that hold it. `None` if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<Vec<Holder>>,
    /// The number of processes on it that belong to no pod, or to a pod that does not hold it. `None` if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strays: Option<u64>,
    /// Memory in use, in two reports in a row, by no process on it. 0 if it is at most `--unclaimed-memory`. `None` if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unclaimed_memory_bytes: Option<u64>,
}

/// A container that holds a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod's name.
    pub pod: String,
    /// Its name.
    pub container: String,
}

impl NodeEntry {
    /// The node of that name.
    pub fn named(name: &str, snapshot: &Snapshot) -> Result<Self, Unanswered> {
        let view = snapshot.nodes.as_ref().ok_or(Unanswered::NodesUnknown)?.get(name);
        view.map(|view| Self::new(view, snapshot)).ok_or_else(|| Unanswered::NoSuchNode(name.to_owned()))
    }

    /// A node of a snapshot.
    pub fn new(view: &NodeView, snapshot: &Snapshot) -> Self {
        let measured = view.measured.as_ref().filter(|_| snapshot.options.gpu_metrics == GpuMetrics::On);
        let agent = snapshot.agent(&view.node.name);
        // An agent without a source of GPUs found none because it did not look.
        let examines_gpus = agent.and_then(|agent| agent.sources?.gpus).is_some();
        let repelling = view.node.taints.iter().filter(|taint| taint.effect.repels());
        Self {
            name: (*view.node.name).to_owned(),
            state: view.state.map(NodeState::label),
            taints: repelling.map(spelled).collect(),
            agent: Agent::new(agent),
            ladder: ladder(view),
            shares: view.shares.iter().map(|(resource, of)| (resource.name().to_owned(), (*of).into())).collect(),
            gpus: measured
                .filter(|_| examines_gpus)
                .map(|measured| measured.devices.iter().map(GpuEntry::new).collect()),
            cgroups: view.measured.iter().flat_map(|measured| &measured.cgroup_cpu_ns).map(CgroupEntry::new).collect(),
        }
    }
}

fn ladder(view: &NodeView) -> ByResource<LadderEntry> {
    let used = |resource| view.measured.as_ref().and_then(|measured| measured.used.get(resource));
    view.rungs
        .iter()
        .map(|(resource, rung)| (resource.clone(), LadderEntry::new(resource, rung, used(resource))))
        .collect()
}

fn spelled(taint: &Taint) -> String {
    let effect = match taint.effect {
        Effect::NoSchedule => "NoSchedule",
        Effect::NoExecute => "NoExecute",
        Effect::Other => "",
    };
    let value = if taint.value.is_empty() { String::new() } else { format!("={}", taint.value) };
    format!("{}{value}:{effect}", taint.key)
}

impl Agent {
    fn new(agent: Option<&agent::Agent>) -> Self {
        let up = agent.is_some_and(|agent| agent.health == AgentHealth::Up);
        let age = agent.and_then(|agent| agent.report_age);
        Self {
            state: if up { "up" } else { "down" },
            report_age_seconds: age.as_ref().map(Duration::as_secs_f64),
            cgroup_source: agent.and_then(|agent| Some(agent.sources?.cgroups?.label())),
            has_fake_gpus: agent.is_some_and(agent::Agent::has_fake_gpus),
        }
    }
}

impl CgroupEntry {
    fn new((path, cpu_ns): &(Box<str>, u64)) -> Self {
        Self { path: path.to_string(), cpu_seconds: *cpu_ns as f64 / 1e9 }
    }
}

impl GpuEntry {
    /// The number of stray processes on it, in words, if there are any.
    pub fn strays_in_words(&self) -> Option<String> {
        self.strays.filter(|strays| *strays > 0).map(|strays| count(strays, "stray process", "stray processes"))
    }

    /// Memory that a dead process left behind, in words, if there is any.
    pub fn unclaimed_in_words(&self) -> Option<String> {
        let bytes = self.unclaimed_memory_bytes.filter(|bytes| *bytes > 0)?;
        Some(format!("{} unclaimed", words(&Resource::Memory, bytes.into(), Rounding::Nearest)))
    }

    fn new(device: &Device) -> Self {
        let holders = |holders: &[[Arc<str>; 3]]| {
            let holder = |[namespace, pod, container]: &[Arc<str>; 3]| Holder {
                namespace: (**namespace).to_owned(),
                pod: (**pod).to_owned(),
                container: (**container).to_owned(),
            };
            holders.iter().map(holder).collect()
        };
        Self {
            uuid: (*device.uuid).to_owned(),
            model: (*device.model).to_owned(),
            bus_id: (*device.bus_id).to_owned(),
            mig_profile: device.mig.as_ref().map(|(_, profile)| (**profile).to_owned()),
            parent: device.mig.as_ref().map(|(parent, _)| (**parent).to_owned()),
            healthy: device.unhealthy_reasons.is_empty(),
            unhealthy_reasons: device.unhealthy_reasons.iter().map(|reason| (**reason).to_owned()).collect(),
            utilization_ratio: device.utilization_ratio,
            memory_used_bytes: device.memory_used_bytes,
            memory_total_bytes: device.memory_total_bytes,
            held_by: device.holders.as_deref().map(holders),
            strays: device.strays,
            unclaimed_memory_bytes: device.unclaimed_memory_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Agent;

    #[test]
    fn an_agents_sentence_tells_for_how_long_it_has_been_silent_and_what_that_means() {
        let check = |state, report_age_seconds, expected| {
            let agent = Agent { state, report_age_seconds, cgroup_source: None, has_fake_gpus: false };
            assert_eq!(agent.sentence(), expected);
        };
        check("up", Some(4.0), "The agent reported 4 s ago.");
        check("up", None, "The agent reports.");
        check(
            "down",
            Some(300.0),
            "The agent has not reported for 5 min: hardware values are those declared by kubelet.",
        );
        check("down", None, "No agent reports: hardware values are those declared by kubelet, and usage is unknown.");
    }
}
