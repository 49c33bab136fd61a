//! Section B of the metrics contract: the ladder of every node, and of the cluster.
use mcad_accounting::ladder::{Account, Rung};
use mcad_accounting::measure::Used;
use mcad_accounting::snapshot::Nodes;
use mcad_accounting::views::NodeView;

use super::{BY_LABEL, Spelled, Spelling, gauge};
use crate::exposition::{Exposition, Family, Labels, Lines, Value};

const NODE: &[&str] = &["node", "resource", "unit"];
const NODE_OWNER: &[&str] = &["node", "owner", "resource", "unit"];
const NODE_REASON: &[&str] = &["node", "reason", "resource", "unit"];
const CLUSTER: &[&str] = &["resource", "unit"];
const CLUSTER_OWNER: &[&str] = &["owner", "resource", "unit"];
const CLUSTER_REASON: &[&str] = &["reason", "resource", "unit"];

pub(crate) static NODE_INSTALLED: Family = gauge("mcad_node_installed", NODE, BY_LABEL, INSTALLED_HELP);
pub(crate) static NODE_HEALTHY: Family = gauge("mcad_node_healthy", NODE, BY_LABEL, HEALTHY_HELP);
static NODE_CAPACITY: Family = gauge("mcad_node_capacity", NODE, BY_LABEL, CAPACITY_HELP);
static NODE_ALLOCATABLE: Family = gauge("mcad_node_allocatable", NODE, BY_LABEL, ALLOCATABLE_HELP);
static NODE_ADMISSIBLE: Family = gauge("mcad_node_admissible", NODE, BY_LABEL, ADMISSIBLE_HELP);
static NODE_FREE: Family = gauge("mcad_node_free", NODE, BY_LABEL, FREE_HELP);
pub(crate) static CLUSTER_INSTALLED: Family = gauge("mcad_cluster_installed", CLUSTER, BY_LABEL, INSTALLED_HELP);
pub(crate) static CLUSTER_HEALTHY: Family = gauge("mcad_cluster_healthy", CLUSTER, BY_LABEL, HEALTHY_HELP);
static CLUSTER_CAPACITY: Family = gauge("mcad_cluster_capacity", CLUSTER, BY_LABEL, CAPACITY_HELP);
static CLUSTER_ALLOCATABLE: Family = gauge("mcad_cluster_allocatable", CLUSTER, BY_LABEL, ALLOCATABLE_HELP);
static CLUSTER_ADMISSIBLE: Family = gauge("mcad_cluster_admissible", CLUSTER, BY_LABEL, ADMISSIBLE_HELP);
static CLUSTER_FREE: Family = gauge("mcad_cluster_free", CLUSTER, BY_LABEL, FREE_HELP);

const INSTALLED_HELP: &str = "What the machine has: processors online, MemTotal, GPUs on the bus, in NVML or expected; kubelet's capacity where no agent reports.";
const HEALTHY_HELP: &str = "Installed less what is lost or unhealthy.";
const CAPACITY_HELP: &str = "status.capacity of the Node.";
const ALLOCATABLE_HELP: &str = "status.allocatable of the Node.";
const ADMISSIBLE_HELP: &str = "Allocatable where new pods may land, else 0.";
const FREE_HELP: &str = "What a new pod could get now.";
const USED_HELP: &str = "Measured: cores busy between the last two reports, working-set bytes, GPUs busy. Of the cluster, over the nodes that mcad_cluster_nodes_measured counts.";

type Figure = fn(&Rung) -> Option<i128>;

/// Families with one line a resource, of the cluster and of a node, and the figure they show.
static PLAIN: [(&Family, &Family, Figure); 6] = [
    (&CLUSTER_INSTALLED, &NODE_INSTALLED, |rung| Some(rung.installed)),
    (&CLUSTER_HEALTHY, &NODE_HEALTHY, |rung| Some(rung.healthy)),
    (&CLUSTER_CAPACITY, &NODE_CAPACITY, |rung| Some(rung.capacity)),
    (&CLUSTER_ALLOCATABLE, &NODE_ALLOCATABLE, |rung| Some(rung.allocatable)),
    (&CLUSTER_ADMISSIBLE, &NODE_ADMISSIBLE, |rung| Some(rung.admissible)),
    (&CLUSTER_FREE, &NODE_FREE, |rung| Some(rung.account.as_ref()?.free)),
];

pub(crate) static NODE_USED: Family = gauge("mcad_node_used", NODE_OWNER, BY_LABEL, USED_HELP);
pub(crate) static CLUSTER_USED: Family = gauge("mcad_cluster_used", CLUSTER_OWNER, BY_LABEL, USED_HELP);
pub(crate) static CLUSTER_NODES_MEASURED: Family =
    gauge("mcad_cluster_nodes_measured", &["resource"], "nodes", "Nodes that mcad_cluster_used comes from.");
static NODE_REQUESTED: Family = gauge("mcad_node_requested", NODE_OWNER, BY_LABEL, REQUESTED_HELP);
static NODE_WITHHELD: Family = gauge("mcad_node_withheld", NODE_REASON, BY_LABEL, WITHHELD_HELP);
static NODE_OVERCOMMITTED: Family = gauge("mcad_node_overcommitted", NODE, BY_LABEL, OVERCOMMITTED_HELP);
static NODE_PHANTOM: Family = gauge("mcad_node_phantom", NODE, BY_LABEL, PHANTOM_HELP);
static CLUSTER_REQUESTED: Family = gauge("mcad_cluster_requested", CLUSTER_OWNER, BY_LABEL, REQUESTED_HELP);
static CLUSTER_WITHHELD: Family = gauge("mcad_cluster_withheld", CLUSTER_REASON, BY_LABEL, WITHHELD_HELP);
static CLUSTER_OVERCOMMITTED: Family = gauge("mcad_cluster_overcommitted", CLUSTER, BY_LABEL, OVERCOMMITTED_HELP);
static CLUSTER_PHANTOM: Family = gauge("mcad_cluster_phantom", CLUSTER, BY_LABEL, PHANTOM_HELP);

const REQUESTED_HELP: &str = "Effective requests of bound, unfinished pods.";
const WITHHELD_HELP: &str = "Neither requested nor free, by reason. Of a node only where it is not 0.";
const OVERCOMMITTED_HELP: &str = "Requests beyond installed. Of a node only where it is not 0.";
const PHANTOM_HELP: &str = "Allocatable that no healthy hardware stands behind. Of a node only where it is not 0.";

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
    write_cluster(nodes, spelling, out);
    write_nodes(nodes, spelling, out);
}

fn write_cluster(nodes: &Nodes, spelling: &Spelling, out: &mut Exposition<'_>) {
    let sums: Vec<_> = nodes.sums.iter().filter_map(|(resource, rung)| Some((spelling.get(resource)?, rung))).collect();
    for (family, _, figure) in &PLAIN {
        let mut lines = out.family(family);
        for (resource, rung) in &sums {
            if let Some(amount) = figure(rung) {
                lines.line(&resource.labels, resource.value(amount));
            }
        }
    }
    let accounts: Vec<_> =
        sums.iter().filter_map(|(resource, rung)| Some((resource, rung.account.as_ref()?))).collect();
    let mut lines = out.family(&CLUSTER_REQUESTED);
    for (resource, account) in &accounts {
        write_requested(&mut lines, &mut Labels::new(), resource, account);
    }
    let mut lines = out.family(&CLUSTER_WITHHELD);
    for (resource, account) in &accounts {
        for (reason, amount) in account.withheld.iter() {
            let mut labels = Labels::of(&[("reason", reason.label())]);
            lines.line(labels.extend(&resource.labels), resource.value(amount));
        }
    }
    let mut lines = out.family(&CLUSTER_OVERCOMMITTED);
    for (resource, account) in &accounts {
        lines.line(&resource.labels, resource.value(account.overcommitted));
    }
    let mut lines = out.family(&CLUSTER_PHANTOM);
    for (resource, rung) in &sums {
        if let Some(phantom) = rung.phantom {
            lines.line(&resource.labels, resource.value(phantom));
        }
    }
    let mut lines = out.family(&CLUSTER_USED);
    let used: Vec<_> = nodes.used.iter().filter_map(|(resource, all)| Some((spelling.get(resource)?, all))).collect();
    for (resource, all) in &used {
        write_used(&mut lines, &mut Labels::new(), resource, &all.used);
    }
    let mut lines = out.family(&CLUSTER_NODES_MEASURED);
    for (resource, all) in &used {
        lines.line(&resource.resource, Value::Unsigned(all.nodes));
    }
}

fn write_nodes(nodes: &Nodes, spelling: &Spelling, out: &mut Exposition<'_>) {
    for (_, family, figure) in &PLAIN {
        let mut lines = out.family(family);
        each(nodes, spelling, |labels, resource, rung| {
            if let Some(amount) = figure(rung) {
                lines.line(labels.extend(&resource.labels), resource.value(amount));
            }
        });
    }
    let mut lines = out.family(&NODE_REQUESTED);
    each_account(nodes, spelling, |labels, resource, account| write_requested(&mut lines, labels, resource, account));
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
                write_used(&mut lines, labels.cut(mark), resource, used);
            }
        }
    }
}

fn write_requested(lines: &mut Lines<'_, '_>, labels: &mut Labels, resource: &Spelled, account: &Account) {
    let mark = labels.mark();
    for (owner, amount) in [("appwrapper", account.requested.appwrapper), ("other", account.requested.other)] {
        labels.cut(mark).push("owner", owner).extend(&resource.labels);
        lines.line(labels, resource.value(amount));
    }
}

/// One line for each owner whose use is known.
pub(crate) fn write_used(lines: &mut Lines<'_, '_>, labels: &mut Labels, resource: &Spelled, used: &Used) {
    let mark = labels.mark();
    for (owner, used) in [("appwrapper", used.appwrapper), ("other", used.other), ("system", used.system)] {
        if let Some(used) = used {
            labels.cut(mark).push("owner", owner).extend(&resource.labels);
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
fn each(nodes: &Nodes, spelling: &Spelling, mut write: impl FnMut(&mut Labels, &Spelled, &Rung)) {
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
