//! The sums of pods per node and per AppWrapper. Pods are added to them and subtracted from them.
use std::collections::BTreeMap;

use crate::cluster::owner::ByOwner;
use crate::cluster::room::Nominated;
use crate::object::others::OthersSum;
use crate::object::{HostPort, Phase, Pod};
use crate::resource::{Amounts, Sum, Triple};

/// What the bound, unfinished pods of a node hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BoundRequests {
    /// The number of these pods.
    pub pods: u64,
    /// Their effective requests.
    pub requested: ByOwner<Sum>,
    /// Their requests of resources that have no ladder.
    pub others: OthersSum,
    /// Their host ports, and how many pods use each.
    pub ports: BTreeMap<HostPort, u32>,
    /// Pods that are neither bound nor finished and that are nominated to this node, by namespace and name.
    pub nominated: Vec<Nominated>,
    /// What MCAD v1 subtracts for them.
    pub dispatcher_v1: Triple,
    /// What MCAD v2 subtracts for them.
    pub dispatcher_v2: Triple,
}

impl BoundRequests {
    /// Adds a pod that is bound and unfinished, or subtracts it.
    pub(super) fn account(&mut self, pod: &Pod, change: Change) {
        change.count(&mut self.pods);
        let requested = if pod.owner.is_some() { &mut self.requested.appwrapper } else { &mut self.requested.other };
        change.sum(requested, &pod.requests);
        if let Some(rare) = &pod.rare {
            match change {
                Change::Comes => self.others.put(&rare.others),
                Change::Goes => self.others.take(&rare.others),
            }
            for port in &rare.ports {
                self.account_port(port, change);
            }
        }
        if !pod.marks.v1 {
            change.add(&mut self.dispatcher_v1, pod.dispatcher_v1);
        }
        if !pod.marks.v2 {
            change.add(&mut self.dispatcher_v2, pod.dispatcher_v2);
        }
    }

    /// Adds a pod that is nominated to this node, or removes it.
    pub(super) fn account_nominated(&mut self, pod: Nominated, change: Change) {
        match change {
            Change::Comes => {
                let key = |pod: &Nominated| (pod.namespace.clone(), pod.name.clone());
                let at = self.nominated.partition_point(|known| key(known) < key(&pod));
                self.nominated.insert(at, pod);
            }
            Change::Goes => {
                if let Some(at) = self.nominated.iter().position(|known| *known == pod) {
                    self.nominated.remove(at);
                }
            }
        }
    }

    fn account_port(&mut self, port: &HostPort, change: Change) {
        match change {
            Change::Comes => *self.ports.entry(port.clone()).or_default() += 1,
            Change::Goes => {
                let Some(pods) = self.ports.get_mut(port) else { return };
                *pods = pods.saturating_sub(1);
                if *pods == 0 {
                    self.ports.remove(port);
                }
            }
        }
    }
}

/// Bound, unfinished pods of nodes that do not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// The number of these pods.
    pub pods: u64,
    /// Their effective requests.
    pub requested: Amounts,
}

impl Orphans {
    /// The sum over these nodes.
    pub(super) fn of<'a>(all: impl Iterator<Item = &'a BoundRequests>) -> Self {
        let (mut pods, mut requested) = (0, Sum::default());
        for held in all {
            pods += held.pods;
            requested.put(&held.requested.appwrapper.amounts());
            requested.put(&held.requested.other.amounts());
        }
        Self { pods, requested: requested.amounts() }
    }
}

/// What the pods of an AppWrapper were given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gained {
    /// Its pods, in any phase.
    pub pods: u64,
    /// Its pods that are bound and unfinished.
    pub held: u64,
    /// Its pods that are bound and have not failed.
    pub bound: u64,
    /// Effective requests of its pods that are bound and unfinished.
    pub allocated: Sum,
    /// The requests, as MCAD v1 computes them, of its pods that are running or have succeeded.
    pub dispatched: Triple,
}

impl Gained {
    /// Adds a pod, or subtracts it.
    pub(super) fn account(&mut self, pod: &Pod, change: Change) {
        change.count(&mut self.pods);
        if pod.is_placed() {
            change.count(&mut self.bound);
        }
        if pod.held_node().is_some() {
            change.count(&mut self.held);
            change.sum(&mut self.allocated, &pod.requests);
        }
        if matches!(pod.phase, Phase::Running | Phase::Succeeded) {
            change.add(&mut self.dispatched, pod.dispatcher_v1);
        }
    }
}

/// Whether a pod is added to the sums or subtracted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Comes,
    Goes,
}

impl Change {
    fn count(self, pods: &mut u64) {
        match self {
            Self::Comes => *pods += 1,
            Self::Goes => *pods = pods.saturating_sub(1),
        }
    }

    fn sum(self, sum: &mut Sum, amounts: &Amounts) {
        match self {
            Self::Comes => sum.put(amounts),
            Self::Goes => sum.take(amounts),
        }
    }

    fn add(self, sum: &mut Triple, amount: Triple) {
        *sum = match self {
            Self::Comes => sum.plus(amount),
            Self::Goes => sum.minus(amount),
        };
    }
}
