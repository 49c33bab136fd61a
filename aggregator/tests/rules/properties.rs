//! What holds for every cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mcad_accounting::cluster::{Cluster, Event, Source};
use mcad_accounting::hardware::{Facts, Found, Gpu, Gpus, Health};
use mcad_accounting::ladder::Account;
use mcad_accounting::measure::MeasuredNode;
use mcad_accounting::merge::{Ages, View, merge};
use mcad_accounting::nodes::{Limits, Nodes};
use mcad_accounting::now::Now;
use mcad_accounting::object::{Kind, Object, Served, decode, needed};
use mcad_accounting::options::{Options, PodMetrics};
use mcad_accounting::resource::Amounts;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::verdict::Fits;
use mcad_accounting::views::NodeView;
use mcad_aggregator::receive;
use mcad_present::exposition::Exposition;
use mcad_present::metrics;
use mcad_testkit::random::{self, key};
use mcad_testkit::{NOW_MS, print, snapshot, snapshot_of, text};
use mcad_wire::report::Report;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::Value;

fn object(json: &Value) -> Object {
    let kind = Kind::named(json["apiVersion"].as_str().unwrap(), json["kind"].as_str().unwrap()).unwrap();
    decode(kind, json.clone()).unwrap()
}

fn source(json: &Value) -> Source {
    match json["kind"].as_str().unwrap() {
        "Node" => Source::Nodes,
        "Pod" => Source::Pods,
        _ => Source::AppWrappers(
            Served::ALL.into_iter().find(|served| served.api_version() == json["apiVersion"]).unwrap(),
        ),
    }
}

const SOURCES: [Source; 5] = [
    Source::Nodes,
    Source::Pods,
    Source::AppWrappers(Served::WorkloadV1Beta1),
    Source::AppWrappers(Served::WorkloadV1Beta2),
    Source::AppWrappers(Served::McadV1Beta1),
];

#[derive(Clone, Debug)]
enum Step {
    Apply(Value),
    /// The object as it is, or as it was in an earlier life.
    Delete(Value),
    Reset(usize, Vec<Value>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any = || prop_oneof![3 => random::node(), 6 => random::pod(), 2 => random::appwrapper()];
    let reset = (0..SOURCES.len(), random::cluster()).prop_map(|(at, objects)| {
        Step::Reset(at, objects.into_iter().filter(|object| source(object) == SOURCES[at]).collect())
    });
    let step = prop_oneof![8 => any().prop_map(Step::Apply), 4 => any().prop_map(Step::Delete), 1 => reset];
    proptest::collection::vec(step, 0..80)
}

/// Events and reports, and whether a snapshot is made after each.
fn steps_with_reports() -> impl Strategy<Value = Vec<(Result<Step, Report>, bool)>> {
    let any = || prop_oneof![1 => random::node(), 6 => random::pod(), 1 => random::appwrapper()];
    let reset = (0..SOURCES.len(), random::cluster()).prop_map(|(at, objects)| {
        Step::Reset(at, objects.into_iter().filter(|object| source(object) == SOURCES[at]).collect())
    });
    let step = prop_oneof![8 => any().prop_map(Step::Apply), 3 => any().prop_map(Step::Delete), 1 => reset];
    let any = prop_oneof![2 => step.prop_map(Ok), 1 => random::report().prop_map(Err)];
    // A full cluster first, so that most reports find their node and some of their pods.
    let first = random::cluster().prop_map(|objects| objects.into_iter().map(|json| (Ok(Step::Apply(json)), false)));
    let then = proptest::collection::vec((any, proptest::bool::weighted(0.4)), 0..60);
    (first, then).prop_map(|(first, then)| first.chain(then).collect())
}

/// All that is shown of an instant.
fn merged(cluster: &Cluster, nodes: &mut Nodes, now: Now) -> String {
    let view = View {
        cluster,
        nodes,
        fits: &Fits::new(),
        fitted: None,
        queues: None,
        ages: Ages::Count,
        told_at_ms: Some(now.unix_ms as i64),
    };
    let mut text = Vec::new();
    let mut out = Exposition::new(&mut text);
    metrics::write(&merge(view, now), now, &mut out);
    out.finish().unwrap();
    String::from_utf8(text).unwrap()
}

/// The text without the histograms, which remember what is gone.
fn shown(cluster: &Cluster) -> String {
    let text = text(&snapshot_of(cluster, &Options::default()));
    text.lines().filter(|line| !line.contains("mcad_requested_")).collect::<Vec<_>>().join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_installed_is_accounted_for_by_reason(objects in random::cluster(), seen in found()) {
        let cluster = Cluster::from_objects(objects.iter().map(object));
        let options = Options::default();
        let views = cluster.nodes().map(|(node, held)| {
            let Some(facts) = seen.get(&*node.name) else { return NodeView::without_report(node, Some(held), &options) };
            NodeView::new(node, Some(held), &Found::new(facts, node), Some(MeasuredNode::default()), None, &options)
        });
        let snapshot = Snapshot::new(&cluster, views.map(Arc::new).collect(), Now::default(), NOW_MS, &options);
        let (nodes, orphans) = (snapshot.nodes.unwrap(), snapshot.orphans.unwrap());
        // What pods request is on their node, whether that declares it or not, or their node is not there.
        let mut held = Amounts::default();
        for pod in cluster.pods().filter(|pod| pod.held_node().is_some()) {
            held.add_times(&pod.requests, 1);
        }
        for (resource, amount) in held.iter() {
            let account = nodes.sums.get(&resource).and_then(|sum| sum.account.as_ref());
            let on_nodes = account.map_or(0, Account::requested_in_all);
            prop_assert_eq!(on_nodes + orphans.requested.get(&resource), amount, "{:?}", resource);
        }
        let rungs = nodes.nodes.iter().flat_map(|view| &view.rungs).map(|(resource, rung)| (resource, rung));
        for (resource, rung) in rungs.chain(&nodes.sums) {
            let account = rung.account.as_ref().unwrap();
            let (installed, healthy) = (rung.installed.unwrap(), rung.healthy.unwrap());
            prop_assert_eq!(
                installed + account.overcommitted,
                account.requested_in_all() + account.free + account.withheld.total(),
                "{:?}: {:?}", resource, rung
            );
            let amounts = account.withheld.iter().map(|(_, amount)| amount);
            let amounts = amounts.chain([account.free, account.overcommitted, healthy, rung.phantom.unwrap_or(0)]);
            prop_assert!(amounts.into_iter().all(|amount| amount >= 0), "{:?}: {:?}", resource, rung);
            prop_assert!(healthy <= installed);
        }
    }

    #[test]
    fn any_interleaving_of_events_gives_the_same_as_a_fresh_list(steps in steps()) {
        let mut cluster = Cluster::from_objects([]);
        let mut model: BTreeMap<String, Value> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Apply(json) => {
                    cluster.apply(Event::Apply(object(&json)));
                    model.insert(key(&json), json);
                }
                Step::Delete(json) => {
                    cluster.apply(Event::Delete(object(&json)));
                    if model.get(&key(&json)).is_some_and(|known| known["metadata"]["uid"] == json["metadata"]["uid"]) {
                        model.remove(&key(&json));
                    }
                }
                Step::Reset(at, objects) => {
                    cluster.apply(Event::Reset(SOURCES[at], objects.iter().map(object).collect()));
                    model.retain(|_, known| source(known) != SOURCES[at]);
                    model.extend(objects.into_iter().map(|json| (key(&json), json)));
                }
            }
        }
        let fresh = Cluster::from_objects(model.values().map(object));
        prop_assert_eq!(shown(&cluster), shown(&fresh));
        let backwards = Cluster::from_objects(model.values().rev().map(object));
        prop_assert_eq!(shown(&backwards), shown(&fresh));
        // Nothing is left behind by what is gone.
        for at in SOURCES {
            cluster.apply(Event::Reset(at, Vec::new()));
        }
        prop_assert_eq!(shown(&cluster), shown(&Cluster::from_objects([])));
    }

    #[test]
    fn what_is_kept_of_nodes_makes_no_difference_whatever_comes_in_between(steps in steps_with_reports()) {
        let options = Options { pod_metrics: PodMetrics::On, ..Options::default() };
        let mut cluster = Cluster::from_objects([]);
        let [mut kept, mut anew] = [(); 2].map(|()| Nodes::new(Limits::KUBERNETES, options.clone()));
        for (at, (step, shown)) in steps.into_iter().enumerate() {
            let now = Now { since_start: Duration::from_secs(7 * at as u64), unix_ms: NOW_MS as u64 };
            match step {
                Ok(Step::Apply(json)) => cluster.apply(Event::Apply(object(&json))),
                Ok(Step::Delete(json)) => cluster.apply(Event::Delete(object(&json))),
                Ok(Step::Reset(at, objects)) => {
                    cluster.apply(Event::Reset(SOURCES[at], objects.iter().map(object).collect()));
                }
                Err(report) => {
                    let encoded = report.encode_to_vec();
                    let received = receive::check(&encoded).unwrap();
                    for nodes in [&mut kept, &mut anew] {
                        nodes.take(&cluster, (&received.node, &received.report, received.encoded()), now).unwrap();
                    }
                }
            }
            if shown {
                anew.forget_views();
                prop_assert_eq!(merged(&cluster, &mut kept, now), merged(&cluster, &mut anew, now));
            }
        }
    }

    #[test]
    fn what_is_missing_takes_lines_away_and_changes_none(objects in random::cluster(), missing in 0..8_u8) {
        let whole = shown(&Cluster::from_objects(objects.iter().map(object)));
        let whole: BTreeSet<&str> = whole.lines().collect();
        let known: BTreeSet<_> =
            Kind::CORE.into_iter().enumerate().filter(|(at, _)| missing & (1 << at) == 0).map(|(_, kind)| kind).collect();
        let there = objects.iter().map(object).filter(|object| known.contains(&object.kind()));
        let shown = shown(&Cluster::from_objects_known(there, &known));
        for line in shown.lines() {
            prop_assert!(whole.contains(line), "{:?} known: {}", known, line);
            let rests_on = |kinds: &[Kind]| kinds.iter().all(|kind| known.contains(kind));
            let family = line.split(['{', ' ']).next().unwrap();
            let is_known = match family {
                "mcad_nodes" => rests_on(&[Kind::Node]),
                "mcad_node_free" | "mcad_cluster_requested" | "mcad_allocatable_capacity_gpu" | "mcad_gpu_slots"
                | "mcad_orphaned_pods" => rests_on(&[Kind::Node, Kind::Pod]),
                "mcad_appwrapper_allocated" => rests_on(&[Kind::Pod, Kind::AppWrapper]),
                "mcad_appwrapper_fit" | "mcad_appwrapper_shortfall" => rests_on(&Kind::CORE),
                family if family.starts_with("mcad_appwrapper") => rests_on(&[Kind::AppWrapper]),
                _ => true,
            };
            prop_assert!(is_known, "{:?} known: {}", known, line);
        }
    }

    #[test]
    fn equal_state_gives_equal_bytes_and_every_line_once(objects in random::cluster()) {
        let once = print(objects.iter().map(object).collect(), &Options::default());
        let again = print(objects.iter().rev().map(object).collect(), &Options::default());
        prop_assert_eq!(&once, &again);
        let series: Vec<_> = once.lines().map(|line| line.rsplit_once(' ').unwrap().0).collect();
        prop_assert_eq!(series.iter().collect::<BTreeSet<_>>().len(), series.len());
    }

    #[test]
    fn what_is_not_needed_of_an_object_makes_no_difference(objects in random::cluster()) {
        for json in &objects {
            let kind = Kind::named(json["apiVersion"].as_str().unwrap(), json["kind"].as_str().unwrap()).unwrap();
            let text = json.to_string();
            let read = needed(kind, &mut serde_json::Deserializer::from_str(&text)).unwrap();
            prop_assert_eq!(decode(kind, read).unwrap(), object(json));
        }
    }

    #[test]
    fn mcads_sum_is_that_of_the_literal_routine_wherever_no_node_is_overdrawn(objects in random::cluster()) {
        let (expected, overdrawn) = literal_mcad_v1(&objects);
        let shown = snapshot(objects.iter().map(object).collect(), &Options::default());
        let mcad_accounting::snapshot::Capacity::V1(Some(shown)) = shown.capacity else { panic!("not shown") };
        prop_assume!(!overdrawn);
        prop_assert_eq!([shown.cpu, shown.memory, shown.gpu], expected);
    }
}

const UUIDS: [&str; 6] = ["GPU-0", "GPU-1", "GPU-2", "GPU-3", "GPU-4", "GPU-5"];
const REPLICAS: [&str; 6] = ["GPU-0::0", "GPU-0::1", "GPU-2::0", "GPU-3::1", "GPU-4::0", "GPU-5::1"];

/// What agents found, by node.
fn found() -> impl Strategy<Value = BTreeMap<String, Facts<'static>>> {
    let gpu = (any::<bool>(), 0..4_usize).prop_map(|(healthy, at)| Gpu {
        uuid: UUIDS[at],
        health: if healthy { Health::Healthy } else { Health::Unhealthy },
        mig: None,
    });
    let id = (0..UUIDS.len(), any::<bool>()).prop_map(|(at, shared)| if shared { REPLICAS[at] } else { UUIDS[at] });
    let ids = proptest::collection::vec(id, 0..5).prop_map(|ids| [("nvidia.com/gpu", ids)].into());
    let ids = || proptest::option::of(ids.clone());
    let gpus = (proptest::collection::vec(gpu, 0..4), 0..3_u32, proptest::option::of(0..9_u32));
    let gpus = gpus.prop_map(|(devices, lost, remembered)| Gpus { devices, lost, remembered, ..Gpus::default() });
    let memory = proptest::option::of(0..20_u64 << 30);
    let facts = (proptest::option::of(0..16_u32), memory, proptest::option::of(gpus), ids(), ids());
    let facts = facts.prop_map(|(cpus_online, memory_total_bytes, gpus, assigned, advertised)| Facts {
        cpus_online,
        memory_total_bytes,
        gpus,
        assigned,
        advertised,
    });
    proptest::collection::btree_map(proptest::sample::select(random::NODES).prop_map(str::to_owned), facts, 0..5)
}

/// The Go routine, from docs/accounting.md §1 alone, on the objects as they stand; and whether some node is overdrawn.
fn literal_mcad_v1(objects: &[Value]) -> ([i128; 3], bool) {
    let looked_up =
        |list: &Value, name: &str, table: &[(&str, i128)]| random::meaning(table, list[name].as_str().unwrap_or("0"));
    let resource = |list: &Value| {
        [
            looked_up(list, "cpu", random::CPU),
            looked_up(list, "memory", random::MEMORY),
            looked_up(list, "nvidia.com/gpu", random::DEVICES),
        ]
    };
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let mut total = [0; 3];
    let mut overdrawn = false;
    for node in of_kind("Node") {
        if node["spec"]["unschedulable"] == true {
            continue;
        }
        let status = &node["status"];
        let allocatable = if status["allocatable"].is_null() { &status["capacity"] } else { &status["allocatable"] };
        let allocatable = resource(allocatable);
        let mut used = [0; 3];
        for pod in of_kind("Pod") {
            let phase = pod["status"]["phase"].as_str().unwrap();
            let bound = pod["spec"]["nodeName"] == node["metadata"]["name"];
            let labelled = !pod["metadata"]["labels"]["appwrappers.mcad.ibm.com"].is_null();
            if !bound || phase == "Succeeded" || phase == "Failed" || labelled {
                continue;
            }
            for container in pod["spec"]["containers"].as_array().unwrap() {
                let requests = resource(&container["resources"]["requests"]);
                (0..3).for_each(|at| used[at] += requests[at]);
            }
        }
        for at in 0..3 {
            overdrawn |= used[at] > allocatable[at];
            total[at] = (total[at] + allocatable[at] - used[at]).max(0);
        }
    }
    (total, overdrawn)
}
