//! Tests of the page: a snapshot in, HTML out. What a browser makes of it is `aggregator/tests/process/browser/`'s.

use std::sync::Arc;

use mcad_accounting::input::{Input, Missing};
use mcad_testkit::reports::{at, gpu, gpus, report, snapshot};

use super::*;
use crate::page::query::ClusterQuery;

fn show(query: &PageQuery, snapshot: &Snapshot, now: Now) -> Result<String, super::Missing> {
    render(query, &Shown { snapshot, history: &History::default() }, now)
}

fn page(reports: Vec<(mcad_wire::report::Report, Now)>, now: Now) -> String {
    let front = PageQuery::Cluster(ClusterQuery::default());
    show(&front, &snapshot(reports, now), now).unwrap()
}

fn check_contains(html: &str, expected: &str) {
    assert!(html.contains(expected), "{expected} is not in\n{html}");
}

/// What one reads of it, without tags.
fn text(html: &str) -> String {
    let mut text = String::new();
    for piece in html.split('<') {
        text.push_str(piece.split_once('>').map_or("", |(_, text)| text));
    }
    text
}

#[test]
fn one_sentence_says_what_is_there() {
    let html = page(vec![(report("n-1", 1), at(0)), (report("n-1", 2), at(10))], at(12));
    check_contains(&text(&html), "2 cores installed, 2 work, 1 busy.");
    check_contains(&text(&html), "Kubernetes is not used: the values are what 1 of 1 agents measure.");
    check_contains(&html, "<a class=\"f\" href=\"/docs/metrics#mcad_cluster_used\">1</a> busy");
}

#[test]
fn what_is_unknown_is_called_so_and_is_no_zero() {
    let html = page(vec![(report("n-1", 1), at(0))], at(0));
    check_contains(&text(&html), "2 work, busy unknown.");
    check_contains(&html, "<a class=\"f unknown\" href=\"/docs/metrics#mcad_node_used\">unknown</a>");
}

#[test]
fn the_age_of_the_snapshot_is_on_every_page() {
    let shown = snapshot(vec![(report("n-1", 1), at(0))], at(0));
    for path in ["/", "/node/n-1", "/docs/metrics"] {
        let query = PageQuery::parse(path, "").unwrap().unwrap();
        check_contains(&text(&show(&query, &shown, at(7)).unwrap()), "snapshot 7 s old");
    }
}

#[test]
fn a_silent_agent_is_trouble() {
    let html = page(vec![(report("n-1", 1), at(0))], at(100));
    check_contains(&text(&html), "the values are what 0 of 1 agents measure");
    check_contains(&html, "<span class=\"tag bad\">agent silent for 1 min</span>");
}

#[test]
fn a_name_cannot_bring_markup() {
    let html = page(vec![(report("<script>&\"", 1), at(0))], at(0));
    check_contains(
        &html,
        "<a href=\"/node/%3Cscript%3E%26%22\"><bdi class=\"name\">&lt;script&gt;&amp;&quot;</bdi></a>",
    );
    assert_eq!(html.matches("<script").count(), 1, "{html}");
}

#[test]
fn gpus_that_are_made_up_are_said_to_be() {
    let mut with = report("n-1", 1);
    with.gpus = Some(mcad_wire::report::Gpus { fake: true, ..gpus(vec![gpu("GPU-1", None)]) });
    check_contains(&text(&page(vec![(with.clone(), at(0))], at(0))), "n-1 FAKE GPUs");
    with.gpus.as_mut().unwrap().fake = false;
    assert!(!page(vec![(with, at(0))], at(0)).contains("FAKE"));
}

#[test]
fn a_replica_that_stands_by_says_so_and_what_it_means() {
    let mut shown = snapshot(vec![(report("n-1", 1), at(0))], at(0));
    let front = PageQuery::Cluster(ClusterQuery::default());
    assert!(!show(&front, &shown, at(0)).unwrap().contains("not the leader"));
    shown.role = Role::Standby;
    check_contains(
        &text(&show(&front, &shown, at(0)).unwrap()),
        "This replica is not the leader. Another replica holds the Lease",
    );
}

#[test]
fn what_is_not_there_is_said_in_words() {
    let shown = snapshot(Vec::new(), at(0));
    let missing = |path| show(&PageQuery::parse(path, "").unwrap().unwrap(), &shown, at(0)).unwrap_err().to_string();
    assert_eq!(missing("/node/gpu-99"), "no node named gpu-99");
    assert_eq!(missing("/docs/secrets"), "no document named secrets");
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let html = page(vec![(report("n-1", 1), at(0))], at(0));
    for mark in ["http:", "https:", "//", "style=", "onload", "onclick"] {
        let inside = html.replace("<!DOCTYPE", "");
        assert!(!inside.contains(mark), "{mark} is in\n{inside}");
    }
    for (name, text) in [("page.css", STYLE), ("page.js", SCRIPT)] {
        assert!(!text.contains("http") && !text.contains("@import"), "{name} loads something");
    }
}

#[test]
fn what_is_wrong_with_a_dump_stands_before_every_figure_of_every_page() {
    let missing = Missing { kind: "Pods", sentence: "no Pods <in> the dump".to_owned() };
    let left_out: Vec<String> = (0..30).map(|at| format!("dump.json: document {at}")).collect();
    let input = Input {
        missing: vec![missing],
        left_out,
        as_of: "as of then (the newest time in it)".to_owned(),
        ..Input::default()
    };
    let dumped = |input| Snapshot { input: Some(Arc::new(input)), ..snapshot(vec![(report("n-1", 1), at(0))], at(0)) };
    for path in ["/", "/node/n-1"] {
        let query = PageQuery::parse(path, "").unwrap().unwrap();
        let html = show(&query, &dumped(input.clone()), at(0)).unwrap();
        let read = text(&html);
        let (wrong, figures) = (read.find("Missing: no Pods &lt;in&gt; the dump"), read.find("CPU cores"));
        assert!(wrong.is_some() && wrong < figures, "{read}");
        assert!(read.contains("Left out: dump.json: document 18") && !read.contains("document 19"), "{read}");
        check_contains(&read, "11 more are in the log.");
        check_contains(
            &read,
            "This page shows a dump, as of then (the newest time in it). Ages are relative to that time.",
        );
        let whole =
            show(&query, &dumped(Input { complete: true, as_of: "as of then".to_owned(), ..Input::default() }), at(0))
                .unwrap();
        assert!(!whole.contains("input-wrong"), "{whole}");
    }
}
