//! Tests of the families: a snapshot in, exposition text out.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use mcad_wire::report::Gpus;

use super::*;
use crate::fixtures::{at, cgroups, gpu, gpus, mig, report, snapshot};
use crate::receive::Refusal;
use crate::self_metrics;
use crate::store::NoNews;

fn text(snapshot: &Snapshot, now: Now) -> String {
    let mut text = Vec::new();
    let mut out = Exposition::new(&mut text);
    write(snapshot, now, &mut out);
    out.finish().unwrap();
    String::from_utf8(text).unwrap()
}

/// A node with everything (its GPUs made up), a second that reported once and has no driver, a third that fell silent.
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

/// Compares with a file of this repository; `MCAD_BLESS=1 cargo test -p mcad-aggregator` writes it anew.
fn check_file(path: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("MCAD_BLESS").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let hint = "MCAD_BLESS=1 cargo test -p mcad-aggregator writes it anew; review the difference";
    assert!(actual == expected, "{} differs; {hint}\n{actual}", path.display());
}

#[test]
fn three_nodes_look_as_they_always_did() {
    let now = Now { since_start: std::time::Duration::from_millis(102_250), ..at(102) };
    let text = text(&three_nodes(), now).replace(VERSION, "VERSION").replace(REVISION, "REVISION");
    check_file("src/metrics/three_nodes.txt", &text);
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
    // The names stand before each `="`; no value of these nodes has that within.
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

#[test]
fn docs_metrics_md_lists_what_there_is() {
    let mut tables = String::new();
    let own = self_metrics::FAMILIES.to_vec();
    for (title, families) in [("The cluster", all().collect()), ("The aggregator itself", own)] {
        write!(tables, "## {title}\n\n| name | type | labels | unit | meaning |\n|---|---|---|---|---|\n").unwrap();
        for Family { name, kind, labels, unit, help } in families {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(" ") };
            writeln!(tables, "| `{name}` | {kind} | {labels} | {unit} | {help} |").unwrap();
        }
        tables.push('\n');
    }
    let path = "../docs/metrics.md";
    // The reasons' sentences are written by hand; that none is missing is not.
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    for reason in Refusal::reasons().chain(NoNews::REASONS.iter().copied()) {
        assert!(page.contains(&format!("`{reason}`")), "{path} does not say what {reason} is");
    }
    let (begin, end) = ("<!-- families: begin -->\n", "<!-- families: end -->");
    let (before, rest) = page.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    check_file(path, &format!("{before}{begin}\n{tables}{end}{after}"));
}
