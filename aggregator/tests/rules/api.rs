//! What `/api/v1` answers, page by page, and docs/api.md by the same cluster.
//!
//! `MCAD_BLESS=1 cargo test -p mcad-aggregator` writes the document's examples anew; the difference is to be reviewed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]

use std::fs;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::snapshot::Snapshot;
use mcad_present::api::{Refused, Wanted};
use mcad_present::explain;
use mcad_testkit::build::{gpu_node, gpus_of, node, node_of, pod, v1beta1, v1beta2, waiting, with};
use mcad_testkit::explained::{LATER, NOW, check_golden, dumped, example, root, snapshot, snapshot_of};
use mcad_testkit::queues::flavor;
use serde_json::{Value, json};

use crate::submissions::{object_of, queue, template, without_queue};
use crate::submissions_told::{fit, whatif};

fn ask(snapshot: &Snapshot, address: &str) -> Result<Value, Refused> {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    Ok(serde_json::to_value(Wanted::parse(path, query)?.answer(snapshot, LATER)?).unwrap())
}

fn refusal(address: &str) -> (u16, String) {
    let refused = ask(&example(), address).unwrap_err();
    (refused.status(), refused.to_string())
}

fn with_kueue() -> Snapshot {
    snapshot_of(Cluster::from_objects(dumped("cases/queue-1.yaml")), Vec::new())
}

/// `### GET /path` and the JSON below it.
#[test]
fn docs_api_md_shows_what_is_answered() {
    let path = "../../docs/api.md";
    let page = fs::read_to_string(root().join("tests").join(path)).unwrap_or_default();
    let (plain, queues, mut with_queues) = (example(), with_kueue(), false);
    let (mut written, mut rest) = (String::new(), page.as_str());
    let mut examples = 0;
    while let Some((before, behind)) = rest.split_once("```json\n") {
        let (_, after) = behind.split_once("```").unwrap();
        let address = before.lines().rev().find_map(|line| line.strip_prefix("    GET ")).expect("an address");
        // The examples below the one on queues are of a cluster that has some.
        with_queues |= address.starts_with("/api/v1/queues");
        let answer = match ask(if with_queues { &queues } else { &plain }, address) {
            Ok(answer) => answer,
            Err(refused) => json!({"error": refused.to_string()}),
        };
        let answer = serde_json::to_string_pretty(&answer).unwrap();
        written = [&written, before, "```json\n", &answer, "\n```"].concat();
        rest = after;
        examples += 1;
    }
    assert!(examples >= 5, "{examples} examples");
    check_golden(path, &(written + rest));
}

/// Answers to `fit` and `whatif` that have all fields together.
fn fits() -> Vec<Value> {
    let one = |gpus| object_of("batch/v1", "Job", json!({"parallelism": 1, "template": template(gpus)}));
    let nodes: Vec<Value> = (0..7).map(|at| gpu_node(&format!("n{at}"), 2)).collect();
    let queue = queue(9, json!({}));
    let tolerating = flavor("f", json!({"tolerations": [{"key": "team", "operator": "Exists"}]}));
    let cluster = [&nodes[..], &queue[..2], &[tolerating]].concat();
    let old = |gpus| json!([{"generictemplate": {"spec": {"replicas": 1, "template": {"spec": gpus_of(gpus)}}}}]);
    let some = with(waiting(&[(2, gpus_of(1))]), "/spec/schedulingSpec", json!({"minAvailable": 1}));
    let claim = json!({"resourceClaims": [{"name": "c", "resourceClaimName": "gone"}], "containers": []});
    let labels = json!({"workload.codeflare.dev/appwrapper": "w"});
    let of_w = with(pod("p", "n0", json!({"nvidia.com/gpu": "1"})), "/metadata/labels", labels);
    let sets = json!([{"podSets": [{"path": "template.t"}], "template": {"t": {"spec": gpus_of(1)}}}]);
    let losers = [v1beta2("w", sets, "Running"), of_w, pod("other", "n0", json!({"cpu": "1"}))];
    let drained = whatif(&[&nodes[..], &losers].concat(), "n0", &[]);
    let told =
        |cluster: &[Value], documents: &[Value], copies| serde_json::to_value(fit(cluster, documents, copies)).unwrap();
    vec![
        told(&cluster, &[one(2)], 9),
        told(&nodes, &[v1beta1("w", old(99), json!({}))], 1),
        told(&nodes, &[without_queue(one(2))], 6),
        told(&nodes, &[some, without_queue(one(2))], 7),
        told(&nodes, &[without_queue(object_of("v1", "Pod", claim))], 1),
        serde_json::to_value(drained).unwrap(),
    ]
}

#[test]
fn every_field_is_documented() {
    fn fields(value: &Value, into: &mut std::collections::BTreeSet<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(name, value)| {
                into.insert(name.clone());
                fields(value, into);
            }),
            Value::Array(values) => values.iter().for_each(|value| fields(value, into)),
            _ => {}
        }
    }
    let mut all = std::collections::BTreeSet::new();
    for address in ["cluster", "nodes", "appwrappers"] {
        fields(&ask(&example(), &format!("/api/v1/{address}")).unwrap(), &mut all);
    }
    for address in ["cluster", "appwrappers", "queues", "flavors"] {
        fields(&ask(&with_kueue(), &format!("/api/v1/{address}")).unwrap(), &mut all);
    }
    for answer in fits() {
        fields(&answer, &mut all);
    }
    // The name of a flavor.
    all.remove("default-flavor");
    let page = fs::read_to_string(root().join("../docs/api.md")).unwrap();
    let missing: Vec<_> = all.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/api.md does not say what these are: {missing:?}");
}

#[test]
fn the_age_of_the_snapshot_is_in_each_answer() {
    for path in ["cluster", "nodes", "nodes/gpu-17", "appwrappers", "appwrappers/team-a/tune"] {
        assert_eq!(ask(&example(), &format!("/api/v1/{path}")).unwrap()["snapshot_age_seconds"], 0.25, "{path}");
    }
}

#[test]
fn what_is_not_there_is_said_in_a_sentence() {
    assert_eq!(refusal("/api/v1/nodes/gpu-99"), (404, "no node named gpu-99".into()));
    let missing = (404, "no AppWrapper named x in namespace team-a".into());
    assert_eq!(refusal("/api/v1/appwrappers/team-a/x"), missing);
    assert_eq!(refusal("/api/v1/pods").0, 404);
    assert_eq!(refusal("/api/v1/cluster/").0, 404);
    let unknown = snapshot_of(Cluster::default(), Vec::new());
    for path in ["nodes", "nodes/n", "appwrappers", "appwrappers/a/w"] {
        assert_eq!(ask(&unknown, &format!("/api/v1/{path}")).unwrap_err().status(), 503, "{path}");
    }
}

#[test]
fn a_parameter_that_is_wrong_is_refused_and_not_passed_over() {
    for address in [
        "nodes?limit=0",
        "nodes?limit=1001",
        "nodes?limit=x",
        "nodes?Limit=1",
        "nodes?waiting=true",
        "nodes?continue=%zz",
        "nodes/%ff",
        "cluster?limit=1",
        "appwrappers?waiting=yes",
    ] {
        assert_eq!(refusal(&format!("/api/v1/{address}")).0, 400, "{address}");
    }
}

/// Asks page after page, and fails where one is too long or the end does not come.
fn pages(snapshot: &Snapshot, list: &str, limit: usize) -> Vec<String> {
    let name = |entry: &Value| match entry["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{}", entry["name"].as_str().unwrap()),
        None => entry["name"].as_str().unwrap().to_owned(),
    };
    let (mut names, mut next) = (Vec::new(), String::new());
    for _ in 0..1000 {
        let answer = ask(snapshot, &format!("/api/v1/{list}?limit={limit}&continue={next}")).unwrap();
        let page = answer[list].as_array().unwrap();
        assert!(page.len() <= limit);
        names.extend(page.iter().map(name));
        match answer.get("continue") {
            Some(more) => next = more.as_str().unwrap().replace('%', "%25").replace('&', "%26"),
            None => return names,
        }
    }
    panic!("{list} has no end");
}

#[test]
fn pages_together_are_the_list_each_entry_once() {
    let mut objects: Vec<Value> = (0..7).map(|at| node(&format!("n{at}&%41"), json!({"cpu": "1"}))).collect();
    // `a-b/x` is before `a/y` as a text, but namespace `a` is before `a-b`.
    for (namespace, name) in [("a", "x"), ("a", "y"), ("a-b", "x"), ("b", "a")] {
        objects.push(with(v1beta1(name, json!([]), json!({})), "/metadata/namespace", json!(namespace)));
    }
    let snapshot = snapshot(&objects, Vec::new());
    for limit in [1, 2, 3, 7, 1000] {
        let nodes: Vec<_> = (0..7).map(|at| format!("n{at}&%41")).collect();
        assert_eq!(pages(&snapshot, "nodes", limit), nodes);
        assert_eq!(pages(&snapshot, "appwrappers", limit), ["a/x", "a/y", "a-b/x", "b/a"]);
    }
}

#[test]
fn a_page_goes_on_though_its_last_entry_is_gone() {
    let there = snapshot(&[node("a", json!({})), node("c", json!({}))], Vec::new());
    let answer = ask(&there, "/api/v1/nodes?continue=b").unwrap();
    assert_eq!(answer["nodes"][0]["name"], "c");
    assert_eq!(answer.get("continue"), None);
}

#[test]
fn ten_thousand_nodes_are_answered_page_by_page() {
    let objects: Vec<_> = (0..10_000)
        .map(|at| {
            let capacity = json!({"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"});
            node_of(&format!("n{at:05}"), capacity, json!({"cpu": "63", "memory": "500Gi", "nvidia.com/gpu": "8"}))
        })
        .collect();
    let snapshot = snapshot(&objects, Vec::new());
    assert_eq!(pages(&snapshot, "nodes", 1000).len(), 10_000);
    let answer = Wanted::parse("/api/v1/nodes", "limit=1000").unwrap().answer(&snapshot, NOW).unwrap();
    let bytes = explain::json(&answer).unwrap().len();
    assert!(bytes < 2 << 20, "a page has {bytes} bytes");
    // However many nodes a reason has, the cluster's answer names a few.
    let cluster = ask(&snapshot, "/api/v1/cluster").unwrap();
    let reserved = &cluster["cluster"]["nodes_by_reason"]["cpu_millicores"]["reserved"];
    assert_eq!((reserved["nodes"].as_array().unwrap().len(), &reserved["more_nodes"]), (20, &json!(9980)));
    assert!(cluster.to_string().len() < 16 << 10);
}

#[test]
fn only_those_that_wait_are_answered_when_asked() {
    let answer = ask(&example(), "/api/v1/appwrappers?waiting=true").unwrap();
    assert_eq!(answer["appwrappers"].as_array().unwrap().len(), 1);
    assert_eq!(answer["appwrappers"][0]["name"], "tune");
}
