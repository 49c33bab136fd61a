//! Which nodes a pod may run on, regardless of what is left on them: node selector, affinity, taints.
use std::sync::Arc;

use super::columns::Columns;
use crate::object::demand::PodGroup;
use crate::object::{Constraints, Taint};
use crate::options::tolerated::{Tolerated, ToleratedTaint};
use crate::views::NodeView;

/// What decides where a pod may run, apart from amounts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    constraints: Arc<Constraints>,
    /// Tolerated taints whose key is a resource that the pod requests.
    passed: Vec<ToleratedTaint>,
}

impl Choice {
    /// The constraints of a group's pods. `tolerated` are the taints that pods tolerate if they request the resource of
    /// that name.
    pub fn of(group: &PodGroup, tolerated: &Tolerated) -> Self {
        let requests = |key: &str| group.requests.iter().any(|(resource, amount)| amount > 0 && resource.name() == key);
        let passed = tolerated.iter().filter(|taint| requests(taint.key())).cloned().collect();
        Self { constraints: group.constraints.clone(), passed }
    }

    /// Whether the pods may run on the node.
    pub fn allows(&self, view: &NodeView) -> bool {
        self.selects(view) && self.passes(&view.node.taints)
    }

    /// Whether the node's labels and name match the pods' constraints.
    pub fn selects(&self, view: &NodeView) -> bool {
        self.constraints.select(&view.node)
    }

    /// Whether the pods tolerate all of a node's taints.
    fn passes(&self, taints: &[Taint]) -> bool {
        let passes = |taint: &Taint| self.passed.iter().any(|passed| passed.matches(taint));
        let mut repelling = taints.iter().filter(|taint| taint.effect.repels());
        repelling.all(|taint| self.constraints.tolerates(taint) || passes(taint))
    }

    /// Whether the pods may run on each node, by position.
    pub(super) fn places(&self, columns: &Columns<'_>) -> Vec<bool> {
        let mut nodes = columns.all();
        self.constraints.retain(&mut nodes);
        nodes.retain_by_taints(|taints| self.passes(taints));
        nodes.into_places()
    }
}
