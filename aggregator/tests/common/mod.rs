//! From objects to the text of the metrics contract, as an operator sees it.
#![allow(dead_code, reason = "every test file takes what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]
pub(crate) mod build;
pub(crate) mod explained;
pub(crate) mod random;

use std::path::Path;

use mcad_aggregator::clock::Now;
use mcad_aggregator::cluster::Cluster;
use mcad_aggregator::dump::Dump;
use mcad_aggregator::exposition::Exposition;
use mcad_aggregator::merge::Ages;
use mcad_aggregator::object::Object;
use mcad_aggregator::options::Options;
use mcad_aggregator::replica::Kubernetes;
use mcad_aggregator::snapshot::Snapshot;
use mcad_aggregator::store::{Limits, Store};
use mcad_aggregator::views::Views;
use mcad_aggregator::{families, fit, metrics, receive};
use mcad_wire::report::Report;
use prost::Message as _;
use serde_json::Value;

/// The time of all tests: 2026-01-05T10:00:00Z.
pub(crate) const NOW_MS: i64 = 1_767_607_200_000;

/// The objects of a dump; all of them must be readable.
pub(crate) fn objects(yaml: &str) -> Vec<Object> {
    let mut dump = Dump::default();
    dump.add(Path::new("test.yaml"), yaml).unwrap();
    assert!(dump.skipped.is_empty(), "{:?}", dump.skipped);
    dump.objects
}

/// The snapshot of objects.
pub(crate) fn snapshot(objects: Vec<Object>, options: &Options) -> Snapshot {
    snapshot_of(&Cluster::from_objects(objects), options)
}

/// The snapshot of a cluster.
pub(crate) fn snapshot_of(cluster: &Cluster, options: &Options) -> Snapshot {
    let views = Views::new(options.clone()).all(cluster, &[], |_| true);
    let mut snapshot = Snapshot::new(cluster, views, NOW_MS, options);
    let fits = fit::fits(&snapshot);
    snapshot.with_fits(&fits);
    snapshot
}

/// The text of a snapshot.
pub(crate) fn text(snapshot: &Snapshot) -> String {
    let mut text = Vec::new();
    let mut out = Exposition::new(&mut text);
    families::write(snapshot, &mut out);
    out.finish().unwrap();
    String::from_utf8(text).unwrap()
}

/// The text of objects and of reports that come in one after the other.
pub(crate) fn print_with(objects: Vec<Object>, reports: Vec<Report>, options: &Options) -> String {
    print_cluster_with(Cluster::from_objects(objects), reports, options)
}

/// The same of a cluster.
pub(crate) fn print_cluster_with(cluster: Cluster, reports: Vec<Report>, options: &Options) -> String {
    let now = Now { unix_ms: NOW_MS as u64, ..Now::default() };
    let mut store = Store::new(Limits::REPLAY);
    let kubernetes = Kubernetes::new(cluster, options.clone(), Ages::DoNot);
    for report in reports {
        kubernetes.replay(&mut store, &receive::check(&report.encode_to_vec()).unwrap(), now).unwrap();
    }
    let reports = store.reports(now);
    kubernetes.refit(&reports, now);
    let mut text = Vec::new();
    let mut out = Exposition::new(&mut text);
    metrics::write(&kubernetes.snapshot(&reports, now), now, &mut out);
    out.finish().unwrap();
    String::from_utf8(text).unwrap()
}

/// Fails unless every line is there. A line that ends in `absent` must not begin any.
pub(crate) fn check_lines(text: &str, lines: &[&str]) {
    for line in lines {
        let found = match line.strip_suffix(" absent") {
            Some(series) => !text.lines().any(|there| there.starts_with(series)),
            None => text.lines().any(|there| there == *line),
        };
        let family = line.split(['{', ' ']).next().unwrap();
        let near: Vec<_> = text.lines().filter(|there| there.starts_with(family)).collect();
        assert!(found, "{line}\nbut:\n{}", near.join("\n"));
    }
}

/// Objects in, lines out.
pub(crate) fn check(objects: &[Value], lines: &[&str]) {
    check_by(objects, &Options::default(), lines);
}

/// The same by other options.
pub(crate) fn check_by(objects: &[Value], options: &Options, lines: &[&str]) {
    check_lines(&print(objects.iter().map(build::object).collect(), options), lines);
}

/// Objects and reports in, lines out.
pub(crate) fn check_with(objects: &[Value], reports: Vec<Report>, lines: &[&str]) {
    check_lines(&print_with(objects.iter().map(build::object).collect(), reports, &Options::default()), lines);
}

/// The defaults, with one tolerated taint as `--tolerate-taint` takes it.
pub(crate) fn tolerating(taint: &str) -> Options {
    Options { tolerated: [taint.parse().unwrap()].into_iter().collect(), ..Options::default() }
}

/// The text of objects.
pub(crate) fn print(objects: Vec<Object>, options: &Options) -> String {
    text(&snapshot(objects, options))
}
