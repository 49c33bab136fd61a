//! The cluster: the sum of the nodes' ladders, the nodes where amounts are withheld, the pods that could start.
pub mod pools;

use std::collections::{BTreeMap, BTreeSet};

use mcad_accounting::cluster::{self, Missing};
use mcad_accounting::ladder::{self, Reason};
use mcad_accounting::object::{Kind, Version};
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::agent::AgentHealth;
use mcad_accounting::snapshot::{self, AppWrappers, Capacity, Nodes, Snapshot};
use serde::Serialize;

use self::pools::Pool;
use super::claims::Claims;
use super::held::HeldGpus;
use super::ladder::{ByResource, LadderEntry, Shares, by_state, whole};
use super::queues::{InAllFlavors, NoQueues};

/// The most nodes that are named for each reason: a person reads no more, and an answer stays small on any cluster.
const NAMED: usize = 20;

/// One value for each reason that occurs.
pub type ByReason<T> = BTreeMap<&'static str, T>;

/// The cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cluster {
    /// What is missing from the input: values that depend on it are absent.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub missing: BTreeSet<Missing>,
    /// Objects that exceed the limits of one object: AppWrappers are left out, of other objects only the surplus.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Bound, unfinished pods whose node does not exist; if Nodes are missing, all bound pods. `None` if Pods are missing, or
    /// without Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphans: Option<Orphans>,
    /// Nodes by whether they accept new pods. `None` if Nodes are not known, or without Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<BTreeMap<&'static str, u64>>,
    /// Nodes by whether their agent reports.
    pub agents: Agents,
    /// The sum of the nodes' ladders. `None` if Nodes are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ladder: Option<ByResource<LadderEntry>>,
    /// The nodes with withheld, phantom or overcommitted amounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_by_reason: Option<ByResource<ByReason<OnNodes>>>,
    /// The number of nodes whose measurements `used` includes. Empty if no agent has measured.
    #[serde(skip_serializing_if = "ByResource::is_empty")]
    pub nodes_measured: ByResource<u64>,
    /// What pods do with the GPUs that they hold. `None` if they hold none, or if no agent says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_gpus: Option<HeldGpus>,
    /// Pods that could start now, by number of GPUs per pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_slots: Option<Vec<Slots>>,
    /// The most free GPUs on one admissible node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_largest_free_block_devices: Option<i64>,
    /// The same for every other accelerator that a node has, by the name that nodes declare.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other_accelerators: BTreeMap<String, Shape>,
    /// The same for each pool of nodes that have accelerators, by the pool's name. Empty if there are no pools, or Pods are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Pool>,
    /// Resources whose units are shares of devices, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub shares: BTreeMap<String, Shares>,
    /// The accelerators that nodes have or pods request.
    #[serde(skip)]
    pub accelerators: Vec<Resource>,
    /// The allocatable capacity that MCAD assumes. `None` if not known or not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcad_allocatable: Option<ByResource<i64>>,
    /// Devices and claims of Dynamic Resource Allocation. `None` if there are none or they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
    /// What stands behind the quotas of all flavors of Kueue. `None` if queues, Nodes or Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<ByResource<InAllFlavors>>,
    /// Why AppWrappers of v1beta2 have no queues. `None` if queues are known, or if there are no such AppWrappers.
    #[serde(skip)]
    pub no_queues: Option<NoQueues>,
    /// The numbers of AppWrappers. `None` if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appwrappers: Option<Counts>,
}

/// Objects of one list that exceed the same limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The list, as `mcad_aggregator_objects_left_out` names it.
    pub list: String,
    /// The exceeded limit, likewise.
    pub reason: &'static str,
    /// The number of these objects.
    pub count: u64,
    /// The first of them by namespace and name.
    pub named: Vec<String>,
    /// The same as a sentence.
    pub sentence: String,
}

/// Nodes by whether their agent reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Agents {
    /// Nodes whose agent reports.
    pub up: u64,
    /// Nodes whose agent stopped reporting or never reported.
    pub down: u64,
}

/// The nodes that have an amount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OnNodes {
    /// Nodes with the largest amount first, then by name.
    pub nodes: Vec<OnNode>,
    /// The number of further nodes that are not named.
    pub more_nodes: u64,
}

/// An amount on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnNode {
    /// The node.
    pub node: String,
    /// The amount: millicores, bytes or devices.
    pub amount: i64,
}

/// Pods with this many GPUs that could start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Slots {
    /// GPUs per pod.
    pub gpus: u32,
    /// The number of pods that could start.
    pub pods: i64,
}

/// How the free devices of an accelerator are spread over nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Pods that could start now, by number of devices per pod.
    pub slots: Vec<DeviceSlots>,
    /// The most free devices on one admissible node.
    pub largest_free_block_devices: i64,
}

/// Pods with this many devices that could start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceSlots {
    /// Devices per pod.
    pub count: u32,
    /// The number of pods that could start.
    pub pods: i64,
}

/// Bound, unfinished pods whose node does not exist.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Orphans {
    /// The number of pods.
    pub pods: u64,
    /// The resources that they request.
    pub requested: ByResource<i64>,
}

/// The numbers of AppWrappers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All AppWrappers.
    pub count: u64,
    /// Waiting AppWrappers.
    pub waiting: u64,
    /// AppWrappers by version and state, without zeros.
    pub by_state: Vec<InState>,
}

/// AppWrappers of one version and state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InState {
    /// `v1beta1` or `v1beta2`.
    pub version: &'static str,
    /// `status.state` or `status.phase`; empty before a controller has seen them.
    pub state: String,
    /// The number of AppWrappers.
    pub count: u64,
}

impl LeftOut {
    fn new(of: &cluster::LeftOut) -> Self {
        let kind = of.source.kind();
        let one = of.count == 1;
        let noun = if one { kind.name() } else { kind.plural() };
        let so = match (kind, one) {
            (Kind::Node, true) => "is shown without the surplus",
            (Kind::Node, false) => "are shown without the surplus",
            (Kind::Pod, true) => "is counted without the surplus",
            (Kind::Pod, false) => "are counted without the surplus",
            (_, true) => "is left out",
            (_, false) => "are left out",
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

fn held_gpus(snapshot: &Snapshot) -> Option<HeldGpus> {
    let mut all = snapshot.held.now?;
    all.appwrapper.add_all(&all.other);
    (all.appwrapper.sum() > 0).then(|| HeldGpus::from(&all.appwrapper))
}

impl Cluster {
    /// From a snapshot.
    pub fn new(snapshot: &Snapshot) -> Self {
        let up = snapshot.agents.iter().filter(|agent| agent.health == AgentHealth::Up).count() as u64;
        let in_all = snapshot.nodes.as_ref().map_or(0, |nodes| nodes.nodes.len()) as u64;
        let mut cluster = Self {
            missing: snapshot.missing.clone(),
            left_out: snapshot.left_out.iter().map(LeftOut::new).collect(),
            orphans: snapshot.orphans.as_ref().map(Orphans::new),
            nodes: None,
            agents: Agents { up, down: in_all.saturating_sub(up) },
            ladder: None,
            nodes_by_reason: None,
            nodes_measured: ByResource::default(),
            held_gpus: held_gpus(snapshot),
            gpu_slots: None,
            gpu_largest_free_block_devices: None,
            other_accelerators: BTreeMap::new(),
            pools: Vec::new(),
            shares: BTreeMap::new(),
            accelerators: Vec::new(),
            mcad_allocatable: None,
            claims: snapshot.devices.as_ref().map(Claims::new),
            quota: snapshot.queues.as_ref().filter(|all| all.knows_nodes && all.knows_pods).map(|all| {
                all.totals.iter().map(|(resource, total)| (resource.clone(), InAllFlavors::from(*total))).collect()
            }),
            no_queues: NoQueues::of(snapshot).filter(|_| has_queued(snapshot)),
            appwrappers: snapshot.appwrappers.as_ref().map(Counts::new),
        };
        if let Some(nodes) = &snapshot.nodes {
            cluster.add_nodes(nodes);
            cluster.note_accelerators(|name| snapshot.options.is_accelerator(name));
        }
        if let Capacity::V1(Some(sum)) = &snapshot.capacity {
            cluster.mcad_allocatable = Some(ByResource::from(*sum));
        }
        cluster
    }

    fn add_nodes(&mut self, nodes: &Nodes) {
        self.nodes = nodes.states.as_ref().map(by_state);
        let used = |resource| nodes.used.get(resource);
        let rungs = nodes.sums.iter().map(|(resource, sum)| {
            (resource.clone(), LadderEntry::new(resource, sum, used(resource).map(|all| &all.used)))
        });
        self.ladder = Some(rungs.collect());
        // Without Kubernetes nothing is allocated, so nothing is withheld.
        self.nodes_by_reason = nodes.states.is_some().then(|| by_reason(nodes));
        let measured = nodes.used.iter().filter(|(_, all)| all.nodes > 0);
        self.nodes_measured = measured.map(|(resource, all)| (resource.clone(), all.nodes)).collect();
        let shares = nodes.shares.iter();
        self.shares = shares.map(|(resource, shares)| (resource.name().to_owned(), (*shares).into())).collect();
        let Some(of_free) = &nodes.shapes else { return };
        if let Some(gpu) = &of_free.gpu {
            let slots = gpu.slots.iter().map(|(gpus, pods)| Slots { gpus: *gpus, pods: whole(*pods) });
            self.gpu_slots = Some(slots.collect());
            self.gpu_largest_free_block_devices = Some(whole(gpu.largest_block));
        }
        let others = of_free.others.iter();
        self.other_accelerators =
            others.map(|(resource, shape)| (resource.name().to_owned(), Shape::new(shape))).collect();
        self.pools = Pool::all(nodes);
    }

    fn note_accelerators(&mut self, is_one: impl Fn(&str) -> bool) {
        let ladder = self.ladder.iter().flat_map(ByResource::iter);
        let there = ladder.filter(|(resource, rung)| is_one(resource.name()) && !rung.is_nothing());
        self.accelerators = there.map(|(resource, _)| resource).collect();
    }

    /// The most free devices of an accelerator on one admissible node. `None` if not known, or if the resource is no accelerator.
    pub fn largest_free_block(&self, resource: &Resource) -> Option<i64> {
        match resource {
            Resource::Gpu => self.gpu_largest_free_block_devices,
            other => Some(self.other_accelerators.get(other.name())?.largest_free_block_devices),
        }
    }

    /// Pods that could start now, by number of devices per pod. `None` if not known, or if the resource is no accelerator.
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

/// Whether an AppWrapper is of the version that Kueue queues.
fn has_queued(snapshot: &Snapshot) -> bool {
    let mut all = snapshot.appwrappers.iter().flat_map(|all| &all.appwrappers);
    all.any(|view| view.appwrapper.version == Version::V1Beta2)
}

impl Orphans {
    fn new(orphans: &cluster::Orphans) -> Self {
        Self { pods: orphans.pods, requested: ByResource::from(&orphans.requested) }
    }
}

impl Shape {
    fn new(shape: &snapshot::Shape) -> Self {
        let slots = shape.slots.iter().map(|(count, pods)| DeviceSlots { count: *count, pods: whole(*pods) });
        Self { slots: slots.collect(), largest_free_block_devices: whole(shape.largest_block) }
    }
}

/// The withheld, overcommitted and phantom amounts of a resource, by label; without zeros.
fn reasons(rung: &ladder::ResourceLadder) -> impl Iterator<Item = (&'static str, i128)> {
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
