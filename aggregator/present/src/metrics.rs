//! The families of `/metrics`, written from one [`Snapshot`]. Owns names, labels, help texts and the conversion to seconds and
//! cores; pure. docs/metrics.md lists [`all`] of them, and a test compares the two.
//!
//! An unknown value has no series. A known value has a series even if it is 0.
use mcad_accounting::cluster::LeftOut;
use mcad_accounting::now::Now;
use mcad_accounting::object::Excess;
use mcad_accounting::reported::CgroupSource;
use mcad_accounting::snapshot::agent::{Agent, AgentHealth, Expectation};
use mcad_accounting::snapshot::{Role, Snapshot};
use mcad_accounting::views::NodeView;

use crate::exposition::{Exposition, Family, Kind, Labels, Value};
use crate::families;
use crate::version::{REVISION, VERSION};

const NODE: &[&str] = &["node"];
static CGROUP_CPU_SECONDS: Family = Family {
    name: "mcad_cgroup_cpu_seconds_total",
    kind: Kind::Counter,
    labels: &["cgroup", "node"],
    unit: "seconds",
    help: "CPU time of one cgroup and its descendants. Only without Kubernetes.",
};
static NODE_CGROUPS_SEEN: Family = Family {
    name: "mcad_node_cgroups_seen",
    kind: Kind::Gauge,
    labels: NODE,
    unit: "cgroups",
    help: "Cgroups on the machine in the last sample, whether or not the report lists them.",
};
static NODE_CGROUPS_DROPPED: Family = Family {
    name: "mcad_node_cgroups_dropped",
    kind: Kind::Gauge,
    labels: NODE,
    unit: "cgroups",
    help: "Cgroups that the agent's maps had no room for in the last sample.",
};
static NODE_AGENT_UP: Family = Family {
    name: "mcad_node_agent_up",
    kind: Kind::Gauge,
    labels: NODE,
    unit: "0 or 1",
    help: "1 if the node's agent reported within three of its intervals, else 0. Only for nodes selected by --agent-nodes.",
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
    help: "How far the node's clock is ahead of the aggregator's, minus the transit time of the report. No other metric depends on it.",
};
static NODE_SOURCE: Family = Family {
    name: "mcad_node_source",
    kind: Kind::Gauge,
    labels: &["figure", "node", "source"],
    unit: "1",
    help: "Source of the node's cgroup measurements: bpf, cgroupfs or none.",
};
static NODE_GPUS_FAKE: Family = Family {
    name: "mcad_node_gpus_fake",
    kind: Kind::Gauge,
    labels: NODE,
    unit: "1",
    help: "1 if fake-nvml simulates the node's GPUs, for trying out. Not exported for other nodes.",
};
static SNAPSHOT_AGE: Family = Family {
    name: "mcad_snapshot_age_seconds",
    kind: Kind::Gauge,
    labels: &[],
    unit: "seconds",
    help: "Age of the snapshot that this scrape was written from.",
};
static FIT_AGE: Family = Family {
    name: "mcad_fit_age_seconds",
    kind: Kind::Gauge,
    labels: &[],
    unit: "seconds",
    help: "Age of the snapshot that mcad_appwrapper_fit with by=nodes was computed from; absent if it could not be computed.",
};
static UNREADABLE: Family = Family {
    name: "mcad_aggregator_unreadable_quantities",
    kind: Kind::Gauge,
    labels: &["list"],
    unit: "quantities",
    help: "Quantities and pod templates of existing objects that could not be parsed, by list. They count as absent.",
};
static LEFT_OUT: Family = Family {
    name: "mcad_aggregator_objects_left_out",
    kind: Kind::Gauge,
    labels: &["list", "reason"],
    unit: "objects",
    help: "Existing objects that exceed the limits of one object, by list and by limit. An AppWrapper is left out entirely; of a Node \
           or Pod, only the surplus is.",
};
static AGGREGATOR_LEADER: Family = Family {
    name: "mcad_aggregator_leader",
    kind: Kind::Gauge,
    labels: &[],
    unit: "0 or 1",
    help: "1 if this replica is the leader, which exports the cluster's metrics, else 0.",
};
static BUILD_INFO: Family = Family {
    name: "mcad_build_info",
    kind: Kind::Gauge,
    labels: &["revision", "version"],
    unit: "1",
    help: "Always 1. The labels are the version and the commit of the build.",
};

/// The families of this file: agents and the replica.
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

/// Writes all families of a snapshot; ages are those at `now`.
pub fn write(snapshot: &Snapshot, now: Now, out: &mut Exposition<'_>) {
    if snapshot.role == Role::Leader {
        families::write(snapshot, out);
        write_agents(&snapshot.agents, out);
        write_cgroups(snapshot, out);
        write_each(out, &NODE_GPUS_FAKE, &snapshot.agents, |agent| agent.has_fake_gpus().then_some(Value::Unsigned(1)));
    }
    let age_ms = now.since(snapshot.made).as_millis() as u64;
    out.family(&SNAPSHOT_AGE).line(&Labels::new(), Value::Milli(age_ms));
    if let Some(fitted) = snapshot.fitted.filter(|_| snapshot.role == Role::Leader) {
        out.family(&FIT_AGE).line(&Labels::new(), Value::Milli(now.since(fitted).as_millis() as u64));
    }
    let mut lines = out.family(&UNREADABLE);
    for (list, count) in &snapshot.unreadable {
        lines.line(&Labels::of(&[("list", &list.to_string())]), Value::Unsigned(*count));
    }
    let mut lines = out.family(&LEFT_OUT);
    for source in &snapshot.sources {
        let list = source.to_string();
        for excess in Excess::ALL {
            let is_of_these = |left: &&LeftOut| left.source == *source && left.excess == excess;
            let count = snapshot.left_out.iter().find(is_of_these).map_or(0, |left| left.count);
            let labels = Labels::of(&[("list", &list), ("reason", excess.reason())]);
            lines.line(&labels, Value::Unsigned(count as u64));
        }
    }
    let leader = u64::from(snapshot.role == Role::Leader);
    out.family(&AGGREGATOR_LEADER).line(&Labels::new(), Value::Unsigned(leader));
    let version = Labels::of(&[("revision", REVISION), ("version", VERSION)]);
    out.family(&BUILD_INFO).line(&version, Value::Unsigned(1));
}

fn write_agents(agents: &[Agent], out: &mut Exposition<'_>) {
    write_each(out, &NODE_AGENT_UP, agents, |agent| {
        let up = u64::from(agent.health == AgentHealth::Up);
        (agent.expectation == Expectation::Expected).then_some(Value::Unsigned(up))
    });
    write_each(out, &NODE_REPORT_AGE, agents, |agent| Some(Value::Milli(agent.report_age?.as_millis() as u64)));
    write_each(out, &NODE_CLOCK_SKEW, agents, |agent| Some(Value::Float(agent.clock_skew_ms? as f64 / 1000.0)));
    write_sources(agents, out);
    write_each(out, &NODE_CGROUPS_SEEN, agents, |agent| Some(Value::Unsigned(agent.sources?.seen?.into())));
    write_each(out, &NODE_CGROUPS_DROPPED, agents, |agent| Some(Value::Unsigned(agent.sources?.dropped?.into())));
}

/// Writes one series for each node that has a value.
fn write_each(out: &mut Exposition<'_>, family: &'static Family, agents: &[Agent], value: fn(&Agent) -> Option<Value>) {
    let mut lines = out.family(family);
    let mut labels = Labels::new();
    for agent in agents {
        if let Some(value) = value(agent) {
            labels.cut(0).push("node", agent.node.as_str());
            lines.line(&labels, value);
        }
    }
}

fn write_sources(agents: &[Agent], out: &mut Exposition<'_>) {
    let mut lines = out.family(&NODE_SOURCE);
    for agent in agents {
        let Some(source) = agent.sources.and_then(|sources| sources.cgroups).map(CgroupSource::label) else { continue };
        let labels = Labels::of(&[("figure", "cgroup"), ("node", agent.node.as_str()), ("source", source)]);
        lines.line(&labels, Value::Unsigned(1));
    }
}

fn write_cgroups(snapshot: &Snapshot, out: &mut Exposition<'_>) {
    let mut lines = out.family(&CGROUP_CPU_SECONDS);
    let mut labels = Labels::new();
    for NodeView { node, measured, .. } in snapshot.nodes.iter().flat_map(|nodes| &nodes.nodes).map(|view| &**view) {
        for (path, cpu_ns) in measured.iter().flat_map(|measured| &measured.cgroup_cpu_ns) {
            lines.line(labels.cut(0).push("cgroup", path).push("node", &node.name), Value::Nano(*cpu_ns));
        }
    }
}

#[cfg(test)]
mod tests;
