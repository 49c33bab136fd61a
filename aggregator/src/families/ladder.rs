//! Section B of the metrics contract: the ladder of every node, and of the cluster.
use crate::exposition::{Exposition, Family, Labels, Lines};
use crate::ladder::Rung;
use crate::resource::Resource;
use crate::snapshot::{NodeView, Nodes};

use super::{BY_LABEL, Spelled, gauge};

const NODE: &[&str] = &["node", "resource", "unit"];
const NODE_OWNER: &[&str] = &["node", "owner", "resource", "unit"];
const NODE_REASON: &[&str] = &["node", "reason", "resource", "unit"];
const CLUSTER: &[&str] = &["resource", "unit"];
const CLUSTER_OWNER: &[&str] = &["owner", "resource", "unit"];
const CLUSTER_REASON: &[&str] = &["reason", "resource", "unit"];

/// Families with one line a resource, and the figure each shows.
static PLAIN: [(Family, Family, Figure); 6] = [
    plain(
        "mcad_node_installed",
        "mcad_cluster_installed",
        "What the machine has: processors online, MemTotal, GPUs on the bus, in NVML or expected; kubelet's capacity where no agent has reported.",
        |rung| rung.installed,
    ),
    plain("mcad_node_healthy", "mcad_cluster_healthy", "Installed less what is lost or unhealthy.", |rung| {
        rung.healthy
    }),
    plain("mcad_node_capacity", "mcad_cluster_capacity", "status.capacity of the Node.", |rung| rung.capacity),
    plain("mcad_node_allocatable", "mcad_cluster_allocatable", "status.allocatable of the Node.", |rung| {
        rung.allocatable
    }),
    plain("mcad_node_admissible", "mcad_cluster_admissible", "Allocatable where new pods may land, else 0.", |rung| {
        rung.admissible
    }),
    plain("mcad_node_free", "mcad_cluster_free", "What a new pod could get now.", |rung| rung.free),
];
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
    &PLAIN[0].1,
    &PLAIN[1].1,
    &PLAIN[2].1,
    &PLAIN[3].1,
    &PLAIN[4].1,
    &PLAIN[5].1,
    &CLUSTER_REQUESTED,
    &CLUSTER_WITHHELD,
    &CLUSTER_OVERCOMMITTED,
    &CLUSTER_PHANTOM,
    &PLAIN[0].0,
    &PLAIN[1].0,
    &PLAIN[2].0,
    &PLAIN[3].0,
    &PLAIN[4].0,
    &PLAIN[5].0,
    &NODE_REQUESTED,
    &NODE_WITHHELD,
    &NODE_OVERCOMMITTED,
    &NODE_PHANTOM,
];

type Figure = fn(&Rung) -> i128;

const fn plain(
    node: &'static str,
    cluster: &'static str,
    help: &'static str,
    figure: Figure,
) -> (Family, Family, Figure) {
    (gauge(node, NODE, BY_LABEL, help), gauge(cluster, CLUSTER, BY_LABEL, help), figure)
}

/// Writes the section.
pub fn write(nodes: &Nodes, out: &mut Exposition<'_>) {
    write_cluster(nodes, out);
    write_nodes(nodes, out);
}

fn write_cluster(nodes: &Nodes, out: &mut Exposition<'_>) {
    let sums: Vec<_> = nodes.sums.iter().map(|(resource, rung)| (Spelled::new(resource), rung)).collect();
    for (_, family, figure) in &PLAIN {
        let mut lines = out.family(family);
        for (resource, rung) in &sums {
            lines.line(&resource.labels, resource.value(figure(rung)));
        }
    }
    let mut lines = out.family(&CLUSTER_REQUESTED);
    for (resource, rung) in &sums {
        write_requested(&mut lines, &mut Labels::new(), resource, rung);
    }
    let mut lines = out.family(&CLUSTER_WITHHELD);
    for (resource, rung) in &sums {
        for (reason, amount) in rung.withheld.iter() {
            let mut labels = Labels::of(&[("reason", reason.label())]);
            lines.line(labels.extend(&resource.labels), resource.value(amount));
        }
    }
    let mut lines = out.family(&CLUSTER_OVERCOMMITTED);
    for (resource, rung) in &sums {
        lines.line(&resource.labels, resource.value(rung.overcommitted));
    }
    let mut lines = out.family(&CLUSTER_PHANTOM);
    for (resource, rung) in &sums {
        if let Some(phantom) = rung.phantom {
            lines.line(&resource.labels, resource.value(phantom));
        }
    }
}

fn write_nodes(nodes: &Nodes, out: &mut Exposition<'_>) {
    let spelled = nodes.sums.keys().map(|resource| (resource, Spelled::new(resource))).collect();
    for (family, _, figure) in &PLAIN {
        let mut lines = out.family(family);
        each(nodes, &spelled, |labels, resource, rung| {
            lines.line(labels.extend(&resource.labels), resource.value(figure(rung)));
        });
    }
    let mut lines = out.family(&NODE_REQUESTED);
    each(nodes, &spelled, |labels, resource, rung| write_requested(&mut lines, labels, resource, rung));
    let mut lines = out.family(&NODE_WITHHELD);
    each(nodes, &spelled, |labels, resource, rung| {
        let mark = labels.mark();
        for (reason, amount) in rung.withheld.iter().filter(|(_, amount)| *amount != 0) {
            labels.cut(mark).push("reason", reason.label()).extend(&resource.labels);
            lines.line(labels, resource.value(amount));
        }
    });
    let mut lines = out.family(&NODE_OVERCOMMITTED);
    each(nodes, &spelled, |labels, resource, rung| {
        if rung.overcommitted != 0 {
            lines.line(labels.extend(&resource.labels), resource.value(rung.overcommitted));
        }
    });
    let mut lines = out.family(&NODE_PHANTOM);
    each(nodes, &spelled, |labels, resource, rung| {
        if let Some(phantom) = rung.phantom.filter(|phantom| *phantom != 0) {
            lines.line(labels.extend(&resource.labels), resource.value(phantom));
        }
    });
}

fn write_requested(lines: &mut Lines<'_, '_>, labels: &mut Labels, resource: &Spelled, rung: &Rung) {
    let mark = labels.mark();
    for (owner, amount) in [("appwrapper", rung.requested.appwrapper), ("other", rung.requested.other)] {
        labels.cut(mark).push("owner", owner).extend(&resource.labels);
        lines.line(labels, resource.value(amount));
    }
}

type AllSpelled<'a> = std::collections::BTreeMap<&'a Resource, Spelled>;

/// Calls `write` with the label `node` for each node and resource.
fn each(nodes: &Nodes, spelled: &AllSpelled<'_>, mut write: impl FnMut(&mut Labels, &Spelled, &Rung)) {
    let mut labels = Labels::new();
    for NodeView { node, rungs, .. } in &nodes.nodes {
        let mark = labels.cut(0).push("node", &node.name).mark();
        for (resource, rung) in rungs {
            if let Some(resource) = spelled.get(resource) {
                write(labels.cut(mark), resource, rung);
            }
        }
    }
}
