//! A Workload of Kueue, decoded: what it requests, what was assigned to it, and why it waits.
//!
//! There may be a hundred thousand of them, most of them finished. A finished one keeps its name only.
mod text;

use std::cmp::Reverse;
use std::sync::Arc;

use super::constraints::Constraints;
use super::limits::Excess;
use super::queues::QueueName;
use super::uid::Uid;
use crate::resource::Resource;

pub(crate) use self::text::{NEEDED, RawWorkload};

/// A Workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace and name.
    pub name: QueueName,
    /// Its UID.
    pub uid: Uid,
    /// How new the version is that this was read from.
    pub rank: u8,
    /// Everything else. `None` if it is finished.
    pub open: Option<Box<OpenWorkload>>,
    /// Why it is left out. `None` if it is not.
    pub excess: Option<Excess>,
}

/// A Workload that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenWorkload {
    /// Its owners.
    pub owners: Box<[Owner]>,
    /// Name of its LocalQueue; empty if it names none.
    pub queue: Arc<str>,
    /// Its priority.
    pub priority: i64,
    /// When it was created, in ms since the Unix epoch.
    pub created_ms: Option<i64>,
    /// Since when it waits in line: its creation, or its eviction if that put it at the end of the line.
    pub in_line_ms: Option<i64>,
    /// When it may be tried again, in ms since the Unix epoch.
    pub requeue_at_ms: Option<i64>,
    /// Its pod sets.
    pub pod_sets: Box<[PodSet]>,
    /// What it requests according to Kueue, by pod set in their order. `None` if Kueue does not say so of just these.
    pub requested: Option<Box<[Requested]>>,
    /// What was assigned to it. `None` if nothing was.
    pub admission: Option<Box<Admission>>,
    /// What its conditions say.
    pub flags: Flags,
    /// Kueue's own words on why it reserves no quota. `None` if there are none.
    pub words: Option<Box<Words>>,
    /// Quantities that could not be read.
    pub unreadable: u32,
}

/// An amount of each resource that is named, in base units.
pub type Requested = Arc<[(Resource, i128)]>;

/// An owner of a Workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its UID.
    pub uid: Uid,
    /// Its name, if it is an AppWrapper of `workload.codeflare.dev`.
    pub appwrapper: Option<Arc<str>>,
}

/// Identical pods of a Workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSet {
    /// Its name.
    pub name: Arc<str>,
    /// How many pods it has, without those that need nothing any more.
    pub count: u32,
    /// Pod sets of one group get the same flavors. `None` if it is in no group.
    pub group: Option<Arc<str>>,
    /// What its pods have alike.
    pub shape: Arc<Shape>,
}

/// What the pods of a pod set have alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    /// What each requests, by resource that it names.
    pub requests: Box<[(Resource, i128)]>,
    /// Where they may run.
    pub constraints: Constraints,
}

/// What was assigned to a Workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The ClusterQueue that it takes quota from.
    pub cluster_queue: Arc<str>,
    /// The assignment of each pod set.
    pub assignments: Box<[Assignment]>,
}

/// What was assigned to a pod set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Name of the pod set.
    pub pod_set: Arc<str>,
    /// Of each resource its flavor, and how much of it is used by pods that still need it.
    pub usage: Arc<[(Resource, Arc<str>, i128)]>,
}

/// Kueue's own words, bounded and without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// The condition's reason.
    pub reason: Box<str>,
    /// The condition's message.
    pub message: Box<str>,
}

/// A fact about a Workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flag {
    /// `spec.active` is not false.
    Active,
    /// QuotaReserved is True.
    QuotaReserved,
    /// Admitted is True.
    Admitted,
    /// Evicted is True.
    Evicted,
    /// Requeued is False.
    NotRequeued,
    /// An admission gate, or a gate on preemption, holds it back.
    Gated,
    /// Its objects contradict each other.
    Misconfigured,
    /// Its namespace may not use the ClusterQueue.
    NamespaceRefused,
    /// It waits until others have been preempted.
    Preempting,
    /// Quota is there, and no place in the topology.
    TopologyFailed,
    /// It waits until the pods of others are ready.
    PodsReadyOfOthers,
    /// It reserves quota, and its topology is still being assigned.
    TopologyPending,
    /// An admission check is not Ready.
    CheckNotReady,
    /// An admission check is Retry or Rejected.
    CheckRefused,
}

/// Facts about a Workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// Whether this one holds.
    pub fn has(self, flag: Flag) -> bool {
        self.0 & 1 << flag as u8 != 0
    }

    pub(crate) fn set(&mut self, flag: Flag, holds: bool) {
        self.0 |= u16::from(holds) << flag as u8;
    }
}

impl Workload {
    /// Itself and its admission if it holds quota: quota is reserved, it is active and it is not finished.
    pub fn reserving(&self) -> Option<(&OpenWorkload, &Admission)> {
        let open = self.open.as_deref()?;
        let reserves = open.flags.has(Flag::QuotaReserved) && open.flags.has(Flag::Active);
        Some((open, open.admission.as_deref().filter(|_| reserves)?))
    }

    /// Itself if it waits for quota: it is active, not finished, and reserves none.
    pub fn pending(&self) -> Option<&OpenWorkload> {
        let open = self.open.as_deref()?;
        (open.flags.has(Flag::Active) && self.reserving().is_none()).then_some(open)
    }

    /// Replaces what other objects have, too, by the one that is returned, so that it is in memory once.
    pub(crate) fn share(
        &mut self,
        mut name: impl FnMut(&Arc<str>) -> Arc<str>,
        mut shape: impl FnMut(&Arc<Shape>) -> Arc<Shape>,
    ) {
        self.name.namespace = name(&self.name.namespace);
        let Some(open) = self.open.as_deref_mut() else { return };
        open.queue = name(&open.queue);
        for set in &mut open.pod_sets {
            set.shape = shape(&set.shape);
            set.name = name(&set.name);
        }
        if let Some(admission) = open.admission.as_deref_mut() {
            admission.cluster_queue = name(&admission.cluster_queue);
            for assignment in &mut admission.assignments {
                assignment.pod_set = name(&assignment.pod_set);
            }
        }
    }
}

/// The place of a Workload in line: the highest priority first, then who waits longest, then by UID.
pub(crate) type PlaceInLine<'a> = (Reverse<i64>, Option<i64>, &'a Uid);

impl Workload {
    /// Its place in line, which counts while it is pending.
    pub(crate) fn place(&self) -> PlaceInLine<'_> {
        let (priority, since) = self.open.as_deref().map_or((0, None), |open| (open.priority, open.in_line_ms));
        (Reverse(priority), since, &self.uid)
    }
}

impl OpenWorkload {
    /// Whether an AppWrapper owns it.
    pub fn is_of_appwrapper(&self) -> bool {
        self.owners.iter().any(|owner| owner.appwrapper.is_some())
    }

    /// Whether Kueue tries it before those behind it, while it is pending. `now_ms` is the time that back-off is compared with; if it is
    /// `None`, a back-off has not ended.
    pub fn is_in_line(&self, now_ms: Option<i64>) -> bool {
        !self.is_backing_off(now_ms) && !self.flags.has(Flag::Gated) && !self.flags.has(Flag::NamespaceRefused)
    }

    /// Whether Kueue waits before it tries it again.
    pub(crate) fn is_backing_off(&self, now_ms: Option<i64>) -> bool {
        let is_to_come = |at: i64| now_ms.is_none_or(|now| at > now);
        self.flags.has(Flag::NotRequeued) || self.requeue_at_ms.is_some_and(is_to_come)
    }

    /// What its pod sets request together with how many pods they are, in their order.
    pub fn requests(&self) -> impl Iterator<Item = (&PodSet, Vec<(Resource, i128)>)> {
        self.pod_sets.iter().enumerate().map(|(at, set)| {
            let of_all =
                |(resource, each): &(Resource, i128)| (resource.clone(), each.saturating_mul(set.count.into()));
            let requests = match self.requested.as_ref().and_then(|requested| requested.get(at)) {
                Some(requested) => requested.to_vec(),
                None => set.shape.requests.iter().map(of_all).collect(),
            };
            (set, requests)
        })
    }
}
