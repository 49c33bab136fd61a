//! How many series AppWrappers may have: whoever creates them must not be able to fill Prometheus, nor to hide another namespace.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::collections::BTreeMap;
use std::path::Path;

use mcad_accounting::options::Options;
use mcad_aggregator::dump::Dump;
use mcad_present::explain::{self, Answer, Subject};
use mcad_terminal::paint::Paint;
use mcad_testkit::build::{node, object, pod, spec, v1beta1, v1beta2, with};
use mcad_testkit::explained::{NOW, snapshot};
use mcad_testkit::{check_by, check_lines, print, print_cluster_with, random};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names of so many resources, each asked for once.
fn named(count: usize) -> Value {
    Value::Object((0..count).map(|at| (format!("example.com/r{at:06}"), Value::from("1"))).collect::<Map<_, _>>())
}

fn both_versions(resources: usize) -> [Value; 2] {
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "spec": spec(named(resources)) });
    [
        v1beta1("old", json!([{ "generictemplate": pod }]), json!({ "state": "Pending" })),
        v1beta2("new", json!([{ "template": pod }]), "Suspended"),
    ]
}

fn limited(max_series_per_namespace: usize) -> Options {
    Options { max_series_per_namespace, ..Options::default() }
}

/// Series of families that name an AppWrapper, by namespace.
fn series(text: &str) -> BTreeMap<String, usize> {
    let mut series = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("{appwrapper=\"")) {
        let (_, rest) = line.split_once("namespace=\"").unwrap();
        *series.entry(rest.split('"').next().unwrap().to_owned()).or_default() += 1;
    }
    series
}

#[test]
fn an_appwrapper_of_forty_thousand_resources_is_left_out_whole_and_said() {
    for (object, list) in both_versions(40_000).into_iter().zip(["v1beta1", "v1beta2"]) {
        let mut dump = Dump::default();
        dump.add(Path::new("large.json"), &object.to_string()).unwrap();
        let said: Vec<_> = dump.skipped.iter().map(|skipped| skipped.source.to_string()).collect();
        let name = &object["metadata"]["name"].as_str().unwrap();
        let sentence = format!("AppWrapper a/{name} has more than 128 extended or other resources, so it is left out");
        assert_eq!(said, [sentence]);
        let text = print_cluster_with(dump.into_cluster(), Vec::new(), &Options::default());
        assert!(!text.contains("example_com_r"), "its resources have series");
        let list = format!("appwrappers.workload.codeflare.dev/{list}");
        let line =
            |reason, count| format!("mcad_aggregator_objects_left_out{{list=\"{list}\",reason=\"{reason}\"}} {count}");
        check_lines(&text, &[&line("resources", 1), &line("pod_sets", 0)]);
    }
}

#[test]
fn one_of_as_many_resources_as_may_be_is_shown() {
    let text = print(both_versions(128).iter().map(object).collect(), &Options::default());
    assert!(text.contains("example_com_r000127"), "{text}");
}

#[test]
fn an_appwrapper_whose_pods_each_name_others_has_no_series_of_its_own() {
    let pods = (0..5).map(|at| {
        let requests: Map<String, Value> =
            (0..100).map(|name| (format!("example.com/p{at}-{name}"), Value::from("1"))).collect();
        let pod = pod(&format!("p{at}"), "x", requests.into());
        with(pod, "/metadata/labels", json!({ "workload.codeflare.dev/appwrapper": "many" }))
    });
    let few = v1beta2("few", json!([]), "Running");
    let objects: Vec<_> =
        [node("x", json!({})), v1beta2("many", json!([]), "Running"), few].into_iter().chain(pods).collect();
    check_by(
        &objects,
        &Options::default(),
        &[
            "mcad_appwrappers_without_series{namespace=\"a\",reason=\"appwrapper\"} 1",
            "mcad_appwrapper_info{appwrapper=\"many\" absent",
            "mcad_appwrapper_requested{appwrapper=\"many\" absent",
            "mcad_appwrappers{state=\"Running\",version=\"v1beta2\"} 2",
            "mcad_appwrapper_pods{appwrapper=\"few\",namespace=\"a\",state=\"bound\"} 0",
        ],
    );
}

#[test]
fn a_namespace_at_its_bound_is_shown_and_one_beyond_has_no_series_while_others_have_theirs() {
    let at = |name: &str, namespace: &str| {
        with(v1beta2(name, json!([]), "Running"), "/metadata/namespace", json!(namespace))
    };
    let objects: Vec<_> = [at("a1", "a"), at("a2", "a"), at("b1", "b")].iter().map(object).collect();
    let all = series(&print(objects.clone(), &Options::default()));
    let (of_a, of_b) = (all["a"], all["b"]);
    assert!(of_a > of_b, "{all:?}");
    assert_eq!(series(&print(objects.clone(), &limited(of_a))), all);
    let text = print(objects, &limited(of_a - 1));
    assert_eq!(series(&text), BTreeMap::from([("b".to_owned(), of_b)]));
    check_lines(&text, &["mcad_appwrappers_without_series{namespace=\"a\",reason=\"namespace\"} 2"]);
}

#[test]
fn states_that_no_controller_sets_make_no_series_each() {
    let with_states = |states: usize| {
        let of = |at| v1beta2(&format!("w{at}"), json!([]), &format!("Made up {at}"));
        let objects = (0..states).map(of).chain([v1beta2("w", json!([]), "Running")]);
        print(objects.map(|json| object(&json)).collect(), &Options::default())
    };
    let few = with_states(16);
    check_lines(&few, &["mcad_appwrappers{state=\"Made up 15\",version=\"v1beta2\"} 1"]);
    check_lines(
        &with_states(17),
        &[
            "mcad_appwrappers{state=\"other\",version=\"v1beta2\"} 17",
            "mcad_appwrappers{state=\"Running\",version=\"v1beta2\"} 1",
            "mcad_appwrappers{state=\"Made up 3\" absent",
        ],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What is counted is what is written, so that a namespace is left out at its bound, not near it.
    #[test]
    fn the_series_that_are_counted_are_those_that_are_written(objects in random::cluster()) {
        let objects: Vec<_> = objects.iter().map(object).collect();
        for (namespace, count) in series(&print(objects.clone(), &Options::default())) {
            let shown = |most| series(&print(objects.clone(), &limited(most))).contains_key(&namespace);
            prop_assert!(shown(count), "{namespace} has {count}");
            prop_assert!(!shown(count - 1), "{namespace} has {count}");
        }
    }
}

#[test]
fn what_is_left_out_of_a_watched_cluster_is_said_before_any_figure() {
    let [old, new] = both_versions(129);
    let huge = with(pod("p", "x", named(300)), "/metadata/namespace", json!("b"));
    let snapshot = snapshot(&[node("x", json!({ "cpu": "8" })), old, new, huge], Vec::new());
    let answer = Answer::on(&Subject::Cluster, &snapshot, NOW).unwrap();
    let text = explain::text(&answer, Paint::Plain);
    let sentences = [
        "1 Pod is counted without the surplus (b/p): it has more than 128 extended or other resources.",
        "1 AppWrapper is left out (a/old): it has more than 128 extended or other resources.",
        "1 AppWrapper is left out (a/new): it has more than 128 extended or other resources.",
    ];
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for sentence in sentences {
        assert!(words.contains(sentence), "{sentence}\nin:\n{text}");
    }
    let json: Value = serde_json::from_str(&explain::json(&answer).unwrap()).unwrap();
    assert_eq!(json["cluster"]["left_out"][1]["named"], json!(["a/old"]), "{json}");
    assert_eq!(json["cluster"]["left_out"][1]["list"], "appwrappers.workload.codeflare.dev/v1beta1", "{json}");
}

/// MCAD takes what it has promised from what it has. Of one that is left out nobody knows how much that is.
#[test]
fn beside_a_promise_of_unknown_size_it_is_not_known_what_fits_the_sum() {
    let pod = |gpus: u32| json!({ "apiVersion": "v1", "kind": "Pod", "spec": spec(json!({ "nvidia.com/gpu": gpus })) });
    let item = |gpus: u32| json!({ "generictemplate": pod(gpus) });
    let promised = |items: usize| {
        let items: Vec<_> = std::iter::once(item(8)).chain((1..items).map(|_| item(0))).collect();
        v1beta1("big", json!(items), json!({ "state": "Pending", "canrun": true }))
    };
    let print = |items: usize| {
        let waits = v1beta1("waits", json!([item(8)]), json!({ "state": "Pending" }));
        let objects = [node("n", json!({ "cpu": "64", "nvidia.com/gpu": 8 })), promised(items), waits];
        print(objects.iter().map(object).collect(), &Options::default())
    };
    let fit = "mcad_appwrapper_fit{appwrapper=\"waits\",by=\"aggregate\",namespace=\"a\"}";
    check_lines(&print(2048), &[&format!("{fit} 0")]);
    let shortfall = "mcad_appwrapper_shortfall{appwrapper=\"waits\" absent";
    check_lines(&print(2049), &[&format!("{fit} absent"), shortfall]);
}
