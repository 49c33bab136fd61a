//! docs/accounting.md §11: which pool a node is in, and what the nodes of a pool have together.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use mcad_accounting::cluster::{Cluster, Event, Source};
use mcad_accounting::object::Kind;
use mcad_accounting::options::Options;
use mcad_accounting::snapshot::Snapshot;
use mcad_present::explain::{Answer, Subject};
use mcad_present::history::History;
use mcad_present::page::query::PageQuery;
use mcad_present::page::{Shown, render};
use mcad_terminal::paint::Paint;
use mcad_testkit::build::{node, object, pod, with};
use mcad_testkit::explained::{LATER, snapshot};
use mcad_testkit::random;
use mcad_testkit::{check, check_by, check_lines, print, print_with, snapshot_of, text};
use mcad_wire::report::Report;
use proptest::prelude::*;
use serde_json::{Value, json};

const PRODUCT: &str = "nvidia.com/gpu.product";

/// A node with this many GPUs and these labels.
fn gpu_node(name: &str, gpus: u32, labels: Value) -> Value {
    let amounts = json!({"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": gpus.to_string()});
    with(node(name, amounts), "/metadata/labels", labels)
}

fn of_model(name: &str, gpus: u32, model: &str) -> Value {
    gpu_node(name, gpus, json!({PRODUCT: model}))
}

fn flavor(name: &str, node_labels: Value) -> Value {
    json!({
        "apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "ResourceFlavor",
        "metadata": {"name": name, "uid": format!("f-{name}")}, "spec": {"nodeLabels": node_labels},
    })
}

fn by_label(key: &str) -> Options {
    Options { pool_label: Some(key.parse().unwrap()), ..Options::default() }
}

fn installed(pool: &str, gpus: u32) -> String {
    format!("mcad_pool_installed{{pool=\"{pool}\",resource=\"nvidia_com_gpu\",unit=\"integer\"}} {gpus}")
}

/// Checks how many GPUs are installed in each pool; pools that are not listed must not have metrics.
fn check_pools(text: &str, expected: &[(&str, u32)]) {
    let series = "mcad_pool_installed{pool=\"";
    let shown: BTreeSet<&str> =
        text.lines().filter(|line| line.starts_with(series) && line.contains("nvidia_com_gpu")).collect();
    let expected: BTreeSet<String> = expected.iter().map(|(pool, gpus)| installed(pool, *gpus)).collect();
    assert_eq!(shown, expected.iter().map(String::as_str).collect());
}

/// The cluster of docs/accounting.md §11.
fn two_models() -> [Value; 6] {
    [
        of_model("a-1", 8, "A100"),
        of_model("a-2", 8, "A100"),
        with(of_model("h-1", 8, "H100"), "/spec/unschedulable", json!(true)),
        of_model("h-2", 8, "H100"),
        pod("p", "a-1", json!({"nvidia.com/gpu": "4"})),
        pod("q", "h-2", json!({"nvidia.com/gpu": "6"})),
    ]
}

#[test]
fn the_worked_example_of_the_document() {
    let of = |pool: &str, name: &str, amount: u32| {
        format!("mcad_pool_{name}{{pool=\"{pool}\",resource=\"nvidia_com_gpu\",unit=\"integer\"}} {amount}")
    };
    let slots = |pool: &str, count: u32, slots: u32| {
        format!("mcad_pool_slots{{count=\"{count}\",pool=\"{pool}\",resource=\"nvidia_com_gpu\"}} {slots}")
    };
    let block = |pool: &str, devices: u32| {
        format!("mcad_pool_largest_free_block{{pool=\"{pool}\",resource=\"nvidia_com_gpu\"}} {devices}")
    };
    let lines = [
        of("A100", "installed", 16),
        of("H100", "installed", 16),
        of("A100", "admissible", 16),
        of("H100", "admissible", 8),
        of("A100", "free", 12),
        of("H100", "free", 2),
        slots("A100", 1, 12),
        slots("H100", 1, 2),
        slots("A100", 4, 3),
        slots("H100", 4, 0),
        slots("A100", 8, 1),
        slots("H100", 8, 0),
        block("A100", 8),
        block("H100", 2),
        "mcad_pool_requested{owner=\"other\",pool=\"H100\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 6".to_owned(),
        "mcad_pool_withheld{pool=\"H100\",reason=\"cordoned\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 8"
            .to_owned(),
        "mcad_pool_withheld{pool=\"A100\",reason=\"cordoned\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 0"
            .to_owned(),
        "mcad_gpu_slots{gpus=\"4\"} 3".to_owned(),
        "mcad_gpu_largest_free_block 8".to_owned(),
    ];
    check(&two_models(), &lines.each_ref().map(String::as_str));
}

#[test]
fn nodes_without_a_pool_are_together_and_have_no_name() {
    let objects =
        [of_model("a", 8, "A100"), of_model("b", 4, ""), gpu_node("c", 2, json!({})), node("d", json!({"cpu": "4"}))];
    let text = print(objects.iter().map(object).collect(), &Options::default());
    check_pools(&text, &[("A100", 8), ("", 6)]);
    // A pool has series of those resources only that its nodes have.
    let objects = [of_model("a", 8, "A100"), node("d", json!({"cpu": "4"}))];
    check(
        &objects,
        &[
            "mcad_pool_installed{pool=\"\",resource=\"cpu\",unit=\"core\"} 4",
            "mcad_pool_installed{pool=\"\",resource=\"nvidia_com_gpu\" absent",
            "mcad_pool_slots{count=\"1\",pool=\"\" absent",
            "mcad_pool_largest_free_block{pool=\"\" absent",
        ],
    );
}

#[test]
fn without_any_pool_there_are_metrics_of_pools_only_if_the_flag_is_given() {
    let objects = [gpu_node("a", 8, json!({"zone": "x"})), gpu_node("b", 4, json!({}))];
    check(&objects, &["mcad_pool_ absent"]);
    let shown = |options: &Options| print(objects.iter().map(object).collect(), options);
    check_pools(&shown(&by_label(PRODUCT)), &[("", 12)]);
    check_pools(&shown(&by_label("zone")), &[("x", 8), ("", 4)]);
}

#[test]
fn without_pods_what_needs_none_is_known_of_pools() {
    let known = [Kind::Node].into();
    let cluster = Cluster::from_objects_known([object(&of_model("a", 8, "A100"))], &known);
    let text = text(&snapshot_of(&cluster, &Options::default()));
    check_pools(&text, &[("A100", 8)]);
    let needing_pods = ["free", "requested", "withheld", "overcommitted", "slots", "largest_free_block"];
    let absent = needing_pods.map(|name| format!("mcad_pool_{name} absent"));
    check_lines(&text, &absent.each_ref().map(String::as_str));
}

#[test]
fn a_node_without_the_label_is_in_the_pool_of_its_most_specific_flavor() {
    let objects = [
        of_model("labelled", 1, "A100"),
        gpu_node("h", 2, json!({"gpu": "h100"})),
        gpu_node("in-zone", 4, json!({"gpu": "h100", "zone": "z"})),
        gpu_node("rest", 8, json!({"gpu": "l40s"})),
        flavor("any", json!({})),
        flavor("h100", json!({"gpu": "h100"})),
        flavor("in-zone", json!({"gpu": "h100", "zone": "z"})),
        // Of flavors with as many labels, the first by name counts.
        flavor("later-h100", json!({"gpu": "h100"})),
    ];
    let text = print(objects.iter().map(object).collect(), &Options::default());
    check_pools(&text, &[("A100", 1), ("h100", 2), ("in-zone", 4), ("any", 8)]);
    // A node that no flavor selects is in no pool.
    let objects: Vec<_> = objects.into_iter().filter(|of| of["metadata"]["name"] != "any").collect();
    let text = print(objects.iter().map(object).collect(), &Options::default());
    check_pools(&text, &[("A100", 1), ("h100", 2), ("in-zone", 4), ("", 8)]);
}

#[test]
fn flavors_alone_make_pools_and_change_them_as_they_come_and_go() {
    let nodes = [gpu_node("a", 8, json!({"gpu": "h100"})), gpu_node("b", 4, json!({}))];
    let mut cluster = Cluster::from_objects(nodes.iter().map(object));
    let shown = |cluster: &Cluster| text(&snapshot_of(cluster, &Options::default()));
    check_lines(&shown(&cluster), &["mcad_pool_ absent"]);
    let h100 = object(&flavor("h100", json!({"gpu": "h100"})));
    cluster.apply(Event::Reset(Source::ResourceFlavors, vec![h100.clone()]));
    check_pools(&shown(&cluster), &[("h100", 8), ("", 4)]);
    cluster.apply(Event::Apply(object(&flavor("h100", json!({"gpu": "other"})))));
    check_lines(&shown(&cluster), &["mcad_pool_ absent"]);
    cluster.apply(Event::Apply(h100));
    check_pools(&shown(&cluster), &[("h100", 8), ("", 4)]);
    // The last state of a list that is lost names no pool.
    cluster.apply(Event::Lost(Source::ResourceFlavors));
    check_lines(&shown(&cluster), &["mcad_pool_ absent"]);
}

#[test]
fn if_a_flavor_is_beyond_a_limit_no_flavor_names_a_pool() {
    let labels: serde_json::Map<_, _> = (0..3000).map(|at| (format!("l-{at}"), json!("x"))).collect();
    let objects = [
        gpu_node("a", 8, json!({"gpu": "h100"})),
        flavor("h100", json!({"gpu": "h100"})),
        flavor("too-many-labels", Value::Object(labels)),
    ];
    check(&objects, &["mcad_pool_ absent"]);
}

/// Pools of two nodes each, with one GPU a node.
fn pools_of_two(count: usize) -> Vec<Value> {
    let two = |at: usize| ["x", "y"].map(|name| of_model(&format!("p-{at:03}-{name}"), 1, &format!("p-{at:03}")));
    (0..count).flat_map(two).collect()
}

fn pool_labels(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.split("pool=\"").nth(1)?.split('"').next()).collect()
}

#[test]
fn two_hundred_pools_have_metrics_and_the_rest_is_together() {
    let shown = |objects: &[Value]| print(objects.iter().map(object).collect(), &Options::default());
    let mut objects = pools_of_two(200);
    let text = shown(&objects);
    assert_eq!(pool_labels(&text).len(), 200);
    assert!(!pool_labels(&text).contains("other"));
    // A 201st, the smallest although it is the first by name, is the rest.
    objects.push(of_model("a", 1, "a"));
    let text = shown(&objects);
    assert_eq!(pool_labels(&text).len(), 201);
    assert!(!pool_labels(&text).contains("a"));
    check_lines(&text, &[&installed("other", 1), &installed("p-000", 2), &installed("p-199", 2)]);
    // A pool that is called so itself belongs to the rest, however large it is.
    objects.extend((0..5).map(|at| of_model(&format!("o-{at}"), 1, "other")));
    let text = shown(&objects);
    assert_eq!(pool_labels(&text).len(), 201);
    check_lines(&text, &[&installed("other", 6), &installed("p-199", 2)]);
    // The nodes without a pool keep their series. Of equally large pools, the last by name goes to the rest.
    objects.push(gpu_node("without", 1, json!({})));
    let text = shown(&objects);
    assert_eq!(pool_labels(&text).len(), 201);
    check_lines(&text, &[&installed("other", 8), &installed("", 1), &installed("p-198", 2)]);
    assert!(!pool_labels(&text).contains("p-199"));
    let once: Vec<_> = text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series).collect();
    assert_eq!(once.iter().collect::<BTreeSet<_>>().len(), once.len());
}

#[test]
fn a_pool_called_other_is_a_pool_while_there_is_no_rest() {
    let objects = [of_model("a", 8, "other"), of_model("b", 4, "A100")];
    check_pools(&print(objects.iter().map(object).collect(), &Options::default()), &[("A100", 4), ("other", 8)]);
}

fn explained(snapshot: &Snapshot) -> (String, Value) {
    let answer = Answer::on(&Subject::Cluster, snapshot, LATER).unwrap();
    (mcad_present::explain::text(&answer, Paint::Plain), serde_json::to_value(answer).unwrap())
}

#[test]
fn explain_tells_slots_and_blocks_of_each_pool() {
    let (said, json) = explained(&snapshot(&two_models(), Vec::new()));
    let expected = "\nPods that could start now, by GPUs per pod: 14 with 1, 7 with 2, 3 with 4 and 1 with 8; at most 8 GPUs free on one node.\n  \
                    A100: 12 with 1, 6 with 2, 3 with 4 and 1 with 8; at most 8 GPUs free on one node.\n  \
                    H100: 2 with 1, 1 with 2, 0 with 4 and 0 with 8; at most 2 GPUs free on one node.\n";
    assert!(said.contains(expected), "{said}");
    let slots = |pods: [u32; 4]| -> Vec<Value> {
        [1, 2, 4, 8].into_iter().zip(pods).map(|(count, pods)| json!({"count": count, "pods": pods})).collect()
    };
    let of = |pods, block| json!({"nvidia.com/gpu": {"slots": slots(pods), "largest_free_block_devices": block}});
    let expected = json!([
        {"name": "A100", "accelerators": of([12, 6, 3, 1], 8)},
        {"name": "H100", "accelerators": of([2, 1, 0, 0], 2)},
    ]);
    assert_eq!(json["cluster"]["pools"], expected);
    // If all of an accelerator is in one pool, the sentence on the cluster is also the one on the pool.
    let one = [of_model("a", 8, "A100"), node("b", json!({"cpu": "4"})), gpu_node("c", 0, json!({}))];
    let (said, json) = explained(&snapshot(&one, Vec::new()));
    assert!(said.contains("at most 8 GPUs free on one node.") && !said.contains("  A100"), "{said}");
    assert_eq!(json["cluster"]["pools"].as_array().unwrap().len(), 1);
    let (_, json) = explained(&snapshot(&[gpu_node("a", 8, json!({}))], Vec::new()));
    assert!(json["cluster"].get("pools").is_none(), "{json}");
}

#[test]
fn explain_names_twenty_pools() {
    let nodes: Vec<_> = (0..25).map(|at| of_model(&format!("n-{at:02}"), 1 + at, &format!("p-{at:02}"))).collect();
    let (said, _) = explained(&snapshot(&nodes, Vec::new()));
    let named: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("  p-")?.split(':').next()).collect();
    assert_eq!((named.len(), named[0], named[19]), (20, "24", "05"), "{said}");
    assert!(said.contains("\n  5 more pools: see mcad_pool_slots in /metrics.\n"), "{said}");
}

#[test]
fn the_page_shows_the_same_pools() {
    let page = |options: &Options, objects: &[Value]| {
        let cluster = Cluster::from_objects(objects.iter().map(object));
        let snapshot = snapshot_of(&cluster, options);
        let query = PageQuery::parse("/", "").unwrap().unwrap();
        render(&query, &Shown { snapshot: &snapshot, history: &History::default() }, LATER).unwrap()
    };
    // What could start is told by pool, as `explain` tells it.
    let html = page(&Options::default(), &two_models());
    let expected = "A100: 12 with 1, 6 with 2, 3 with 4 and 1 with 8; at most 8 GPUs free on one node. \
                    H100: 2 with 1, 1 with 2, 0 with 4 and 0 with 8; at most 2 GPUs free on one node. ";
    assert!(html.contains(expected), "{html}");
    let labels = |at: usize| match at % 3 {
        0 => json!({PRODUCT: "A100", "zone": "x"}),
        1 => json!({"gpu": "h100", "zone": "y"}),
        _ => json!({"gpu": "none"}),
    };
    let mut objects: Vec<_> = (0..30).map(|at| gpu_node(&format!("n-{at}"), 8, labels(at))).collect();
    let html = page(&by_label("zone"), &objects);
    assert!(html.contains("Pools by the node label zone</caption>"), "{html}");
    assert!(html.contains("/?pool=x") && html.contains("/?pool=y") && !html.contains("/?pool=A100"), "{html}");
    objects.push(flavor("h100-flavor", json!({"gpu": "h100"})));
    let html = page(&Options::default(), &objects);
    assert!(
        html.contains("Pools by the node label nvidia.com/gpu.product, else by ResourceFlavor</caption>"),
        "{html}"
    );
    for pool in ["A100", "h100-flavor", "-"] {
        assert!(html.contains(&format!("/?pool={pool}#nodes")), "{pool}: {html}");
    }
}

#[test]
fn the_pool_of_a_report_is_that_of_its_node() {
    let objects = [of_model("a", 8, "A100"), of_model("b", 8, "H100")];
    let gpus = mcad_testkit::build::gpus(8).into_iter().enumerate();
    let gpus = gpus.map(|(at, gpu)| if at == 0 { mcad_testkit::build::broken(gpu) } else { gpu }).collect();
    let reports = vec![mcad_testkit::build::gpu_report("b", gpus)];
    let text = print_with(objects.iter().map(object).collect(), reports, &by_label(PRODUCT));
    check_lines(
        &text,
        &[
            "mcad_pool_phantom{pool=\"H100\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 1",
            // No agent looked.
            "mcad_pool_phantom{pool=\"A100\" absent",
            "mcad_pool_nodes_measured{pool=\"A100\" absent",
            "mcad_pool_nodes_measured{pool=\"H100\",resource=\"nvidia_com_gpu\"} 0",
            "mcad_pool_healthy{pool=\"H100\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 7",
        ],
    );
    check_by(&objects, &by_label(PRODUCT), &["mcad_pool_phantom absent"]);
}

/// A series: its family and its labels.
type Series = (String, BTreeMap<String, String>);

/// The series of these families, with their values in billionths.
fn series(text: &str, of: impl Fn(&str) -> bool) -> BTreeMap<Series, i128> {
    let parse = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (family, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
        let labels = labels.map(|label| {
            let (name, value) = label.split_once("=\"").unwrap();
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        });
        let (whole, part) = value.split_once('.').unwrap_or((value, ""));
        let nano: i128 = format!("{whole}{part:0<9}").parse().unwrap();
        ((family.to_owned(), labels.collect()), nano)
    };
    text.lines().filter(|line| !line.starts_with('#') && of(line)).map(parse).collect()
}

const SUMS: [&str; 12] = [
    "installed",
    "healthy",
    "capacity",
    "allocatable",
    "admissible",
    "free",
    "requested",
    "withheld",
    "overcommitted",
    "phantom",
    "used",
    "nodes_measured",
];

/// What a cluster's metrics are called if they are of a pool: sums, slots and blocks. Blocks are no sums.
fn of_cluster(text: &str) -> BTreeMap<Series, i128> {
    let family = |line: &str| line.split(['{', ' ']).next().unwrap().to_owned();
    let is_sum = |line: &str| {
        let family = family(line);
        family.strip_prefix("mcad_cluster_").is_some_and(|name| SUMS.contains(&name))
    };
    let mut all = BTreeMap::new();
    for ((family, labels), value) in series(text, is_sum) {
        all.insert((family.replace("cluster", "pool"), labels), value);
    }
    let has_gpus = all.keys().any(|(_, labels)| labels["resource"] == "nvidia_com_gpu");
    let shapes = ["mcad_gpu_slots", "mcad_slots", "mcad_gpu_largest_free_block", "mcad_largest_free_block"];
    for ((family, mut labels), value) in series(text, |line| shapes.contains(&&*family(line))) {
        if family.starts_with("mcad_gpu") {
            if !has_gpus {
                continue;
            }
            labels.insert("resource".to_owned(), "nvidia_com_gpu".to_owned());
        }
        if let Some(gpus) = labels.remove("gpus") {
            labels.insert("count".to_owned(), gpus);
        }
        let name = if family.ends_with("slots") { "mcad_pool_slots" } else { "mcad_pool_largest_free_block" };
        all.insert((name.to_owned(), labels), value);
    }
    all
}

/// A cluster with pools by label and by flavor, and reports of some nodes.
fn clusters() -> impl Strategy<Value = (Vec<Value>, Vec<Report>, bool)> {
    let label =
        proptest::sample::select(&[None, None, Some(""), Some("A100"), Some("H100"), Some("other"), Some("all")][..]);
    let labels = proptest::collection::vec(label, random::NODES.len());
    let flavors = proptest::sample::subsequence(
        vec![("all", json!({})), ("b", json!({"zone": "b"})), ("a", json!({"zone": "a"}))],
        0..=3,
    );
    let reports = proptest::collection::vec(random::report(), 0..6);
    (random::cluster(), labels, flavors, reports, any::<bool>()).prop_map(
        |(mut objects, labels, flavors, reports, given)| {
            for (at, object) in objects.iter_mut().filter(|object| object["kind"] == "Node").enumerate() {
                if let Some(model) = labels[at] {
                    object["metadata"]["labels"][PRODUCT] = model.into();
                }
            }
            objects.extend(flavors.into_iter().map(|(name, labels)| flavor(name, labels)));
            (objects, reports, given)
        },
    )
}

/// The rule of docs/accounting.md §11, on the objects as they stand.
fn literal_pool(objects: &[Value], node: &Value) -> String {
    let labels = &node["metadata"]["labels"];
    if let Some(model) = labels[PRODUCT].as_str().filter(|model| !model.is_empty()) {
        return model.to_owned();
    }
    let flavors = objects.iter().filter(|object| object["kind"] == "ResourceFlavor");
    let selects = |flavor: &&Value| {
        flavor["spec"]["nodeLabels"].as_object().unwrap().iter().all(|(key, value)| labels[key] == *value)
    };
    let best = flavors.filter(selects).min_by_key(|flavor| {
        let labels = flavor["spec"]["nodeLabels"].as_object().unwrap().len();
        (Reverse(labels), flavor["metadata"]["name"].as_str().unwrap().to_owned())
    });
    best.map(|flavor| flavor["metadata"]["name"].as_str().unwrap().to_owned()).unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The metrics of a pool are those of a cluster that has its nodes only, and together they are those of the cluster.
    #[test]
    fn a_pool_is_like_a_cluster_of_its_nodes_and_pools_add_up_to_the_cluster((objects, reports, given) in clusters()) {
        let options = if given { by_label(PRODUCT) } else { Options::default() };
        let shown = |objects: &[&Value]| {
            print_with(objects.iter().map(|json| object(json)).collect(), reports.clone(), &options)
        };
        let text = shown(&objects.iter().collect::<Vec<_>>());
        let mut of_pools = series(&text, |line| line.starts_with("mcad_pool_"));
        let nodes: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "Node").collect();
        let pools: BTreeSet<String> = nodes.iter().map(|node| literal_pool(&objects, node)).collect();
        if !given && pools.iter().all(String::is_empty) {
            prop_assert_eq!(of_pools, BTreeMap::new());
            return Ok(());
        }
        let mut together: BTreeMap<Series, i128> = BTreeMap::new();
        for ((family, labels), value) in &of_pools {
            let mut labels = labels.clone();
            labels.remove("pool");
            let all = together.entry((family.clone(), labels)).or_default();
            *all = if family == "mcad_pool_largest_free_block" { (*all).max(*value) } else { *all + *value };
        }
        let whole = of_cluster(&text);
        // A sum with an unknown part is unknown, and so is the whole.
        let of_whole: BTreeMap<_, _> = together.into_iter().filter(|(series, _)| whole.contains_key(series)).collect();
        prop_assert_eq!(&of_whole, &whole);
        for pool in pools {
            let is_of_pool = |object: &&Value| {
                object["kind"] == "Pod" || object["kind"] == "Node" && literal_pool(&objects, object) == pool
            };
            for ((family, mut labels), value) in of_cluster(&shown(&objects.iter().filter(is_of_pool).collect::<Vec<_>>())) {
                labels.insert("pool".to_owned(), pool.clone());
                prop_assert_eq!(of_pools.remove(&(family.clone(), labels.clone())), Some(value), "{} {:?}", family, labels);
            }
        }
        prop_assert_eq!(of_pools, BTreeMap::new(), "of no pool");
    }
}
