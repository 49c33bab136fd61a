//! Section D of the metrics contract: how free devices are spread over nodes, nodes by state, and pods whose node does not exist.
use mcad_accounting::cluster::Orphans;
use mcad_accounting::ladder::NodeState;
use mcad_accounting::snapshot::Nodes;

use super::{BY_LABEL, Spelling, gauge, integer};
use crate::exposition::{Exposition, Family, Labels, Value};

static GPU_SLOTS: Family = gauge(
    "mcad_gpu_slots",
    &["gpus"],
    "pods",
    "How many pods with this many GPUs could start now, given the CPU, memory and pod places left on the same nodes.",
);
static GPU_LARGEST_FREE_BLOCK: Family =
    gauge("mcad_gpu_largest_free_block", &[], "devices", "The most free GPUs on one admissible node.");
static SLOTS: Family = gauge(
    "mcad_slots",
    &["count", "resource"],
    "pods",
    "How many pods with this many devices of another accelerator could start now, given the same limits as mcad_gpu_slots.",
);
static LARGEST_FREE_BLOCK: Family = gauge(
    "mcad_largest_free_block",
    &["resource"],
    "devices",
    "The most free devices of another accelerator on one admissible node.",
);
static ORPHANED_PODS: Family =
    gauge("mcad_orphaned_pods", &[], "pods", "Bound, unfinished pods whose Node does not exist.");
static ORPHANED_REQUESTS: Family = gauge(
    "mcad_orphaned_requests",
    &["resource", "unit"],
    BY_LABEL,
    "Effective requests of bound, unfinished pods whose Node does not exist; the metrics of nodes and the cluster do not include them.",
);
static NODES: Family = gauge("mcad_nodes", &["state"], "nodes", "Nodes by whether they accept new pods.");

/// The families of this section.
pub static FAMILIES: &[&Family] =
    &[&GPU_SLOTS, &GPU_LARGEST_FREE_BLOCK, &SLOTS, &LARGEST_FREE_BLOCK, &ORPHANED_PODS, &ORPHANED_REQUESTS, &NODES];

/// Writes the section. `orphans` is `None` if Pods are not known.
pub(crate) fn write(nodes: &Nodes, orphans: Option<&Orphans>, spelling: &Spelling, out: &mut Exposition<'_>) {
    if let Some(shapes) = &nodes.shapes {
        let mut lines = out.family(&GPU_SLOTS);
        for (gpus, slots) in shapes.gpu.iter().flat_map(|gpu| gpu.slots) {
            lines.line(&Labels::of(&[("gpus", &gpus.to_string())]), integer(slots));
        }
        let mut lines = out.family(&GPU_LARGEST_FREE_BLOCK);
        if let Some(gpu) = &shapes.gpu {
            lines.line(&Labels::new(), integer(gpu.largest_block));
        }
        let others: Vec<_> =
            shapes.others.iter().filter_map(|(resource, shape)| Some((spelling.get(resource)?, shape))).collect();
        let mut lines = out.family(&SLOTS);
        for (resource, shape) in &others {
            for (count, slots) in shape.slots {
                let mut labels = Labels::of(&[("count", &count.to_string())]);
                lines.line(labels.extend(&resource.resource), integer(slots));
            }
        }
        let mut lines = out.family(&LARGEST_FREE_BLOCK);
        for (resource, shape) in &others {
            lines.line(&resource.resource, integer(shape.largest_block));
        }
    }
    if let Some(orphans) = orphans {
        out.family(&ORPHANED_PODS).line(&Labels::new(), Value::Unsigned(orphans.pods));
        let mut lines = out.family(&ORPHANED_REQUESTS);
        for (resource, amount) in orphans.requested.iter() {
            if let Some(resource) = spelling.get(&resource) {
                lines.line(&resource.labels, resource.value(amount));
            }
        }
    }
    let mut lines = out.family(&NODES);
    if let Some(states) = nodes.states {
        for (state, count) in NodeState::ALL.into_iter().zip(states) {
            lines.line(&Labels::of(&[("state", state.label())]), Value::Unsigned(count));
        }
    }
}
