//! What pods come to on their node and for their AppWrapper: sums that pods are added to and taken away from.
use std::collections::BTreeMap;

use crate::cluster::owner::ByOwner;
use crate::cluster::room::Nominated;
use crate::object::others::OthersSum;
use crate::object::{HostPort, Phase, Pod};
use crate::resource::{Amounts, Sum, Triple};

/// What the bound, unfinished pods of a node hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many they are.
    pub pods: u64,
    /// Their effective requests.
    pub requested: ByOwner<Sum>,
    /// The same of resources without a ladder.
    pub others: OthersSum,
    /// Their host ports, and how many of them have each.
    pub ports: BTreeMap<HostPort, u32>,
    /// Pods that are neither bound nor finished and that the node is nominated for, in order of namespace and name.
    pub nominated: Vec<Nominated>,
    /// What MCAD v1 subtracts for them.
    pub dispatcher_v1: Triple,
    /// What MCAD v2 subtracts for them.
    pub dispatcher_v2: Triple,
}

impl Held {
    /// Adds a pod that is bound and unfinished, or takes it away.
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

    /// Adds a pod that the node is nominated for, or takes it away.
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

/// Bound, unfinished pods of nodes that are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// How many they are.
    pub pods: u64,
    /// Their effective requests.
    pub requested: Amounts,
}

impl Orphans {
    /// Of nodes whose pods hold so much.
    pub(super) fn of<'a>(all: impl Iterator<Item = &'a Held>) -> Self {
        let (mut pods, mut requested) = (0, Sum::default());
        for held in all {
            pods += held.pods;
            requested.put(&held.requested.appwrapper.amounts());
            requested.put(&held.requested.other.amounts());
        }
        Self { pods, requested: requested.amounts() }
    }
}

/// What the pods of an AppWrapper got.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gained {
    /// Its pods, in whatever phase.
    pub pods: u64,
    /// Those of them that are bound and unfinished.
    pub held: u64,
    /// Those of them that are bound and have not failed.
    pub bound: u64,
    /// Effective requests of those bound and unfinished.
    pub allocated: Sum,
    /// What MCAD v1 takes those for that run or have succeeded.
    pub dispatched: Triple,
}

impl Gained {
    /// Adds a pod, or takes it away.
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

/// What happens to a pod in the sums.
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
