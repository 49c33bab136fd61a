//! Reports and instants for tests.
use std::time::Duration;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::{Ages, View, merge};
use mcad_accounting::node_name::NodeName;
use mcad_accounting::nodes::{Limits, Nodes, Outcome};
use mcad_accounting::now::Now;
use mcad_accounting::options::Options;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::verdict::Fits;
use mcad_wire::reading;
use mcad_wire::report::{Cgroup, Cgroups, Gpu, Gpus, Machine, MigInstance, REPORT_VERSION, Report};
use prost::Message as _;

/// This many seconds after the clock's start.
pub fn at(seconds: u64) -> Now {
    Now { since_start: Duration::from_secs(seconds), unix_ms: 1_700_000_000_000 + seconds * 1000 }
}

/// The `sequence`th report of a two-core node. Its agent started to report 100 s after boot, and reports every ten seconds: one core is
/// busy; of 8 GiB of memory, 2 GiB are free and 1 GiB is page cache.
pub fn report(node: &str, sequence: u64) -> Report {
    Report {
        version: REPORT_VERSION,
        node: node.into(),
        boot_id: "boot-1".into(),
        started_at_ms: 1_000,
        sequence,
        uptime_ns: (100 + 10 * sequence) * 1_000_000_000,
        interval_ms: 10_000,
        machine: Some(Machine {
            cpus_online: Some(2),
            cpu_busy_ns: Some((50 + 10 * sequence) * 1_000_000_000),
            memory_total_bytes: Some(8 << 30),
            memory_free_bytes: Some(2 << 30),
            memory_inactive_file_bytes: Some(1 << 30),
        }),
        ..Report::default()
    }
}

/// Cgroups from the kernel's iterator with this much CPU time in ns, numbered from 1.
pub fn cgroups(paths: &[(&str, u64)]) -> Cgroups {
    let cgroup = |(at, (path, cpu_ns)): (usize, &(&str, u64))| Cgroup {
        id: at as u64 + 1,
        path: (*path).into(),
        cpu_ns: Some(*cpu_ns),
        ..Cgroup::default()
    };
    Cgroups {
        source: "bpf".into(),
        cgroups: paths.iter().enumerate().map(cgroup).collect(),
        seen: Some(paths.len() as u32),
        dropped: Some(0),
        ..Cgroups::default()
    }
}

/// A healthy GPU.
pub fn gpu(uuid: &str, utilization_ratio: Option<f64>) -> Gpu {
    Gpu { uuid: uuid.into(), utilization_ratio, ..Gpu::default() }
}

/// A healthy MIG instance.
pub fn mig(uuid: &str, profile: &str) -> MigInstance {
    MigInstance { uuid: uuid.into(), profile: profile.into(), utilization_ratio: Some(0.0), ..MigInstance::default() }
}

/// GPUs of a node with a driver.
pub fn gpus(devices: Vec<Gpu>) -> Gpus {
    Gpus { driver_version: "550.1".into(), devices, ..Gpus::default() }
}

/// The snapshot without Kubernetes at `now` after these reports. Each report must be new.
pub fn snapshot(reports: Vec<(Report, Now)>, now: Now) -> Snapshot {
    let mut cluster = Cluster::of_agents();
    let mut nodes = Nodes::new(Limits::LOCAL, Options::without_kubernetes());
    for (report, received) in reports {
        let encoded = report.encode_to_vec();
        let reading = reading::Report::read(&encoded).unwrap();
        let name = NodeName::new(&report.node).unwrap();
        let (outcome, _) = nodes.take(&cluster, (&name, &reading, &encoded), received).unwrap();
        assert_eq!(outcome, Outcome::Taken);
    }
    cluster.follow(nodes.reporting());
    let view = View {
        cluster: &cluster,
        nodes: &mut nodes,
        fits: &Fits::default(),
        queues: None,
        fitted: None,
        ages: Ages::Count,
        told_at_ms: None,
    };
    merge(view, now)
}
