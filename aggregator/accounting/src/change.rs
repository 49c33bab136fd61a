//! A cluster that is imagined to be different from what it is.
use crate::cluster::{Cluster, Event};
use crate::object::Object;

/// A node that is imagined to be different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node of this name is gone.
    Without(String),
    /// The node of this name is not cordoned.
    Uncordon(String),
}

impl Change {
    /// The name of the node.
    pub fn node(&self) -> &str {
        match self {
            Self::Without(name) | Self::Uncordon(name) => name,
        }
    }

    /// The event that makes the change. `None` if there is no such node.
    pub fn event(&self, cluster: &Cluster) -> Option<Event> {
        let mut node = cluster.node(self.node())?.clone();
        Some(match self {
            Self::Without(_) => Event::Delete(Object::Node(node)),
            Self::Uncordon(_) => {
                node.cordoned = false;
                node.taints = node.taints.into_iter().filter(|taint| *taint.key != *CORDONED).collect();
                Event::Apply(Object::Node(node))
            }
        })
    }
}

/// The taint that Kubernetes adds to a cordoned node.
const CORDONED: &str = "node.kubernetes.io/unschedulable";
