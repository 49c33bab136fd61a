//! What nodes have together: all nodes of a pool, or of the cluster.
use std::collections::BTreeMap;

use super::shape::Shapes;
use crate::ladder::ResourceLadder;
use crate::measure::Used;
use crate::options::Options;
use crate::resource::Resource;
use crate::views::NodeView;

/// See the module's documentation. Sums of parts add up to the sum of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// The ladders, by resource.
    pub ladders: BTreeMap<Resource, ResourceLadder>,
    /// Total usage, and how many nodes reported it. Empty if no agent reports.
    pub used: BTreeMap<Resource, UsedInAll>,
    /// How the free devices are distributed. `None` if Pods are not known.
    pub shapes: Option<Shapes>,
}

/// Usage summed over all nodes that were measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsedInAll {
    /// The sum: nanocores, bytes, nanodevices.
    pub used: Used,
    /// The number of nodes that were added up.
    pub nodes: u64,
}

impl Sums {
    /// Adds one node.
    pub(super) fn add_node(&mut self, view: &NodeView, options: &Options) {
        for (resource, rung) in &view.rungs {
            add(&mut self.ladders, resource, rung);
            // On a node with a kubelet, usage is attributed only if Pods are known.
            let is_measured = rung.account.is_some() || rung.declared.is_none();
            if let Some(measured) = view.measured.as_ref().filter(|_| is_measured) {
                let all = self.used.entry(resource.clone()).or_default();
                if let Some(used) = measured.used.get(resource) {
                    all.used.add(used);
                    all.nodes += 1;
                }
            }
        }
        if let Some(shapes) = &mut self.shapes {
            shapes.add(view, options);
        }
    }

    /// Adds what other nodes have together.
    pub(super) fn add(&mut self, other: &Self) {
        for (resource, rung) in &other.ladders {
            add(&mut self.ladders, resource, rung);
        }
        for (resource, UsedInAll { used, nodes }) in &other.used {
            let all = self.used.entry(resource.clone()).or_default();
            all.used.add(used);
            all.nodes += nodes;
        }
        if let (Some(shapes), Some(other)) = (&mut self.shapes, &other.shapes) {
            shapes.add_all(other);
        }
    }
}

fn add(ladders: &mut BTreeMap<Resource, ResourceLadder>, resource: &Resource, rung: &ResourceLadder) {
    match ladders.get_mut(resource) {
        Some(sum) => sum.add(rung),
        None => drop(ladders.insert(resource.clone(), rung.clone())),
    }
}
