//! The pods of an AppWrapper: how many it requests, how many are bound to a node, and which ones still need a node
//! (docs/accounting.md §6).
use std::sync::Arc;

use crate::cluster::{Cluster, Gained};
use crate::object::AppWrapper;
use crate::object::demand::PodGroup;
use crate::snapshot::rest::rest;
use crate::snapshot::verdict::Verdict;

/// The numbers of pods of an AppWrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCounts {
    /// The number of pods that it requests.
    pub wanted: u64,
    /// The number of pods that are bound and have not failed. `None` if Pods are not known.
    pub bound: Option<u64>,
}

impl PodCounts {
    /// The number of requested pods that are not bound.
    pub fn unbound(self) -> Option<u64> {
        Some(self.wanted.saturating_sub(self.bound?))
    }
}

/// Pods of an AppWrapper that need a node.
#[derive(Clone, Debug)]
pub struct Unplaced {
    /// Which of its pods they are.
    pub part: Part,
    /// The pods.
    pub groups: Arc<[PodGroup]>,
    /// The number of pods that must be placed.
    pub needed: u64,
    /// Whether they fit on real nodes. `None` if that was not tried yet.
    pub verdict: Option<Verdict>,
}

/// A part of the pods of an AppWrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All pods of an AppWrapper that waits.
    All,
    /// The pods without a node of an AppWrapper that was started.
    Rest,
}

impl Unplaced {
    pub(super) fn of(appwrapper: &AppWrapper, gained: &Gained, cluster: &Cluster) -> Option<Self> {
        let demand = &appwrapper.demand;
        let (part, groups, needed) = if appwrapper.is_waiting() {
            (Part::All, demand.groups.clone(), appwrapper.needed())
        } else if cluster.knows_pods() && appwrapper.is_started() && gained.bound < demand.pods() {
            let bound = cluster.bound_pods_of(&appwrapper.name);
            (Part::Rest, rest(demand, &appwrapper.name.name, &bound), demand.pods() - gained.bound)
        } else {
            return None;
        };
        (needed > 0).then_some(Self { part, groups, needed, verdict: None })
    }
}
