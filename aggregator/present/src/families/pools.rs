//! What the nodes of each pool have together: the sums of the cluster's ladder, slots and free blocks, by pool (docs/accounting.md §11).
use mcad_accounting::snapshot::{Nodes, Shapes};

use super::ladder::{
    ADMISSIBLE_HELP, ALLOCATABLE_HELP, CAPACITY_HELP, FREE_HELP, FamiliesOfSums, Group, HEALTHY_HELP, INSTALLED_HELP,
    OVERCOMMITTED_HELP, PHANTOM_HELP, REQUESTED_HELP, WITHHELD_HELP, write_sums,
};
use super::{BY_LABEL, Spelling, gauge, integer};
use crate::exposition::{Exposition, Family, Labels};

const PLAIN: &[&str] = &["pool", "resource", "unit"];
const BY_OWNER: &[&str] = &["owner", "pool", "resource", "unit"];
const BY_REASON: &[&str] = &["pool", "reason", "resource", "unit"];

static INSTALLED: Family = gauge("mcad_pool_installed", PLAIN, BY_LABEL, INSTALLED_HELP);
static HEALTHY: Family = gauge("mcad_pool_healthy", PLAIN, BY_LABEL, HEALTHY_HELP);
static CAPACITY: Family = gauge("mcad_pool_capacity", PLAIN, BY_LABEL, CAPACITY_HELP);
static ALLOCATABLE: Family = gauge("mcad_pool_allocatable", PLAIN, BY_LABEL, ALLOCATABLE_HELP);
static ADMISSIBLE: Family = gauge("mcad_pool_admissible", PLAIN, BY_LABEL, ADMISSIBLE_HELP);
static FREE: Family = gauge("mcad_pool_free", PLAIN, BY_LABEL, FREE_HELP);
static REQUESTED: Family = gauge("mcad_pool_requested", BY_OWNER, BY_LABEL, REQUESTED_HELP);
static WITHHELD: Family = gauge("mcad_pool_withheld", BY_REASON, BY_LABEL, WITHHELD_HELP);
static OVERCOMMITTED: Family = gauge("mcad_pool_overcommitted", PLAIN, BY_LABEL, OVERCOMMITTED_HELP);
static PHANTOM: Family = gauge("mcad_pool_phantom", PLAIN, BY_LABEL, PHANTOM_HELP);
static USED: Family = gauge(
    "mcad_pool_used",
    BY_OWNER,
    BY_LABEL,
    "Measured use, as mcad_cluster_used: the sum over the nodes of the pool that mcad_pool_nodes_measured counts.",
);
static NODES_MEASURED: Family = gauge(
    "mcad_pool_nodes_measured",
    &["pool", "resource"],
    "nodes",
    "Nodes of the pool whose measurements mcad_pool_used includes.",
);
static SLOTS: Family = gauge(
    "mcad_pool_slots",
    &["count", "pool", "resource"],
    "pods",
    "How many pods with this many devices of an accelerator could start now on the nodes of the pool, given the same limits as mcad_gpu_slots.",
);
static LARGEST_FREE_BLOCK: Family = gauge(
    "mcad_pool_largest_free_block",
    &["pool", "resource"],
    "devices",
    "The most free devices of an accelerator on one admissible node of the pool.",
);

static OF_POOL: FamiliesOfSums = FamiliesOfSums {
    plain: [&INSTALLED, &HEALTHY, &CAPACITY, &ALLOCATABLE, &ADMISSIBLE, &FREE],
    requested: &REQUESTED,
    withheld: &WITHHELD,
    overcommitted: &OVERCOMMITTED,
    phantom: &PHANTOM,
    used: &USED,
    nodes_measured: &NODES_MEASURED,
};

/// The families of this section.
pub static FAMILIES: &[&Family] = &[
    &INSTALLED,
    &HEALTHY,
    &CAPACITY,
    &ALLOCATABLE,
    &ADMISSIBLE,
    &FREE,
    &REQUESTED,
    &WITHHELD,
    &OVERCOMMITTED,
    &PHANTOM,
    &USED,
    &NODES_MEASURED,
    &SLOTS,
    &LARGEST_FREE_BLOCK,
];

/// Writes the section.
pub(crate) fn write(nodes: &Nodes, spelling: &Spelling, out: &mut Exposition<'_>) {
    let groups = nodes.by_pool.iter();
    let groups: Vec<_> =
        groups.map(|(pool, sums)| Group { pool: Some(pool), ladders: &sums.ladders, used: &sums.used }).collect();
    write_sums(&OF_POOL, &groups, spelling, out);
    let shapes: Vec<_> = nodes
        .by_pool
        .iter()
        .flat_map(|(pool, sums)| {
            let shapes = sums.shapes.iter().flat_map(Shapes::iter);
            shapes.filter_map(|(resource, shape)| {
                let mut labels = Labels::of(&[("pool", pool)]);
                labels.extend(&spelling.get(resource)?.resource);
                Some((labels, shape))
            })
        })
        .collect();
    let mut lines = out.family(&SLOTS);
    for (labels, shape) in &shapes {
        for (count, slots) in shape.slots {
            lines.line(Labels::of(&[("count", &count.to_string())]).extend(labels), integer(slots));
        }
    }
    let mut lines = out.family(&LARGEST_FREE_BLOCK);
    for (labels, shape) in &shapes {
        lines.line(labels, integer(shape.largest_block));
    }
}
