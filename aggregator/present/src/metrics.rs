//! The families of `/metrics`, from one [`Snapshot`]. Owns names, labels, help and the conversion to seconds and cores;
//! pure. docs/metrics.md lists [`all`] of them, and a test holds the two together.
//!
//! What is unknown has no line. What is known has its line also at 0.
use std::collections::BTreeMap;

use mcad_accounting::cluster::LeftOut;
use mcad_accounting::merge::{AgentHealth, CgroupSource, Expectation, Figures, GpuSource, Node, Role, Snapshot};
use mcad_accounting::now::Now;
use mcad_accounting::object::Excess;
use mcad_accounting::resource::Resource;

use crate::exposition::{Exposition, Family, Kind, Labels, Value};
use crate::families::ladder::{
    CLUSTER_HEALTHY, CLUSTER_INSTALLED, CLUSTER_NODES_MEASURED, CLUSTER_USED, NODE_HEALTHY, NODE_INSTALLED, NODE_USED,
    write_used,
};
use crate::families::{self, Spelled};
use crate::version::{REVISION, VERSION};

const NODE: &[&str] = &["node"];
static CGROUP_CPU_SECONDS: Family = Family {
    name: "mcad_cgroup_cpu_seconds_total",
    kind: Kind::Counter,
    labels: &["cgroup", "node"],
    unit: "seconds",
    help: "CPU time of one cgroup and all below it. Without Kubernetes only.",
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
    help: "Whether the node's agent reported within three of its intervals. Of the nodes that --agent-nodes chooses.",
};
static NODE_REPORT_AGE: Family = Family {
    name: "mcad_node_report_age_seconds",
    kind: Kind::Gauge,
    labels: NODE,
    unit: "seconds",
    help: "Time since the node's last report was received.",
};
static NODE_CLOCK_SKEW: Family = Family {
    name: "mcad_node_clock_skew_seconds",
    kind: Kind::Gauge,
    labels: NODE,
    unit: "seconds",
    help: "How far the node's clock is ahead of the aggregator's; a report's way counts as behind. No figure rests on it.",
};
static NODE_SOURCE: Family = Family {
    name: "mcad_node_source",
    kind: Kind::Gauge,
    labels: &["figure", "node", "source"],
    unit: "1",
    help: "Where the node's figures of cgroups come from: bpf, cgroupfs or none.",
};
static NODE_GPUS_FAKE: Family = Family {
    name: "mcad_node_gpus_fake",
    kind: Kind::Gauge,
    labels: NODE,
    unit: "1",
    help: "The node's GPUs are those of fake-nvml, made up for trying out. Of other nodes there is no line.",
};
static SNAPSHOT_AGE: Family = Family {
    name: "mcad_snapshot_age_seconds",
    kind: Kind::Gauge,
    labels: &[],
    unit: "seconds",
    help: "Age of the snapshot that this scrape was made from.",
};
static FIT_AGE: Family = Family {
    name: "mcad_fit_age_seconds",
    kind: Kind::Gauge,
    labels: &[],
    unit: "seconds",
    help: "Age of the snapshot that fit on nodes was worked out from: mcad_appwrapper_fit by nodes.",
};
static UNREADABLE: Family = Family {
    name: "mcad_aggregator_unreadable_quantities",
    kind: Kind::Gauge,
    labels: &["list"],
    unit: "quantities",
    help: "Quantities and pod templates that could not be read in objects that are there now, by list. They count as absent.",
};
static LEFT_OUT: Family = Family {
    name: "mcad_aggregator_objects_left_out",
    kind: Kind::Gauge,
    labels: &["list", "reason"],
    unit: "objects",
    help: "Objects that are there now and bring more than one object may, by list and by what is too much. AppWrappers are left \
           out whole, of Nodes and Pods the surplus.",
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
    labels: &["revision", "version"],
    unit: "1",
    help: "The version that is running, and the commit that it was built from.",
};

/// The families of this file: agents, and the replica.
static OWN: &[&Family] = &[
    &NODE_AGENT_UP,
    &NODE_REPORT_AGE,
    &NODE_CLOCK_SKEW,
    &NODE_SOURCE,
    &NODE_CGROUPS_SEEN,
    &NODE_CGROUPS_DROPPED,
    &CGROUP_CPU_SECONDS,
    &NODE_GPUS_FAKE,
    &SNAPSHOT_AGE,
    &FIT_AGE,
    &UNREADABLE,
    &LEFT_OUT,
    &AGGREGATOR_LEADER,
    &BUILD_INFO,
];

/// All families, in the order in which they are written.
pub fn all() -> impl Iterator<Item = &'static Family> {
    families::all().chain(OWN.iter().copied())
}

/// Writes all families of a snapshot that is looked at `now`.
pub fn write(snapshot: &Snapshot, now: Now, out: &mut Exposition<'_>) {
    if snapshot.role == Role::Leader {
        match &snapshot.kubernetes {
            Some(kubernetes) => families::write(kubernetes, out),
            None => write_local(snapshot, out),
        }
        write_agents(&snapshot.nodes, out);
    }
    let age_ms = now.since(snapshot.made).as_millis() as u64;
    out.family(&SNAPSHOT_AGE).line(&Labels::new(), Value::Milli(age_ms));
    if let Some(fitted) = snapshot.fitted.filter(|_| snapshot.role == Role::Leader) {
        out.family(&FIT_AGE).line(&Labels::new(), Value::Milli(now.since(fitted).as_millis() as u64));
    }
    let mut lines = out.family(&UNREADABLE);
    for (list, count) in snapshot.kubernetes.iter().flat_map(|kubernetes| &kubernetes.unreadable) {
        lines.line(&Labels::of(&[("list", &list.to_string())]), Value::Unsigned(*count));
    }
    let mut lines = out.family(&LEFT_OUT);
    if let Some(kubernetes) = &snapshot.kubernetes {
        for source in &kubernetes.sources {
            let list = source.to_string();
            for excess in Excess::ALL {
                let is_of_these = |left: &&LeftOut| left.source == *source && left.excess == excess;
                let count = kubernetes.left_out.iter().find(is_of_these).map_or(0, |left| left.count);
                let labels = Labels::of(&[("list", &list), ("reason", excess.reason())]);
                lines.line(&labels, Value::Unsigned(count as u64));
            }
        }
    }
    let leader = u64::from(snapshot.role == Role::Leader);
    out.family(&AGGREGATOR_LEADER).line(&Labels::new(), Value::Unsigned(leader));
    let version = Labels::of(&[("revision", REVISION), ("version", VERSION)]);
    out.family(&BUILD_INFO).line(&version, Value::Unsigned(1));
}

/// Without Kubernetes only what agents measured is known.
fn write_local(snapshot: &Snapshot, out: &mut Exposition<'_>) {
    let all: Vec<_> = snapshot.cluster.iter().map(|(resource, all)| (resource, Spelled::new(resource), all)).collect();
    for (family, figure) in [(&CLUSTER_INSTALLED, INSTALLED), (&CLUSTER_HEALTHY, HEALTHY)] {
        let mut lines = out.family(family);
        for (_, resource, all) in &all {
            if let Some(amount) = figure(&all.sums) {
                lines.line(&resource.labels, resource.value(amount.into()));
            }
        }
    }
    let mut lines = out.family(&CLUSTER_USED);
    for (_, resource, all) in &all {
        write_used(&mut lines, &mut Labels::new(), resource, &all.sums.used);
    }
    let mut lines = out.family(&CLUSTER_NODES_MEASURED);
    for (resource, _, all) in &all {
        lines.line(&Labels::of(&[("resource", &resource.label())]), Value::Unsigned(all.nodes_measured));
    }
    for (family, figure) in [(&NODE_INSTALLED, INSTALLED), (&NODE_HEALTHY, HEALTHY)] {
        let mut lines = out.family(family);
        for_each_figures(&snapshot.nodes, |labels, resource, figures| {
            if let Some(amount) = figure(figures) {
                lines.line(labels.extend(&resource.labels), resource.value(amount.into()));
            }
        });
    }
    let mut lines = out.family(&NODE_USED);
    for_each_figures(&snapshot.nodes, |labels, resource, figures| {
        write_used(&mut lines, labels, resource, &figures.used);
    });
}

type Figure = fn(&Figures) -> Option<u64>;
const INSTALLED: Figure = |figures| figures.installed;
const HEALTHY: Figure = |figures| figures.healthy;

fn write_agents(nodes: &[Node], out: &mut Exposition<'_>) {
    write_each(out, &NODE_AGENT_UP, nodes, |node| {
        let up = u64::from(node.agent.health == AgentHealth::Up);
        (node.agent.expectation == Expectation::Expected).then_some(Value::Unsigned(up))
    });
    write_each(out, &NODE_REPORT_AGE, nodes, |node| Some(Value::Milli(node.agent.report_age?.as_millis() as u64)));
    write_each(out, &NODE_CLOCK_SKEW, nodes, |node| Some(Value::Float(node.agent.clock_skew_ms? as f64 / 1000.0)));
    write_sources(nodes, out);
    write_each(out, &NODE_CGROUPS_SEEN, nodes, |node| Some(Value::Unsigned(node.cgroups.as_ref()?.seen?.into())));
    write_each(out, &NODE_CGROUPS_DROPPED, nodes, |node| Some(Value::Unsigned(node.cgroups.as_ref()?.dropped?.into())));
    write_cgroups(nodes, out);
    write_each(out, &NODE_GPUS_FAKE, nodes, |node| {
        (node.gpu_source == Some(GpuSource::Fake)).then_some(Value::Unsigned(1))
    });
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

/// Calls `write` with the label `node` for each node and resource.
fn for_each_figures(nodes: &[Node], mut write: impl FnMut(&mut Labels, &Spelled, &Figures)) {
    let mut spelled: BTreeMap<&Resource, Spelled> = BTreeMap::new();
    let mut labels = Labels::new();
    for node in nodes {
        let node_mark = labels.cut(0).push("node", node.name.as_str()).mark();
        for (resource, figures) in &node.figures {
            let resource = spelled.entry(resource).or_insert_with(|| Spelled::new(resource));
            write(labels.cut(node_mark), resource, figures);
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
        let labels = Labels::of(&[("figure", "cgroup"), ("node", node.name.as_str()), ("source", source)]);
        lines.line(&labels, Value::Unsigned(1));
    }
}

fn write_cgroups(nodes: &[Node], out: &mut Exposition<'_>) {
    let mut lines = out.family(&CGROUP_CPU_SECONDS);
    let mut labels = Labels::new();
    for node in nodes {
        for (path, cpu_ns) in node.cgroups.iter().flat_map(|cgroups| &cgroups.cpu_ns) {
            lines.line(labels.cut(0).push("cgroup", path).push("node", node.name.as_str()), Value::Nano(*cpu_ns));
        }
    }
}

#[cfg(test)]
mod tests;
