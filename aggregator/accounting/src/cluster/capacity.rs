//! MCAD's own figures of capacity: what the dispatcher believes it can hand out (docs/accounting.md §1).
//!
//! Bug for bug, but for the order of nodes: the sum is exact and signed, and clamped once.
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::resource::Triple;

/// MCAD v1: unrequested capacity of the nodes that are not cordoned. In millicores, bytes, devices.
pub fn v1(cluster: &Cluster) -> Triple {
    let nodes = cluster.nodes_unordered().filter(|(node, _)| !node.cordoned);
    let unrequested = nodes.map(|(node, held)| node.dispatcher_v1.minus(held.dispatcher_v1));
    unrequested.fold(Triple::default(), Triple::plus).clamped()
}

/// MCAD v2: of each node without any taint that repels, and not cordoned. In billionths of cores, bytes, devices; it may
/// be below zero.
pub fn v2(cluster: &Cluster) -> Vec<(Arc<str>, Triple)> {
    let nodes = cluster.nodes().filter(|(node, _)| !node.cordoned && !node.taints.iter().any(|t| t.effect.repels()));
    nodes.map(|(node, held)| (node.name.clone(), node.dispatcher_v2.minus(held.dispatcher_v2))).collect()
}
