//! Converts objects to the text of the metrics contract, as an operator sees it.
use std::path::Path;
use std::sync::Arc;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::fit;
use mcad_accounting::merge::Ages;
use mcad_accounting::now::Now;
use mcad_accounting::object::Object;
use mcad_accounting::options::Options;
use mcad_accounting::queue::facts::Facts;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::views::without_reports;
use mcad_aggregator::dump::Dump;
use mcad_aggregator::known::Known;
use mcad_aggregator::receive;
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
    let views = without_reports(cluster, options);
    let mut snapshot = Snapshot::new(cluster, views, Now::default(), NOW_MS, options);
    snapshot.with_offers(cluster);
    let fits = fit::fits(&snapshot);
    snapshot.with_fits(&fits);
    let queues = Facts::of(cluster).map(|facts| Arc::new(snapshot.accounts(&facts, Some(NOW_MS))));
    snapshot.with_queues(queues);
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

/// The text for objects and for reports that arrive one after another.
pub fn print_with(objects: Vec<Object>, reports: Vec<Report>, options: &Options) -> String {
    print_cluster_with(Cluster::from_objects(objects), reports, options)
}

/// The same for a cluster.
pub fn print_cluster_with(cluster: Cluster, reports: Vec<Report>, options: &Options) -> String {
    let now = Now { unix_ms: NOW_MS as u64, ..Now::default() };
    let known = Known::new(cluster, options.clone(), Ages::DoNot);
    for report in reports {
        known.replay(&receive::check(&report.encode_to_vec()).unwrap(), now).unwrap();
    }
    known.refit(now);
    let mut text = Vec::new();
    let mut out = Exposition::new(&mut text);
    metrics::write(&known.snapshot(now), now, &mut out);
    out.finish().unwrap();
    String::from_utf8(text).unwrap()
}

/// Fails unless every line is present. A line that ends in `absent` is the beginning of a series that must not be present.
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

/// Checks that these objects result in these lines.
pub fn check(objects: &[Value], lines: &[&str]) {
    check_by(objects, &Options::default(), lines);
}

/// The same with other options.
pub fn check_by(objects: &[Value], options: &Options, lines: &[&str]) {
    check_lines(&print(objects.iter().map(crate::build::object).collect(), options), lines);
}

/// Checks that these objects and reports result in these lines.
pub fn check_with(objects: &[Value], reports: Vec<Report>, lines: &[&str]) {
    check_lines(&print_with(objects.iter().map(crate::build::object).collect(), reports, &Options::default()), lines);
}

/// The default options with one tolerated taint, as `--tolerate-taint` accepts it.
pub fn tolerating(taint: &str) -> Options {
    Options { tolerated: [taint.parse().unwrap()].into_iter().collect(), ..Options::default() }
}

/// The text of objects.
pub fn print(objects: Vec<Object>, options: &Options) -> String {
    text(&snapshot(objects, options))
}
