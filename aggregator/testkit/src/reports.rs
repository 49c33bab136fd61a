//! Reports and instants for tests.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcad_accounting::merge::{Snapshot, View, merge};
use mcad_accounting::node_name::NodeName;
use mcad_accounting::now::Now;
use mcad_accounting::reported::Stored;
use mcad_wire::reading;
use mcad_wire::report::{Cgroup, Cgroups, Gpu, Gpus, Machine, MigInstance, REPORT_VERSION, Report};
use prost::Message as _;

/// Seconds after the clock's start.
pub fn at(seconds: u64) -> Now {
    Now { since_start: Duration::from_secs(seconds), unix_ms: 1_700_000_000_000 + seconds * 1000 }
}

/// The `sequence`th report of a two-core node whose agent began to report 100 s after boot, once in ten seconds: one core
/// busy, of 8 GiB 2 free and 1 in page cache.
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

/// Cgroups of the kernel's iterator with this many ns of CPU time, numbered from 1.
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

/// What is kept at `now` of nodes that sent these reports at these instants.
pub fn stored(reports: Vec<(Report, Now)>) -> Vec<(NodeName, Arc<Stored>)> {
    let mut kept: BTreeMap<NodeName, Arc<Stored>> = BTreeMap::new();
    for (report, received) in reports {
        let encoded = report.encode_to_vec();
        let reading = reading::Report::read(&encoded).unwrap();
        let name = NodeName::new(&report.node).unwrap();
        let known = kept.get(&name).map(|known| &**known);
        assert_eq!(known.and_then(|known| known.no_news(&reading)), None);
        kept.insert(name, Arc::new(Stored::after(known, &reading, &encoded, received)));
    }
    kept.into_iter().collect()
}

/// The local snapshot at `now` after these reports.
pub fn snapshot(reports: Vec<(Report, Now)>, now: Now) -> Snapshot {
    merge(View::Local, &stored(reports), now)
}
