//! Kueue's ClusterQueues and flavors: quotas and their use, and the hardware behind them. The values are those of `mcad_queue_*`.
use std::collections::BTreeMap;

use mcad_accounting::cluster::owner::ByOwner;
use mcad_accounting::queue::account::{QueueAccount, QuotaAccount};
use mcad_accounting::queue::hardware::{self, FlavorAccount, FlavorResources};
use mcad_accounting::queue::slack;
use mcad_accounting::queue::usage::Usage;
use mcad_accounting::queue::{Accounts, FlavorResource};
use mcad_accounting::snapshot::Snapshot;
use serde::Serialize;

use super::ladder::{ByResource, Requested, by_state, whole};
use super::quota::{Quota, by_flavor};

/// Why there are no queues to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoQueues {
    /// The API server serves nothing of Kueue, or there is no Kubernetes.
    #[error("Kueue is not installed")]
    NotInstalled,
    /// Kueue may be there: its objects were not listed yet, cannot be listed or are not in the dump, one of them exceeds a limit, or
    /// `--queue-metrics` is off.
    #[error("queues are not known")]
    NotKnown,
}

/// One ClusterQueue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its cohort. Empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cohort: String,
    /// `queueingStrategy`
    pub strategy: String,
    /// `active`, `stopped` or `inactive`.
    pub state: &'static str,
    /// The number of its Workloads in each state.
    pub workloads: Workloads,
    /// What Workloads request that wait for its quota.
    pub pending: ByResource<Requested>,
    /// Its quotas and their use, by flavor.
    pub flavors: BTreeMap<String, ByResource<OfQueue>>,
}

/// The number of Workloads by owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Workloads {
    /// Of AppWrappers.
    pub appwrapper: InStates,
    /// All others.
    pub other: InStates,
}

/// The number of unfinished Workloads in each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InStates {
    /// They wait for quota.
    pub pending: u64,
    /// They reserve quota and are not admitted.
    pub reserving: u64,
    /// They are admitted.
    pub admitted: u64,
}

/// The quota of a ClusterQueue for one resource in one flavor, and its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OfQueue {
    /// Nominal quota. `None` if the spec has none, and something is still used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nominal: Option<Quota>,
    /// How much it may borrow. `None` if that is not limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub borrowing_limit: Option<Quota>,
    /// How much it may lend. `None` if that is not limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lending_limit: Option<Quota>,
    /// What it could still use, with what it may borrow.
    pub available: Quota,
    /// Quota that Workloads reserve.
    pub reserved: Requested,
    /// Quota that admitted Workloads reserve.
    pub admitted: Requested,
    /// Quota that Workloads reserve and that none of their pods requests. `None` if Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unheld: Option<Requested>,
    /// What pods of Workloads request beyond the quota that these reserve. `None` if Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excess: Option<Requested>,
    /// What the slack queue should lend at most. `None` for all other queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack_lending_limit: Option<SlackLimit>,
}

/// What the slack queue should lend at most, by two rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlackLimit {
    /// The rule that the AppWrapper controller once had. `None` if Nodes are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appwrapper: Option<Quota>,
    /// By the hardware that is missing behind its flavor. `None` if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Quota>,
}

/// One ResourceFlavor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flavor {
    /// Its name.
    pub name: String,
    /// Its nodes by whether they accept its pods. `None` if Nodes are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<BTreeMap<&'static str, u64>>,
    /// Each resource that has quota in it.
    pub resources: ByResource<OfFlavor>,
}

/// One resource of a flavor: quota, and the hardware behind it. Without a field if it is not hardware, or not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OfFlavor {
    /// Quota in all ClusterQueues and Cohorts.
    pub nominal: Quota,
    /// What its nodes have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<i64>,
    /// Installed minus lost and unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<i64>,
    /// Allocatable on nodes that accept its pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admissible: Option<i64>,
    /// What its pods could get on these nodes now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<i64>,
    /// Healthy and allocatable on these nodes, minus requests of pods that no quota counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing: Option<i64>,
    /// Quota without hardware behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unbacked: Option<Quota>,
    /// Hardware without quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncovered: Option<i64>,
}

/// One resource over all flavors, if each node gives its hardware once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InAllFlavors {
    /// Quota without hardware behind it.
    pub unbacked: Quota,
    /// Hardware without quota. `None` if a quota is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncovered: Option<i64>,
}

fn by_owner<T>(values: &ByOwner<T>, amount: impl Fn(&T) -> i128) -> Requested {
    Requested { appwrapper: whole(amount(&values.appwrapper)), other: whole(amount(&values.other)) }
}

impl NoQueues {
    /// `None` if queues are known.
    pub fn of(snapshot: &Snapshot) -> Option<Self> {
        if !snapshot.has_kubernetes() || snapshot.serves_queues == Some(false) {
            return Some(Self::NotInstalled);
        }
        snapshot.queues.is_none().then_some(Self::NotKnown)
    }
}

impl InStates {
    fn new([pending, reserving, admitted]: [u64; 3]) -> Self {
        Self { pending, reserving, admitted }
    }
}

impl Queue {
    /// From its account, one of `all`.
    pub fn new(account: &QueueAccount, all: &Accounts) -> Self {
        let QueueAccount { queue, state, quotas, pending, workloads } = account;
        let slack = |of: &FlavorResource| {
            let mut limits = all.slack.iter().filter(|_| queue.name == all.slack_queue);
            limits.find(|limit| limit.of == *of).map(SlackLimit::new)
        };
        let entry = |of: &FlavorResource, quota: &QuotaAccount| OfQueue {
            slack_lending_limit: slack(of),
            ..OfQueue::new(quota, all.knows_pods)
        };
        let requested = pending.iter().map(|(resource, sum)| (resource.clone(), by_owner(sum, |amount| *amount)));
        Self {
            name: (*queue.name).to_owned(),
            cohort: (*queue.cohort).to_owned(),
            strategy: (*queue.strategy).to_owned(),
            state: state.label(),
            workloads: Workloads {
                appwrapper: InStates::new(workloads.appwrapper),
                other: InStates::new(workloads.other),
            },
            pending: requested.collect(),
            flavors: by_flavor(quotas.iter().map(|(of, quota)| (of.clone(), entry(of, quota)))),
        }
    }
}

impl OfQueue {
    fn new(QuotaAccount { quota, available, usage, .. }: &QuotaAccount, knows_pods: bool) -> Self {
        let of = |amount: fn(&Usage) -> i128| by_owner(usage, amount);
        Self {
            nominal: quota.map(|quota| quota.nominal.into()),
            borrowing_limit: quota.and_then(|quota| Some(quota.borrowing_limit?.into())),
            lending_limit: quota.and_then(|quota| Some(quota.lending_limit?.into())),
            available: (*available).into(),
            reserved: of(|usage| usage.reserved),
            admitted: of(|usage| usage.admitted),
            unheld: knows_pods.then(|| of(|usage| usage.unheld)),
            excess: knows_pods.then(|| of(|usage| usage.excess)),
            slack_lending_limit: None,
        }
    }
}

impl SlackLimit {
    fn new(limit: &slack::SlackLimit) -> Self {
        Self { appwrapper: limit.by_appwrapper.map(Quota::from), hardware: limit.by_hardware.map(Quota::from) }
    }
}

impl Flavor {
    /// From its account.
    pub fn new(account: &FlavorAccount) -> Self {
        let resources = account.resources.iter().map(|(resource, of)| (resource.clone(), OfFlavor::new(of)));
        Self {
            name: (*account.name).to_owned(),
            nodes: account.nodes.as_ref().map(by_state),
            resources: resources.collect(),
        }
    }
}

impl OfFlavor {
    fn new(of: &FlavorResources) -> Self {
        let hardware = of.hardware;
        let pods = hardware.and_then(|hardware| hardware.pods);
        Self {
            nominal: of.nominal.into(),
            installed: hardware.map(|hardware| whole(hardware.installed)),
            healthy: hardware.map(|hardware| whole(hardware.healthy)),
            admissible: hardware.map(|hardware| whole(hardware.admissible)),
            free: pods.map(|pods| whole(pods.free)),
            backing: pods.map(|pods| whole(pods.backing)),
            unbacked: of.unbacked().map(Quota::from),
            uncovered: of.uncovered().map(whole),
        }
    }
}

impl From<hardware::Total> for InAllFlavors {
    fn from(total: hardware::Total) -> Self {
        Self { unbacked: total.unbacked.into(), uncovered: total.uncovered.map(whole) }
    }
}
