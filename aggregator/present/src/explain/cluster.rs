//! The cluster as it is told: the ladder added up, where what is withheld sits, what could start.
use std::collections::{BTreeMap, BTreeSet};

use mcad_accounting::cluster::{self, Missing};
use mcad_accounting::ladder::{self, NodeState, Reason};
use mcad_accounting::merge::{AgentHealth, Snapshot};
use mcad_accounting::object::Kind;
use mcad_accounting::options::accelerator::is_well_known;
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::{self, AppWrappers, Capacity, Nodes};
use serde::Serialize;

use super::ladder::{ByResource, Rung, Shares, whole};
use super::node::Node;

/// So many nodes are named for each reason; a person reads no more, and an answer stays small on any cluster.
const NAMED: usize = 20;

/// One value for each reason that there is.
pub type ByReason<T> = BTreeMap<&'static str, T>;

/// The cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cluster {
    /// What is missing from the input: what rests on it is absent.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub missing: BTreeSet<Missing>,
    /// Objects that bring more than one object may: AppWrappers among them are left out, of others the surplus.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Bound, unfinished pods whose node is not there; where Nodes are missing, all that are bound. Absent: Pods are missing, or
    /// there is no Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphans: Option<Orphans>,
    /// Nodes by whether they take new pods. Absent: nodes are not known, or there is no Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<BTreeMap<&'static str, u64>>,
    /// Nodes by whether their agent reports.
    pub agents: Agents,
    /// The ladder, added up over the nodes. Absent: Nodes are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ladder: Option<ByResource<Rung>>,
    /// Where what is withheld, phantom or overcommitted sits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_by_reason: Option<ByResource<ByReason<OnNodes>>>,
    /// How many nodes `used` comes from. Absent: no agent has measured.
    #[serde(skip_serializing_if = "ByResource::is_empty")]
    pub nodes_measured: ByResource<u64>,
    /// Pods that could start now, by how many GPUs they ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_slots: Option<Vec<Slots>>,
    /// The most free GPUs on one admissible node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_largest_free_block_devices: Option<i64>,
    /// The same of every other accelerator that a node has, by the name that nodes declare.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other_accelerators: BTreeMap<String, Shape>,
    /// Resources that are shares of devices, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub shares: BTreeMap<String, Shares>,
    /// The accelerators of which the nodes have something, or pods ask for.
    #[serde(skip)]
    pub accelerators: Vec<Resource>,
    /// What MCAD believes it can hand out: its allocatable capacity. Absent: not known, or not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcad_allocatable: Option<ByResource<i64>>,
    /// How many AppWrappers there are. Absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appwrappers: Option<Counts>,
}

/// Objects of one list of which the same is too much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The list, as `mcad_aggregator_objects_left_out` names it.
    pub list: String,
    /// What is too much, likewise.
    pub reason: &'static str,
    /// How many they are.
    pub count: u64,
    /// The first of them by namespace and name.
    pub named: Vec<String>,
    /// The same as a sentence.
    pub sentence: String,
}

/// Nodes by whether their agent reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Agents {
    /// It does.
    pub up: u64,
    /// It fell silent, or never did.
    pub down: u64,
}

/// Nodes that an amount sits on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OnNodes {
    /// Those with most of it first, then by name.
    pub nodes: Vec<OnNode>,
    /// How many more there are that are not named.
    pub more_nodes: u64,
}

/// An amount on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnNode {
    /// The node.
    pub node: String,
    /// How much: millicores, bytes or devices.
    pub amount: i64,
}

/// Pods of so many GPUs that could start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Slots {
    /// GPUs that each asks for.
    pub gpus: u32,
    /// How many of them could start.
    pub pods: i64,
}

/// How what is free of an accelerator is spread over nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Pods that could start now, by how many devices they ask for.
    pub slots: Vec<DeviceSlots>,
    /// The most free devices on one admissible node.
    pub largest_free_block_devices: i64,
}

/// Pods of so many devices that could start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceSlots {
    /// Devices that each asks for.
    pub count: u32,
    /// How many of them could start.
    pub pods: i64,
}

/// Bound, unfinished pods whose node is not there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Orphans {
    /// How many they are.
    pub pods: u64,
    /// What they request.
    pub requested: ByResource<i64>,
}

/// How many AppWrappers there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// In all.
    pub count: u64,
    /// Those that wait.
    pub waiting: u64,
    /// Those of each version and state, where there are any.
    pub by_state: Vec<InState>,
}

/// AppWrappers of one version and state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InState {
    /// `v1beta1` or `v1beta2`.
    pub version: &'static str,
    /// `status.state` or `status.phase`; empty before a controller has seen them.
    pub state: String,
    /// How many.
    pub count: u64,
}

impl LeftOut {
    fn new(of: &cluster::LeftOut) -> Self {
        let kind = of.source.kind();
        let one = of.count == 1;
        let (noun, so) = match (kind, one) {
            (Kind::AppWrapper, true) => ("AppWrapper", "is left out"),
            (Kind::AppWrapper, false) => ("AppWrappers", "are left out"),
            (Kind::Node, true) => ("Node", "is shown without the surplus"),
            (Kind::Node, false) => ("Nodes", "are shown without the surplus"),
            (Kind::Pod, true) => ("Pod", "is counted without the surplus"),
            (Kind::Pod, false) => ("Pods", "are counted without the surplus"),
        };
        let more = if of.count > of.named.len() { ", …" } else { "" };
        let has = if one { "it has" } else { "each has" };
        let named = of.named.join(", ");
        Self {
            list: of.source.to_string(),
            reason: of.excess.reason(),
            count: of.count as u64,
            sentence: format!("{} {noun} {so} ({named}{more}): {has} {}.", of.count, of.excess),
            named: of.named.clone(),
        }
    }
}

impl Cluster {
    /// As a snapshot shows it.
    pub fn new(snapshot: &Snapshot) -> Self {
        let up = snapshot.nodes.iter().filter(|node| node.agent.health == AgentHealth::Up).count() as u64;
        let in_all = Node::count(snapshot).unwrap_or(snapshot.nodes.len()) as u64;
        let mut cluster = Self {
            missing: BTreeSet::new(),
            left_out: Vec::new(),
            orphans: None,
            nodes: None,
            agents: Agents { up, down: in_all.saturating_sub(up) },
            ladder: None,
            nodes_by_reason: None,
            nodes_measured: ByResource::default(),
            gpu_slots: None,
            gpu_largest_free_block_devices: None,
            other_accelerators: BTreeMap::new(),
            shares: BTreeMap::new(),
            accelerators: Vec::new(),
            mcad_allocatable: None,
            appwrappers: None,
        };
        let Some(kubernetes) = &snapshot.kubernetes else {
            cluster.add_local(snapshot);
            cluster.note_accelerators(is_well_known);
            return cluster;
        };
        cluster.missing.clone_from(&kubernetes.missing);
        cluster.left_out = kubernetes.left_out.iter().map(LeftOut::new).collect();
        cluster.orphans = kubernetes
            .orphans
            .as_ref()
            .map(|orphans| Orphans { pods: orphans.pods, requested: ByResource::from(&orphans.requested) });
        if let Some(nodes) = &kubernetes.nodes {
            cluster.add_nodes(nodes);
            cluster.note_accelerators(|name| kubernetes.options.is_accelerator(name));
        }
        if let Capacity::V1(Some(sum)) = &kubernetes.capacity {
            cluster.mcad_allocatable = Some(ByResource::from(*sum));
        }
        cluster.appwrappers = kubernetes.appwrappers.as_ref().map(Counts::new);
        cluster
    }

    fn add_local(&mut self, snapshot: &Snapshot) {
        let rung = |(resource, all): (&Resource, &mcad_accounting::merge::ClusterFigures)| {
            (resource.clone(), Rung::local(resource, &all.sums))
        };
        self.ladder = Some(snapshot.cluster.iter().map(rung).collect());
        let measured = snapshot.cluster.iter().filter(|(_, all)| all.nodes_measured > 0);
        self.nodes_measured = measured.map(|(resource, all)| (resource.clone(), all.nodes_measured)).collect();
    }

    fn add_nodes(&mut self, nodes: &Nodes) {
        let states = NodeState::ALL.into_iter().map(|state| (state.label(), nodes.states[state as usize]));
        self.nodes = Some(states.collect());
        let used = |resource| nodes.used.get(resource);
        let rungs = nodes
            .sums
            .iter()
            .map(|(resource, sum)| (resource.clone(), Rung::new(resource, sum, used(resource).map(|all| &all.used))));
        self.ladder = Some(rungs.collect());
        self.nodes_by_reason = Some(by_reason(nodes));
        let measured = nodes.used.iter().filter(|(_, all)| all.nodes > 0);
        self.nodes_measured = measured.map(|(resource, all)| (resource.clone(), all.nodes)).collect();
        let shares = nodes.shares.iter();
        self.shares = shares.map(|(resource, shares)| (resource.name().to_owned(), (*shares).into())).collect();
        let Some(of_free) = &nodes.shapes else { return };
        let gpu_slots = of_free.gpu.slots.iter().map(|(gpus, pods)| Slots { gpus: *gpus, pods: whole(*pods) });
        self.gpu_slots = Some(gpu_slots.collect());
        self.gpu_largest_free_block_devices = Some(whole(of_free.gpu.largest_block));
        let others = of_free.others.iter();
        self.other_accelerators =
            others.map(|(resource, shape)| (resource.name().to_owned(), Shape::new(shape))).collect();
    }

    fn note_accelerators(&mut self, is_one: impl Fn(&str) -> bool) {
        let ladder = self.ladder.iter().flat_map(ByResource::iter);
        let there = ladder.filter(|(resource, rung)| is_one(resource.name()) && !rung.is_nothing());
        self.accelerators = there.map(|(resource, _)| resource).collect();
    }

    /// The most free devices of an accelerator on one admissible node. Absent: not known, or it is none.
    pub fn largest_free_block(&self, resource: &Resource) -> Option<i64> {
        match resource {
            Resource::Gpu => self.gpu_largest_free_block_devices,
            other => Some(self.other_accelerators.get(other.name())?.largest_free_block_devices),
        }
    }

    /// Pods of an accelerator that could start now, by how many devices they ask for. Absent: not known, or it is none.
    pub fn slots(&self, resource: &Resource) -> Option<Vec<DeviceSlots>> {
        match resource {
            Resource::Gpu => {
                let slots = self.gpu_slots.as_ref()?.iter();
                Some(slots.map(|slots| DeviceSlots { count: slots.gpus, pods: slots.pods }).collect())
            }
            other => Some(self.other_accelerators.get(other.name())?.slots.clone()),
        }
    }
}

impl Shape {
    fn new(shape: &snapshot::Shape) -> Self {
        let slots = shape.slots.iter().map(|(count, pods)| DeviceSlots { count: *count, pods: whole(*pods) });
        Self { slots: slots.collect(), largest_free_block_devices: whole(shape.largest_block) }
    }
}

/// What can sit on a node and is worth a look: its label, and how much of a rung it is.
fn reasons(rung: &ladder::Rung) -> impl Iterator<Item = (&'static str, i128)> {
    let account = rung.account.as_ref();
    let withheld = account.map(|account| Reason::ALL.map(|reason| (reason.label(), account.withheld.get(reason))));
    let overcommitted = account.map(|account| ("overcommitted", account.overcommitted));
    let phantom = rung.phantom.map(|phantom| ("phantom", phantom));
    withheld.into_iter().flatten().chain(overcommitted).chain(phantom).filter(|(_, amount)| *amount != 0)
}

fn by_reason(nodes: &Nodes) -> ByResource<ByReason<OnNodes>> {
    let mut found: BTreeMap<&Resource, ByReason<Vec<(i128, &str)>>> = BTreeMap::new();
    for view in &nodes.nodes {
        for (resource, rung) in &view.rungs {
            for (reason, amount) in reasons(rung) {
                let on = found.entry(resource).or_default().entry(reason).or_default();
                on.push((amount, &view.node.name));
            }
        }
    }
    let on_nodes = |mut on: Vec<(i128, &str)>| {
        on.sort_by(|(a, at), (b, bt)| b.cmp(a).then_with(|| at.cmp(bt)));
        let more_nodes = on.len().saturating_sub(NAMED) as u64;
        let named = on.into_iter().take(NAMED);
        let nodes = named.map(|(amount, node)| OnNode { node: node.to_owned(), amount: whole(amount) }).collect();
        OnNodes { nodes, more_nodes }
    };
    let by_reason = found.into_iter().map(|(resource, reasons)| {
        (resource.clone(), reasons.into_iter().map(|(reason, on)| (reason, on_nodes(on))).collect())
    });
    by_reason.collect()
}

impl Counts {
    fn new(all: &AppWrappers) -> Self {
        let there = all.states.iter().filter(|(_, count)| **count > 0);
        let in_state = there.map(|((version, state), count)| InState {
            version: version.label(),
            state: (**state).to_owned(),
            count: *count,
        });
        Self {
            count: all.appwrappers.len() as u64,
            waiting: all.appwrappers.iter().filter(|view| view.waiting.is_some()).count() as u64,
            by_state: in_state.collect(),
        }
    }
}
