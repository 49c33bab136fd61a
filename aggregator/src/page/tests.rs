//! Tests of the page: a snapshot in, HTML out.

use super::*;
use crate::fixtures::{at, gpu, gpus, report, snapshot};

fn page(reports: Vec<(mcad_wire::report::Report, Now)>, now: Now) -> String {
    render(&snapshot(reports, now), now)
}

fn check_contains(html: &str, expected: &str) {
    assert!(html.contains(expected), "{expected} is not in\n{html}");
}

#[test]
fn a_node_is_a_row_for_each_resource() {
    let html = page(vec![(report("n-1", 1), at(0)), (report("n-1", 2), at(10))], at(12));
    check_contains(&html, "1 of 1 agents report");
    let row = "<tr><td>n-1</td><td>up, 2 s ago</td><td>cpu</td><td class=\"n\">2 cores</td><td class=\"n\">2 cores</td>\
               <td class=\"n\">1.00 cores</td></tr>";
    check_contains(&html, row);
    check_contains(&html, "<td class=\"n\">8.0 GiB</td><td class=\"n\">8.0 GiB</td><td class=\"n\">5.0 GiB</td>");
}

#[test]
fn what_is_unknown_is_a_dash_and_not_a_zero() {
    let html = page(vec![(report("n-1", 1), at(0))], at(0));
    check_contains(&html, "<td class=\"n\">2 cores</td><td class=\"n\">–</td></tr>");
}

#[test]
fn a_silent_agent_is_said_to_be_down() {
    let html = page(vec![(report("n-1", 1), at(0))], at(100));
    check_contains(&html, "0 of 1 agents report");
    check_contains(&html, "<span class=\"down\">down for 100 s</span>");
}

#[test]
fn a_name_cannot_bring_markup() {
    let html = page(vec![(report("<script>&\"", 1), at(0))], at(0));
    check_contains(&html, "<td>&lt;script&gt;&amp;&quot;</td>");
    assert!(!html.contains("<script"), "{html}");
}

#[test]
fn gpus_that_are_made_up_are_said_to_be() {
    let mut with = report("n-1", 1);
    with.gpus = Some(mcad_wire::report::Gpus { fake: true, ..gpus(vec![gpu("GPU-1", None)]) });
    let html = page(vec![(with.clone(), at(0))], at(0));
    check_contains(&html, "<td>up, 0 s ago, <span class=\"down\">FAKE GPUs</span></td><td>nvidia.com/gpu</td>");
    with.gpus.as_mut().unwrap().fake = false;
    assert!(!page(vec![(with, at(0))], at(0)).contains("FAKE"));
}
