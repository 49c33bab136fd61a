//! Clusters as `explain` and `/api/v1` show them, and the golden files that their output is compared with.
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::Ages;
use mcad_accounting::now::Now;
use mcad_accounting::object::Object;
use mcad_accounting::options::Options;
use mcad_accounting::snapshot::Snapshot;
use mcad_aggregator::dump::Dump;
use mcad_aggregator::known::Known;
use mcad_aggregator::receive;
use mcad_wire::report::Report;
use prost::Message as _;
use serde_json::Value;

use crate::NOW_MS;
use crate::build::object;
use crate::golden::check_file;

/// The time of the snapshots.
pub const NOW: Now = Now { since_start: Duration::from_secs(100), unix_ms: NOW_MS as u64 };
/// The time at which answers are read.
pub const LATER: Now = Now { since_start: Duration::from_millis(100_250), unix_ms: NOW_MS as u64 + 250 };

/// The aggregator's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// Compares a text with a golden file below `tests`.
pub fn check_golden(file: &str, actual: &str) {
    check_file(&root().join("tests").join(file), actual);
}

/// The snapshot of a cluster and of reports that arrive one after another.
pub fn snapshot_of(cluster: Cluster, reports: Vec<Report>) -> Snapshot {
    let known = Known::new(cluster, Options::default(), Ages::DoNot);
    for report in reports {
        known.replay(&receive::check(&report.encode_to_vec()).unwrap(), NOW).unwrap();
    }
    known.refit(NOW);
    known.snapshot(NOW)
}

/// The same from objects.
pub fn snapshot(objects: &[Value], reports: Vec<Report>) -> Snapshot {
    snapshot_of(Cluster::from_objects(objects.iter().map(object)), reports)
}

/// The objects of a dump below `tests`.
pub fn dumped(file: &str) -> Vec<Object> {
    let dump = Dump::read(&[root().join("tests").join(file)]).unwrap();
    assert!(dump.skipped.is_empty(), "{:?}", dump.skipped);
    dump.objects
}

/// The cluster that docs/api.md describes.
pub fn example() -> Snapshot {
    let reports = std::fs::read_to_string(root().join("tests/explain/example.json")).unwrap();
    let reports = reports.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    snapshot_of(Cluster::from_objects(dumped("explain/example.yaml")), reports)
}
