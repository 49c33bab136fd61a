//! The watches of Kueue's objects against a real kube-apiserver: both versions served at once, kinds that come, go and come back.
#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::Ages;
use mcad_accounting::object::Kind;
use mcad_accounting::options::Options;
use mcad_aggregator::clock::Clock;
use mcad_aggregator::known::Known;
use mcad_aggregator::live;
use mcad_aggregator::replica::Replica;
use mcad_aggregator::self_metrics::SelfMetrics;
use mcad_aggregator::watch::Settings;
use mcad_testkit::text;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::support::apiserver::ApiServer;
use crate::support::devices::{define, devices, undefine};
use crate::support::objects::{create, make_ready_node};
use crate::support::wait::until;

/// A replica that watches. The watches end with the test.
fn watching(client: Client) -> Arc<Replica> {
    let known = Known::new(Cluster::watched(), Options::default(), Ages::Count);
    let replica = Arc::new(Replica::new(Clock::system(), known, SelfMetrics::new().unwrap()));
    let every = Duration::from_millis(200);
    let settings =
        Settings { grace: Duration::from_secs(1), discover_every: every, check_every: every, ..Settings::default() };
    let watched = Arc::clone(&replica);
    tokio::spawn(async move { live::run(client, settings, watched, &Handle::current()).await.unwrap() });
    replica
}

fn of_kueue(kind: Kind, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind.name(), "metadata": {"name": name}, "spec": spec})
}

async fn create_all(client: &Client) {
    let quota = json!([{"coveredResources": ["nvidia.com/gpu"], "flavors": [{"name": "f", "resources": [
        {"name": "nvidia.com/gpu", "nominalQuota": "8"}]}]}]);
    let template = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"nvidia.com/gpu": "3"}}}]}});
    for (kind, name, spec) in [
        (Kind::ResourceFlavor, "f", json!({})),
        (Kind::ClusterQueue, "q", json!({"resourceGroups": quota})),
        (Kind::LocalQueue, "l", json!({"clusterQueue": "q"})),
        (
            Kind::Workload,
            "w",
            json!({"queueName": "l", "podSets": [{"name": "main", "count": 2, "template": template}]}),
        ),
    ] {
        create(&devices(client, kind, "v1beta2"), of_kueue(kind, name, &spec)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_known_once_all_kinds_are_served_and_each_object_counts_once_until_the_kinds_go() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    make_ready_node(&client, "a").await;
    let replica = watching(server.client());
    until("ready", || replica.is_ready()).await;
    let before = text(&replica.snapshot());
    assert!(!before.contains("mcad_queue"), "{before}");

    // Cohorts are not served: there are none.
    let needed = [Kind::ClusterQueue, Kind::LocalQueue, Kind::ResourceFlavor, Kind::Workload];
    for round in 0..2 {
        for kind in needed {
            define(&client, kind, &["v1beta2", "v1beta1"]).await;
        }
        create_all(&client).await;
        let nominal =
            "mcad_queue_nominal{cluster_queue=\"q\",flavor=\"f\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 8\n";
        let pending =
            "mcad_queue_pending{cluster_queue=\"q\",owner=\"other\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 6\n";
        let workloads = "mcad_queue_workloads{cluster_queue=\"q\",owner=\"other\",state=\"pending\"} 1\n";
        until("queues are known", || {
            let text = text(&replica.snapshot());
            [nominal, pending, workloads].iter().all(|line| text.contains(line))
        })
        .await;
        assert!(replica.is_ready(), "round {round}");

        for kind in needed {
            undefine(&client, kind).await;
        }
        until("as before", || text(&replica.snapshot()) == before).await;
    }
}
