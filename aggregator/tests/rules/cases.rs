//! Worked clusters: a dump in, the lines of sections A to D out, exactly. `cases/README.md` says where they come from.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mcad_accounting::options::Options;
use mcad_aggregator::dump::Dump;
use mcad_testkit::{print, print_with};
use mcad_wire::report::Report;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn dump(case: &str) -> Dump {
    let dump = Dump::read(&[cases().join(format!("{case}.yaml"))]).unwrap();
    assert!(dump.skipped.is_empty(), "{:?}", dump.skipped);
    dump
}

fn check(case: &str) {
    compare(case, &print(dump(case).objects, &Options::default()), &|_| true);
}

/// The same with reports, of the families that are expected: those of single GPUs and of agents are not.
fn check_with_reports(case: &str) {
    let reports = std::fs::read_to_string(cases().join(format!("{case}.jsonl"))).unwrap();
    let reports: Vec<Report> = reports.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = std::fs::read_to_string(cases().join(format!("{case}.prom"))).unwrap();
    let family = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    let families: BTreeSet<String> = expected.lines().map(family).collect();
    let shown = print_with(dump(case).objects, reports, &Options::default());
    compare(case, &shown, &|line| families.contains(&family(line)));
}

/// The cases list the metrics of sections A to D. Those of pools are in none of them, and `pools` tests that they add up to the cluster's.
const NOT_LISTED: [&str; 2] = ["waiting_seconds", "mcad_pool_"];

fn compare(case: &str, shown: &str, counts: &dyn Fn(&str) -> bool) {
    let mut shown: Vec<&str> = shown
        .lines()
        .filter(|line| !line.starts_with('#') && !NOT_LISTED.iter().any(|name| line.contains(name)) && counts(line))
        .collect();
    let expected = std::fs::read_to_string(cases().join(format!("{case}.prom"))).unwrap();
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

#[test]
fn whole_gpus_that_claims_hold_beside_those_of_a_device_plugin_come_out_exactly() {
    check("dra-1");
}

#[test]
fn gpus_that_are_cut_on_demand_come_out_exactly() {
    check("dra-2");
}

#[test]
fn taints_and_pools_that_are_not_whole_and_devices_that_are_gone_come_out_exactly() {
    check("dra-3");
}

#[test]
fn instances_forms_for_virtual_machines_shares_and_a_node_that_is_declared_twice_come_out_exactly() {
    check("dra-4");
}

#[test]
fn what_can_be_told_of_fit_by_claims_and_what_cannot_comes_out_exactly() {
    check("dra-5");
}

/// Clusters with Kueue's objects.
fn check_queues(case: &str) {
    let options = Options { slack_queue: Some("slack".into()), ..Options::default() };
    compare(case, &print(dump(case).objects, &options), &|_| true);
}

#[test]
fn one_flavor_a_cohort_without_an_object_and_a_slack_queue_come_out_exactly() {
    check_queues("queue-1");
}

#[test]
fn a_tree_of_cohorts_with_overlapping_flavors_and_taints_comes_out_exactly() {
    check_queues("queue-2");
}

#[test]
fn the_first_random_cluster_with_queues_comes_out_exactly() {
    check_queues("queue-3");
}

#[test]
fn the_second_random_cluster_with_queues_comes_out_exactly() {
    check_queues("queue-4");
}

#[test]
fn gpus_of_claims_and_of_agents_are_joined_by_uuid_exactly() {
    check_with_reports("dra-6");
}
