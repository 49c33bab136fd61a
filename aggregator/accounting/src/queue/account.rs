//! The account of each ClusterQueue: its quotas, what is used of them, and what Workloads that wait request.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::FlavorResource;
use super::facts::Facts;
use super::held::PODS;
use super::quota::Tree;
use super::usage::UsageByOwner;
use crate::cluster::owner::ByOwner;
use crate::object::queues::Active;
use crate::object::quotas::Quota;
use crate::object::workload::{Flag, OpenWorkload};
use crate::object::{ClusterQueue, Workload};
use crate::resource::Resource;
use crate::resource::amount::Amount;

/// A ClusterQueue.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueAccount {
    /// The ClusterQueue.
    pub queue: Arc<ClusterQueue>,
    /// Whether it admits anything.
    pub state: QueueState,
    /// Each flavor and resource of its spec or in use, in order.
    pub quotas: Vec<(FlavorResource, QuotaAccount)>,
    /// What Workloads request that wait for it, by resource.
    pub pending: BTreeMap<Resource, ByOwner<i128>>,
    /// How many Workloads it has in each state, in the order of [`WorkloadState::ALL`].
    pub workloads: ByOwner<[u64; 3]>,
}

/// One flavor and resource of a ClusterQueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaAccount {
    /// The quota. `None` if the spec has none.
    pub quota: Option<Quota>,
    /// What is left for it.
    pub available: Amount,
    /// The most that it could use if nobody used anything. 0 if it is not active.
    pub most: Amount,
    /// What is used.
    pub usage: UsageByOwner,
}

/// Whether a ClusterQueue admits anything, and if not, the first reason that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// It does.
    Active,
    /// Its `stopPolicy` says that it does not.
    Stopped,
    /// One of its flavors has no ResourceFlavor.
    FlavorMissing,
    /// One of its admission checks does not exist or is not active.
    CheckMissing,
    /// There is a cycle among its Cohorts, or Kueue says for another reason that it is not active.
    Inactive,
}

impl QueueState {
    /// The label `state`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Stopped => "stopped",
            Self::FlavorMissing | Self::CheckMissing | Self::Inactive => "inactive",
        }
    }

    pub(super) fn of(queue: &ClusterQueue, facts: &Facts, tree: &Tree) -> Self {
        let mut flavors = queue.groups.iter().flat_map(|group| &group.flavors);
        if queue.is_stopped {
            Self::Stopped
        } else if flavors.any(|flavor| !facts.flavors.contains_key(&flavor.name)) {
            Self::FlavorMissing
        } else if tree.queue(&queue.name).is_some_and(super::quota::QueueNode::is_cyclic) {
            Self::Inactive
        } else {
            match queue.active {
                None | Some(Active::True) => Self::Active,
                Some(Active::CheckMissing) => Self::CheckMissing,
                Some(Active::False) => Self::Inactive,
            }
        }
    }
}

/// Whether a Workload waits, reserves quota, or is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadState {
    /// It waits for quota.
    Pending,
    /// It reserves quota and is not admitted.
    Reserving,
    /// It is admitted.
    Admitted,
}

impl WorkloadState {
    /// All states, in the order in which they are exported.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Reserving, Self::Admitted];

    /// The label `state`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Reserving => "reserving",
            Self::Admitted => "admitted",
        }
    }
}

/// The accounts of all ClusterQueues, by name.
pub(super) fn of(
    facts: &Facts,
    usage: &BTreeMap<Arc<str>, BTreeMap<FlavorResource, UsageByOwner>>,
    tree: &Tree,
) -> Vec<QueueAccount> {
    let mut accounts: Vec<QueueAccount> = facts
        .cluster_queues
        .iter()
        .map(|queue| {
            let state = QueueState::of(queue, facts, tree);
            let covered = queue.groups.iter().flat_map(|group| &group.covered);
            QueueAccount {
                quotas: quotas(queue, usage.get(&queue.name), tree, state),
                pending: covered.map(|resource| (resource.clone(), ByOwner::default())).collect(),
                workloads: ByOwner::default(),
                state,
                queue: queue.clone(),
            }
        })
        .collect();
    let places: HashMap<Arc<str>, usize> =
        facts.cluster_queues.iter().enumerate().map(|(at, queue)| (queue.name.clone(), at)).collect();
    for workload in &facts.workloads {
        if let Some((open, admission)) = workload.reserving()
            && let Some(at) = places.get(&admission.cluster_queue)
        {
            let state = if open.flags.has(Flag::Admitted) { WorkloadState::Admitted } else { WorkloadState::Reserving };
            accounts[*at].count(open, state);
        }
        if let Some(open) = workload.pending()
            && let Some(at) = queue_of(workload, open, facts).and_then(|queue| places.get(queue))
        {
            accounts[*at].wait(open);
        }
    }
    accounts
}

/// The ClusterQueue that the LocalQueue of a Workload leads to.
fn queue_of<'a>(workload: &Workload, open: &OpenWorkload, facts: &'a Facts) -> Option<&'a Arc<str>> {
    Some(&facts.local_queue(&workload.name.namespace, &open.queue)?.cluster_queue)
}

fn quotas(
    queue: &ClusterQueue,
    usage: Option<&BTreeMap<FlavorResource, UsageByOwner>>,
    tree: &Tree,
    state: QueueState,
) -> Vec<(FlavorResource, QuotaAccount)> {
    let flavors = queue.groups.iter().flat_map(|group| &group.flavors);
    let of_spec = flavors.flat_map(|flavor| {
        flavor.quotas.iter().map(|(resource, quota)| ((flavor.name.clone(), resource.clone()), *quota))
    });
    let of_spec: BTreeMap<FlavorResource, Quota> = of_spec.collect();
    let all: BTreeSet<&FlavorResource> = of_spec.keys().chain(usage.into_iter().flatten().map(|(of, _)| of)).collect();
    let node = tree.queue(&queue.name).filter(|_| state == QueueState::Active);
    let account = |of: &FlavorResource| QuotaAccount {
        quota: of_spec.get(of).copied(),
        available: node.map_or(Amount::ZERO, |node| node.available(of).or_zero()),
        most: node.map_or(Amount::ZERO, |node| node.most(of)),
        usage: usage.and_then(|usage| usage.get(of)).copied().unwrap_or_default(),
    };
    all.into_iter().map(|of| (of.clone(), account(of))).collect()
}

impl QueueAccount {
    fn count(&mut self, open: &OpenWorkload, state: WorkloadState) {
        let counts = &mut self.workloads;
        let counts = if open.is_of_appwrapper() { &mut counts.appwrapper } else { &mut counts.other };
        counts[state as usize] += 1;
    }

    fn wait(&mut self, open: &OpenWorkload) {
        self.count(open, WorkloadState::Pending);
        let pods = Resource::Extended(PODS.into());
        let counts_pods = self.queue.covers(&pods);
        for (set, requests) in open.requests() {
            let one = counts_pods.then(|| (pods.clone(), set.count.into()));
            for (resource, amount) in requests.into_iter().filter(|(resource, _)| *resource != pods).chain(one) {
                let sum = self.pending.entry(resource).or_default();
                let sum = if open.is_of_appwrapper() { &mut sum.appwrapper } else { &mut sum.other };
                *sum = sum.saturating_add(amount);
            }
        }
    }
}
