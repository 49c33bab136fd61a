//! What Kubernetes' objects amount to at one instant: every node's ladder, every AppWrapper, MCAD's own figures.
//!
//! Pure: from the cluster, what agents found, the time and the options to one immutable value. It holds no text and no
//! labels; `mcad-present` makes those.
pub mod rest;
mod unplaced;
pub mod verdict;

mod shape;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub use self::shape::{Shape, Shapes};
use crate::cluster::capacity;
use crate::cluster::histogram::RequestHistograms;
use crate::cluster::{Cluster, Gained, LeftOut, Missing, Orphans, Source};
use crate::hardware::shares::Shares;
use crate::ladder::Rung;
use crate::measure::{PodFigures, Share, Usage, Used};
use crate::object::{AppWrapper, AppWrapperName, Version};
use crate::options::{OperatorMetrics, Options};
use crate::resource::{Amounts, Resource, Triple};
use crate::snapshot::verdict::Fits;
use crate::totals::{Total, Totals};
use crate::views::NodeView;

pub use self::unplaced::{Part, PodCounts, Unplaced};

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What rests on Nodes, and on Pods as far as they are known. `None` if Nodes are not known.
    pub nodes: Option<Nodes>,
    /// What rests on AppWrappers, and on Nodes and Pods as far as they are known. `None` if AppWrappers are not known.
    pub appwrappers: Option<AppWrappers>,
    /// Bound, unfinished pods whose node is not there; where Nodes are not known, all that are bound. `None` if Pods are not
    /// known.
    pub orphans: Option<Orphans>,
    /// What is missing from the input: figures that rest on it are absent.
    pub missing: BTreeSet<Missing>,
    /// Pods one by one, in order of namespace and name, where they were measured and asked for.
    pub pods: Vec<PodFigures>,
    /// MCAD's own figures of capacity. They rest on Nodes and Pods.
    pub capacity: Capacity,
    /// Quantities that could not be read, by the list that they are in.
    pub unreadable: Vec<(Source, u64)>,
    /// The lists that are known.
    pub sources: Vec<Source>,
    /// Objects in them that bring more than one may, and are left out, or a part of them.
    pub left_out: Vec<LeftOut>,
    /// By what rules it was made.
    pub options: Options,
}

/// The nodes and their sums.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// In order of name.
    pub nodes: Vec<Arc<NodeView>>,
    /// Added up, in order of resource.
    pub sums: BTreeMap<Resource, Rung>,
    /// What is used in all, and by how many nodes' word. Empty: no agent reports.
    pub used: BTreeMap<Resource, UsedInAll>,
    /// How many are in each state, in the order of [`NodeState::ALL`](crate::ladder::NodeState::ALL).
    pub states: [u64; 4],
    /// Resources that are shares of devices, added up over the nodes that have such.
    pub shares: BTreeMap<Resource, Shares>,
    /// The shape of what is free. `None` if Pods are not known.
    pub shapes: Option<Shapes>,
}

/// What is used on all nodes that were measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsedInAll {
    /// The sum: nanocores, bytes, nanodevices.
    pub used: Used,
    /// How many nodes it comes from.
    pub nodes: u64,
}

/// The AppWrappers.
#[derive(Clone, Debug)]
pub struct AppWrappers {
    /// In order of namespace and name.
    pub appwrappers: Vec<AppWrapperView>,
    /// How many are in each state.
    pub states: BTreeMap<(Version, Arc<str>), u64>,
    /// What those of v1beta1 request.
    pub histograms: RequestHistograms,
}

/// One AppWrapper.
#[derive(Clone, Debug)]
pub struct AppWrapperView {
    /// The AppWrapper as declared.
    pub appwrapper: Arc<AppWrapper>,
    /// Effective requests of its bound, unfinished pods. `None` if Pods are not known.
    pub allocated: Option<Amounts>,
    /// What its pods use. Absent: none of them is measured.
    pub used: Option<Usage>,
    /// What its pods used in all, those that ended included.
    pub total: Total,
    /// How many pods it asks for, and how many of them have a node.
    pub pods: PodCounts,
    /// Why and since when it waits. Absent: it does not.
    pub waiting: Option<Waiting>,
    /// The pods that it still needs a place for: it waits, or is placed in part. Absent: there are none, or they are not known.
    pub unplaced: Option<Unplaced>,
}

/// An AppWrapper that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// For how long. Absent: since an unknown time.
    pub seconds: Option<f64>,
    /// What is missing from MCAD's sum; nothing: it fits there. `None` if Nodes or Pods are not known.
    pub shortfall: Option<Triple>,
}

impl Waiting {
    /// Whether it fits MCAD's sum. `None` if the sum is not known.
    pub fn fits_aggregate(&self) -> Option<bool> {
        self.shortfall.map(|missing| missing == Triple::default())
    }
}

/// MCAD's own figures of capacity. Absent where nodes and pods are not known.
#[derive(Clone, Debug)]
pub enum Capacity {
    /// The sum, in millicores, bytes, devices.
    V1(Option<Triple>),
    /// Each node's, in billionths of cores, bytes, devices.
    V2(Option<Vec<(Arc<str>, Triple)>>),
    /// Not wanted.
    None,
}

impl Snapshot {
    /// Makes the snapshot of an instant from the views of all nodes in order of name, without the fit on nodes, which takes
    /// longer: [`Self::with_fits`]. Ages are told against `now_ms`; where that is absent they are, too.
    pub fn new(
        cluster: &Cluster,
        views: Vec<Arc<NodeView>>,
        now_ms: impl Into<Option<i64>>,
        options: &Options,
    ) -> Self {
        let known = cluster.knows_nodes() && cluster.knows_pods();
        let capacity = match options.operator_metrics {
            OperatorMetrics::V1 => Capacity::V1(known.then(|| capacity::v1(cluster))),
            OperatorMetrics::V2 => Capacity::V2(known.then(|| capacity::v2(cluster))),
            OperatorMetrics::None => Capacity::None,
        };
        Self {
            appwrappers: cluster.knows_appwrappers().then(|| AppWrappers::new(cluster, &views, now_ms.into())),
            orphans: cluster.knows_pods().then(|| cluster.orphans()),
            missing: cluster.missing(),
            pods: pods(&views),
            nodes: cluster
                .knows_nodes()
                .then(|| Nodes::new(views, cluster.knows_pods().then(Shapes::default), options)),
            capacity,
            unreadable: cluster.unreadable().collect(),
            sources: cluster.sources().collect(),
            left_out: cluster.left_out().collect(),
            options: options.clone(),
        }
    }

    /// Nodes and AppWrappers, if these and Pods are all known: only then can it be known what fits.
    pub fn complete(&self) -> Option<(&Nodes, &AppWrappers)> {
        let nodes = self.nodes.as_ref().filter(|_| self.orphans.is_some())?;
        Some((nodes, self.appwrappers.as_ref()?))
    }

    /// Adds what was found about fit on nodes, from this snapshot or an earlier one. Those that were not looked at then
    /// stay without.
    pub fn with_fits(&mut self, fits: &Fits) {
        if self.complete().is_none() {
            return;
        }
        for view in self.appwrappers.iter_mut().flat_map(|all| &mut all.appwrappers) {
            if let Some(unplaced) = &mut view.unplaced {
                // What was found of other pods of it says nothing of these.
                let verdict = fits.get(&view.appwrapper.name).filter(|verdict| verdict.is_on(unplaced));
                unplaced.verdict = verdict.cloned();
            }
        }
    }

    /// Adds what the pods of AppWrappers used in all.
    pub fn with_totals(&mut self, totals: &Totals) {
        if self.orphans.is_none() {
            return;
        }
        for view in self.appwrappers.iter_mut().flat_map(|all| &mut all.appwrappers) {
            view.total = totals.of(&view.appwrapper.name, &view.appwrapper.uid);
        }
    }
}

impl Nodes {
    fn new(views: Vec<Arc<NodeView>>, shapes: Option<Shapes>, options: &Options) -> Self {
        let mut all = Self {
            nodes: Vec::new(),
            sums: BTreeMap::new(),
            used: BTreeMap::new(),
            states: [0; 4],
            shares: BTreeMap::new(),
            shapes,
        };
        for view in &views {
            all.add(view, options);
        }
        all.nodes = views;
        all
    }

    fn add(&mut self, view: &NodeView, options: &Options) {
        self.states[view.state as usize] += 1;
        for (resource, rung) in &view.rungs {
            match self.sums.get_mut(resource) {
                Some(sum) => sum.add(rung),
                None => drop(self.sums.insert(resource.clone(), rung.clone())),
            }
            if let Some(measured) = view.measured.as_ref().filter(|_| rung.account.is_some()) {
                let all = self.used.entry(resource.clone()).or_default();
                if let Some(used) = measured.used.get(resource) {
                    all.used.add(used);
                    all.nodes += 1;
                }
            }
        }
        for (resource, shares) in &view.shares {
            self.shares.entry(resource.clone()).or_default().add(*shares);
        }
        if let Some(shapes) = &mut self.shapes {
            shapes.add(view, options);
        }
    }
}

impl AppWrappers {
    fn new(cluster: &Cluster, views: &[Arc<NodeView>], now_ms: Option<i64>) -> Self {
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
        // What MCAD has promised to others and not yet seen running, taken from what it believes to have (§2).
        // To one that brings more than one may something may be promised, too, and nobody knows how much.
        let knows_promises = !cluster.left_out().any(|left| left.source.is_of(Version::V1Beta1));
        let knows_sum = cluster.knows_nodes() && cluster.knows_pods() && knows_promises;
        let mut available = knows_sum.then(|| capacity::v1(cluster));
        for (appwrapper, gained) in cluster.appwrappers() {
            *states.entry((appwrapper.version, appwrapper.state.clone())).or_default() += 1;
            if let Some(available) = &mut available
                && appwrapper.version == Version::V1Beta1
                && appwrapper.can_run
            {
                *available = available.minus(Triple::from(&appwrapper.demand.total).minus(gained.dispatched).clamped());
            }
        }
        fold_unknown(&mut states);
        let available = available.map(Triple::clamped);
        let view = |(appwrapper, gained): (&Arc<AppWrapper>, &Gained)| AppWrapperView {
            pods: PodCounts { wanted: appwrapper.demand.pods(), bound: cluster.knows_pods().then_some(gained.bound) },
            unplaced: Unplaced::of(appwrapper, gained, cluster),
            waiting: appwrapper.is_waiting().then(|| Waiting {
                seconds: now_ms.zip(appwrapper.queued_at_ms).map(|(now, since)| (now - since).max(0) as f64 / 1000.0),
                shortfall: available.map(|available| Triple::from(&appwrapper.demand.total).minus(available).clamped()),
            }),
            allocated: cluster.knows_pods().then(|| gained.allocated.amounts()),
            used: shares.get(&appwrapper.name).map(|share| share.of_all(gained.held)),
            total: Total::default(),
            appwrapper: appwrapper.clone(),
        };
        let appwrappers = cluster.appwrappers().map(view).collect();
        Self { appwrappers, states, histograms: cluster.histograms().clone() }
    }

    /// The AppWrapper of that name.
    pub fn get(&self, name: &AppWrapperName) -> Option<&AppWrapperView> {
        let at = self.appwrappers.binary_search_by(|view| view.appwrapper.name.cmp(name)).ok()?;
        Some(&self.appwrappers[at])
    }
}

/// So many states that no controller sets are shown by name.
const UNKNOWN_STATES: usize = 16;
/// What more of them are shown as.
const OTHER: &str = "other";

/// Whoever writes the status of AppWrappers must not be able to make a series for each.
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

/// Those of all nodes, in order of namespace and name.
fn pods(views: &[Arc<NodeView>]) -> Vec<PodFigures> {
    let of_node = |view: &Arc<NodeView>| view.measured.iter().flat_map(|m| &m.pods).cloned().collect::<Vec<_>>();
    let mut pods: Vec<_> = views.iter().flat_map(of_node).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}
