//! Tests of the families: a snapshot in, exposition text out.

use std::collections::BTreeSet;
use std::path::Path;

use mcad_testkit::golden::check_file;
use mcad_testkit::reports::{at, cgroups, gpu, gpus, mig, report, snapshot};
use mcad_wire::report::Gpus;

use super::*;

fn text(snapshot: &Snapshot, now: Now) -> String {
    let mut text = Vec::new();
    let mut out = Exposition::new(&mut text);
    write(snapshot, now, &mut out);
    out.finish().unwrap();
    String::from_utf8(text).unwrap()
}

/// A node with everything (its GPUs are fake), a second that reported once and has no driver, a third whose agent is down.
fn three_nodes() -> Snapshot {
    let full = |sequence| {
        let mut full = report("gpu-17", sequence);
        full.cgroups = Some(cgroups(&[
            ("/", 20_000_000_000),
            ("/kubepods.slice", 12_345_678_901),
            ("/system.slice/a\\x2d\"b\".service", 0),
        ]));
        let mut parent = gpu("GPU-2", None);
        parent.mig_mode = Some(true);
        parent.mig_instances = vec![mig("MIG-1", "1g.10gb")];
        let lost_bus_ids = vec!["0000:3b:00.0".into()];
        full.gpus = Some(Gpus { lost_bus_ids, fake: true, ..gpus(vec![gpu("GPU-1", Some(0.37)), parent]) });
        full
    };
    let mut without = report("plain", 1);
    without.gpus = Some(Gpus::default());
    without.cgroups = None;
    let reports = vec![(full(1), at(90)), (full(2), at(100)), (without, at(95)), (report("silent", 1), at(10))];
    snapshot(reports, at(102))
}

#[test]
fn three_nodes_look_as_they_always_did() {
    let now = Now { since_start: std::time::Duration::from_millis(102_250), ..at(102) };
    let text = text(&three_nodes(), now).replace(VERSION, "VERSION").replace(REVISION, "REVISION");
    check_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics/three_nodes.txt"), &text);
}

#[test]
fn equal_state_gives_equal_bytes() {
    assert_eq!(text(&three_nodes(), at(102)), text(&three_nodes(), at(102)));
}

#[test]
fn a_replica_that_does_not_lead_speaks_of_itself_alone() {
    let standby = Snapshot { role: Role::Standby, ..three_nodes() };
    let names: Vec<_> = text(&standby, at(102)).lines().filter_map(family_of).collect();
    assert_eq!(names, ["mcad_snapshot_age_seconds", "mcad_aggregator_leader", "mcad_build_info"]);
}

fn family_of(line: &str) -> Option<String> {
    (!line.starts_with('#')).then(|| line.split(['{', ' ']).next().unwrap().to_owned())
}

#[test]
fn every_family_is_listed_and_every_listed_one_is_written_with_its_labels() {
    let text = text(&three_nodes(), at(102));
    let mut listed = all();
    for header in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = header.split(' ').next().unwrap();
        let family = listed.find(|family| family.name == name).expect("it is listed, and in that order");
        assert_eq!(header, format!("{} {}", family.name, family.kind));
        for line in text.lines().filter(|line| family_of(line).as_deref() == Some(family.name)) {
            assert_eq!(labels_of(line), family.labels, "{line}");
        }
    }
}

fn labels_of(line: &str) -> Vec<&str> {
    let Some((_, labels)) = line.split_once('{') else { return Vec::new() };
    // The label names are before each `="`; no label value of these nodes contains that.
    let mut pieces: Vec<_> = labels.split("=\"").map(|piece| piece.rsplit([',', '"']).next().unwrap()).collect();
    pieces.pop();
    pieces
}

#[test]
fn no_line_is_there_twice() {
    let text = text(&three_nodes(), at(102));
    let mut series = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(series.insert(line.rsplit_once(' ').unwrap().0), "{line}");
    }
}
