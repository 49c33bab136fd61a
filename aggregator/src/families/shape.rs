//! Section D of the metrics contract: the shape of what is free.
use crate::exposition::{Exposition, Family, Labels, Value};
use crate::ladder::NodeState;
use crate::snapshot::Nodes;

use super::{gauge, integer};

static SLOTS: Family = gauge(
    "mcad_gpu_slots",
    &["gpus"],
    "pods",
    "How many pods of that many GPUs could start now, given the cpu and memory left beside them.",
);
static LARGEST_FREE_BLOCK: Family =
    gauge("mcad_gpu_largest_free_block", &[], "devices", "The most free GPUs on one admissible node.");
static NODES: Family = gauge("mcad_nodes", &["state"], "nodes", "Nodes by whether they take new pods.");

/// The families of this section.
pub static FAMILIES: &[&Family] = &[&SLOTS, &LARGEST_FREE_BLOCK, &NODES];

/// Writes the section.
pub fn write(nodes: &Nodes, out: &mut Exposition<'_>) {
    let mut lines = out.family(&SLOTS);
    for (gpus, slots) in nodes.slots {
        lines.line(&Labels::of(&[("gpus", &gpus.to_string())]), integer(slots));
    }
    out.family(&LARGEST_FREE_BLOCK).line(&Labels::new(), integer(nodes.largest_free_block));
    let mut lines = out.family(&NODES);
    for state in NodeState::ALL {
        let count = nodes.states[state as usize];
        lines.line(&Labels::of(&[("state", state.label())]), Value::Unsigned(count));
    }
}
