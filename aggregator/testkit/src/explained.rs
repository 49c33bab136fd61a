//! Clusters as `explain` and `/api/v1` see them, and the files that what they say is held against.
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::{Ages, Snapshot};
use mcad_accounting::now::Now;
use mcad_accounting::object::Object;
use mcad_accounting::options::Options;
use mcad_aggregator::dump::Dump;
use mcad_aggregator::kubernetes::Kubernetes;
use mcad_aggregator::receive;
use mcad_aggregator::store::{Limits, Store};
use mcad_wire::report::Report;
use prost::Message as _;
use serde_json::Value;

use crate::NOW_MS;
use crate::build::object;
use crate::golden::check_file;

/// When snapshots are made.
pub const NOW: Now = Now { since_start: Duration::from_secs(100), unix_ms: NOW_MS as u64 };
/// When answers are looked at.
pub const LATER: Now = Now { since_start: Duration::from_millis(100_250), unix_ms: NOW_MS as u64 + 250 };

/// The aggregator's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// Holds a text against a file below `tests`.
pub fn check_golden(file: &str, actual: &str) {
    check_file(&root().join("tests").join(file), actual);
}

/// The snapshot of a cluster and of reports that come in one after the other.
pub fn snapshot_of(cluster: Cluster, reports: Vec<Report>) -> Snapshot {
    let mut store = Store::new(Limits::REPLAY);
    for report in reports {
        store.insert(&receive::check(&report.encode_to_vec()).unwrap(), NOW).unwrap();
    }
    let reports = store.reports(NOW);
    let kubernetes = Kubernetes::new(cluster, Options::default(), Ages::DoNot);
    kubernetes.refit(&reports, NOW);
    kubernetes.snapshot(&reports, NOW)
}

/// The same of objects.
pub fn snapshot(objects: &[Value], reports: Vec<Report>) -> Snapshot {
    snapshot_of(Cluster::from_objects(objects.iter().map(object)), reports)
}

/// The objects of a dump below `tests`.
pub fn dumped(file: &str) -> Vec<Object> {
    let dump = Dump::read(&[root().join("tests").join(file)]).unwrap();
    assert!(dump.skipped.is_empty(), "{:?}", dump.skipped);
    dump.objects
}

/// The cluster of docs/api.md.
pub fn example() -> Snapshot {
    let reports = std::fs::read_to_string(root().join("tests/explain/example.json")).unwrap();
    let reports = reports.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    snapshot_of(Cluster::from_objects(dumped("explain/example.yaml")), reports)
}
