//! The accelerators of each pool: how many pods could start on its nodes. GPUs of two models are no place for a pod that needs one
//! model.
use std::collections::BTreeMap;

use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::{Nodes, Shapes, Sums};
use serde::Serialize;

use super::{Cluster, DeviceSlots, NAMED, Shape};
use crate::explain::amount::{Rounding, count, list, printable, words};

/// A pool of nodes that have accelerators.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pool {
    /// The label `pool` of its metrics: empty for the nodes that are in no pool.
    pub name: String,
    /// Its accelerators, by the name that nodes declare.
    pub accelerators: BTreeMap<String, Shape>,
}

impl Pool {
    /// The pools that have metrics, by name, without those that have no accelerator.
    pub(super) fn all(nodes: &Nodes) -> Vec<Self> {
        let pools = nodes.by_pool.iter().map(|(name, sums)| Self::new(name, sums));
        pools.filter(|pool| !pool.accelerators.is_empty()).collect()
    }

    fn new(name: &str, sums: &Sums) -> Self {
        let is_there = |resource: &Resource| {
            let rung = sums.ladders.get(resource);
            let amounts = rung.map(|rung| [rung.installed, rung.capacity(), rung.allocatable()]);
            amounts.into_iter().flatten().flatten().any(|amount| amount > 0)
        };
        let shapes = sums.shapes.iter().flat_map(Shapes::iter).filter(|(resource, _)| is_there(resource));
        let accelerators = shapes.map(|(resource, shape)| (resource.name().to_owned(), Shape::new(shape)));
        Self { name: name.to_owned(), accelerators: accelerators.collect() }
    }
}

/// `2 with 1, 1 with 2, 0 with 4 and 0 with 8; at most 2 GPUs free on one node`
pub fn slots_in_words(resource: &Resource, slots: &[DeviceSlots], largest_free_block: i64) -> String {
    let slots: Vec<_> = slots.iter().map(|slots| format!("{} with {}", slots.pods, slots.count)).collect();
    let block = words(resource, largest_free_block.into(), Rounding::Nearest);
    format!("{}; at most {block} free on one node", list(&slots))
}

/// A sentence for each pool that has an accelerator, those with most room first. None if fewer than two pools have it: then it is the same
/// as of the cluster.
pub fn lines(cluster: &Cluster, resource: &Resource) -> Vec<String> {
    let have = cluster.pools.iter().filter_map(|pool| Some((&pool.name, pool.accelerators.get(resource.name())?)));
    let mut have: Vec<_> = have.collect();
    if have.len() < 2 {
        return Vec::new();
    }
    have.sort_by_key(|(_, shape)| std::cmp::Reverse(shape.slots.iter().map(|slots| slots.pods).max()));
    let line = |(name, Shape { slots, largest_free_block_devices }): &(&String, &Shape)| {
        let name = if name.is_empty() { "nodes without a pool".to_owned() } else { printable(name) };
        format!("{name}: {}.", slots_in_words(resource, slots, *largest_free_block_devices))
    };
    let mut lines: Vec<_> = have.iter().take(NAMED).map(line).collect();
    if have.len() > NAMED {
        let more = count((have.len() - NAMED) as u64, "more pool", "more pools");
        lines.push(format!("{more}: see mcad_pool_slots in /metrics."));
    }
    lines
}
