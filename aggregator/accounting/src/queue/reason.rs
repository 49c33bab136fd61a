//! Why an AppWrapper under Kueue waits: the first reason that holds.
use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::account::QueueState;
use super::assignment::{Assigned, Assigner, Outcome};
use super::facts::Facts;
use super::quota::Tree;
use crate::object::workload::{Flag, OpenWorkload, PlaceInLine};
use crate::object::{AppWrapper, ClusterQueue, QueueName, Version, Workload};

/// The strategy by which a Workload that does not fit holds up all behind it.
const STRICT: &str = "StrictFIFO";

/// Why an AppWrapper waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitingReason {
    /// Another controller manages it.
    ManagedElsewhere,
    /// Its quota is being taken away.
    Evicted,
    /// It has its quota and is being started.
    Starting,
    /// An admission check is not ready.
    AdmissionCheck,
    /// No place in the topology was found, or it is still being assigned.
    Topology,
    /// It names no queue.
    NoQueue,
    /// Kueue is not installed, so nothing ends its suspension. No metric has it: without Kueue, there is none of queues.
    NoKueue,
    /// Its LocalQueue does not exist.
    LocalQueueMissing,
    /// Its LocalQueue is stopped.
    LocalQueueStopped,
    /// Its ClusterQueue does not exist.
    ClusterQueueMissing,
    /// Its ClusterQueue is stopped.
    ClusterQueueStopped,
    /// A flavor of its ClusterQueue does not exist.
    FlavorMissing,
    /// Its ClusterQueue is not active.
    ClusterQueueInactive,
    /// An admission check of its ClusterQueue does not exist or is not active.
    AdmissionCheckMissing,
    /// It has no Workload.
    NoWorkload,
    /// Its Workload is not active.
    Deactivated,
    /// A gate keeps it from being admitted.
    Gated,
    /// Kueue refuses its Workload as invalid.
    Misconfigured,
    /// It is tried again later.
    Backoff,
    /// Others are being preempted for it.
    Preempting,
    /// No flavor is for its pods.
    NoFlavor,
    /// It is more than its queue could ever have.
    QuotaExceeded,
    /// Others use the quota.
    QuotaShort,
    /// The pods of others are not ready yet.
    PodsReady,
    /// Others are before it in line.
    BehindOthers,
    /// It is Kueue's turn.
    Pending,
    /// All its pods have a node, and are not ready.
    PodsUnready,
    /// The rest of its pods has no place on the nodes.
    NodesShort,
    /// The rest of its pods has a place on the nodes, and is not there.
    PodsUnplaced,
}

impl WaitingReason {
    /// All reasons.
    pub const ALL: [Self; 29] = [
        Self::ManagedElsewhere,
        Self::Evicted,
        Self::Starting,
        Self::AdmissionCheck,
        Self::Topology,
        Self::NoQueue,
        Self::NoKueue,
        Self::LocalQueueMissing,
        Self::LocalQueueStopped,
        Self::ClusterQueueMissing,
        Self::ClusterQueueStopped,
        Self::FlavorMissing,
        Self::ClusterQueueInactive,
        Self::AdmissionCheckMissing,
        Self::NoWorkload,
        Self::Deactivated,
        Self::Gated,
        Self::Misconfigured,
        Self::Backoff,
        Self::Preempting,
        Self::NoFlavor,
        Self::QuotaExceeded,
        Self::QuotaShort,
        Self::PodsReady,
        Self::BehindOthers,
        Self::Pending,
        Self::PodsUnready,
        Self::NodesShort,
        Self::PodsUnplaced,
    ];

    /// The label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::ManagedElsewhere => "managed_elsewhere",
            Self::Evicted => "evicted",
            Self::Starting => "starting",
            Self::AdmissionCheck => "admission_check",
            Self::Topology => "topology",
            Self::NoQueue => "no_queue",
            Self::NoKueue => "no_kueue",
            Self::LocalQueueMissing => "local_queue_missing",
            Self::LocalQueueStopped => "local_queue_stopped",
            Self::ClusterQueueMissing => "cluster_queue_missing",
            Self::ClusterQueueStopped => "cluster_queue_stopped",
            Self::FlavorMissing => "flavor_missing",
            Self::ClusterQueueInactive => "cluster_queue_inactive",
            Self::AdmissionCheckMissing => "admission_check_missing",
            Self::NoWorkload => "no_workload",
            Self::Deactivated => "deactivated",
            Self::Gated => "gated",
            Self::Misconfigured => "misconfigured",
            Self::Backoff => "backoff",
            Self::Preempting => "preempting",
            Self::NoFlavor => "no_flavor",
            Self::QuotaExceeded => "quota_exceeded",
            Self::QuotaShort => "quota_short",
            Self::PodsReady => "pods_ready",
            Self::BehindOthers => "behind_others",
            Self::Pending => "pending",
            Self::PodsUnready => "pods_unready",
            Self::NodesShort => "nodes_short",
            Self::PodsUnplaced => "pods_unplaced",
        }
    }
}

/// What can be said about the reason without looking at nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This is the reason.
    Waits(WaitingReason),
    /// It was started: the nodes decide.
    Started,
}

/// Finds reasons.
pub(super) struct Reasons<'a> {
    facts: &'a Facts,
    tree: &'a Tree,
    pub(super) now_ms: Option<i64>,
    /// The first in line for each ClusterQueue.
    first: HashMap<&'a Arc<str>, (PlaceInLine<'a>, &'a QueueName)>,
    assigners: HashMap<&'a Arc<str>, OnceCell<Assigner<'a>>>,
}

impl<'a> Reasons<'a> {
    pub(super) fn new(facts: &'a Facts, tree: &'a Tree, now_ms: Option<i64>) -> Self {
        let assigners = facts.cluster_queues.iter().map(|queue| (&queue.name, OnceCell::new())).collect();
        let mut reasons = Self { facts, tree, now_ms, first: HashMap::new(), assigners };
        for workload in &facts.workloads {
            let Some(open) = workload.pending().filter(|open| open.is_in_line(now_ms)) else { continue };
            let local = facts.local_queue(&workload.name.namespace, &open.queue);
            let Some(local) = local.filter(|local| !local.is_stopped) else { continue };
            let place = (workload.place(), &workload.name);
            let first = reasons.first.entry(&local.cluster_queue).or_insert(place);
            *first = (*first).min(place);
        }
        reasons
    }

    /// Who is first in line for that ClusterQueue, and its priority.
    pub(super) fn first_of(&self, queue: &Arc<str>) -> Option<(QueueName, i64)> {
        let ((Reverse(priority), ..), name) = self.first.get(queue)?;
        Some(((*name).clone(), *priority))
    }

    /// What Kueue would assign to the Workload of an AppWrapper that waits. `None` if its ClusterQueue is not active.
    pub(super) fn assigned(&self, appwrapper: &AppWrapper, workload: &Workload) -> Option<Assigned> {
        let (_, assigner, open) = self.assigner(appwrapper, workload)?;
        Some(assigner.assign(open))
    }

    /// What assigns flavors to the Workload of an AppWrapper that waits, and its ClusterQueue. `None` if that is not active.
    pub(super) fn assigner<'w>(
        &self,
        appwrapper: &AppWrapper,
        workload: &'w Workload,
    ) -> Option<(&'a ClusterQueue, &Assigner<'a>, &'w OpenWorkload)> {
        let open = workload.open.as_deref().filter(|_| workload.reserving().is_none())?;
        let local = self.facts.local_queue(&appwrapper.name.namespace, local_queue(appwrapper, Some(open)))?;
        let queue = self.facts.cluster_queue(&local.cluster_queue)?;
        if QueueState::of(queue, self.facts, self.tree) != QueueState::Active {
            return None;
        }
        let node = self.tree.queue(&queue.name)?;
        let assigner = self.assigners.get(&queue.name)?.get_or_init(|| Assigner::new(queue, node, &self.facts.flavors));
        Some((queue, assigner, open))
    }

    /// Why an AppWrapper waits. `None` if it does not.
    pub(super) fn of(
        &self,
        appwrapper: &AppWrapper,
        workload: Option<&Arc<Workload>>,
        assigned: Option<&Assigned>,
    ) -> Option<Standing> {
        let is_started = appwrapper.is_started() && !appwrapper.is_ready;
        if appwrapper.is_deleting || !(appwrapper.is_waiting() || is_started) {
            return None;
        }
        if appwrapper.is_managed_elsewhere() {
            return Some(Standing::Waits(WaitingReason::ManagedElsewhere));
        }
        if is_started {
            return Some(Standing::Started);
        }
        if let Some((open, _)) = workload.and_then(|workload| workload.reserving()) {
            return Some(Standing::Waits(of_reserving(open)));
        }
        Some(Standing::Waits(self.of_pending(appwrapper, workload, assigned)))
    }

    fn of_pending(
        &self,
        appwrapper: &AppWrapper,
        workload: Option<&Arc<Workload>>,
        assigned: Option<&Assigned>,
    ) -> WaitingReason {
        let open = workload.and_then(|workload| workload.open.as_deref());
        let name = local_queue(appwrapper, open);
        if name.is_empty() {
            let is_held = workload.is_some() || appwrapper.is_suspended;
            return if is_held { WaitingReason::NoQueue } else { WaitingReason::Starting };
        }
        let Some(local) = self.facts.local_queue(&appwrapper.name.namespace, name) else {
            return WaitingReason::LocalQueueMissing;
        };
        if local.is_stopped {
            return WaitingReason::LocalQueueStopped;
        }
        let Some(queue) = self.facts.cluster_queue(&local.cluster_queue) else {
            return WaitingReason::ClusterQueueMissing;
        };
        match QueueState::of(queue, self.facts, self.tree) {
            QueueState::Active => {}
            QueueState::Stopped => return WaitingReason::ClusterQueueStopped,
            QueueState::FlavorMissing => return WaitingReason::FlavorMissing,
            QueueState::CheckMissing => return WaitingReason::AdmissionCheckMissing,
            QueueState::Inactive => return WaitingReason::ClusterQueueInactive,
        }
        let Some((workload, open)) = workload.zip(open) else { return WaitingReason::NoWorkload };
        let outcome = assigned.map(|assigned| assigned.outcome);
        let flags = open.flags;
        if !flags.has(Flag::Active) {
            WaitingReason::Deactivated
        } else if flags.has(Flag::Gated) {
            WaitingReason::Gated
        } else if flags.has(Flag::Misconfigured) {
            WaitingReason::Misconfigured
        } else if open.is_backing_off(self.now_ms) {
            WaitingReason::Backoff
        } else if flags.has(Flag::CheckRefused) {
            WaitingReason::AdmissionCheck
        } else if flags.has(Flag::Preempting) {
            WaitingReason::Preempting
        } else if outcome == Some(Outcome::NoFlavor) {
            WaitingReason::NoFlavor
        } else if outcome == Some(Outcome::Exceeded) {
            WaitingReason::QuotaExceeded
        } else if outcome == Some(Outcome::Short) {
            WaitingReason::QuotaShort
        } else if flags.has(Flag::TopologyFailed) {
            WaitingReason::Topology
        } else if flags.has(Flag::PodsReadyOfOthers) {
            WaitingReason::PodsReady
        } else if self.is_behind(queue, workload) {
            WaitingReason::BehindOthers
        } else {
            WaitingReason::Pending
        }
    }

    /// Whether another is before it, and the strategy is that all wait for the first.
    fn is_behind(&self, queue: &ClusterQueue, workload: &Workload) -> bool {
        let first = self.first.get(&queue.name).filter(|_| &*queue.strategy == STRICT && !queue.shares_fairly);
        first.is_some_and(|(first, _)| *first < workload.place())
    }
}

/// Name of the LocalQueue of an AppWrapper: its Workload's; if that names none, its own, which Kueue copies there.
pub(super) fn local_queue<'a>(appwrapper: &'a AppWrapper, open: Option<&'a OpenWorkload>) -> &'a Arc<str> {
    open.map(|open| &open.queue).filter(|name| !name.is_empty()).unwrap_or(&appwrapper.queue)
}

/// Why an AppWrapper of v1beta2 waits if Kueue is not installed. `None` if it does not wait.
pub fn without_kueue(appwrapper: &AppWrapper) -> Option<WaitingReason> {
    if appwrapper.version != Version::V1Beta2 || appwrapper.is_deleting || !appwrapper.is_waiting() {
        return None;
    }
    Some(if appwrapper.is_managed_elsewhere() {
        WaitingReason::ManagedElsewhere
    } else if appwrapper.is_suspended {
        WaitingReason::NoKueue
    } else {
        WaitingReason::Starting
    })
}

fn of_reserving(open: &OpenWorkload) -> WaitingReason {
    let flags = open.flags;
    if flags.has(Flag::Evicted) {
        WaitingReason::Evicted
    } else if flags.has(Flag::Admitted) {
        WaitingReason::Starting
    } else if flags.has(Flag::CheckNotReady) {
        WaitingReason::AdmissionCheck
    } else if flags.has(Flag::TopologyPending) {
        WaitingReason::Topology
    } else {
        WaitingReason::Starting
    }
}
