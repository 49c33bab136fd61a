//! What Kubernetes' objects amount to at one instant: every node's ladder, every AppWrapper, MCAD's own figures.
//!
//! Pure: from the cluster, what agents found, the time and the options to one immutable value. It holds no text and no
//! labels; [`crate::families`] makes those.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::capacity;
use crate::cluster::{Cluster, Source};
use crate::fit::{Fits, Verdict};
use crate::histogram::RequestHistograms;
use crate::ladder::Rung;
use crate::measure::{PodFigures, Share, Usage, Used};
use crate::object::{AppWrapper, AppWrapperName, Version};
use crate::options::{OperatorMetrics, Options};
use crate::resource::{Amounts, Resource, Triple};
use crate::totals::{Total, Totals};
use crate::views::NodeView;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What rests on nodes and pods. Absent: they are not known.
    pub nodes: Option<Nodes>,
    /// What rests on AppWrappers. Absent: they, or nodes and pods, are not known.
    pub appwrappers: Option<AppWrappers>,
    /// Pods one by one, in order of namespace and name, where they were measured and asked for.
    pub pods: Vec<PodFigures>,
    /// MCAD's own figures of capacity.
    pub capacity: Capacity,
    /// Quantities that could not be read, by the list that they are in.
    pub unreadable: Vec<(Source, u64)>,
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
    /// Pods of `k` GPUs that could start now, by `k`.
    pub slots: [(u32, i128); 4],
    /// The most free GPUs on one admissible node.
    pub largest_free_block: i128,
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
    /// Effective requests of its bound, unfinished pods.
    pub allocated: Amounts,
    /// What its pods use. Absent: none of them is measured.
    pub used: Option<Usage>,
    /// What its pods used in all, those that ended included.
    pub total: Total,
    /// Why and since when it waits. Absent: it does not.
    pub waiting: Option<Waiting>,
}

/// An AppWrapper that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// For how long. Absent: since an unknown time.
    pub seconds: Option<f64>,
    /// What is missing from MCAD's sum; nothing: it fits there.
    pub shortfall: Triple,
    /// Whether it fits real nodes. Absent: not yet tried.
    pub nodes: Option<Verdict>,
}

impl Waiting {
    /// It fits MCAD's sum.
    pub fn fits_aggregate(&self) -> bool {
        self.shortfall == Triple::default()
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
        let known = cluster.knows_nodes();
        let capacity = match options.operator_metrics {
            OperatorMetrics::V1 => Capacity::V1(known.then(|| capacity::v1(cluster))),
            OperatorMetrics::V2 => Capacity::V2(known.then(|| capacity::v2(cluster))),
            OperatorMetrics::None => Capacity::None,
        };
        let both_known = known && cluster.knows_appwrappers();
        Self {
            appwrappers: both_known.then(|| AppWrappers::new(cluster, &views, now_ms.into())),
            pods: if known { pods(&views) } else { Vec::new() },
            nodes: known.then(|| Nodes::new(views, options)),
            capacity,
            unreadable: cluster.unreadable().collect(),
            options: options.clone(),
        }
    }

    /// Adds what was found about fit on nodes, from this snapshot or an earlier one. Those that were not looked at then
    /// stay without.
    pub fn with_fits(&mut self, fits: &Fits) {
        for view in self.appwrappers.iter_mut().flat_map(|all| &mut all.appwrappers) {
            if let Some(waiting) = &mut view.waiting {
                waiting.nodes = fits.get(&view.appwrapper.name).cloned();
            }
        }
    }

    /// Adds what the pods of AppWrappers used in all.
    pub fn with_totals(&mut self, totals: &Totals) {
        for view in self.appwrappers.iter_mut().flat_map(|all| &mut all.appwrappers) {
            view.total = totals.of(&view.appwrapper.name, &view.appwrapper.uid);
        }
    }
}

impl Nodes {
    fn new(views: Vec<Arc<NodeView>>, options: &Options) -> Self {
        let mut all = Self {
            nodes: Vec::new(),
            sums: BTreeMap::new(),
            used: BTreeMap::new(),
            states: [0; 4],
            slots: [1, 2, 4, 8].map(|gpus| (gpus, 0)),
            largest_free_block: 0,
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
            self.sums.entry(resource.clone()).or_default().add(rung);
            if let Some(measured) = &view.measured {
                let all = self.used.entry(resource.clone()).or_default();
                if let Some(used) = measured.used.get(resource) {
                    all.used.add(used);
                    all.nodes += 1;
                }
            }
        }
        let free = |resource| view.rung(&resource).map_or(0, |rung| rung.free);
        let (gpus, millicores, bytes) = (free(Resource::Gpu), free(Resource::Cpu), free(Resource::Memory));
        self.largest_free_block = self.largest_free_block.max(gpus);
        for (size, slots) in &mut self.slots {
            let size = i128::from(*size);
            // Nothing beside a GPU means that any number fits.
            let beside = |free: i128, per_gpu: u64| match size * i128::from(per_gpu) {
                0 => i128::MAX,
                each => free / each,
            };
            let by_cpu = beside(millicores, options.slot_millicores_per_gpu);
            *slots += (gpus / size).min(by_cpu).min(beside(bytes, options.slot_bytes_per_gpu));
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
        let mut available = capacity::v1(cluster);
        for (appwrapper, gained) in cluster.appwrappers() {
            *states.entry((appwrapper.version, appwrapper.state.clone())).or_default() += 1;
            if appwrapper.version == Version::V1Beta1 && appwrapper.can_run {
                available = available.minus(Triple::from(&appwrapper.demand.total).minus(gained.dispatched).clamped());
            }
        }
        let available = available.clamped();
        let view = |(appwrapper, gained): (&Arc<AppWrapper>, &crate::cluster::Gained)| AppWrapperView {
            waiting: appwrapper.is_waiting().then(|| Waiting {
                seconds: now_ms.zip(appwrapper.queued_at_ms).map(|(now, since)| (now - since).max(0) as f64 / 1000.0),
                shortfall: Triple::from(&appwrapper.demand.total).minus(available).clamped(),
                nodes: None,
            }),
            allocated: gained.allocated.amounts().clone(),
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

/// Those of all nodes, in order of namespace and name.
fn pods(views: &[Arc<NodeView>]) -> Vec<PodFigures> {
    let of_node = |view: &Arc<NodeView>| view.measured.iter().flat_map(|m| &m.pods).cloned().collect::<Vec<_>>();
    let mut pods: Vec<_> = views.iter().flat_map(of_node).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}
