//! What one node measures, as metrics: for an agent without an aggregator. Pure: reports in, Prometheus text out.
//!
//! The families are those that `mcad-aggregator` exports from the same reports without Kubernetes, and its families of
//! single GPUs. They are identical byte for byte: a test of the aggregator compares both
//! (`aggregator/tests/rules/own_port.rs`). Families that depend on pods are not here.
mod amounts;
mod devices;
mod exposition;

use std::collections::BTreeMap;
use std::time::Duration;

use mcad_wire::report::{Cgroups, Report};

use self::amounts::Amounts;
pub(crate) use self::amounts::memory_used_bytes;
use self::exposition::{Family, Kind, Text, Value};

/// An agent that has not sampled for this many of its intervals is down, and its values are no longer valid.
const SILENT_INTERVALS: u32 = 3;

/// The last sample of a node.
#[derive(Clone, Copy, Debug)]
pub struct Sampled<'a> {
    /// The report before it. `None` if there is none; then there are no rates.
    pub before: Option<&'a Report>,
    /// Its report.
    pub last: &'a Report,
    /// How old it is.
    pub age: Duration,
}

static INSTALLED: Family = gauge(
    "mcad_node_installed",
    "Hardware of the machine: online CPUs, MemTotal, GPUs on the bus, in NVML or expected. If no agent reports, kubelet's capacity.",
);
static HEALTHY: Family = gauge("mcad_node_healthy", "Installed minus lost and unhealthy.");
static USED: Family = gauge(
    "mcad_node_used",
    "Measured use: cores busy between the last two reports, working-set bytes, GPUs busy. For the cluster: the sum over the nodes that mcad_cluster_nodes_measured counts.",
);
static AGENT_UP: Family = gauge(
    "mcad_node_agent_up",
    "1 if the node's agent reported within three of its intervals, else 0. Only for nodes selected by --agent-nodes.",
);
static REPORT_AGE: Family = gauge("mcad_node_report_age_seconds", "Time since the node's last report was received.");
static SOURCE: Family = gauge("mcad_node_source", "Source of the node's cgroup measurements: bpf, cgroupfs or none.");
static CGROUPS_SEEN: Family =
    gauge("mcad_node_cgroups_seen", "Cgroups on the machine in the last sample, whether or not the report lists them.");
static CGROUPS_DROPPED: Family =
    gauge("mcad_node_cgroups_dropped", "Cgroups that the agent's maps had no room for in the last sample.");
static CGROUP_CPU_SECONDS: Family = Family {
    name: "mcad_cgroup_cpu_seconds_total",
    kind: Kind::Counter,
    help: "CPU time of one cgroup and its descendants. Only without Kubernetes.",
};
static GPUS_FAKE: Family = gauge(
    "mcad_node_gpus_fake",
    "1 if fake-nvml simulates the node's GPUs, for trying out. Not exported for other nodes.",
);

/// The families of this file; those of GPUs are in a file of their own.
static OWN: [&Family; 10] = [
    &INSTALLED,
    &HEALTHY,
    &USED,
    &AGENT_UP,
    &REPORT_AGE,
    &SOURCE,
    &CGROUPS_SEEN,
    &CGROUPS_DROPPED,
    &CGROUP_CPU_SECONDS,
    &GPUS_FAKE,
];

/// The names of all families that can be exported.
pub fn names() -> impl Iterator<Item = &'static str> {
    OWN.iter().chain(&devices::FAMILIES).map(|family| family.name)
}

/// The metrics of a sample. If the sample is too old, only that fact and its age are exported.
pub fn text(sampled: Sampled<'_>) -> String {
    let mut out = Text::default();
    let node = &*sampled.last.node;
    let is_up = sampled.age <= Duration::from_millis(sampled.last.interval_ms) * SILENT_INTERVALS;
    if is_up {
        write_amounts(node, &amounts::amounts(sampled.before, sampled.last), &mut out);
        devices::write(sampled.last, &mut out);
    }
    out.family(&AGENT_UP).line(&[("node", node)], Value::Whole(is_up.into()));
    out.family(&REPORT_AGE).line(&[("node", node)], Value::Milli(sampled.age.as_millis() as u64));
    if is_up {
        write_sources(sampled.last, &mut out);
    }
    out.into_string()
}

fn write_amounts(node: &str, all: &[Amounts], out: &mut Text) {
    type Read = fn(&Amounts) -> Option<u64>;
    let values: [(&Family, Read); 2] = [(&INSTALLED, |of| of.installed), (&HEALTHY, |of| of.healthy)];
    for (family, read) in values {
        let mut lines = out.family(family);
        for of in all {
            if let Some(amount) = read(of) {
                let labels = [("node", node), ("resource", &*of.resource), ("unit", of.unit.label())];
                lines.line(&labels, of.unit.value(amount));
            }
        }
    }
    let mut lines = out.family(&USED);
    for of in all {
        if let Some(used) = of.used {
            // Pods are not known, so everything that is used is counted as the system's.
            let labels = [("node", node), ("owner", "system"), ("resource", &*of.resource), ("unit", of.unit.label())];
            lines.line(&labels, of.unit.used(used));
        }
    }
}

fn write_sources(report: &Report, out: &mut Text) {
    let node = ("node", &*report.node);
    let source = report.cgroups.as_ref().map_or("none", |cgroups| &*cgroups.source);
    out.family(&SOURCE).line(&[("figure", "cgroup"), node, ("source", source)], Value::Whole(1));
    if let Some(cgroups) = &report.cgroups {
        for (family, count) in [(&CGROUPS_SEEN, cgroups.seen), (&CGROUPS_DROPPED, cgroups.dropped)] {
            if let Some(count) = count {
                out.family(family).line(&[node], Value::Whole(count.into()));
            }
        }
        let mut lines = out.family(&CGROUP_CPU_SECONDS);
        for (path, cpu_ns) in by_path(cgroups) {
            lines.line(&[("cgroup", path), node], Value::Nano(cpu_ns));
        }
    }
    if report.gpus.as_ref().is_some_and(|gpus| gpus.fake) {
        out.family(&GPUS_FAKE).line(&[node], Value::Whole(1));
    }
}

/// CPU time of the cgroups that the report lists by path, each path once: if two had the same path, the later one,
/// whose id is higher.
fn by_path(cgroups: &Cgroups) -> BTreeMap<&str, u64> {
    let mut latest: BTreeMap<&str, (u64, Option<u64>)> = BTreeMap::new();
    for cgroup in cgroups.cgroups.iter().filter(|cgroup| !cgroup.path.is_empty()) {
        let known = latest.entry(&cgroup.path).or_insert((cgroup.id, cgroup.cpu_ns));
        if cgroup.id > known.0 {
            *known = (cgroup.id, cgroup.cpu_ns);
        }
    }
    latest.into_iter().filter_map(|(path, (_, cpu_ns))| Some((path, cpu_ns?))).collect()
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, help }
}

#[cfg(test)]
mod tests {
    use mcad_wire::report::{Gpu, Gpus, Machine};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn report(seconds: u64) -> Report {
        Report {
            node: "n-1".into(),
            uptime_ns: seconds * SECOND,
            interval_ms: 10_000,
            machine: Some(Machine {
                cpus_online: Some(2),
                cpu_busy_ns: Some(seconds * SECOND / 2),
                memory_total_bytes: Some(8 << 30),
                memory_free_bytes: Some(2 << 30),
                memory_inactive_file_bytes: Some(1 << 30),
            }),
            cgroups: Some(Cgroups { source: "bpf".into(), seen: Some(7), ..Cgroups::default() }),
            gpus: Some(Gpus { driver_version: "580".into(), devices: vec![Gpu::default()], ..Gpus::default() }),
            ..Report::default()
        }
    }

    fn of(before: Option<&Report>, last: &Report, age_ms: u64) -> String {
        text(Sampled { before, last, age: Duration::from_millis(age_ms) })
    }

    #[test]
    fn cores_in_use_need_two_samples_and_all_else_needs_one() {
        let (first, second) = (report(10), report(20));
        let cores = "mcad_node_used{node=\"n-1\",owner=\"system\",resource=\"cpu\",unit=\"core\"} 0.5\n";
        let memory = "mcad_node_used{node=\"n-1\",owner=\"system\",resource=\"memory\",unit=\"byte\"} 5368709120\n";
        let one = of(None, &first, 0);
        assert!(one.contains(memory) && !one.contains("owner=\"system\",resource=\"cpu\""), "{one}");
        let two = of(Some(&first), &second, 0);
        assert!(two.contains(memory) && two.contains(cores), "{two}");
    }

    #[test]
    fn a_sample_older_than_three_intervals_is_not_shown_as_fresh() {
        let report = report(10);
        assert!(of(None, &report, 30_000).contains("mcad_gpu_healthy{"));
        let stale = of(None, &report, 30_001);
        let lines: Vec<&str> = stale.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = ["mcad_node_agent_up{node=\"n-1\"} 0", "mcad_node_report_age_seconds{node=\"n-1\"} 30.001"];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_could_not_be_read_has_no_line() {
        let nothing = Report { node: "n-1".into(), interval_ms: 10_000, ..Report::default() };
        let text = of(None, &nothing, 0);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "mcad_node_agent_up{node=\"n-1\"} 1",
            "mcad_node_report_age_seconds{node=\"n-1\"} 0",
            "mcad_node_source{figure=\"cgroup\",node=\"n-1\",source=\"none\"} 1",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_document_names_every_family_of_an_agent_without_an_aggregator() {
        let doc = include_str!("../../docs/metrics.md");
        let section = doc.split("\n## An agent without an aggregator\n").nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let missing: Vec<_> = names().filter(|name| !section.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
