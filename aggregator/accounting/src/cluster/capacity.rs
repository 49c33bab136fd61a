//! MCAD's own capacity metrics: what the dispatcher believes it can allocate (docs/accounting.md §1).
//!
//! Reproduces MCAD's calculation including its bugs, except for the order of nodes: the sum is exact and signed, and
//! clamped once.
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::resource::Triple;

/// MCAD v1: unrequested capacity of the nodes that are not cordoned. In millicores, bytes, devices.
pub fn v1(cluster: &Cluster) -> Triple {
    let nodes = cluster.nodes_unordered().filter(|(node, _)| !node.cordoned);
    let unrequested = nodes.map(|(node, held)| node.dispatcher_v1.minus(held.dispatcher_v1));
    unrequested.fold(Triple::default(), Triple::plus).clamped()
}

/// MCAD v2: unrequested capacity of each node that is not cordoned and has no taint that repels pods. In billionths of
/// cores, bytes, devices; it may be negative.
pub fn v2(cluster: &Cluster) -> Vec<(Arc<str>, Triple)> {
    let nodes = cluster.nodes().filter(|(node, _)| !node.cordoned && !node.taints.iter().any(|t| t.effect.repels()));
    nodes.map(|(node, held)| (node.name.clone(), node.dispatcher_v2.minus(held.dispatcher_v2))).collect()
}
