//! The tree of ClusterQueues and Cohorts: what is left of each quota, and the most that there can ever be.
//!
//! Source: kubernetes-sigs/kueue `pkg/cache/scheduler/resource_node.go`.
use std::collections::HashMap;
use std::sync::Arc;

use super::FlavorResource;
use crate::object::quotas::{Quota, ResourceGroup};
use crate::object::{ClusterQueue, Cohort};
use crate::resource::amount::Amount;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    queues: HashMap<Arc<str>, usize>,
}

/// A ClusterQueue or a Cohort.
#[derive(Debug, Default)]
struct Node {
    /// The Cohort above it.
    parent: Option<usize>,
    /// Whether there is a cycle among the Cohorts above it, itself included.
    is_cyclic: bool,
    /// Cohorts on the longest way down from it, itself included. 0 for a ClusterQueue.
    height: u32,
    cells: HashMap<FlavorResource, Cell>,
}

/// One flavor and resource of a node.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    quota: Quota,
    /// Its own quota, and what its children lend to it.
    subtree: Amount,
    /// What counts against that.
    usage: Amount,
}

impl Cell {
    /// What the node lends to nobody.
    fn local(&self) -> Amount {
        self.quota.lending_limit.map_or(Amount::ZERO, |limit| self.subtree.minus(limit).or_zero())
    }

    /// What of that is not used.
    fn local_available(&self) -> Amount {
        self.local().minus(self.usage).or_zero()
    }

    /// The usage beyond what it lends to nobody.
    fn used_in_parent(&self) -> Amount {
        self.usage.minus(self.local()).or_zero()
    }
}

/// A ClusterQueue in the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueNode<'a> {
    tree: &'a Tree,
    at: usize,
}

impl Tree {
    /// The tree of these. `usage` calls back with what a ClusterQueue uses of each flavor and resource.
    pub(super) fn new(
        queues: &[Arc<ClusterQueue>],
        cohorts: &[Arc<Cohort>],
        usage: impl Fn(&str, &mut dyn FnMut(&FlavorResource, Amount)),
    ) -> Self {
        let mut tree = Self::default();
        let mut named: HashMap<Arc<str>, usize> = HashMap::new();
        for cohort in cohorts {
            let at = tree.add(&cohort.groups);
            named.insert(cohort.name.clone(), at);
        }
        let parents = cohorts.iter().map(|cohort| &cohort.parent).chain(queues.iter().map(|queue| &queue.cohort));
        for name in parents.filter(|name| !name.is_empty()) {
            if !named.contains_key(name) {
                let at = tree.add(&[]);
                named.insert(name.clone(), at);
            }
        }
        for cohort in cohorts {
            tree.nodes[named[&cohort.name]].parent = named.get(&cohort.parent).copied();
        }
        tree.mark_cycles();
        for queue in queues {
            let at = tree.add(&queue.groups);
            let parent = named.get(&queue.cohort).copied();
            tree.nodes[at].is_cyclic = parent.is_some_and(|parent| tree.nodes[parent].is_cyclic);
            tree.nodes[at].parent = parent;
            let cells = &mut tree.nodes[at].cells;
            usage(&queue.name, &mut |of, used| cells.entry(of.clone()).or_default().usage = used);
            tree.queues.insert(queue.name.clone(), at);
        }
        tree.sum_up();
        tree
    }

    fn add(&mut self, groups: &[ResourceGroup]) -> usize {
        let mut node = Node::default();
        for flavor in groups.iter().flat_map(|group| &group.flavors) {
            for (resource, quota) in &flavor.quotas {
                let cell = Cell { quota: *quota, subtree: quota.nominal, usage: Amount::ZERO };
                node.cells.insert((flavor.name.clone(), resource.clone()), cell);
            }
        }
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn mark_cycles(&mut self) {
        let mut decided = vec![false; self.nodes.len()];
        for start in 0..self.nodes.len() {
            let mut way = Vec::new();
            let mut next = Some(start);
            let is_cyclic = loop {
                match next {
                    None => break false,
                    Some(at) if decided[at] => break self.nodes[at].is_cyclic,
                    Some(_) if way.len() > self.nodes.len() => break true,
                    Some(at) => {
                        way.push(at);
                        next = self.nodes[at].parent;
                    }
                }
            };
            for at in way {
                decided[at] = true;
                self.nodes[at].is_cyclic = is_cyclic;
            }
        }
    }

    /// Adds what children lend and use to their parents, the lowest first.
    fn sum_up(&mut self) {
        let mut by_depth: Vec<(usize, usize)> = (0..self.nodes.len())
            .filter(|at| !self.nodes[*at].is_cyclic)
            .map(|at| (self.path(at).count(), at))
            .collect();
        by_depth.sort_unstable_by(|a, b| b.cmp(a));
        for (_, at) in by_depth {
            let Some(parent) = self.nodes[at].parent else { continue };
            let height = self.nodes[at].height + 1;
            let lent: Vec<_> = self.nodes[at]
                .cells
                .iter()
                .map(|(of, cell)| (of.clone(), cell.subtree.minus(cell.local()), cell.used_in_parent()))
                .collect();
            let parent = &mut self.nodes[parent];
            parent.height = parent.height.max(height);
            for (of, lent, used) in lent {
                let cell = parent.cells.entry(of).or_default();
                cell.subtree = cell.subtree.plus(lent);
                cell.usage = cell.usage.plus(used);
            }
        }
    }

    /// The node and those above it. Of a cyclic node it has no end.
    fn path(&self, at: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(at), |at| self.nodes[*at].parent)
    }

    /// The ClusterQueue of that name.
    pub(super) fn queue(&self, name: &str) -> Option<QueueNode<'_>> {
        Some(QueueNode { tree: self, at: *self.queues.get(name)? })
    }

    fn cell(&self, at: usize, of: &FlavorResource) -> Cell {
        self.nodes[at].cells.get(of).copied().unwrap_or_default()
    }
}

impl QueueNode<'_> {
    /// Whether there is a cycle among its Cohorts. Then nothing else is known of it.
    pub(super) fn is_cyclic(self) -> bool {
        self.tree.nodes[self.at].is_cyclic
    }

    /// Its nominal quota.
    pub(super) fn nominal(self, of: &FlavorResource) -> Amount {
        self.tree.cell(self.at, of).quota.nominal
    }

    /// What is used of it.
    pub(super) fn used(self, of: &FlavorResource) -> Amount {
        self.tree.cell(self.at, of).usage
    }

    /// What is left for it; negative if more is used than there is.
    pub(super) fn available(self, of: &FlavorResource) -> Amount {
        let mut left = Amount::ZERO;
        for (at, is_root) in self.downwards() {
            let cell = self.tree.cell(at, of);
            if is_root {
                left = cell.subtree.minus(cell.usage);
                continue;
            }
            if let Some(limit) = cell.quota.borrowing_limit {
                let most = cell.subtree.minus(cell.local()).minus(cell.used_in_parent()).plus(limit);
                left = left.min(most);
            }
            left = cell.local_available().plus(left);
        }
        left
    }

    /// The most that it could have if nothing were used.
    pub(super) fn most(self, of: &FlavorResource) -> Amount {
        let mut most = Amount::ZERO;
        for (at, is_root) in self.downwards() {
            let cell = self.tree.cell(at, of);
            if is_root {
                most = cell.subtree;
                continue;
            }
            most = cell.local().plus(most);
            if let Some(limit) = cell.quota.borrowing_limit {
                most = most.min(cell.subtree.plus(limit));
            }
        }
        most
    }

    /// From how far above it must borrow to use so much more: 0 within its nominal quota, else the height of the lowest Cohort that
    /// has enough.
    ///
    /// Source: kubernetes-sigs/kueue `pkg/scheduler/preemption/classical`, `FindHeightOfLowestSubtreeThatFits`.
    pub(super) fn level(self, of: &FlavorResource, more: Amount) -> u32 {
        let Self { tree, at } = self;
        let cell = tree.cell(at, of);
        if tree.nodes[at].parent.is_none() || cell.quota.nominal >= cell.usage.plus(more) {
            return 0;
        }
        let mut remaining = more.minus(cell.local_available());
        let mut height = 0;
        for above in tree.path(at).skip(1) {
            let cell = tree.cell(above, of);
            height = tree.nodes[above].height;
            if cell.subtree >= cell.usage.plus(remaining) {
                break;
            }
            remaining = remaining.minus(cell.local_available());
        }
        height
    }

    /// The nodes from the root down to this one, and whether each is the root. None if there is a cycle.
    fn downwards(self) -> impl Iterator<Item = (usize, bool)> {
        let mut path: Vec<usize> = if self.is_cyclic() { Vec::new() } else { self.tree.path(self.at).collect() };
        path.reverse();
        path.into_iter().enumerate().map(|(depth, at)| (at, depth == 0))
    }
}

#[cfg(test)]
mod tests;
