//! What is free on a node for new pods in addition to its ladder: places for pods, resources that have no ladder, and
//! host ports; and the pods that the scheduler has nominated to the node.
use std::sync::Arc;

use crate::cluster::BoundRequests;
use crate::object::others::Others;
use crate::object::{AppWrapperName, HostPort, Node, Pod};
use crate::resource::{Amounts, Resource};

/// The resource of which every pod takes one.
const PODS: &str = "pods";

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Allocatable `pods` minus the pods that are bound there; negative if more are bound.
    pods: i128,
    /// For each declared resource, the amount that is not requested; negative if more is requested.
    others: Others,
    /// Ports that bound pods use, each once.
    ports: Box<[HostPort]>,
    nominated: Box<[Nominated]>,
}

/// A pod that is not bound and that the scheduler has nominated to a node.
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
    /// Its requests of resources that have no ladder.
    pub others: Others,
    /// Its host ports.
    pub ports: Box<[HostPort]>,
}

impl Room {
    /// What a node declares, minus what its pods hold.
    pub fn new(node: &Node, held: &BoundRequests) -> Self {
        Self {
            pods: node.other_allocatable.get(PODS) - i128::from(held.pods),
            others: node.other_allocatable.less(&held.others),
            ports: held.ports.keys().cloned().collect(),
            nominated: held.nominated.as_slice().into(),
        }
    }

    /// How many more pods the node accepts.
    pub fn for_pods(&self) -> i128 {
        self.pods.max(0)
    }

    /// What is left of a resource that has no ladder; 0 if the node does not declare it.
    pub fn of(&self, name: &str) -> i128 {
        self.others.get(name).max(0)
    }

    /// What is left of each resource that has no ladder and that the node declares, by name.
    pub fn others(&self) -> impl Iterator<Item = (&Arc<str>, i128)> {
        self.others.iter().map(|(name, amount)| (name, amount.max(0)))
    }

    /// The node's host ports that are in use.
    pub fn ports(&self) -> &[HostPort] {
        &self.ports
    }

    /// The pods that are nominated to the node, by namespace and name.
    pub fn nominated(&self) -> &[Nominated] {
        &self.nominated
    }
}

impl Nominated {
    /// The node that a pod is nominated to, and what the pod needs there. `None` if the pod has no nominated node, is
    /// bound or is finished.
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

    /// What the pod needs, except `pods`. Resources that have no ladder are included as extended resources.
    pub fn needs(&self) -> Amounts {
        let mut needs = self.requests.clone();
        for (name, amount) in self.others.iter() {
            needs.add(&Resource::Extended(name.clone()), amount);
        }
        needs
    }
}
