//! From objects to the text of the metrics contract, as an operator sees it.
#![allow(dead_code, reason = "every test file takes what it needs")]
use std::collections::HashMap;
use std::path::Path;

use mcad_aggregator::cluster::Cluster;
use mcad_aggregator::dump::Dump;
use mcad_aggregator::exposition::Exposition;
use mcad_aggregator::object::Object;
use mcad_aggregator::snapshot::{Options, Snapshot};
use mcad_aggregator::{families, fit};

/// The time of all tests: 2026-01-05T10:00:00Z.
pub const NOW_MS: i64 = 1_767_607_200_000;

/// The objects of a dump; all of them must be readable.
pub fn objects(yaml: &str) -> Vec<Object> {
    let mut dump = Dump::default();
    dump.add(Path::new("test.yaml"), yaml).unwrap();
    assert!(dump.skipped.is_empty(), "{:?}", dump.skipped);
    dump.objects
}

/// The snapshot of objects.
pub fn snapshot(objects: Vec<Object>, options: &Options) -> Snapshot {
    snapshot_of(&Cluster::from_objects(objects), options)
}

/// The snapshot of a cluster.
pub fn snapshot_of(cluster: &Cluster, options: &Options) -> Snapshot {
    let mut snapshot = Snapshot::new(cluster, &HashMap::new(), NOW_MS, options);
    let fits = fit::fits(&snapshot);
    snapshot.with_fits(&fits);
    snapshot
}

/// The text of a snapshot.
pub fn text(snapshot: &Snapshot) -> String {
    let mut text = Vec::new();
    let mut out = Exposition::new(&mut text);
    families::write(snapshot, &mut out);
    out.finish().unwrap();
    String::from_utf8(text).unwrap()
}

/// The text of objects.
pub fn print(objects: Vec<Object>, options: &Options) -> String {
    text(&snapshot(objects, options))
}
