//! The families of `/metrics`, from one [`Snapshot`]. Owns names, labels, help and the conversion to seconds and cores;
//! pure. docs/metrics.md lists [`FAMILIES`], and a test holds the two together.
//!
//! What is unknown has no line. What is known has its line also at 0.
use std::collections::BTreeMap;

use crate::clock::Now;
use crate::exposition::{Exposition, Family, Kind, Labels, Lines, Value};
use crate::merge::{AgentHealth, CgroupSource, Figures, Node, Resource, Role, Snapshot, Used};

const NODE: &[&str] = &["node"];
const LADDER_NODE: &[&str] = &["node", "resource", "unit"];
const LADDER_NODE_OWNER: &[&str] = &["node", "resource", "unit", "owner"];
const LADDER: &[&str] = &["resource", "unit"];
const LADDER_OWNER: &[&str] = &["resource", "unit", "owner"];
/// The unit is in the label.
const BY_LABEL: &str = "see `unit`";

static NODE_INSTALLED: Family = Family {
    name: "mcad_node_installed",
    kind: Kind::Gauge,
    labels: LADDER_NODE,
    unit: BY_LABEL,
    help: "What the machine has: processors online, MemTotal, GPUs on the bus or in NVML or remembered.",
};
static NODE_HEALTHY: Family = Family {
    name: "mcad_node_healthy",
    kind: Kind::Gauge,
    labels: LADDER_NODE,
    unit: BY_LABEL,
    help: "Installed less what is lost or unhealthy.",
};
static NODE_USED: Family = Family {
    name: "mcad_node_used",
    kind: Kind::Gauge,
    labels: LADDER_NODE_OWNER,
    unit: BY_LABEL,
    help: "Measured: cores busy between the last two reports, working-set bytes, GPUs busy.",
};
static CLUSTER_INSTALLED: Family = Family {
    name: "mcad_cluster_installed",
    kind: Kind::Gauge,
    labels: LADDER,
    unit: BY_LABEL,
    help: "Sum of mcad_node_installed.",
};
static CLUSTER_HEALTHY: Family = Family {
    name: "mcad_cluster_healthy",
    kind: Kind::Gauge,
    labels: LADDER,
    unit: BY_LABEL,
    help: "Sum of mcad_node_healthy.",
};
static CLUSTER_USED: Family = Family {
    name: "mcad_cluster_used",
    kind: Kind::Gauge,
    labels: LADDER_OWNER,
    unit: BY_LABEL,
    help: "Sum of mcad_node_used, over the nodes that mcad_cluster_nodes_measured counts.",
};
static CLUSTER_NODES_MEASURED: Family = Family {
    name: "mcad_cluster_nodes_measured",
    kind: Kind::Gauge,
    labels: &["resource"],
    unit: "nodes",
    help: "Nodes that mcad_cluster_used comes from.",
};
static CGROUP_CPU_SECONDS: Family = Family {
    name: "mcad_cgroup_cpu_seconds_total",
    kind: Kind::Counter,
    labels: &["node", "cgroup"],
    unit: "seconds",
    help: "CPU time of one cgroup and all below it. With --cluster local only.",
};
static NODE_CGROUPS_SEEN: Family = Family {
    name: "mcad_node_cgroups_seen",
    kind: Kind::Gauge,
    labels: NODE,
    unit: "cgroups",
    help: "Cgroups on the machine in the last sample, listed in the report or not.",
};
static NODE_CGROUPS_DROPPED: Family = Family {
    name: "mcad_node_cgroups_dropped",
    kind: Kind::Gauge,
    labels: NODE,
    unit: "cgroups",
    help: "Cgroups that found no room in the agent's maps in the last sample.",
};
static NODE_AGENT_UP: Family = Family {
    name: "mcad_node_agent_up",
    kind: Kind::Gauge,
    labels: NODE,
    unit: "0 or 1",
    help: "Whether the node's agent reported within three of its intervals.",
};
static NODE_REPORT_AGE: Family = Family {
    name: "mcad_node_report_age_seconds",
    kind: Kind::Gauge,
    labels: NODE,
    unit: "seconds",
    help: "Time since the node's last report was received.",
};
static NODE_SOURCE: Family = Family {
    name: "mcad_node_source",
    kind: Kind::Gauge,
    labels: &["node", "figure", "source"],
    unit: "1",
    help: "Where the node's figures of cgroups come from: bpf, cgroupfs or none.",
};
static SNAPSHOT_AGE: Family = Family {
    name: "mcad_snapshot_age_seconds",
    kind: Kind::Gauge,
    labels: &[],
    unit: "seconds",
    help: "Age of the snapshot that this scrape was made from.",
};
static AGGREGATOR_LEADER: Family = Family {
    name: "mcad_aggregator_leader",
    kind: Kind::Gauge,
    labels: &[],
    unit: "0 or 1",
    help: "Whether this replica exposes the cluster's families.",
};
static BUILD_INFO: Family = Family {
    name: "mcad_build_info",
    kind: Kind::Gauge,
    labels: &["version"],
    unit: "1",
    help: "The version that is running.",
};

/// All families, in the order in which they are written.
pub static FAMILIES: &[&Family] = &[
    &CLUSTER_INSTALLED,
    &CLUSTER_HEALTHY,
    &CLUSTER_USED,
    &CLUSTER_NODES_MEASURED,
    &NODE_INSTALLED,
    &NODE_HEALTHY,
    &NODE_USED,
    &NODE_AGENT_UP,
    &NODE_REPORT_AGE,
    &NODE_SOURCE,
    &NODE_CGROUPS_SEEN,
    &NODE_CGROUPS_DROPPED,
    &CGROUP_CPU_SECONDS,
    &SNAPSHOT_AGE,
    &AGGREGATOR_LEADER,
    &BUILD_INFO,
];

/// Writes all families of a snapshot that is looked at `now`.
pub fn write(snapshot: &Snapshot, now: Now, out: &mut Exposition<'_>) {
    if snapshot.role == Role::Leader {
        write_cluster(snapshot, out);
        write_nodes(&snapshot.nodes, out);
    }
    let age_ms = now.since(snapshot.made).as_millis() as u64;
    out.family(&SNAPSHOT_AGE).line(&Labels::new(), Value::Milli(age_ms));
    let leader = u64::from(snapshot.role == Role::Leader);
    out.family(&AGGREGATOR_LEADER).line(&Labels::new(), Value::Unsigned(leader));
    let version = Labels::of(&[("version", env!("CARGO_PKG_VERSION"))]);
    out.family(&BUILD_INFO).line(&version, Value::Unsigned(1));
}

fn write_cluster(snapshot: &Snapshot, out: &mut Exposition<'_>) {
    let all: Vec<_> = snapshot.cluster.iter().map(|(resource, all)| (Spelled::new(resource), all)).collect();
    for (family, figure) in [(&CLUSTER_INSTALLED, INSTALLED), (&CLUSTER_HEALTHY, HEALTHY)] {
        let mut lines = out.family(family);
        for (resource, all) in &all {
            if let Some(amount) = figure(&all.sums) {
                lines.line(&resource.labels, resource.amount(amount));
            }
        }
    }
    let mut lines = out.family(&CLUSTER_USED);
    for (resource, all) in &all {
        write_used(&mut lines, &mut resource.labels.clone(), resource, &all.sums.used);
    }
    let mut lines = out.family(&CLUSTER_NODES_MEASURED);
    for (resource, all) in &all {
        lines.line(&Labels::of(&[("resource", &resource.name)]), Value::Unsigned(all.nodes_measured));
    }
}

type Figure = fn(&Figures) -> Option<u64>;
const INSTALLED: Figure = |figures| figures.installed;
const HEALTHY: Figure = |figures| figures.healthy;

fn write_nodes(nodes: &[Node], out: &mut Exposition<'_>) {
    for (family, figure) in [(&NODE_INSTALLED, INSTALLED), (&NODE_HEALTHY, HEALTHY)] {
        let mut lines = out.family(family);
        for_each_figures(nodes, |labels, resource, figures| {
            if let Some(amount) = figure(figures) {
                lines.line(labels, resource.amount(amount));
            }
        });
    }
    let mut lines = out.family(&NODE_USED);
    for_each_figures(nodes, |labels, resource, figures| write_used(&mut lines, labels, resource, &figures.used));
    write_each(out, &NODE_AGENT_UP, nodes, |node| {
        Some(Value::Unsigned(u64::from(node.agent.health == AgentHealth::Up)))
    });
    write_each(out, &NODE_REPORT_AGE, nodes, |node| Some(Value::Milli(node.agent.report_age?.as_millis() as u64)));
    write_sources(nodes, out);
    write_each(out, &NODE_CGROUPS_SEEN, nodes, |node| Some(Value::Unsigned(node.cgroups.as_ref()?.seen?.into())));
    write_each(out, &NODE_CGROUPS_DROPPED, nodes, |node| Some(Value::Unsigned(node.cgroups.as_ref()?.dropped?.into())));
    write_cgroups(nodes, out);
}

/// One line a node, where there is a value.
fn write_each(out: &mut Exposition<'_>, family: &'static Family, nodes: &[Node], value: fn(&Node) -> Option<Value>) {
    let mut lines = out.family(family);
    let mut labels = Labels::new();
    for node in nodes {
        if let Some(value) = value(node) {
            labels.cut(0).push("node", node.name.as_str());
            lines.line(&labels, value);
        }
    }
}

/// Calls `write` with the labels of each node and resource.
fn for_each_figures(nodes: &[Node], mut write: impl FnMut(&mut Labels, &Spelled, &Figures)) {
    let mut spelled: BTreeMap<&Resource, Spelled> = BTreeMap::new();
    let mut labels = Labels::new();
    for node in nodes {
        let node_mark = labels.cut(0).push("node", node.name.as_str()).mark();
        for (resource, figures) in &node.figures {
            let resource = spelled.entry(resource).or_insert_with(|| Spelled::new(resource));
            labels.cut(node_mark).extend(&resource.labels);
            write(&mut labels, resource, figures);
        }
    }
}

fn write_used(lines: &mut Lines<'_, '_>, labels: &mut Labels, resource: &Spelled, used: &Used) {
    let mark = labels.mark();
    for (owner, used) in [("appwrapper", used.appwrapper), ("other", used.other), ("system", used.system)] {
        if let Some(used) = used {
            labels.cut(mark).push("owner", owner);
            lines.line(labels, resource.used(used));
        }
    }
}

fn write_sources(nodes: &[Node], out: &mut Exposition<'_>) {
    let mut lines = out.family(&NODE_SOURCE);
    for node in nodes {
        let source = match node.cgroups.as_ref().and_then(|cgroups| cgroups.source) {
            Some(CgroupSource::Bpf) => "bpf",
            Some(CgroupSource::Cgroupfs) => "cgroupfs",
            Some(CgroupSource::None) => "none",
            None => continue,
        };
        let labels = Labels::of(&[("node", node.name.as_str()), ("figure", "cgroup"), ("source", source)]);
        lines.line(&labels, Value::Unsigned(1));
    }
}

fn write_cgroups(nodes: &[Node], out: &mut Exposition<'_>) {
    let mut lines = out.family(&CGROUP_CPU_SECONDS);
    let mut labels = Labels::new();
    for node in nodes {
        let node_mark = labels.cut(0).push("node", node.name.as_str()).mark();
        for (path, cpu_ns) in node.cgroups.iter().flat_map(|cgroups| &cgroups.cpu_ns) {
            labels.cut(node_mark).push("cgroup", path);
            lines.line(&labels, Value::Nano(*cpu_ns));
        }
    }
}

/// A resource as kube-state-metrics spells it.
struct Spelled {
    name: String,
    labels: Labels,
    scale: Scale,
}

/// What the amounts of a resource are counted in.
#[derive(Clone, Copy)]
enum Scale {
    Cores,
    Bytes,
    Devices,
}

impl Spelled {
    fn new(resource: &Resource) -> Self {
        let (name, unit, scale) = match resource {
            Resource::Cpu => ("cpu".to_owned(), "core", Scale::Cores),
            Resource::Memory => ("memory".to_owned(), "byte", Scale::Bytes),
            Resource::Extended(name) => (label_spelling(name), "integer", Scale::Devices),
        };
        let labels = Labels::of(&[("resource", &name), ("unit", unit)]);
        Self { name, labels, scale }
    }

    fn amount(&self, amount: u64) -> Value {
        match self.scale {
            Scale::Cores => Value::Milli(amount),
            Scale::Bytes | Scale::Devices => Value::Unsigned(amount),
        }
    }

    fn used(&self, used: u64) -> Value {
        match self.scale {
            Scale::Bytes => Value::Unsigned(used),
            Scale::Cores | Scale::Devices => Value::Nano(used),
        }
    }
}

/// `[^a-zA-Z0-9_]` becomes `_`, as in kube-state-metrics' `SanitizeLabelName`.
pub fn label_spelling(resource: &str) -> String {
    resource.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests;
