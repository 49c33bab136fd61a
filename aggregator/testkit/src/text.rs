//! From objects to the text of the metrics contract, as an operator sees it.
use std::path::Path;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::fit;
use mcad_accounting::merge::Ages;
use mcad_accounting::now::Now;
use mcad_accounting::object::Object;
use mcad_accounting::options::Options;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::views::Views;
use mcad_aggregator::dump::Dump;
use mcad_aggregator::kubernetes::Kubernetes;
use mcad_aggregator::receive;
use mcad_aggregator::store::{Limits, Store};
use mcad_present::exposition::Exposition;
use mcad_present::{families, metrics};
use mcad_wire::report::Report;
use prost::Message as _;
use serde_json::Value;

use crate::NOW_MS;

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
    let views = Views::new(options.clone()).all(cluster, &[], |_| true);
    let mut snapshot = Snapshot::new(cluster, views, NOW_MS, options);
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

/// The text of objects and of reports that come in one after the other.
pub fn print_with(objects: Vec<Object>, reports: Vec<Report>, options: &Options) -> String {
    print_cluster_with(Cluster::from_objects(objects), reports, options)
}

/// The same of a cluster.
pub fn print_cluster_with(cluster: Cluster, reports: Vec<Report>, options: &Options) -> String {
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
pub fn check_lines(text: &str, lines: &[&str]) {
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
pub fn check(objects: &[Value], lines: &[&str]) {
    check_by(objects, &Options::default(), lines);
}

/// The same by other options.
pub fn check_by(objects: &[Value], options: &Options, lines: &[&str]) {
    check_lines(&print(objects.iter().map(crate::build::object).collect(), options), lines);
}

/// Objects and reports in, lines out.
pub fn check_with(objects: &[Value], reports: Vec<Report>, lines: &[&str]) {
    check_lines(&print_with(objects.iter().map(crate::build::object).collect(), reports, &Options::default()), lines);
}

/// The defaults, with one tolerated taint as `--tolerate-taint` takes it.
pub fn tolerating(taint: &str) -> Options {
    Options { tolerated: [taint.parse().unwrap()].into_iter().collect(), ..Options::default() }
}

/// The text of objects.
pub fn print(objects: Vec<Object>, options: &Options) -> String {
    text(&snapshot(objects, options))
}
