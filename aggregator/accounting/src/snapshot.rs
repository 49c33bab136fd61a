//! The accounting of the cluster at one instant: every node's ladder and agent, every AppWrapper, and MCAD's own
//! capacity metrics.
//!
//! Pure: computes one immutable value from the cluster, what agents found, the time and the options. It contains no
//! text and no labels; `mcad-present` adds them. In a cluster without Kubernetes, only nodes and agents are known.
pub mod agent;
pub mod held;
pub mod lines;
pub mod pools;
pub mod rest;
mod sums;
mod unplaced;
pub mod verdict;

mod shape;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use self::pools::Pools;
pub use self::shape::{Shape, Shapes};
pub use self::sums::{Sums, UsedInAll};
use crate::cluster::capacity;
use crate::cluster::devices::DeviceInput;
use crate::cluster::histogram::RequestHistograms;
use crate::cluster::{Cluster, Gained, LeftOut, Missing, Orphans, Source};
use crate::devices::NodeDevices;
use crate::devices::classes::Classes;
use crate::devices::demand::Requested;
use crate::devices::exceptions::{Exception, Exceptions};
use crate::devices::offer::Offers;
use crate::gpu_use::Uses;
use crate::hardware::shares::Shares;
use crate::input::Input;
use crate::ladder::{NodeState, ResourceLadder};
use crate::measure::{PodFigures, PodName, Share, Usage};
use crate::now::Now;
use crate::object::demand::PodGroup;
use crate::object::{AppWrapper, AppWrapperName, Origin, Version};
use crate::options::{OperatorMetrics, Options};
use crate::queue::facts::Facts;
use crate::queue::reason::{Standing, WaitingReason};
use crate::queue::{Accounts, AppWrapperQuota};
use crate::resource::{Amounts, Resource, Triple};
use crate::snapshot::agent::Agent;
use crate::snapshot::held::Held;
use crate::snapshot::lines::Lines;
use crate::snapshot::verdict::Fits;
use crate::totals::{Total, Totals};
use crate::views::NodeView;

pub use self::unplaced::{Part, PodCounts, Unplaced};

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the snapshot was made.
    pub made: Now,
    /// Whether this replica is the leader.
    pub role: Role,
    /// What reports the nodes: Kubernetes or, without Kubernetes, the agents.
    pub origin: Origin,
    /// The state of the agent of each node, by node.
    pub agents: Vec<Agent>,
    /// What depends on Nodes, and on Pods as far as they are known. `None` if Nodes are not known.
    pub nodes: Option<Nodes>,
    /// What depends on AppWrappers, and on Nodes and Pods as far as they are known. `None` if AppWrappers are not
    /// known.
    pub appwrappers: Option<AppWrappers>,
    /// Bound, unfinished pods whose node does not exist; if Nodes are not known, all bound pods. `None` if Pods are not
    /// known.
    pub orphans: Option<Orphans>,
    /// What is missing from the input. Metrics that depend on it are absent.
    pub missing: BTreeSet<Missing>,
    /// Individual pods, by namespace and name, if per-pod metrics are enabled and the pods were measured.
    pub pods: Vec<PodFigures>,
    /// What pods do with the GPUs that they hold.
    pub held: Held,
    /// What Dynamic Resource Allocation adds. `None` if no object of it exists, or devices and claims are not known.
    pub devices: Option<Devices>,
    /// Kueue's queues. `None` if Kueue is not there, or its objects are not known.
    pub queues: Option<Arc<Accounts>>,
    /// Whether the API server serves Kueue's kinds. `None` if that is not known.
    pub serves_queues: Option<bool>,
    /// Who waits for each queue of Kueue, and the Cohorts. `None` if `queues` is.
    pub lines: Option<Arc<Lines>>,
    /// MCAD's own capacity metrics. They depend on Nodes and Pods.
    pub capacity: Capacity,
    /// The number of quantities that could not be parsed, by list.
    pub unreadable: Vec<(Source, u64)>,
    /// The lists that are known.
    pub sources: Vec<Source>,
    /// Objects in these lists that exceed a limit and are left out, entirely or in part.
    pub left_out: Vec<LeftOut>,
    /// The options it was made with.
    pub options: Options,
    /// What the fit on nodes needs to know about devices. `None` if it was not requested, no AppWrapper needs it, or it
    /// is not known.
    pub offers: Option<Arc<Offers>>,
    /// When the snapshot was made from which the fit on nodes was computed. `None` if it has not been computed yet.
    pub fitted: Option<Now>,
    /// Information about the dump that the objects come from. `None` if they do not come from a dump.
    pub input: Option<Arc<Input>>,
}

/// The role of this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It exports the metrics of the cluster.
    Leader,
    /// It is kept up to date and exports only its own health.
    Standby,
}

/// The nodes and their sums.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// The nodes, by name.
    pub nodes: Vec<Arc<NodeView>>,
    /// The ladders added up over nodes, by resource.
    pub sums: BTreeMap<Resource, ResourceLadder>,
    /// Total usage, and how many nodes reported it. Empty if no agent reports.
    pub used: BTreeMap<Resource, UsedInAll>,
    /// The number of nodes in each state, in the order of [`NodeState::ALL`](crate::ladder::NodeState::ALL). `None`
    /// without Kubernetes.
    pub states: Option<[u64; 4]>,
    /// Resources that are shares of devices, added up over the nodes that have them.
    pub shares: BTreeMap<Resource, Shares>,
    /// How the free devices are distributed. `None` if Pods are not known.
    pub shapes: Option<Shapes>,
    /// The pools, and which of them each node is in.
    pub pools: Pools,
    /// What each pool has, by the name under which it is exported: empty for the nodes that are in no pool. Nothing if no node is in
    /// a pool, unless the options name the label of pools.
    pub by_pool: Vec<(Arc<str>, Sums)>,
}

/// Metrics of devices and claims in addition to the ladder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Devices {
    exceptions: Exceptions,
    knows_pods: bool,
    /// The number of GPUs that are held, but by no claim as a whole, by resource.
    pub partly_held: BTreeMap<Resource, u64>,
    /// The number of further partitions that admissible nodes could provide, by resource and profile.
    pub partition_slots: BTreeMap<(Resource, Arc<str>), u64>,
}

impl Devices {
    /// Exceptional conditions and their counts, as far as known, in order.
    pub fn exceptions(&self) -> impl Iterator<Item = (Exception, u64)> {
        self.exceptions.iter().filter(|(exception, _)| self.knows_pods || !exception.needs_pods())
    }

    fn new(views: &[Arc<NodeView>], elsewhere: &NodeDevices, knows_pods: bool) -> Self {
        let mut all = Self { exceptions: elsewhere.exceptions, knows_pods, ..Self::default() };
        for (view, sums) in views.iter().filter_map(|view| Some((view, view.devices.as_ref()?))) {
            all.exceptions.add_all(&sums.exceptions);
            for (resource, count) in &sums.partly_held {
                *all.partly_held.entry(resource.clone()).or_default() += count;
            }
            for (of, count) in &sums.partitions {
                let count = if view.state == Some(NodeState::Admissible) { *count } else { 0 };
                *all.partition_slots.entry(of.clone()).or_default() += count;
            }
        }
        all
    }
}

/// The AppWrappers.
#[derive(Clone, Debug)]
pub struct AppWrappers {
    /// The AppWrappers, by namespace and name.
    pub appwrappers: Vec<AppWrapperView>,
    /// The number of AppWrappers in each state.
    pub states: BTreeMap<(Version, Arc<str>), u64>,
    /// Histograms of the requests of v1beta1 AppWrappers.
    pub histograms: RequestHistograms,
}

/// One AppWrapper.
#[derive(Clone, Debug)]
pub struct AppWrapperView {
    /// The AppWrapper as declared.
    pub appwrapper: Arc<AppWrapper>,
    /// What its pods and their claims request.
    pub requested: Requested,
    /// Effective requests of its bound, unfinished pods, and what their claims hold. `None` if Pods are not known.
    pub allocated: Option<Amounts>,
    /// Usage of its pods. `None` if none of them is measured.
    pub used: Option<Usage>,
    /// Total usage of its pods, including pods that have ended.
    pub total: Total,
    /// How many pods it requests, and how many of them are bound to a node.
    pub pods: PodCounts,
    /// Why and since when it waits. `None` if it does not wait.
    pub waiting: Option<Waiting>,
    /// Its pods that still need a node, because it waits or is only partly placed. `None` if there are none or they are
    /// not known.
    pub unplaced: Option<Unplaced>,
}

/// An AppWrapper that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// How long it has waited. `None` if the start is not known.
    pub seconds: Option<f64>,
    /// What is missing from MCAD's sum; zero if the AppWrapper fits there. `None` if Nodes or Pods are not known.
    pub shortfall: Option<Triple>,
}

impl Waiting {
    /// Whether it fits MCAD's sum. `None` if the sum is not known.
    pub fn fits_aggregate(&self) -> Option<bool> {
        self.shortfall.map(|missing| missing == Triple::default())
    }
}

impl AppWrapperView {
    /// Pods that need a node, of an AppWrapper of which nothing else matters.
    pub fn of_pods(appwrapper: Arc<AppWrapper>, unplaced: Unplaced) -> Self {
        Self {
            pods: PodCounts { wanted: appwrapper.demand.pods(), bound: None },
            appwrapper,
            requested: Requested::default(),
            allocated: None,
            used: None,
            total: Total::default(),
            waiting: None,
            unplaced: (unplaced.needed > 0).then_some(unplaced),
        }
    }

    /// Why it waits for its quota or for its pods. `None` if it does not wait, or that is not known.
    pub fn waiting_reason(&self, quota: &AppWrapperQuota) -> Option<WaitingReason> {
        let of = &self.appwrapper;
        if of.is_deleting || !(of.is_waiting() || of.is_started() && !of.is_ready) {
            return None;
        }
        match quota.standing? {
            Standing::Waits(reason) => Some(reason),
            Standing::Started if self.pods.unbound()? == 0 => Some(WaitingReason::PodsUnready),
            Standing::Started => {
                let fits = self.unplaced.as_ref()?.verdict.as_ref()?.fits()?;
                Some(if fits { WaitingReason::PodsUnplaced } else { WaitingReason::NodesShort })
            }
        }
    }
}

/// MCAD's own capacity metrics. `None` inside if Nodes or Pods are not known.
#[derive(Clone, Debug)]
pub enum Capacity {
    /// The sum, in millicores, bytes, devices.
    V1(Option<Triple>),
    /// The capacity of each node, in billionths of cores, bytes, devices.
    V2(Option<Vec<(Arc<str>, Triple)>>),
    /// Not enabled.
    None,
}

impl Snapshot {
    /// Makes the snapshot of an instant from the views of all nodes, sorted by name, without their agents and without
    /// the fit on nodes, which takes longer: see [`Self::with_fits`]. `now_ms` is the time that ages of objects are
    /// computed from; if it is `None`, ages are absent.
    pub fn new(
        cluster: &Cluster,
        views: Vec<Arc<NodeView>>,
        made: Now,
        now_ms: impl Into<Option<i64>>,
        options: &Options,
    ) -> Self {
        let known = cluster.knows_nodes() && cluster.knows_pods();
        let knows_devices = cluster.device_input() == DeviceInput::Known;
        let elsewhere = knows_devices.then(|| NodeDevices::elsewhere(cluster, &options.device_resources));
        let capacity = match options.operator_metrics {
            OperatorMetrics::V1 => Capacity::V1(known.then(|| capacity::v1(cluster))),
            OperatorMetrics::V2 => Capacity::V2(known.then(|| capacity::v2(cluster))),
            OperatorMetrics::None => Capacity::None,
        };
        let missing = cluster.missing();
        Self {
            made,
            role: Role::Leader,
            origin: cluster.origin(),
            agents: Vec::new(),
            appwrappers: cluster
                .knows_appwrappers()
                .then(|| AppWrappers::new(cluster, &views, elsewhere.as_ref(), now_ms.into())),
            devices: elsewhere
                .as_ref()
                .filter(|_| cluster.has_device_objects() && cluster.knows_nodes())
                .map(|elsewhere| Devices::new(&views, elsewhere, cluster.knows_pods())),
            orphans: cluster.knows_pods().then(|| cluster.orphans()),
            pods: pods(&views),
            held: Held::default(),
            nodes: cluster.knows_nodes().then(|| {
                Nodes::new(
                    Pools::of(cluster, &views, options),
                    views,
                    cluster.origin(),
                    cluster.knows_pods().then(|| Shapes::new(!missing.contains(&Missing::Devices))),
                    options,
                )
            }),
            missing,
            capacity,
            unreadable: cluster.unreadable().collect(),
            sources: cluster.sources().collect(),
            left_out: cluster.left_out().collect(),
            options: options.clone(),
            offers: None,
            queues: None,
            serves_queues: cluster.serves_queues(),
            lines: None,
            fitted: None,
            input: None,
        }
    }

    /// Whether Kubernetes reports the nodes. If not, only their agents do.
    pub fn has_kubernetes(&self) -> bool {
        self.origin == Origin::Kubernetes
    }

    /// The nodes and the state of their agents, by name. The agent is `None` if no agent can have the node's name.
    pub fn nodes_and_agents(&self) -> impl Iterator<Item = (&Arc<NodeView>, Option<&Agent>)> {
        let mut agents = self.agents.iter().peekable();
        let nodes = self.nodes.iter().flat_map(|nodes| &nodes.nodes);
        nodes.map(move |view| (view, agents.next_if(|agent| agent.node.as_str() == &*view.node.name)))
    }

    /// The state of the agent of that node. `None` if there is no such node, or no agent can have its name.
    pub fn agent(&self, node: &str) -> Option<&Agent> {
        let at = self.agents.binary_search_by(|agent| agent.node.as_str().cmp(node)).ok()?;
        Some(&self.agents[at])
    }

    /// Nodes and AppWrappers, if these and Pods are all known. Otherwise it cannot be known what fits.
    pub fn complete(&self) -> Option<(&Nodes, &AppWrappers)> {
        let nodes = self.nodes.as_ref().filter(|_| self.orphans.is_some())?;
        Some((nodes, self.appwrappers.as_ref()?))
    }

    /// Adds what the fit on nodes needs to know about devices, if an AppWrapper needs it. `cluster` must be in the
    /// state that this snapshot was made from.
    pub fn with_offers(&mut self, cluster: &Cluster) {
        let Some((_, appwrappers)) = self.complete() else { return };
        let unplaced = appwrappers
            .appwrappers
            .iter()
            .filter_map(|view| Some((&*view.appwrapper, &*view.unplaced.as_ref()?.groups)));
        self.offers = self.offers_to(cluster, unplaced);
    }

    /// Adds what the fit on nodes needs to know about devices for AppWrappers that do not exist yet.
    pub fn with_offers_to<'b>(&mut self, cluster: &Cluster, appwrappers: impl Iterator<Item = &'b AppWrapper>) {
        self.offers = self.offers_to(cluster, appwrappers.map(|one| (one, &*one.demand.groups)));
    }

    fn offers_to<'b>(
        &self,
        cluster: &Cluster,
        needy: impl Iterator<Item = (&'b AppWrapper, &'b [PodGroup])>,
    ) -> Option<Arc<Offers>> {
        let nodes = self.nodes.as_ref()?;
        let sums = nodes.nodes.iter().filter_map(|view| Some((view, view.devices.as_ref()?)));
        let broken = sums
            .filter(|(_, sums)| !sums.broken.is_empty())
            .map(|(view, sums)| (view.node.name.clone(), sums.broken.iter().cloned().collect()));
        Offers::of(cluster, needy, broken.collect(), &self.options.device_resources).map(Arc::new)
    }

    /// Adds the results of the fit on nodes, computed from this snapshot or an earlier one. AppWrappers that were not
    /// examined then have no result.
    pub fn with_fits(&mut self, fits: &Fits) {
        if self.complete().is_none() {
            return;
        }
        for view in self.appwrappers.iter_mut().flat_map(|all| &mut all.appwrappers) {
            if let Some(unplaced) = &mut view.unplaced {
                // A result for other pods of the AppWrapper does not apply to these.
                let verdict = fits.get(&view.appwrapper.name).filter(|verdict| verdict.is_on(unplaced));
                unplaced.verdict = verdict.cloned();
            }
        }
    }

    /// Computes Kueue's queues from facts about the cluster that this snapshot was made from. `now_ms` is the time that
    /// ages of objects are computed from.
    pub fn accounts(&self, facts: &Facts, now_ms: Option<i64>) -> Accounts {
        let nodes = self.nodes.as_ref().map(|nodes| &*nodes.nodes);
        let views = self.appwrappers.iter().flat_map(|all| &all.appwrappers);
        Accounts::new(facts, nodes, views.map(|view| &view.appwrapper), now_ms, &self.options)
    }

    /// Adds Kueue's queues, computed from this snapshot or an earlier one.
    pub fn with_queues(&mut self, queues: Option<Arc<Accounts>>) {
        let (knows_nodes, knows_pods) = (self.nodes.is_some(), self.orphans.is_some());
        let is_current = |of: &Arc<Accounts>| (of.knows_nodes, of.knows_pods) == (knows_nodes, knows_pods);
        self.queues = queues.filter(is_current);
    }

    /// Adds who waits for the queues, computed together with what Kueue believes.
    #[must_use]
    pub fn with_lines(self, lines: Option<Arc<Lines>>) -> Self {
        Self { lines: lines.filter(|_| self.queues.is_some()), ..self }
    }

    /// What quota means for an AppWrapper. `None` if it means nothing, or that is not known.
    pub fn quota_of(&self, view: &AppWrapperView) -> Option<&AppWrapperQuota> {
        // What was computed of an earlier state, or of an AppWrapper that had this name before, does not apply to it.
        self.queues.as_ref()?.appwrappers.get(&view.appwrapper.name).filter(|quota| quota.is_of(&view.appwrapper))
    }

    /// Adds the total usage of the pods of each AppWrapper.
    pub fn with_totals(&mut self, totals: &Totals) {
        if self.orphans.is_none() {
            return;
        }
        for view in self.appwrappers.iter_mut().flat_map(|all| &mut all.appwrappers) {
            view.total = totals.of(&view.appwrapper.name, &view.appwrapper.uid);
        }
    }

    /// Adds what pods do with the GPUs that they hold, and for how long each pod's GPUs idled.
    pub fn with_held<'a>(&mut self, held: Held, pods: impl Iterator<Item = (&'a PodName, &'a Uses)>) {
        // Without Pods, it is not known who holds them.
        if self.orphans.is_none() || !self.has_kubernetes() {
            return;
        }
        self.held = held;
        for (name, uses) in pods {
            let idle = Some(Box::new(*uses)).filter(|uses| uses.idle_sum() > 0);
            match self.pods.binary_search_by(|pod| pod.name.cmp(name)) {
                Ok(at) => self.pods[at].gpu_idle_ns = idle,
                Err(at) => {
                    self.pods.insert(at, PodFigures { name: name.clone(), gpu_idle_ns: idle, ..PodFigures::default() });
                }
            }
        }
    }
}

impl Nodes {
    /// The node with that name.
    pub fn get(&self, name: &str) -> Option<&Arc<NodeView>> {
        let at = self.nodes.binary_search_by(|view| (*view.node.name).cmp(name)).ok()?;
        Some(&self.nodes[at])
    }

    fn new(
        pools: Pools,
        views: Vec<Arc<NodeView>>,
        origin: Origin,
        of_free: Option<Shapes>,
        options: &Options,
    ) -> Self {
        // A pool has slots of those resources only that its nodes have.
        let of_one = Sums { shapes: of_free.as_ref().map(|_| Shapes::new(false)), ..Sums::default() };
        let (names, of_pools) = pools.exported();
        let mut by_pool = vec![of_one; names.len()];
        let mut all = Sums { shapes: of_free, ..Sums::default() };
        if origin == Origin::Agent {
            // Every machine has these two, so the number of nodes that measure them is known, even if it is 0.
            for resource in [Resource::Cpu, Resource::Memory] {
                all.ladders.insert(resource.clone(), ResourceLadder::default());
                all.used.insert(resource, UsedInAll::default());
            }
        }
        let mut states = (origin == Origin::Kubernetes).then_some([0; 4]);
        let mut shares = BTreeMap::<Resource, Shares>::new();
        for (view, pool) in views.iter().zip(pools.of_nodes()) {
            by_pool[of_pools[pool]].add_node(view, options);
            if let (Some(states), Some(state)) = (&mut states, view.state) {
                states[state as usize] += 1;
            }
            for (resource, of_node) in &view.shares {
                shares.entry(resource.clone()).or_default().add(*of_node);
            }
        }
        for of_pool in &by_pool {
            all.add(of_pool);
        }
        if options.pool_label.is_none() && !pools.are_named() {
            by_pool.clear();
        }
        Self {
            nodes: views,
            sums: all.ladders,
            used: all.used,
            states,
            shares,
            shapes: all.shapes,
            by_pool: names.into_iter().zip(by_pool).collect(),
            pools,
        }
    }
}

impl AppWrappers {
    /// No AppWrapper.
    pub fn none(cluster: &Cluster) -> Self {
        Self { appwrappers: Vec::new(), states: BTreeMap::new(), histograms: cluster.histograms().clone() }
    }

    fn new(cluster: &Cluster, views: &[Arc<NodeView>], elsewhere: Option<&NodeDevices>, now_ms: Option<i64>) -> Self {
        let beside = beside_requests(views, elsewhere);
        let classes = Classes::of(cluster);
        let mut shares: HashMap<&AppWrapperName, Share> = HashMap::new();
        for (name, share) in views.iter().filter_map(|view| view.measured.as_ref()).flat_map(|m| &m.appwrappers) {
            shares.entry(name).or_default().add(share);
        }
        let mut states = BTreeMap::new();
        for version in cluster.served() {
            for state in version.states() {
                states.insert((version, Arc::from(*state)), 0);
            }
        }
        for (appwrapper, _) in cluster.appwrappers() {
            *states.entry((appwrapper.version, appwrapper.state.clone())).or_default() += 1;
        }
        fold_unknown(&mut states);
        let available = available_to_mcad(cluster);
        let view = |(appwrapper, gained): (&Arc<AppWrapper>, &Gained)| AppWrapperView {
            pods: PodCounts { wanted: appwrapper.demand.pods(), bound: cluster.knows_pods().then_some(gained.bound) },
            unplaced: Unplaced::of(appwrapper, gained, cluster),
            waiting: appwrapper.is_waiting().then(|| Waiting {
                seconds: now_ms.zip(appwrapper.queued_at_ms).map(|(now, since)| (now - since).max(0) as f64 / 1000.0),
                shortfall: available.map(|available| Triple::from(&appwrapper.demand.total).minus(available).clamped()),
            }),
            requested: Requested::of(appwrapper, cluster, &classes),
            allocated: cluster.knows_pods().then(|| {
                let mut all = gained.allocated.amounts();
                beside.get(&appwrapper.name).into_iter().for_each(|beside| all.add_times(beside, 1));
                all
            }),
            used: shares.get(&appwrapper.name).map(|share| share.of_all(gained.held)),
            total: Total::default(),
            appwrapper: appwrapper.clone(),
        };
        let appwrappers = cluster.appwrappers().map(view).collect();
        Self { appwrappers, states, histograms: cluster.histograms().clone() }
    }

    /// The AppWrapper with that name.
    pub fn get(&self, name: &AppWrapperName) -> Option<&AppWrapperView> {
        let at = self.appwrappers.binary_search_by(|view| view.appwrapper.name.cmp(name)).ok()?;
        Some(&self.appwrappers[at])
    }
}

/// What MCAD believes to have for one more AppWrapper. `None` if that is not known.
pub fn available_to_mcad(cluster: &Cluster) -> Option<Triple> {
    // What MCAD has promised to other AppWrappers and that is not running yet is subtracted from what MCAD believes
    // to have (§2). An AppWrapper that exceeds a limit may also have been promised an amount, and that amount is
    // not known.
    let knows_promises = !cluster.left_out().any(|left| left.source.is_of(Version::V1Beta1));
    if !(cluster.knows_nodes() && cluster.knows_pods() && cluster.knows_appwrappers() && knows_promises) {
        return None;
    }
    let promised = |(appwrapper, gained): (&Arc<AppWrapper>, &Gained)| {
        let is_promised = appwrapper.version == Version::V1Beta1 && appwrapper.can_run;
        is_promised.then(|| Triple::from(&appwrapper.demand.total).minus(gained.dispatched).clamped())
    };
    let all = cluster.appwrappers().filter_map(promised);
    Some(all.fold(capacity::v1(cluster), Triple::minus).clamped())
}

/// What AppWrappers hold in addition to the requests of their pods.
fn beside_requests<'a>(
    views: &'a [Arc<NodeView>],
    elsewhere: Option<&'a NodeDevices>,
) -> HashMap<&'a AppWrapperName, Amounts> {
    let mut all: HashMap<&AppWrapperName, Amounts> = HashMap::new();
    let of_nodes = views.iter().filter_map(|view| view.devices.as_ref()).flat_map(|sums| &sums.beside_requests);
    for (name, amounts) in of_nodes.chain(elsewhere.into_iter().flat_map(|elsewhere| &elsewhere.beside_requests)) {
        all.entry(name).or_default().add_times(amounts, 1);
    }
    all
}

/// How many states that no controller sets are exported by name.
const UNKNOWN_STATES: usize = 16;
/// The label for all further unknown states.
const OTHER: &str = "other";

/// Limits the number of series: whoever can write the status of AppWrappers could otherwise create one for each.
fn fold_unknown(states: &mut BTreeMap<(Version, Arc<str>), u64>) {
    let is_unknown = |(version, state): &(Version, Arc<str>)| !version.states().contains(&&**state);
    if states.keys().filter(|key| is_unknown(key)).count() <= UNKNOWN_STATES {
        return;
    }
    let mut folded = BTreeMap::new();
    for (key, count) in std::mem::take(states) {
        let key = if is_unknown(&key) { (key.0, Arc::from(OTHER)) } else { key };
        *folded.entry(key).or_default() += count;
    }
    *states = folded;
}

/// The measured pods of all nodes, by namespace and name.
fn pods(views: &[Arc<NodeView>]) -> Vec<PodFigures> {
    let of_node = |view: &Arc<NodeView>| view.measured.iter().flat_map(|m| &m.pods).cloned().collect::<Vec<_>>();
    let mut pods: Vec<_> = views.iter().flat_map(of_node).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}
