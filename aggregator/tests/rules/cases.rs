//! Worked clusters: a dump in, the lines of sections A to D out, exactly. `cases/README.md` says where they come from.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::path::Path;

use mcad_accounting::options::Options;
use mcad_aggregator::dump::Dump;
use mcad_testkit::print;

fn check(case: &str) {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let dump = Dump::read(&[cases.join(format!("{case}.yaml"))]).unwrap();
    assert!(dump.skipped.is_empty(), "{:?}", dump.skipped);
    let shown = print(dump.objects, &Options::default());
    let mut shown: Vec<&str> =
        shown.lines().filter(|line| !line.starts_with('#') && !line.contains("waiting_seconds")).collect();
    let expected = std::fs::read_to_string(cases.join(format!("{case}.prom"))).unwrap();
    let mut expected: Vec<&str> = expected.lines().collect();
    shown.sort_unstable();
    expected.sort_unstable();
    let missing: Vec<_> = expected.iter().filter(|line| shown.binary_search(line).is_err()).collect();
    let wrong: Vec<_> = shown.iter().filter(|line| expected.binary_search(line).is_err()).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "missing: {missing:#?}\nwrong: {wrong:#?}");
    assert_eq!(shown, expected, "a line is there twice");
}

#[test]
fn the_first_worked_cluster_comes_out_exactly() {
    check("1");
}

#[test]
fn the_second_worked_cluster_comes_out_exactly() {
    check("2");
}

#[test]
fn the_third_worked_cluster_comes_out_exactly() {
    check("3");
}

#[test]
fn the_fourth_worked_cluster_comes_out_exactly() {
    check("4");
}
