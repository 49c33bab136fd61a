//! What is left on a node beside its ladder, for pods to come: places for pods, resources without a ladder, host ports; and the
//! pods that are to come there, because the scheduler nominated the node for them.
use std::sync::Arc;

use crate::cluster::Held;
use crate::object::others::Others;
use crate::object::{AppWrapperName, HostPort, Node, Pod};
use crate::resource::{Amounts, Resource};

/// The declared resource that every pod takes one of.
const PODS: &str = "pods";

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Allocatable `pods` less those that are bound there; negative where there are more.
    pods: i128,
    /// What of each declared resource is not requested; negative where requests are more.
    others: Others,
    /// Taken by pods that are bound there, each once.
    ports: Box<[HostPort]>,
    nominated: Box<[Nominated]>,
}

/// A pod that is not bound, and to which the scheduler has nominated a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nominated {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The AppWrapper that it belongs to.
    pub owner: Option<AppWrapperName>,
    /// Its priority.
    pub priority: i64,
    /// What it requests.
    pub requests: Amounts,
    /// The same of resources without a ladder.
    pub others: Others,
    /// The ports that it wants.
    pub ports: Box<[HostPort]>,
}

impl Room {
    /// What is left of what a node declares beside what its pods hold.
    pub fn new(node: &Node, held: &Held) -> Self {
        Self {
            pods: node.other_allocatable.get(PODS) - i128::from(held.pods),
            others: node.other_allocatable.less(&held.others),
            ports: held.ports.keys().cloned().collect(),
            nominated: held.nominated.as_slice().into(),
        }
    }

    /// How many more pods the node takes.
    pub fn for_pods(&self) -> i128 {
        self.pods.max(0)
    }

    /// What is left of a resource without a ladder; one that the node does not declare is 0.
    pub fn of(&self, name: &str) -> i128 {
        self.others.get(name).max(0)
    }

    /// What is left of each resource without a ladder that the node declares, in order of name.
    pub fn others(&self) -> impl Iterator<Item = (&Arc<str>, i128)> {
        self.others.iter().map(|(name, amount)| (name, amount.max(0)))
    }

    /// The ports of the node that are taken.
    pub fn ports(&self) -> &[HostPort] {
        &self.ports
    }

    /// The pods that are to come there, in order of namespace and name.
    pub fn nominated(&self) -> &[Nominated] {
        &self.nominated
    }
}

impl Nominated {
    /// The node that is nominated for a pod, and what that comes to there; absent: there is none, or the pod is bound or finished.
    pub fn of(pod: &Pod) -> Option<(&Arc<str>, Self)> {
        let rare = pod.rare.as_ref()?;
        let (node, priority) = rare.nominated.as_ref()?;
        let nominated = Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            owner: pod.owner.clone(),
            priority: *priority,
            requests: pod.requests.clone(),
            others: rare.others.clone(),
            ports: rare.ports.clone(),
        };
        Some((node, nominated))
    }

    /// What it needs room for, `pods` apart. Resources without a ladder are among the extended ones.
    pub fn needs(&self) -> Amounts {
        let mut needs = self.requests.clone();
        for (name, amount) in self.others.iter() {
            needs.add(&Resource::Extended(name.clone()), amount);
        }
        needs
    }
}
