//! A cluster without Kubernetes: its nodes are the machines whose agents report, and nothing else is known. Keeps the
//! nodes in step with the agents.
use std::collections::BTreeSet;
use std::sync::Arc;

use super::Cluster;
use crate::object::{Node, Origin};

impl Cluster {
    /// A cluster without Kubernetes in which no agent has reported yet.
    pub fn of_agents() -> Self {
        Self { origin: Origin::Agent, ..Self::default() }
    }

    /// Makes the nodes of a cluster without Kubernetes equal to these agents' nodes. A Kubernetes cluster is not
    /// changed.
    pub fn follow<'a>(&mut self, agents: impl Iterator<Item = &'a Arc<str>>) {
        if self.origin != Origin::Agent {
            return;
        }
        let agents: BTreeSet<&Arc<str>> = agents.collect();
        let gone = self.nodes.keys().filter(|name| !agents.contains(name)).cloned();
        for name in gone.collect::<Vec<Arc<str>>>() {
            self.remove_node(&name, "");
        }
        for name in agents {
            self.set_node(Node::of_agent(name.clone()));
        }
    }
}
