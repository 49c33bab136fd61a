//! One node as it is told: whether it takes pods, its ladder, its devices.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcad_accounting::measure::Device;
use mcad_accounting::merge::{self, AgentHealth, Snapshot};
use mcad_accounting::object::{Effect, Taint};
use mcad_accounting::options::GpuMetrics;
use mcad_accounting::views::NodeView;
use serde::Serialize;

use super::Unanswered;
use super::amount::span;
use super::ladder::{ByResource, Rung, Shares};

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it takes new pods: `admissible`, or why not. Absent: there is no Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Taints that keep pods off, as `key=value:effect`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// Its agent.
    pub agent: Agent,
    /// The ladder.
    pub ladder: ByResource<Rung>,
    /// Resources that are shares of devices, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub shares: BTreeMap<String, Shares>,
    /// GPUs and MIG instances in order of UUID. Absent: no agent reports them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Vec<Gpu>>,
}

/// The agent of a node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agent {
    /// `up` or `down`.
    pub state: &'static str,
    /// Time since its last report. Absent: it never reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_age_seconds: Option<f64>,
}

impl Agent {
    /// Whether it reports, and what that means for the node's values, as people read it.
    pub fn sentence(&self) -> String {
        match (self.state, self.report_age_seconds) {
            ("up", Some(age)) => format!("Its agent reported {} ago.", span(age)),
            ("up", None) => "Its agent reports.".to_owned(),
            (_, Some(age)) => {
                format!("Its agent has been silent for {}: hardware is as kubelet declares it.", span(age))
            }
            (_, None) => {
                "No agent reports: hardware is as kubelet declares it, and what is in use is unknown.".to_owned()
            }
        }
    }
}

/// A GPU or a MIG instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gpu {
    /// Its UUID.
    pub uuid: String,
    /// Product name; of an instance, its parent's.
    pub model: String,
    /// PCI address; of an instance, its parent's.
    pub bus_id: String,
    /// The profile of a MIG instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_profile: Option<String>,
    /// The UUID of a MIG instance's GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Whether it works.
    pub healthy: bool,
    /// If not, why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhealthy_reasons: Vec<String>,
    /// Part of the last sampling period in which a kernel ran on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization_ratio: Option<f64>,
    /// Memory in use on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// Memory it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Who holds it; nobody: an empty list. Absent: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<Vec<Holder>>,
}

/// A container that holds a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Itself.
    pub container: String,
}

impl Node {
    /// How many nodes there are. Absent: they are not known.
    pub fn count(snapshot: &Snapshot) -> Option<usize> {
        match &snapshot.kubernetes {
            Some(kubernetes) => Some(kubernetes.nodes.as_ref()?.nodes.len()),
            None => Some(snapshot.nodes.len()),
        }
    }

    /// The name of the node at that place in the order of names; empty where there is none.
    pub fn name_at(at: usize, snapshot: &Snapshot) -> &str {
        match &snapshot.kubernetes {
            Some(_) => view_at(at, snapshot).map_or("", |view| &view.node.name),
            None => snapshot.nodes.get(at).map_or("", |node| node.name.as_str()),
        }
    }

    /// The node of that name.
    pub fn named(name: &str, snapshot: &Snapshot) -> Result<Self, Unanswered> {
        let count = Self::count(snapshot).ok_or(Unanswered::NodesUnknown)?;
        let found = (0..count).find(|at| Self::name_at(*at, snapshot) == name);
        found.map(|at| Self::at(at, snapshot)).ok_or_else(|| Unanswered::NoSuchNode(name.to_owned()))
    }

    /// The node at that place in the order of names, which must be one.
    pub fn at(at: usize, snapshot: &Snapshot) -> Self {
        let name = Self::name_at(at, snapshot).to_owned();
        // A name that Kubernetes would refuse has no agent.
        let of_agent = snapshot.nodes.binary_search_by(|node| node.name.as_str().cmp(&name)).ok();
        let of_agent = of_agent.map(|at| &snapshot.nodes[at]);
        let agent = Agent::new(of_agent);
        let Some(view) = view_at(at, snapshot) else {
            let figures = of_agent.iter().flat_map(|node| &node.figures);
            let ladder = figures.map(|(resource, figures)| (resource.clone(), Rung::local(resource, figures)));
            let (ladder, shares) = (ladder.collect(), BTreeMap::new());
            return Self { name, state: None, taints: Vec::new(), agent, ladder, shares, gpus: None };
        };
        let with_gpus = snapshot.kubernetes.as_ref().is_some_and(|k| k.options.gpu_metrics == GpuMetrics::On);
        let measured = view.measured.as_ref().filter(|_| with_gpus);
        let repelling = view.node.taints.iter().filter(|taint| taint.effect.repels());
        Self {
            name,
            state: Some(view.state.label()),
            taints: repelling.map(spelled).collect(),
            agent,
            ladder: ladder(view),
            shares: view.shares.iter().map(|(resource, of)| (resource.name().to_owned(), (*of).into())).collect(),
            gpus: measured.map(|measured| measured.devices.iter().map(Gpu::new).collect()),
        }
    }
}

fn view_at(at: usize, snapshot: &Snapshot) -> Option<&NodeView> {
    snapshot.kubernetes.as_ref()?.nodes.as_ref()?.nodes.get(at).map(|view| &**view)
}

fn ladder(view: &NodeView) -> ByResource<Rung> {
    let used = |resource| view.measured.as_ref().and_then(|measured| measured.used.get(resource));
    view.rungs.iter().map(|(resource, rung)| (resource.clone(), Rung::new(resource, rung, used(resource)))).collect()
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
    fn new(node: Option<&merge::Node>) -> Self {
        let up = node.is_some_and(|node| node.agent.health == AgentHealth::Up);
        let age = node.and_then(|node| node.agent.report_age);
        Self { state: if up { "up" } else { "down" }, report_age_seconds: age.as_ref().map(Duration::as_secs_f64) }
    }
}

impl Gpu {
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Agent;

    #[test]
    fn an_agents_sentence_tells_for_how_long_it_has_been_silent_and_what_that_means() {
        let check = |state, report_age_seconds, expected| {
            assert_eq!(Agent { state, report_age_seconds }.sentence(), expected);
        };
        check("up", Some(4.0), "Its agent reported 4 s ago.");
        check("up", None, "Its agent reports.");
        check("down", Some(300.0), "Its agent has been silent for 5 min: hardware is as kubelet declares it.");
        check("down", None, "No agent reports: hardware is as kubelet declares it, and what is in use is unknown.");
    }
}
