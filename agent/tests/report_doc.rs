//! Checks that docs/report.md lists every reason of an absence, and that its example is a report of this agent.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use mcad_agent::sample::Reason;
use mcad_agent::sample::gpu::{Part, Unhealthy, Warning};
use mcad_wire::report::Report;

const DOC: &str = include_str!("../../docs/report.md");

fn section(title: &str) -> &'static str {
    let start = format!("\n## {title}\n");
    DOC.split(&start).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap()
}

#[test]
fn the_document_lists_every_reason_and_no_others() {
    let rows = section("Absences").lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let doc: Vec<&str> = rows.collect();
    let code: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(doc, code);
}

#[test]
fn the_document_lists_every_way_in_which_a_gpu_is_unhealthy_and_no_others() {
    let rows = section("Why a GPU is unhealthy").lines();
    let doc: Vec<&str> = rows.filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let code: Vec<&str> = Unhealthy::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(doc, code);
}

#[test]
fn the_document_lists_every_warning_of_a_gpu_and_no_others() {
    let rows = section("What is only a warning").lines();
    let doc: Vec<&str> = rows.filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let code: Vec<&str> = Warning::ALL.iter().map(|warning| warning.as_str()).collect();
    assert_eq!(doc, code);
}

#[test]
fn the_document_and_the_schema_list_every_part_of_time_in_the_order_of_the_report() {
    let rows = section("Busy, or idle by cause").lines().filter_map(|line| {
        let (position, part) = line.strip_prefix("| ")?.split_once(" | ")?;
        Some((position.parse::<usize>().ok()?, part.split(" |").next()?))
    });
    let code: Vec<&str> = Part::ALL.iter().map(|part| part.as_str()).collect();
    assert_eq!(rows.collect::<Vec<_>>(), code.iter().copied().enumerate().collect::<Vec<_>>());
    let schema = include_str!("../../wire/report.proto").replace("\n//", "");
    assert!(schema.contains(&format!("by position: {}.", code.join(", "))), "report.proto lists other parts");
}

#[test]
fn the_example_is_the_golden_report() {
    let json = section("Example").split("```").nth(1).and_then(|block| block.strip_prefix("json\n")).unwrap();
    assert_eq!(json, include_str!("golden/report-pods.json"));
    serde_json::from_str::<Report>(json).unwrap();
}
