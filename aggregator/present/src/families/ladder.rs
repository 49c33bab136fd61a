//! Section B of the metrics contract: the ladder of every node and of the cluster. [`super::pools`] has the same sums by pool.
use std::collections::BTreeMap;

use mcad_accounting::ladder::{Account, Reason, ResourceLadder};
use mcad_accounting::measure::Used;
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::{Nodes, UsedInAll};
use mcad_accounting::views::NodeView;

use super::{BY_LABEL, Spelled, Spelling, gauge};
use crate::exposition::{Exposition, Family, Labels, Lines, Value};

const NODE: &[&str] = &["node", "resource", "unit"];
const NODE_OWNER: &[&str] = &["node", "owner", "resource", "unit"];
const NODE_REASON: &[&str] = &["node", "reason", "resource", "unit"];
const CLUSTER: &[&str] = &["resource", "unit"];
const CLUSTER_OWNER: &[&str] = &["owner", "resource", "unit"];
const CLUSTER_REASON: &[&str] = &["reason", "resource", "unit"];

static NODE_INSTALLED: Family = gauge("mcad_node_installed", NODE, BY_LABEL, INSTALLED_HELP);
static NODE_HEALTHY: Family = gauge("mcad_node_healthy", NODE, BY_LABEL, HEALTHY_HELP);
static NODE_CAPACITY: Family = gauge("mcad_node_capacity", NODE, BY_LABEL, CAPACITY_HELP);
static NODE_ALLOCATABLE: Family = gauge("mcad_node_allocatable", NODE, BY_LABEL, ALLOCATABLE_HELP);
static NODE_ADMISSIBLE: Family = gauge("mcad_node_admissible", NODE, BY_LABEL, ADMISSIBLE_HELP);
static NODE_FREE: Family = gauge("mcad_node_free", NODE, BY_LABEL, FREE_HELP);
static CLUSTER_INSTALLED: Family = gauge("mcad_cluster_installed", CLUSTER, BY_LABEL, INSTALLED_HELP);
static CLUSTER_HEALTHY: Family = gauge("mcad_cluster_healthy", CLUSTER, BY_LABEL, HEALTHY_HELP);
static CLUSTER_CAPACITY: Family = gauge("mcad_cluster_capacity", CLUSTER, BY_LABEL, CAPACITY_HELP);
static CLUSTER_ALLOCATABLE: Family = gauge("mcad_cluster_allocatable", CLUSTER, BY_LABEL, ALLOCATABLE_HELP);
static CLUSTER_ADMISSIBLE: Family = gauge("mcad_cluster_admissible", CLUSTER, BY_LABEL, ADMISSIBLE_HELP);
static CLUSTER_FREE: Family = gauge("mcad_cluster_free", CLUSTER, BY_LABEL, FREE_HELP);

pub(super) const INSTALLED_HELP: &str = "Hardware of the machine: online CPUs, MemTotal, GPUs on the bus, in NVML or expected. If no agent reports, kubelet's capacity.";
pub(super) const HEALTHY_HELP: &str = "Installed minus lost and unhealthy.";
pub(super) const CAPACITY_HELP: &str = "Amount declared by kubelet (status.capacity) and by drivers (ResourceSlices).";
pub(super) const ALLOCATABLE_HELP: &str =
    "Amount that pods may use, as declared by kubelet (status.allocatable) and drivers.";
pub(super) const ADMISSIBLE_HELP: &str = "Allocatable on nodes that accept new pods; 0 on other nodes.";
pub(super) const FREE_HELP: &str = "Amount that is free for a new pod now.";
const USED_HELP: &str = "Measured use: cores busy between the last two reports, working-set bytes, GPUs busy. For the cluster: the sum over the nodes that mcad_cluster_nodes_measured counts.";

type Amount = fn(&ResourceLadder) -> Option<i128>;

/// The amounts of the families with one series for each resource.
static AMOUNTS: [Amount; 6] = [
    |rung| rung.installed,
    |rung| rung.healthy,
    ResourceLadder::capacity,
    ResourceLadder::allocatable,
    |rung| Some(rung.declared?.admissible),
    |rung| Some(rung.account.as_ref()?.free),
];
static PLAIN_OF_NODE: [&Family; 6] =
    [&NODE_INSTALLED, &NODE_HEALTHY, &NODE_CAPACITY, &NODE_ALLOCATABLE, &NODE_ADMISSIBLE, &NODE_FREE];

/// The families of sums over nodes.
pub(super) struct FamiliesOfSums {
    /// Those with one series for each resource, in the order of [`AMOUNTS`].
    pub(super) plain: [&'static Family; 6],
    pub(super) requested: &'static Family,
    pub(super) withheld: &'static Family,
    pub(super) overcommitted: &'static Family,
    pub(super) phantom: &'static Family,
    pub(super) used: &'static Family,
    pub(super) nodes_measured: &'static Family,
}

static OF_CLUSTER: FamiliesOfSums = FamiliesOfSums {
    plain: [
        &CLUSTER_INSTALLED,
        &CLUSTER_HEALTHY,
        &CLUSTER_CAPACITY,
        &CLUSTER_ALLOCATABLE,
        &CLUSTER_ADMISSIBLE,
        &CLUSTER_FREE,
    ],
    requested: &CLUSTER_REQUESTED,
    withheld: &CLUSTER_WITHHELD,
    overcommitted: &CLUSTER_OVERCOMMITTED,
    phantom: &CLUSTER_PHANTOM,
    used: &CLUSTER_USED,
    nodes_measured: &CLUSTER_NODES_MEASURED,
};

/// What some nodes have together.
pub(super) struct Group<'a> {
    /// The label `pool`. `None` for all nodes of the cluster.
    pub(super) pool: Option<&'a str>,
    pub(super) ladders: &'a BTreeMap<Resource, ResourceLadder>,
    pub(super) used: &'a BTreeMap<Resource, UsedInAll>,
}

static NODE_USED: Family = gauge("mcad_node_used", NODE_OWNER, BY_LABEL, USED_HELP);
static CLUSTER_USED: Family = gauge("mcad_cluster_used", CLUSTER_OWNER, BY_LABEL, USED_HELP);
static CLUSTER_NODES_MEASURED: Family = gauge(
    "mcad_cluster_nodes_measured",
    &["resource"],
    "nodes",
    "Nodes whose measurements mcad_cluster_used includes.",
);
static NODE_REQUESTED: Family = gauge("mcad_node_requested", NODE_OWNER, BY_LABEL, REQUESTED_HELP);
static NODE_WITHHELD: Family = gauge("mcad_node_withheld", NODE_REASON, BY_LABEL, WITHHELD_HELP);
static NODE_OVERCOMMITTED: Family = gauge("mcad_node_overcommitted", NODE, BY_LABEL, OVERCOMMITTED_HELP);
static NODE_PHANTOM: Family = gauge("mcad_node_phantom", NODE, BY_LABEL, PHANTOM_HELP);
static CLUSTER_REQUESTED: Family = gauge("mcad_cluster_requested", CLUSTER_OWNER, BY_LABEL, REQUESTED_HELP);
static CLUSTER_WITHHELD: Family = gauge("mcad_cluster_withheld", CLUSTER_REASON, BY_LABEL, WITHHELD_HELP);
static CLUSTER_OVERCOMMITTED: Family = gauge("mcad_cluster_overcommitted", CLUSTER, BY_LABEL, OVERCOMMITTED_HELP);
static CLUSTER_PHANTOM: Family = gauge("mcad_cluster_phantom", CLUSTER, BY_LABEL, PHANTOM_HELP);

pub(super) const REQUESTED_HELP: &str = "Effective requests of bound, unfinished pods, and devices held by claims.";
pub(super) const WITHHELD_HELP: &str =
    "Amount that is neither requested nor free, by reason. For a node, exported only if not 0.";
pub(super) const OVERCOMMITTED_HELP: &str = "Requests beyond installed. For a node, exported only if not 0.";
pub(super) const PHANTOM_HELP: &str =
    "Allocatable without healthy hardware behind it. For a node, exported only if not 0.";

/// The families of this section.
pub static FAMILIES: &[&Family] = &[
    &CLUSTER_INSTALLED,
    &CLUSTER_HEALTHY,
    &CLUSTER_CAPACITY,
    &CLUSTER_ALLOCATABLE,
    &CLUSTER_ADMISSIBLE,
    &CLUSTER_FREE,
    &CLUSTER_REQUESTED,
    &CLUSTER_WITHHELD,
    &CLUSTER_OVERCOMMITTED,
    &CLUSTER_PHANTOM,
    &CLUSTER_USED,
    &CLUSTER_NODES_MEASURED,
    &NODE_INSTALLED,
    &NODE_HEALTHY,
    &NODE_CAPACITY,
    &NODE_ALLOCATABLE,
    &NODE_ADMISSIBLE,
    &NODE_FREE,
    &NODE_REQUESTED,
    &NODE_WITHHELD,
    &NODE_OVERCOMMITTED,
    &NODE_PHANTOM,
    &NODE_USED,
];

/// Writes the section.
pub(crate) fn write(nodes: &Nodes, spelling: &Spelling, out: &mut Exposition<'_>) {
    let cluster = Group { pool: None, ladders: &nodes.sums, used: &nodes.used };
    write_sums(&OF_CLUSTER, &[cluster], spelling, out);
    write_nodes(nodes, spelling, out);
}

/// Writes families of sums over nodes, for each of these groups of nodes.
pub(super) fn write_sums(
    families: &FamiliesOfSums,
    groups: &[Group<'_>],
    spelling: &Spelling,
    out: &mut Exposition<'_>,
) {
    let ladders = || groups.iter().flat_map(|group| group.ladders(spelling));
    let accounts = || ladders().filter_map(|(pool, resource, rung)| Some((pool, resource, rung.account.as_ref()?)));
    let used = || groups.iter().flat_map(|group| group.used(spelling));
    let mut labels = Labels::new();
    for (family, amount) in families.plain.iter().zip(AMOUNTS) {
        let mut lines = out.family(family);
        for (pool, resource, rung) in ladders() {
            if let Some(amount) = amount(rung) {
                lines.line(push_pool(labels.cut(0), pool).extend(&resource.labels), resource.value(amount));
            }
        }
    }
    let mut lines = out.family(families.requested);
    for (pool, resource, account) in accounts() {
        write_requested(&mut lines, labels.cut(0), pool, resource, account);
    }
    let mut lines = out.family(families.withheld);
    for (pool, resource, rung) in ladders() {
        // Only resources that claims can hold are withheld for this reason.
        let shown = |reason: Reason| reason != Reason::DeviceTainted || rung.has_units;
        let withheld = rung.account.iter().flat_map(|account| account.withheld.iter());
        for (reason, amount) in withheld.filter(|(reason, _)| shown(*reason)) {
            push_pool(labels.cut(0), pool).push("reason", reason.label()).extend(&resource.labels);
            lines.line(&labels, resource.value(amount));
        }
    }
    let mut lines = out.family(families.overcommitted);
    for (pool, resource, account) in accounts() {
        let labels = push_pool(labels.cut(0), pool).extend(&resource.labels);
        lines.line(labels, resource.value(account.overcommitted));
    }
    let mut lines = out.family(families.phantom);
    for (pool, resource, rung) in ladders() {
        if let Some(phantom) = rung.phantom {
            lines.line(push_pool(labels.cut(0), pool).extend(&resource.labels), resource.value(phantom));
        }
    }
    let mut lines = out.family(families.used);
    for (pool, resource, all) in used() {
        write_used(&mut lines, labels.cut(0), pool, resource, &all.used);
    }
    let mut lines = out.family(families.nodes_measured);
    for (pool, resource, all) in used() {
        lines.line(push_pool(labels.cut(0), pool).extend(&resource.resource), Value::Unsigned(all.nodes));
    }
}

impl<'a> Group<'a> {
    /// Each resource with its pool and its ladder.
    fn ladders<'s>(
        &'s self,
        spelling: &'s Spelling,
    ) -> impl Iterator<Item = (Option<&'a str>, &'s Spelled, &'a ResourceLadder)> {
        self.ladders.iter().filter_map(|(resource, rung)| Some((self.pool, spelling.get(resource)?, rung)))
    }

    /// Each resource that is measured, with its pool and its use.
    fn used<'s>(
        &'s self,
        spelling: &'s Spelling,
    ) -> impl Iterator<Item = (Option<&'a str>, &'s Spelled, &'a UsedInAll)> {
        self.used.iter().filter_map(|(resource, all)| Some((self.pool, spelling.get(resource)?, all)))
    }
}

/// Adds the label of a pool, if there is one.
fn push_pool<'l>(labels: &'l mut Labels, pool: Option<&str>) -> &'l mut Labels {
    match pool {
        Some(pool) => labels.push("pool", pool),
        None => labels,
    }
}

fn write_nodes(nodes: &Nodes, spelling: &Spelling, out: &mut Exposition<'_>) {
    for (family, amount) in PLAIN_OF_NODE.iter().zip(AMOUNTS) {
        let mut lines = out.family(family);
        each(nodes, spelling, |labels, resource, rung| {
            if let Some(amount) = amount(rung) {
                lines.line(labels.extend(&resource.labels), resource.value(amount));
            }
        });
    }
    let mut lines = out.family(&NODE_REQUESTED);
    each_account(nodes, spelling, |labels, resource, account| {
        write_requested(&mut lines, labels, None, resource, account);
    });
    let mut lines = out.family(&NODE_WITHHELD);
    each_account(nodes, spelling, |labels, resource, account| {
        let mark = labels.mark();
        for (reason, amount) in account.withheld.iter().filter(|(_, amount)| *amount != 0) {
            labels.cut(mark).push("reason", reason.label()).extend(&resource.labels);
            lines.line(labels, resource.value(amount));
        }
    });
    let mut lines = out.family(&NODE_OVERCOMMITTED);
    each_account(nodes, spelling, |labels, resource, account| {
        if account.overcommitted != 0 {
            lines.line(labels.extend(&resource.labels), resource.value(account.overcommitted));
        }
    });
    let mut lines = out.family(&NODE_PHANTOM);
    each(nodes, spelling, |labels, resource, rung| {
        if let Some(phantom) = rung.phantom.filter(|phantom| *phantom != 0) {
            lines.line(labels.extend(&resource.labels), resource.value(phantom));
        }
    });
    let mut lines = out.family(&NODE_USED);
    let mut labels = Labels::new();
    for NodeView { node, measured, .. } in nodes.nodes.iter().map(|view| &**view) {
        let mark = labels.cut(0).push("node", &node.name).mark();
        for (resource, used) in measured.iter().flat_map(|measured| &measured.used) {
            if let Some(resource) = spelling.get(resource) {
                write_used(&mut lines, labels.cut(mark), None, resource, used);
            }
        }
    }
}

fn write_requested(
    lines: &mut Lines<'_, '_>,
    labels: &mut Labels,
    pool: Option<&str>,
    resource: &Spelled,
    account: &Account,
) {
    let mark = labels.mark();
    for (owner, amount) in [("appwrapper", account.requested.appwrapper), ("other", account.requested.other)] {
        push_pool(labels.cut(mark).push("owner", owner), pool).extend(&resource.labels);
        lines.line(labels, resource.value(amount));
    }
}

/// Writes one series for each owner whose use is known.
fn write_used(lines: &mut Lines<'_, '_>, labels: &mut Labels, pool: Option<&str>, resource: &Spelled, used: &Used) {
    let mark = labels.mark();
    for (owner, used) in [("appwrapper", used.appwrapper), ("other", used.other), ("system", used.system)] {
        if let Some(used) = used {
            push_pool(labels.cut(mark).push("owner", owner), pool).extend(&resource.labels);
            lines.line(labels, resource.used(used));
        }
    }
}

/// Calls `write` with the label `node` for each node and resource whose account is known.
fn each_account(nodes: &Nodes, spelling: &Spelling, mut write: impl FnMut(&mut Labels, &Spelled, &Account)) {
    each(nodes, spelling, |labels, resource, rung| {
        if let Some(account) = &rung.account {
            write(labels, resource, account);
        }
    });
}

/// Calls `write` with the label `node` for each node and resource.
fn each(nodes: &Nodes, spelling: &Spelling, mut write: impl FnMut(&mut Labels, &Spelled, &ResourceLadder)) {
    let mut labels = Labels::new();
    for NodeView { node, rungs, .. } in nodes.nodes.iter().map(|view| &**view) {
        let mark = labels.cut(0).push("node", &node.name).mark();
        for (resource, rung) in rungs {
            if let Some(resource) = spelling.get(resource) {
                write(labels.cut(mark), resource, rung);
            }
        }
    }
}
