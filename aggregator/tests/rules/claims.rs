//! What holds for every cluster with devices and claims of Dynamic Resource Allocation.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcad_accounting::cluster::{Cluster, Event, Source};
use mcad_accounting::hardware::{Facts, Found, Gpu, Gpus, Health};
use mcad_accounting::measure::MeasuredNode;
use mcad_accounting::nodes::{Limits, Nodes};
use mcad_accounting::now::Now;
use mcad_accounting::options::Options;
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::views::{NodeView, devices_of};
use mcad_testkit::build::object;
use mcad_testkit::random_devices::{any_object, cluster, place};
use mcad_testkit::{NOW_MS, text};
use proptest::prelude::*;
use serde_json::Value;

fn snapshot(cluster: &Cluster, views: Vec<Arc<NodeView>>) -> Snapshot {
    Snapshot::new(cluster, views, Now::default(), NOW_MS, &Options::default())
}

/// All that is shown but the histograms, which remember what is gone; from these views, which may be kept from before.
fn shown(cluster: &Cluster, nodes: &mut Nodes) -> String {
    let text = text(&snapshot(cluster, views(cluster, nodes)));
    text.lines().filter(|line| !line.contains("mcad_requested_")).collect::<Vec<_>>().join("\n")
}

fn views(cluster: &Cluster, nodes: &mut Nodes) -> Vec<Arc<NodeView>> {
    nodes.seen(cluster, |_| true).into_iter().map(|seen| seen.view).collect()
}

fn nobody() -> Nodes {
    Nodes::new(Limits::REPLAY, Options::default())
}

fn fresh(cluster: &Cluster) -> String {
    shown(cluster, &mut nobody())
}

/// GPUs that agents found: some of those that slices list, and a strange one.
fn found() -> impl Strategy<Value = BTreeMap<String, Facts<'static>>> {
    let uuid = proptest::sample::select(&["GPU-0", "GPU-1", "GPU-2", "GPU-9"][..]);
    let gpu = (uuid, any::<bool>(), any::<bool>()).prop_map(|(uuid, healthy, cut)| Gpu {
        uuid,
        health: if healthy { Health::Healthy } else { Health::Unhealthy },
        mig: cut.then(Vec::new),
    });
    let gpus = (proptest::collection::vec(gpu, 0..4), 0..3_u32, proptest::option::of(0..6_u32));
    let gpus = gpus.prop_map(|(mut devices, lost, remembered)| {
        devices.sort_by_key(|gpu| gpu.uuid);
        devices.dedup_by_key(|gpu| gpu.uuid);
        Gpus { devices, lost, remembered, ..Gpus::default() }
    });
    let facts = gpus.prop_map(|gpus| Facts { gpus: Some(gpus), ..Facts::default() });
    let node = proptest::sample::select(mcad_testkit::random::NODES).prop_map(str::to_owned);
    proptest::collection::btree_map(node, facts, 0..5)
}

/// The GPUs that the newest generation of each pool lists on a node, by the number in their names.
fn listed(objects: &[Value], node: &str) -> BTreeSet<String> {
    let slices = || objects.iter().filter(|object| object["kind"] == "ResourceSlice");
    let is_of_nvidia = |slice: &&Value| slice["spec"]["driver"] == "gpu.nvidia.com";
    let newest = |pool: &Value| {
        let of_pool = slices().filter(is_of_nvidia).filter(|slice| slice["spec"]["pool"]["name"] == pool["name"]);
        of_pool.map(|slice| slice["spec"]["pool"]["generation"].as_i64().unwrap()).max()
    };
    let there = slices().filter(is_of_nvidia).filter(|slice| slice["spec"]["nodeName"] == node);
    let current = there.filter(|slice| slice["spec"]["pool"]["generation"].as_i64() == newest(&slice["spec"]["pool"]));
    let devices = current.flat_map(|slice| slice["spec"]["devices"].as_array().unwrap());
    devices
        .map(|device| device["name"].as_str().unwrap().chars().filter(char::is_ascii_digit).take(1).collect())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_installed_is_accounted_for_whoever_holds_it_and_whatever_an_agent_finds(
        objects in cluster(),
        seen in found(),
    ) {
        let cluster = Cluster::from_objects(objects.iter().map(object));
        let options = Options::default();
        let views = cluster.nodes().map(|(node, held)| {
            let (found, measured) = match seen.get(&*node.name) {
                Some(facts) => (Found::of(facts.clone(), node), Some(MeasuredNode::default())),
                None => (Found::default(), None),
            };
            let devices = devices_of(&cluster, node, &found, &options);
            Arc::new(NodeView::new(node, Some(held), &found, measured, devices, &options))
        });
        let snapshot = snapshot(&cluster, views.collect());
        let nodes = snapshot.nodes.unwrap();
        let rungs = nodes.nodes.iter().flat_map(|view| &view.rungs).map(|(resource, rung)| (resource, rung));
        for (resource, rung) in rungs.chain(&nodes.sums) {
            let account = rung.account.as_ref().unwrap();
            let (installed, healthy) = (rung.installed.unwrap(), rung.healthy.unwrap());
            prop_assert_eq!(
                installed + account.overcommitted,
                account.requested_in_all() + account.free + account.withheld.total(),
                "{:?}: {:?}", resource, rung
            );
            let requested = [account.requested.appwrapper, account.requested.other];
            let amounts = account.withheld.iter().map(|(_, amount)| amount).chain(requested);
            let amounts = amounts.chain([account.free, account.overcommitted, healthy, rung.phantom.unwrap_or(0)]);
            prop_assert!(amounts.into_iter().all(|amount| amount >= 0), "{:?}: {:?}", resource, rung);
            prop_assert!(healthy <= installed, "{:?}: {:?}", resource, rung);
        }
    }

    #[test]
    fn a_gpu_counts_once_however_many_forms_and_parts_of_it_are_listed(objects in cluster()) {
        let cluster = Cluster::from_objects(objects.iter().map(object));
        for view in views(&cluster, &mut nobody()) {
            let Some(rung) = view.rung(&Resource::Gpu).filter(|rung| rung.has_units) else { continue };
            let [kubelet, of_kubelet] =
                [&view.node.capacity, &view.node.allocatable].map(|of| of.get(&Resource::Gpu).unwrap_or(0));
            let listed = listed(&objects, &view.node.name).len() as i128;
            let declared = rung.declared.unwrap();
            prop_assert!(declared.capacity <= listed.max(kubelet), "{}: {:?}, {} listed", view.node.name, rung, listed);
            prop_assert!(declared.allocatable <= listed.max(of_kubelet), "{}: {:?}", view.node.name, rung);
            if kubelet == 0 && of_kubelet == 0 {
                let account = rung.account.as_ref().unwrap();
                // What is not listed is held.
                let unheld = account.free + account.withheld.total();
                prop_assert!(unheld <= listed, "{}: {:?}, {} listed", view.node.name, rung, listed);
            }
        }
    }

    #[test]
    fn any_order_of_events_gives_the_same_and_what_is_kept_makes_no_difference(
        steps in proptest::collection::vec((any_object(), proptest::bool::weighted(0.3)), 0..80),
    ) {
        let mut cluster = Cluster::from_objects([]);
        let mut kept = nobody();
        let mut model: BTreeMap<String, Value> = BTreeMap::new();
        for (json, is_gone) in steps {
            let at = place(&json);
            if is_gone {
                cluster.apply(Event::Delete(object(&json)));
                if model.get(&at).is_some_and(|known| known["metadata"]["uid"] == json["metadata"]["uid"]) {
                    model.remove(&at);
                }
            } else {
                // An older version of what is there changes nothing.
                let is_older = model.get(&at).is_some_and(|known| rank(&json) < rank(known));
                cluster.apply(Event::Apply(object(&json)));
                if !is_older {
                    model.insert(at, json);
                }
            }
            let now = shown(&cluster, &mut kept);
            prop_assert_eq!(now, fresh(&cluster), "what was kept of a node");
        }
        let again = Cluster::from_objects(model.values().map(object));
        prop_assert_eq!(fresh(&cluster), fresh(&again));
        let backwards = Cluster::from_objects(model.values().rev().map(object));
        prop_assert_eq!(fresh(&backwards), fresh(&again));
        for source in Source::all() {
            cluster.apply(Event::Reset(source, Vec::new()));
        }
        prop_assert_eq!(fresh(&cluster), fresh(&Cluster::from_objects([])), "something is left behind");
    }
}

fn rank(json: &Value) -> usize {
    let version = json["apiVersion"].as_str().unwrap();
    ["v1alpha3", "v1beta1", "v1beta2", "v1"]
        .iter()
        .position(|known| version.ends_with(&format!("/{known}")))
        .unwrap_or(9)
}
