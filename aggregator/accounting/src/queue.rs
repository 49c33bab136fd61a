//! Kueue's queues: quotas and their use, the hardware behind each flavor, and why each AppWrapper waits.
//!
//! Pure arithmetic. [`facts`] takes what is needed out of a cluster; [`Accounts::new`] computes the rest, which may take longer.
pub mod account;
pub mod admission;
mod assignment;
pub mod facts;
mod flow;
pub mod hardware;
mod held;
mod queued;
mod quota;
pub mod reason;
pub mod slack;
pub mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::object::{AppWrapper, AppWrapperName, Version};
use crate::options::Options;
use crate::resource::Resource;
use crate::resource::amount::Amount;
use crate::views::NodeView;

use self::account::QueueAccount;
use self::assignment::Assigned;
use self::facts::Facts;
use self::hardware::{FlavorAccount, Hardware, Total};
pub use self::queued::Queued;
use self::quota::Tree;
use self::reason::{Reasons, Standing, WaitingReason};
use self::slack::SlackLimit;

/// A flavor and a resource.
pub type FlavorResource = (Arc<str>, Resource);

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accounts {
    /// Whether Nodes are known. If not, what needs them is absent.
    pub knows_nodes: bool,
    /// Whether Pods are known. If not, what needs them is absent.
    pub knows_pods: bool,
    /// The ClusterQueues, by name.
    pub queues: Vec<QueueAccount>,
    /// The ResourceFlavors, by name.
    pub flavors: Vec<FlavorAccount>,
    /// How much hardware there is for the quotas of all flavors together, by resource. Empty if Nodes or Pods are not known.
    pub totals: Vec<(Resource, Total)>,
    /// Name of the slack queue; empty if none is named.
    pub slack_queue: Arc<str>,
    /// What the slack queue should lend at most. Empty if there is no such queue.
    pub slack: Vec<SlackLimit>,
    /// What quota means for each AppWrapper that has a Workload, or waits for its pods.
    pub appwrappers: BTreeMap<AppWrapperName, AppWrapperQuota>,
    /// Every resource in all of these.
    pub resources: BTreeSet<Resource>,
}

/// What quota means for an AppWrapper.
#[derive(Clone, Debug, PartialEq)]
pub struct AppWrapperQuota {
    /// Its UID.
    uid: Arc<str>,
    /// Its state when this was computed.
    state: Arc<str>,
    /// Whether it fits its quota. `None` if it does not wait, has no Workload, or its queue is not active.
    pub fits: Option<bool>,
    /// What it misses of the quota of each flavor and resource.
    pub shortfall: Vec<(FlavorResource, Amount)>,
    /// Why it waits. `None` if it does not wait or that cannot be known.
    pub standing: Option<Standing>,
    /// Where it is queued.
    pub queued: Queued,
}

impl AppWrapperQuota {
    /// Whether it was computed of this AppWrapper in its present state.
    pub(crate) fn is_of(&self, appwrapper: &AppWrapper) -> bool {
        (&self.uid, &self.state) == (&appwrapper.uid, &appwrapper.state)
    }
}

impl Accounts {
    /// Computes all of it from the facts about a cluster and the views of its nodes and AppWrappers, all of one instant. `nodes` is
    /// `None` if Nodes are not known. `now_ms` is the time that back-off is compared with.
    pub fn new<'a>(
        facts: &Facts,
        nodes: Option<&[Arc<NodeView>]>,
        appwrappers: impl Iterator<Item = &'a Arc<AppWrapper>>,
        now_ms: Option<i64>,
        options: &Options,
    ) -> Self {
        let usage = usage::of(facts);
        let tree = Tree::new(&facts.cluster_queues, &facts.cohorts, |queue, add| {
            usage.get(queue).into_iter().flatten().for_each(|(of, used)| add(of, used.reserved()));
        });
        let hardware = nodes.map(|nodes| Hardware::new(facts, nodes, options));
        let queues = account::of(facts, &usage, &tree);
        let reasons = Reasons::new(facts, &tree, now_ms);
        let of_one = |appwrapper: &'a Arc<AppWrapper>| {
            let quota = of_appwrapper(facts, &reasons, appwrapper)?;
            Some((appwrapper.name.clone(), quota))
        };
        let flavors = hardware.as_ref().map_or_else(|| hardware::nominal_only(facts), Hardware::flavors);
        let mut all = Self {
            knows_nodes: nodes.is_some(),
            knows_pods: facts.knows_pods,
            slack_queue: options.slack_queue.clone().unwrap_or_default(),
            slack: options
                .slack_queue
                .as_deref()
                .map(|name| slack::of(name, facts, nodes, &flavors))
                .unwrap_or_default(),
            queues,
            totals: hardware.as_ref().filter(|_| facts.knows_pods).map(Hardware::totals).unwrap_or_default(),
            flavors,
            appwrappers: appwrappers.filter(|one| one.version == Version::V1Beta2).filter_map(of_one).collect(),
            resources: BTreeSet::new(),
        };
        all.resources = all.all_resources();
        all
    }
}

impl Accounts {
    fn all_resources(&self) -> BTreeSet<Resource> {
        let of_queues = self
            .queues
            .iter()
            .flat_map(|queue| queue.quotas.iter().map(|((_, resource), _)| resource).chain(queue.pending.keys()));
        let of_flavors = self.flavors.iter().flat_map(|flavor| flavor.resources.iter().map(|(resource, _)| resource));
        let of_totals = self.totals.iter().map(|(resource, _)| resource);
        let of_shortfall =
            self.appwrappers.values().flat_map(|quota| quota.shortfall.iter().map(|((_, resource), _)| resource));
        let all: BTreeSet<&Resource> = of_queues.chain(of_flavors).chain(of_totals).chain(of_shortfall).collect();
        all.into_iter().cloned().collect()
    }
}

/// `None` if quota means nothing to it: it has no Workload, and neither waits for its quota nor for its pods.
fn of_appwrapper(facts: &Facts, reasons: &Reasons<'_>, appwrapper: &AppWrapper) -> Option<AppWrapperQuota> {
    let workload = facts.workload_of(&appwrapper.name, &appwrapper.uid);
    let waiting = workload.filter(|_| appwrapper.is_waiting());
    let assigned: Option<Assigned> = waiting.and_then(|workload| reasons.assigned(appwrapper, workload));
    let reserves = waiting.is_some_and(|workload| workload.reserving().is_some());
    let fits = if reserves { Some(true) } else { assigned.as_ref().map(Assigned::fits) };
    let standing = reasons.of(appwrapper, workload, assigned.as_ref());
    if workload.is_none() && standing.is_none() {
        return None;
    }
    let mut queued = Queued::new(facts, appwrapper, workload, assigned.as_ref(), reasons.now_ms);
    if standing == Some(Standing::Waits(WaitingReason::BehindOthers)) {
        queued.first = queued.cluster_queue.as_ref().and_then(|queue| reasons.first_of(queue));
    }
    Some(AppWrapperQuota {
        uid: appwrapper.uid.clone(),
        state: appwrapper.state.clone(),
        fits,
        standing,
        shortfall: assigned.map(|assigned| assigned.shortfall.into_iter().collect()).unwrap_or_default(),
        queued,
    })
}
