//! The watches of devices and claims against a real kube-apiserver: kinds that are absent, come, go, move to another version, or may not be
//! listed; pools that change under a watch, and many slices.
#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use mcad_accounting::cluster::{Cluster, Missing};
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
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::support::accounts::{make_account, token};
use crate::support::aggregator::Aggregator;
use crate::support::apiserver::ApiServer;
use crate::support::devices::{claim, define, define_all, devices, redefine, serve_only, slice, undefine};
use crate::support::objects::{cluster_wide, create, delete, grant, make_ready_node};
use crate::support::wait::until;

/// A replica that watches.
struct Live {
    replica: Arc<Replica>,
    task: JoinHandle<()>,
}

impl Live {
    fn watching(client: Client) -> Self {
        let known = Known::new(Cluster::watched(), Options::default(), Ages::Count);
        let replica = Replica::new(Clock::system(), known, SelfMetrics::new().unwrap());
        let (replica, every) = (Arc::new(replica), Duration::from_millis(200));
        let settings = Settings {
            grace: Duration::from_secs(1),
            discover_every: every,
            check_every: every,
            ..Settings::default()
        };
        let watched = Arc::clone(&replica);
        let task = tokio::spawn(async move { live::run(client, settings, watched, &Handle::current()).await.unwrap() });
        Self { replica, task }
    }

    /// What `/metrics` says of the cluster.
    fn text(&self) -> String {
        text(&self.replica.snapshot())
    }

    /// What it says of GPUs on node `a` at one instant: those that are installed, those that slices or kubelet declare, and those that are free.
    fn gpus(&self) -> [Option<u32>; 3] {
        let text = self.text();
        ["installed", "capacity", "free"].map(|name| {
            let line = format!("mcad_node_{name}{{node=\"a\",resource=\"nvidia_com_gpu\",unit=\"integer\"}} ");
            text.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok())
        })
    }

    /// Waits until the node has so many GPUs, and so many of them are free.
    async fn shows(&self, installed: u32, free: u32) {
        let expected = [installed, installed, free].map(Some);
        until(&format!("{installed} GPUs, {free} of them free"), || self.gpus() == expected).await;
    }

    fn misses_devices(&self) -> bool {
        self.replica.snapshot().missing.contains(&Missing::Devices)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_kinds_nothing_is_said_of_devices_and_when_they_come_they_count_until_they_go() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    make_ready_node(&client, "a").await;
    let live = Live::watching(server.client());
    until("ready", || live.replica.is_ready()).await;
    let before = live.text();
    let samples: Vec<&str> = before.lines().filter(|line| !line.starts_with('#')).collect();
    let of_devices = |line: &&str| line.contains("device") || line.starts_with("mcad_dra");
    assert!(!samples.iter().any(of_devices) && !live.misses_devices(), "{before}");

    // All but one kind of which there is none: it is not waited for.
    for kind in [Kind::ResourceClaim, Kind::ResourceSlice, Kind::ResourceClaimTemplate, Kind::DeviceClass] {
        define(&client, kind, &["v1"]).await;
    }
    create(&devices(&client, Kind::ResourceSlice, "v1"), slice("v1", "a-gpus", "a", 0..4, (1, 1))).await;
    create(&devices(&client, Kind::ResourceClaim, "v1"), claim("v1", "one", "a", 0)).await;
    live.shows(4, 3).await;
    assert!(live.replica.is_ready() && !live.misses_devices());

    // A taint rule, in a kind that comes later.
    define(&client, Kind::DeviceTaintRule, &["v1alpha3"]).await;
    let rule = json!({"apiVersion": "resource.k8s.io/v1alpha3", "kind": "DeviceTaintRule", "metadata": {"name": "off"},
        "spec": {"deviceSelector": {"driver": "gpu.nvidia.com", "pool": "a", "device": "gpu-3"},
            "taint": {"key": "example.com/off", "effect": "NoSchedule"}}});
    create(&devices(&client, Kind::DeviceTaintRule, "v1alpha3"), rule).await;
    live.shows(4, 2).await;
    delete(&devices(&client, Kind::ResourceClaim, "v1"), "one").await;
    live.shows(4, 3).await;

    for kind in Kind::DEVICES {
        undefine(&client, kind).await;
    }
    until("as before", || live.text() == before).await;
    define_all(&client, "v1").await;
    create(&devices(&client, Kind::ResourceSlice, "v1"), slice("v1", "a-gpus", "a", 0..2, (1, 1))).await;
    live.shows(2, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_versions_the_newest_is_watched_and_each_object_counts_once() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    make_ready_node(&client, "a").await;
    for kind in [Kind::ResourceSlice, Kind::ResourceClaim] {
        define(&client, kind, &["v1beta1"]).await;
    }
    create(&devices(&client, Kind::ResourceSlice, "v1beta1"), slice("v1beta1", "a-0", "a", 0..2, (1, 2))).await;
    create(&devices(&client, Kind::ResourceClaim, "v1beta1"), claim("v1beta1", "one", "a", 0)).await;
    create(&devices(&client, Kind::ResourceSlice, "v1beta1"), slice("v1beta1", "a-1", "a", 2..4, (1, 2))).await;
    let live = Live::watching(server.client());
    live.shows(4, 3).await;

    // The API server converts nothing here: an object that has another layout in a version must be written anew.
    for kind in [Kind::ResourceSlice, Kind::ResourceClaim] {
        redefine(&client, kind, &["v1", "v1beta1"]).await;
    }
    let slices = devices(&client, Kind::ResourceSlice, "v1");
    for (name, gpus) in [("a-0", 0..2), ("a-1", 2..4)] {
        let patch = Patch::Merge(json!({"spec": slice("v1", name, "a", gpus, (1, 2))["spec"]}));
        slices.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }
    let two = claim("v1", "two", "a", 1);
    create(&devices(&client, Kind::ResourceClaim, "v1"), two).await;
    live.shows(4, 2).await;

    // What the watches rest on now is v1 alone; and then an older one, as it is all that is left.
    for served in ["v1", "v1beta1"] {
        for kind in [Kind::ResourceSlice, Kind::ResourceClaim] {
            serve_only(&client, kind, served, &["v1", "v1beta1"]).await;
        }
        let claims = devices(&client, Kind::ResourceClaim, served);
        let name = format!("three-{served}");
        create(&claims, claim(served, &name, "a", 2)).await;
        live.shows(4, 1).await;
        delete(&claims, &name).await;
        live.shows(4, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_changes_slice_by_slice_never_shows_a_part_of_it_as_advertised() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    make_ready_node(&client, "a").await;
    define_all(&client, "v1").await;
    let slices = devices(&client, Kind::ResourceSlice, "v1");
    for part in 0..4 {
        create(&slices, slice("v1", &format!("a-{part}"), "a", part * 2..part * 2 + 2, (1, 4))).await;
    }
    let live = Live::watching(server.client());
    live.shows(8, 8).await;

    // Looked at all the time, it is whole or nothing.
    let mut seen = BTreeSet::new();
    for generation in 2..5 {
        for part in 0..4 {
            let spec = &slice("v1", "x", "a", part * 2..part * 2 + 2, (generation, 4))["spec"];
            let patch = Patch::Merge(json!({"spec": spec}));
            slices.patch(&format!("a-{part}"), &PatchParams::default(), &patch).await.unwrap();
            for _ in 0..20 {
                seen.insert(live.gpus());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        live.shows(8, 8).await;
    }
    let advertised: BTreeSet<_> = seen.iter().map(|[_, capacity, free]| [*capacity, *free]).collect();
    assert_eq!(advertised, [[Some(0); 2], [Some(8); 2]].into(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_slices_are_listed_page_by_page() {
    const SLICES: u32 = 10_000;
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    make_ready_node(&client, "a").await;
    define_all(&client, "v1").await;
    let api: Api<_> = devices(&client, Kind::ResourceSlice, "v1");
    let made = futures::stream::iter(0..SLICES).for_each_concurrent(32, |at| {
        let (name, of) = (format!("s-{at}"), if at < 8 { "a".to_owned() } else { format!("n-{at}") });
        let (gpus, slices) = if at < 8 { (at..at + 1, 8) } else { (0..1, 1) };
        let (api, object) = (api.clone(), slice("v1", &name, &of, gpus, (1, slices)));
        async move { drop(create(&api, object).await) }
    });
    made.await;
    let live = Live::watching(server.client());
    live.shows(8, 8).await;
    let text = live.text();
    // No node of the others is there.
    let off = format!("mcad_dra_exceptions{{reason=\"off_node_device\"}} {}\n", SLICES - 8);
    assert!(text.contains(&off), "{text}");
    delete(&api, "s-7").await;
    until("one is gone", || live.gpus()[1] == Some(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_list_devices_the_rest_works_and_it_is_said_until_the_right_is_there() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    define_all(&client, "v1").await;
    make_ready_node(&client, "a").await;
    create(&devices(&client, Kind::ResourceSlice, "v1"), slice("v1", "a-gpus", "a", 0..4, (1, 1))).await;
    make_account(&client, "looks").await;
    let some = json!([{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list", "watch"]}]);
    grant(&client, "looks", some.clone()).await;
    let folder = TempDir::new().unwrap();
    let path: PathBuf = folder.path().join("kubeconfig");
    let token = token(&client, "looks", "https://kubernetes.default.svc", None).await;
    std::fs::write(&path, server.kubeconfig_of(&token).to_string()).unwrap();

    let process = Aggregator::watching(&path, &[]);
    until("ready", || process.is_ready()).await;
    let cpu = "mcad_node_installed{node=\"a\",resource=\"cpu\",unit=\"core\"} 0\n";
    let page = process.get("/").unwrap();
    assert!(page.contains("Devices and claims (ResourceSlices, ResourceClaims) are not known"), "{page}");
    let told = process.get("/api/v1/cluster").unwrap();
    assert!(told.contains("\"missing\":[\"appwrappers_served\",\"devices\"]"), "{told}");
    let text = process.scrape();
    assert!(text.contains(cpu) && !text.contains("mcad_dra") && !text.contains("device_tainted"), "{text}");
    let why = "resourceslices cannot be listed: the aggregator's account has no right to list them";
    let refused = "mcad_aggregator_watch_restarts_total{list=\"resourceslices\",reason=\"forbidden\"} ";
    let times = || {
        let text = process.scrape();
        text.lines().find_map(|line| line.strip_prefix(refused)?.parse::<u32>().ok()).unwrap_or(0)
    };
    until("refused again and again", || times() > 3).await;
    assert_eq!(process.log().matches(why).count(), 1, "{}", process.log());
    assert!(process.log().contains("needs list and watch on resourceslices of resource.k8s.io"), "{}", process.log());

    let resources: Vec<_> = Kind::DEVICES.iter().map(|kind| kind.plural().to_lowercase()).collect();
    let more = json!({"apiGroups": ["resource.k8s.io"], "resources": resources, "verbs": ["list", "watch"]});
    let granted = Patch::Merge(json!({"rules": [some[0], more]}));
    let roles = cluster_wide(&client, "ClusterRole", "clusterroles");
    roles.patch("looks", &PatchParams::default(), &granted).await.unwrap();
    let gpus = "mcad_node_installed{node=\"a\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 4\n";
    until("devices are known", || process.scrape().contains(gpus)).await;
    assert!(process.is_ready());
    assert!(!process.get("/api/v1/cluster").unwrap().contains("\"devices\"]"));
}
