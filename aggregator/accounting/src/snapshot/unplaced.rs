//! The pods of an AppWrapper: how many it asks for, how many have a node, and which still need one (docs/accounting.md §6).
use std::sync::Arc;

use crate::cluster::{Cluster, Gained};
use crate::object::AppWrapper;
use crate::object::demand::PodGroup;
use crate::snapshot::rest::rest;
use crate::snapshot::verdict::Verdict;

/// The pods of an AppWrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCounts {
    /// So many it asks for.
    pub wanted: u64,
    /// So many are bound and have not failed. Absent: pods are not known.
    pub bound: Option<u64>,
}

impl PodCounts {
    /// So many of those that it asks for are not bound.
    pub fn unbound(self) -> Option<u64> {
        Some(self.wanted.saturating_sub(self.bound?))
    }
}

/// Pods of an AppWrapper that need a place.
#[derive(Clone, Debug)]
pub struct Unplaced {
    /// Which of its pods they are.
    pub part: Part,
    /// The pods.
    pub groups: Arc<[PodGroup]>,
    /// So many of them must be placed.
    pub needed: u64,
    /// Whether they fit real nodes. Absent: not yet tried.
    pub verdict: Option<Verdict>,
}

/// Which pods of an AppWrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of one that waits.
    All,
    /// Those without a node of one that was started.
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
