//! The watches against a real kube-apiserver: what comes and goes, servers that die, histories that expire, CRDs that vanish.
//! Waiting is for a state of the cluster, never for a time; one that does not come fails the test.

#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{
    aggregator::Aggregator,
    apiserver::{ApiServer, client_at},
    objects::{
        MCAD, WORKLOAD, appwrapper, appwrappers, create, define, definitions, delete, mcad_appwrapper, node, nodes,
        pod, pods, served,
    },
    proxy::Wire,
    wait::until,
};
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use mcad_accounting::cluster::{Cluster, Source};
use mcad_accounting::merge::Ages;
use mcad_accounting::object::Version;
use mcad_accounting::options::Options;
use mcad_aggregator::clock::Clock;
use mcad_aggregator::known::Known;
use mcad_aggregator::live;
use mcad_aggregator::replica::Replica;
use mcad_aggregator::self_metrics::SelfMetrics;
use mcad_aggregator::watch::{self, Settings, Told};
use mcad_present::explain::{Answer, Subject};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};

/// A cluster as watched through a wire, and what was told beside.
struct Watched {
    cluster: Arc<Mutex<Cluster>>,
    undecodable: Arc<Mutex<Vec<String>>>,
    broke: Arc<Mutex<Vec<(Source, &'static str)>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Watched {
    fn start(client: Client, grace: Duration) -> Self {
        let (tell, mut told) = mpsc::channel(64);
        let every = Duration::from_millis(200);
        let settings = Settings { grace, discover_every: every, check_every: every, ..Settings::default() };
        let cluster = Arc::new(Mutex::new(Cluster::watched()));
        let (undecodable, broke): (Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>) = Default::default();
        let (view, bad, breaks) = (Arc::clone(&cluster), Arc::clone(&undecodable), Arc::clone(&broke));
        let follow = tokio::spawn(async move {
            while let Some(told) = told.recv().await {
                match told {
                    Told::Event(event) => view.lock().unwrap().apply(event),
                    Told::Serves(served) => view.lock().unwrap().serve(served),
                    Told::ServesDevices(served) => {
                        view.lock().unwrap().serve_devices(served.unwrap());
                    }
                    Told::ServesQueues(served) => view.lock().unwrap().serve_queues(served.unwrap()),
                    Told::Undecodable(_, why) => bad.lock().unwrap().push(why),
                    Told::Broke(source, why) => breaks.lock().unwrap().push((source, why)),
                }
            }
        });
        let watch = tokio::spawn(watch::run(client, settings, tell));
        Self { cluster, undecodable, broke, tasks: [watch, follow] }
    }

    /// Waits for a state of the cluster.
    async fn until(&self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        until(what, || holds(&self.cluster.lock().unwrap())).await;
    }

    /// Waits until nodes and AppWrappers are known and are these, and pods are so many.
    async fn shows(&self, nodes: &[&str], pods: usize, appwrappers: &[(&str, Version)]) {
        let what = format!("{nodes:?}, {pods} pods, {appwrappers:?}");
        self.until(&what, |cluster| {
            cluster.is_listed()
                && cluster.nodes().map(|(node, _)| &*node.name).eq(nodes.iter().copied())
                && cluster.pods().count() == pods
                && cluster.appwrappers().map(|(a, _)| (&*a.name.name, a.version)).eq(appwrappers.iter().copied())
        })
        .await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_changes_and_goes_is_followed_and_each_appwrapper_counts_once() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    define(&client).await;
    create(&nodes(&client), node("a")).await;
    create(&pods(&client), pod("p", "a", &json!({"workload.codeflare.dev/appwrapper": "new"}))).await;
    create(&appwrappers(&client, WORKLOAD, "v1beta1"), mcad_appwrapper(WORKLOAD, "old")).await;
    create(&appwrappers(&client, WORKLOAD, "v1beta2"), appwrapper("new")).await;

    let watched = Watched::start(server.client(), Duration::from_mins(1));
    let both = [("new", Version::V1Beta2), ("old", Version::V1Beta1)];
    watched.shows(&["a"], 1, &both).await;
    {
        let cluster = watched.cluster.lock().unwrap();
        let (new, gained) = cluster.appwrappers().next().unwrap();
        assert_eq!(new.demand.total.millicores, 5000);
        assert_eq!(gained.allocated.amounts().millicores, 2000);
        assert_eq!(cluster.served(), [Version::V1Beta1, Version::V1Beta2].into());
    }

    // Later events: objects of the other group, a cordon, an unbound pod that nobody needs, a deletion.
    create(&appwrappers(&client, MCAD, "v1beta1"), mcad_appwrapper(MCAD, "older")).await;
    create(&nodes(&client), node("b")).await;
    create(&pods(&client), pod("unbound", "", &json!({}))).await;
    let cordon = json!({"spec": {"unschedulable": true}});
    nodes(&client).patch("a", &PatchParams::default(), &Patch::Merge(cordon)).await.unwrap();
    let all = [both[0], both[1], ("older", Version::V1Beta1)];
    watched.shows(&["a", "b"], 1, &all).await;
    watched
        .until("a is cordoned", |cluster| cluster.nodes().any(|(node, _)| &*node.name == "a" && node.cordoned))
        .await;

    // A pod that failed holds nothing; one that is gone neither.
    let failed = json!({"status": {"phase": "Failed"}});
    pods(&client).patch_status("p", &PatchParams::default(), &Patch::Merge(failed)).await.unwrap();
    delete(&appwrappers(&client, WORKLOAD, "v1beta1"), "old").await;
    delete(&nodes(&client), "b").await;
    watched.shows(&["a"], 0, &[both[0], all[2]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_undecodable_object_is_told_and_ends_no_watch() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    define(&client).await;
    let mut odd = mcad_appwrapper(MCAD, "odd");
    odd["status"] = json!({"state": ["not", "a", "word"]});
    create(&appwrappers(&client, MCAD, "v1beta1"), odd.clone()).await;
    // The API server drops a status from a creation: it has a way of its own.
    let status = json!({"status": odd["status"]});
    appwrappers(&client, MCAD, "v1beta1")
        .patch_status("odd", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    create(&appwrappers(&client, MCAD, "v1beta1"), mcad_appwrapper(MCAD, "even")).await;

    let watched = Watched::start(server.client(), Duration::from_mins(1));
    watched.shows(&[], 0, &[("even", Version::V1Beta1)]).await;
    let told = watched.undecodable.lock().unwrap().clone();
    assert!(told.iter().any(|why| why.contains("default/odd") && why.contains("status.state")), "{told:?}");
    create(&appwrappers(&client, MCAD, "v1beta1"), mcad_appwrapper(MCAD, "later")).await;
    watched.shows(&[], 0, &[("even", Version::V1Beta1), ("later", Version::V1Beta1)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_api_server_is_away_for_long_nothing_is_known_and_then_all_is_right_again() {
    let Some(mut server) = ApiServer::start().await else { return };
    let client = server.client();
    define(&client).await;
    create(&nodes(&client), node("a")).await;
    let watched = Watched::start(server.client(), Duration::from_secs(1));
    watched.shows(&["a"], 0, &[]).await;
    server.kill();
    watched.until("unknown", |cluster| !cluster.knows_nodes() && !cluster.knows_appwrappers()).await;
    server.restart().await;
    create(&nodes(&server.client()), node("b")).await;
    watched.shows(&["a", "b"], 0, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_the_history_expired_is_made_up_for() {
    let Some(mut server) = ApiServer::start().await else { return };
    let client = server.client();
    define(&client).await;
    create(&nodes(&client), node("a")).await;
    create(&nodes(&client), node("b")).await;
    let wire = Wire::to(server.port()).await;
    // A grace so long that the answer 410 Gone, and nothing else, makes a fresh list.
    let watched = Watched::start(client_at(wire.port()), Duration::from_hours(1));
    watched.shows(&["a", "b"], 0, &[]).await;
    wire.cut();
    delete(&nodes(&client), "a").await;
    create(&nodes(&client), node("c")).await;
    // A new API server has no history: what is asked from before its time is gone.
    server.restart().await;
    create(&nodes(&server.client()), node("d")).await;
    wire.mend();
    watched.shows(&["b", "c", "d"], 0, &[]).await;
    let broke = watched.broke.lock().unwrap().clone();
    assert!(broke.contains(&(Source::Nodes, "expired")), "{broke:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restore_of_etcd_took_away_without_an_event_is_gone() {
    let Some(mut server) = ApiServer::start().await else { return };
    let client = server.client();
    define(&client).await;
    create(&nodes(&client), node("a")).await;
    create(&appwrappers(&client, WORKLOAD, "v1beta2"), appwrapper("first")).await;
    create(&pods(&client), pod("p", "a", &json!({}))).await;
    // A grace so long that no watch is lost, and nothing but the check finds it out.
    let watched = Watched::start(server.client(), Duration::from_hours(1));
    watched.shows(&["a"], 1, &[("first", Version::V1Beta2)]).await;

    server.kill();
    let backup = server.back_up();
    server.restart().await;
    let client = server.client();
    // A backup is old. A few changes are not enough: the API server itself writes when it starts, and could be back at the version
    // that the watches know before the first check.
    for at in 0..200 {
        let change = Patch::Merge(json!({"metadata": {"annotations": {"at": at.to_string()}}}));
        nodes(&client).patch("a", &PatchParams::default(), &change).await.unwrap();
    }
    // Each list tells of an object later than these.
    create(&nodes(&client), node("b")).await;
    create(&appwrappers(&client, WORKLOAD, "v1beta2"), appwrapper("second")).await;
    create(&pods(&client), pod("q", "a", &json!({}))).await;
    watched.shows(&["a", "b"], 2, &[("first", Version::V1Beta2), ("second", Version::V1Beta2)]).await;
    server.kill();
    server.restore(&backup);
    server.restart().await;
    watched.shows(&["a"], 1, &[("first", Version::V1Beta2)]).await;
    let broke = watched.broke.lock().unwrap().clone();
    assert!(broke.iter().any(|(_, why)| *why == "rewound"), "{broke:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_may_vanish_and_come_back() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    let watched = Watched::start(server.client(), Duration::from_secs(1));
    // Served by nobody: known to be none.
    watched.shows(&[], 0, &[]).await;
    assert!(watched.cluster.lock().unwrap().served().is_empty());
    define(&client).await;
    create(&appwrappers(&client, WORKLOAD, "v1beta2"), appwrapper("one")).await;
    watched.shows(&[], 0, &[("one", Version::V1Beta2)]).await;

    delete(&definitions(&client), "appwrappers.workload.codeflare.dev").await;
    watched.until("only MCAD's is served", |cluster| cluster.served() == [Version::V1Beta1].into()).await;
    watched.shows(&[], 0, &[]).await;

    let text = include_str!("../crds/workload.codeflare.dev.yaml");
    create(&definitions(&client), serde_saphyr::from_str(text).unwrap()).await;
    served(&client).await;
    create(&appwrappers(&client, WORKLOAD, "v1beta2"), appwrapper("two")).await;
    watched.shows(&[], 0, &[("two", Version::V1Beta2)]).await;
}

/// What `explain --cluster kube` comes to.
async fn explained(client: Client, wait: Duration) -> Result<Value, String> {
    let known = Known::new(Cluster::watched(), Options::default(), Ages::Count);
    let replica = Replica::new(Clock::system(), known, SelfMetrics::new().unwrap());
    live::until_known(client, Settings::default(), &replica, wait).await.map_err(|unknown| unknown.to_string())?;
    let answer = Answer::on(&Subject::Cluster, &replica.snapshot(), replica.now());
    Ok(serde_json::to_value(answer.unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_waits_until_all_is_known_and_says_what_is_not() {
    let Some(mut server) = ApiServer::start().await else { return };
    let client = server.client();
    define(&client).await;
    create(&nodes(&client), node("a")).await;
    create(&appwrappers(&client, WORKLOAD, "v1beta2"), appwrapper("new")).await;
    create(&appwrappers(&client, MCAD, "v1beta1"), mcad_appwrapper(MCAD, "old")).await;
    let answer = explained(server.client(), Duration::from_mins(1)).await.unwrap();
    assert_eq!(answer["nodes"][0]["name"], "a");
    let names: Vec<_> = answer["appwrappers"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["new", "old"]);
    // Fit was worked out: nobody is left with "not known yet".
    assert_eq!(answer["appwrappers"][1]["waiting"]["fits_nodes"], false);
    server.kill();
    let missing = explained(server.client(), Duration::from_secs(1)).await.unwrap_err();
    assert!(
        missing.starts_with(
            "after 1 s, these parts of the cluster are not known: nodes (unreachable), pods (unreachable)"
        ),
        "{missing}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_appwrapper_as_large_as_the_api_server_takes_hides_nothing_else_and_is_named() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    define(&client).await;
    create(&nodes(&client), node("a")).await;
    create(&appwrappers(&client, WORKLOAD, "v1beta2"), appwrapper("usual")).await;
    // 40,000 names of resources, 1 MB, which no CRD forbids.
    let requests: serde_json::Map<String, Value> =
        (0..40_000).map(|at| (format!("example.com/r{at:06}"), "1".into())).collect();
    let mut large = appwrapper("large");
    large["spec"]["components"][0]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": requests});
    create(&appwrappers(&client, WORKLOAD, "v1beta2"), large).await;

    // Listed at the start, and both versions serve it.
    let process = Aggregator::watching(&server.kubeconfig(), &[]);
    let left_out = |version: &str, count: u8| {
        format!(
            "mcad_aggregator_objects_left_out{{list=\"appwrappers.{WORKLOAD}/{version}\",reason=\"resources\"}} {count}\n"
        )
    };
    until("it is counted", || process.scrape().contains(&left_out("v1beta2", 1))).await;
    until("ready", || process.is_ready()).await;
    let text = process.scrape();
    assert!(text.contains("mcad_appwrapper_info{appwrapper=\"usual\""), "{text}");
    assert!(!text.contains("appwrapper=\"large\"") && !text.contains("example_com_r"), "it has series");
    let page = process.get("/api/v1/cluster").unwrap();
    assert!(page.contains("AppWrapper is left out (default/large): it has more than 128"), "{page}");
    assert!(process.get("/live").unwrap().starts_with("HTTP/1.0 200"));

    delete(&appwrappers(&client, WORKLOAD, "v1beta2"), "large").await;
    until("it is gone", || process.scrape().contains(&left_out("v1beta2", 0))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_shows_a_live_cluster_says_nothing_of_one_it_lost_and_finds_it_again() {
    let Some(mut server) = ApiServer::start().await else { return };
    define(&server.client()).await;
    create(&nodes(&server.client()), node("a")).await;
    let process = Aggregator::watching(&server.kubeconfig(), &[]);
    until("ready", || process.is_ready()).await;
    let not_ready = "mcad_nodes{state=\"not_ready\"}";
    until("one node", || process.scrape().contains(&format!("{not_ready} 1"))).await;
    assert!(process.scrape().contains("mcad_appwrappers_count{state=\"Pending\"} 0"));

    server.kill();
    // One list may be lost before another.
    let gone = |text: &str| !text.contains("mcad_nodes{") && !text.contains("mcad_appwrappers_count{");
    until("nothing of the cluster", || gone(&process.scrape())).await;
    let text = process.scrape();
    assert!(!text.contains("mcad_allocatable_capacity_cpu "), "{text}");
    assert!(text.contains("mcad_build_info"), "its own figures stay");
    assert!(process.get("/ready").unwrap().starts_with("HTTP/1.0 503"));

    server.restart().await;
    create(&nodes(&server.client()), node("b")).await;
    until("two nodes", || process.scrape().contains(&format!("{not_ready} 2"))).await;
    until("ready again", || process.is_ready()).await;
}
