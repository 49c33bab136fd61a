//! Clusters as `explain` and `/api/v1` see them, and the files that what they say is held against.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcad_aggregator::clock::Now;
use mcad_aggregator::cluster::Cluster;
use mcad_aggregator::dump::Dump;
use mcad_aggregator::merge::{Ages, Snapshot};
use mcad_aggregator::object::Object;
use mcad_aggregator::options::Options;
use mcad_aggregator::receive;
use mcad_aggregator::replica::Kubernetes;
use mcad_aggregator::store::{Limits, Store};
use mcad_wire::report::Report;
use prost::Message as _;
use serde_json::Value;

use super::NOW_MS;
use super::build::object;

/// When snapshots are made.
pub(crate) const NOW: Now = Now { since_start: Duration::from_secs(100), unix_ms: NOW_MS as u64 };
/// When answers are looked at.
pub(crate) const LATER: Now = Now { since_start: Duration::from_millis(100_250), unix_ms: NOW_MS as u64 + 250 };

/// The crate's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

/// Holds a text against a file below `tests`.
pub(crate) fn check_golden(file: &str, actual: &str) {
    let path = root().join("tests").join(file);
    if std::env::var_os("MCAD_BLESS").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let hint = "MCAD_BLESS=1 cargo test -p mcad-aggregator writes it anew; review the difference";
    assert!(actual == expected, "{} differs; {hint}\n{actual}", path.display());
}

/// The snapshot of a cluster and of reports that come in one after the other.
pub(crate) fn snapshot_of(cluster: Cluster, reports: Vec<Report>) -> Snapshot {
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
pub(crate) fn snapshot(objects: &[Value], reports: Vec<Report>) -> Snapshot {
    snapshot_of(Cluster::from_objects(objects.iter().map(object)), reports)
}

/// The objects of a dump below `tests`.
pub(crate) fn dumped(file: &str) -> Vec<Object> {
    let dump = Dump::read(&[root().join("tests").join(file)]).unwrap();
    assert!(dump.skipped.is_empty(), "{:?}", dump.skipped);
    dump.objects
}

/// The cluster of docs/api.md.
pub(crate) fn example() -> Snapshot {
    let reports = fs::read_to_string(root().join("tests/explain/example.json")).unwrap();
    let reports = reports.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    snapshot_of(Cluster::from_objects(dumped("explain/example.yaml")), reports)
}
