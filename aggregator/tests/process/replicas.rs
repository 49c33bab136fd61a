//! Two aggregators beside a real kube-apiserver: who speaks for the cluster while they are killed, paused, asked to end and
//! cut off, and what becomes of totals. Waiting is for a state, never for a time.

#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::support::{
    aggregator::Aggregator,
    apiserver::ApiServer,
    objects::{MCAD, appwrappers, create, define, delete, mcad_appwrapper, node, nodes, pods},
    prometheus::Prometheus,
    wait::until,
    witness::{OF_THE_CLUSTER, Witness, speaks},
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use mcad_wire::report::{Cgroup, Cgroups, REPORT_VERSION, Report};
use serde_json::json;

/// Of the Lease. Long enough for a loaded machine to renew it, short enough to wait for its end.
const DURATION: Duration = Duration::from_secs(6);

/// One replica.
fn start(kubeconfig: &Path) -> Aggregator {
    let seconds = DURATION.as_secs().to_string();
    let of_lease = ["--leader-elect", "on", "--lease-namespace", "default", "--lease-duration", &seconds];
    Aggregator::watching(kubeconfig, &[&of_lease[..], &["--handover", "3600"]].concat())
}

/// Sends what a node's agent tells of the cgroup of one pod, so many seconds after the boot.
fn report(replica: &Aggregator, node: &str, uptime_s: u64, cgroup: Option<(&str, u64)>) {
    let cgroup = cgroup.map(|(uid, cpu_s)| Cgroup {
        id: 7,
        pod_uid: uid.into(),
        cpu_ns: Some(cpu_s * 1_000_000_000),
        ..Cgroup::default()
    });
    let cgroups = Cgroups { source: "bpf".into(), cgroups: cgroup.into_iter().collect(), ..Cgroups::default() };
    replica.report(&Report {
        version: REPORT_VERSION,
        node: node.into(),
        boot_id: "boot".into(),
        sequence: uptime_s,
        uptime_ns: uptime_s * 1_000_000_000,
        interval_ms: 10_000,
        cgroups: Some(cgroups),
        ..Report::default()
    });
}

/// Waits until exactly one speaks; that one, and the other.
async fn settled(a: Aggregator, b: Aggregator) -> (Aggregator, Aggregator) {
    until("one that speaks and both ready", || speaks(&a) != speaks(&b) && a.is_ready() && b.is_ready()).await;
    if speaks(&a) { (a, b) } else { (b, a) }
}

async fn holder(client: &Client) -> String {
    let lease = Api::<Lease>::namespaced(client.clone(), "default").get("mcad-aggregator").await.unwrap();
    lease.spec.unwrap().holder_identity.unwrap()
}

/// An API server with a node, a kubeconfig for it and two replicas, of which the first speaks.
async fn two() -> Option<(ApiServer, PathBuf, Aggregator, Aggregator)> {
    let server = ApiServer::start().await?;
    create(&nodes(&server.client()), node("n")).await;
    let kubeconfig = server.kubeconfig();
    let (leader, standby) = settled(start(&kubeconfig), start(&kubeconfig)).await;
    Some((server, kubeconfig, leader, standby))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_exposes_its_own_health_alone() {
    let Some((_server, _, leader, standby)) = two().await else { return };
    assert!(leader.scrape().contains("\nmcad_aggregator_leader 1\n"));
    let text = standby.scrape();
    assert!(text.contains("\nmcad_aggregator_leader 0\n"), "{text}");
    assert!(text.contains("\nmcad_aggregator_reports_received_total 0\n"), "{text}");
    for family in ["mcad_allocatable", "mcad_appwrapper", "mcad_cluster_", "mcad_node_", "mcad_nodes", "mcad_gpu_"] {
        assert!(!text.contains(&format!("\n{family}")), "{family} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_the_other_speaks_and_never_both() {
    let Some((_server, _, mut leader, standby)) = two().await else { return };
    let witness = Witness::of([&leader, &standby]);
    leader.kill();
    let killed = Instant::now();
    until("the other speaks", || speaks(&standby)).await;
    // The Lease outlasts the time in which Prometheus sees that the killed one is gone.
    let gap = killed.elapsed();
    assert!(gap >= DURATION / 2, "{gap:?}");
    eprintln!("after SIGKILL nobody spoke for {gap:?}, of a Lease of {DURATION:?}");
    let seen = witness.saw();
    assert_eq!(seen.turns.last(), Some(&1), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_paused_past_its_lease_does_not_speak_when_it_wakes() {
    let Some((_server, _, leader, standby)) = two().await else { return };
    let witness = Witness::of([&leader, &standby]);
    leader.signal("-STOP");
    until("the other speaks", || speaks(&standby)).await;
    // A scrape that waits for the paused one since before it woke is the first thing that it answers.
    let mut waiting = TcpStream::connect(&leader.metrics).unwrap();
    waiting.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    leader.signal("-CONT");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\nmcad_aggregator_leader 0\n") && !answer.contains(OF_THE_CLUSTER), "{answer}");
    until("the woken one is ready", || leader.is_ready()).await;
    assert!(speaks(&standby) && !speaks(&leader));
    let seen = witness.saw();
    assert_eq!(seen.turns.last(), Some(&1), "{seen:?}");
    assert!(seen.turns.len() <= 2, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_end_is_scraped_without_the_cluster_before_the_other_speaks() {
    let Some((server, _, mut leader, standby)) = two().await else { return };
    let client = server.client();
    let before = holder(&client).await;
    leader.signal("-TERM");
    // Unscraped it keeps the Lease, however often the other is scraped, and longer than the Lease lasts without renewal.
    let began = Instant::now();
    while began.elapsed() < DURATION * 3 / 2 {
        assert!(!speaks(&standby));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(holder(&client).await, before);
    let last = leader.scrape();
    assert!(!last.contains(OF_THE_CLUSTER) && last.contains("\nmcad_aggregator_leader 0\n"), "{last}");
    until("the other speaks", || speaks(&standby)).await;
    assert!(leader.ended().success());
    assert_ne!(holder(&client).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_api_server_nobody_speaks_and_with_it_one_does_again() {
    let Some((mut server, _, leader, standby)) = two().await else { return };
    let witness = Witness::of([&leader, &standby]);
    server.kill();
    let killed = Instant::now();
    until("nobody speaks", || !speaks(&leader) && !speaks(&standby)).await;
    let seen = witness.saw();
    // Not how fast something is, but what may not be: a scrape that began later than the Lease lasts.
    assert!(seen.last.unwrap() < killed + DURATION, "{seen:?}");
    assert!(leader.scrape().contains("\nmcad_aggregator_leader 0\n"));
    let witness = Witness::of([&leader, &standby]);
    server.restart().await;
    until("one speaks again", || speaks(&leader) || speaks(&standby)).await;
    assert_eq!(witness.saw().turns.len(), 1);
}

/// The CPU seconds of the AppWrapper, where they are shown.
fn cpu_seconds(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("mcad_appwrapper_cpu_seconds_total{"))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn requests_counted(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("mcad_requested_cpu_count "))?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_outlive_leaders_and_a_replica_that_starts_learns_them_of_the_other() {
    let Some((server, kubeconfig, leader, mut standby)) = two().await else { return };
    let client = server.client();
    define(&client).await;
    let appwrappers = appwrappers(&client, MCAD, "v1beta1");
    for name in ["w", "short"] {
        create(&appwrappers, mcad_appwrapper(MCAD, name)).await;
    }
    let pods = pods(&client);
    let pod = create(
        &pods,
        json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"appwrapper.mcad.ibm.com": "w"}},
        "spec": {"nodeName": "n", "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "x"}]}}),
    )
    .await;
    let uid = pod.metadata.uid.unwrap();
    until("both AppWrappers are counted", || requests_counted(&leader.scrape()) == Some(2.0)).await;
    // The pod may be known a moment later than they: until then its cgroup is nobody's.
    let uptime = Mutex::new(0);
    let tell = |replica: &Aggregator, cgroup| {
        let mut uptime = uptime.lock().unwrap();
        *uptime += 1;
        report(replica, "n", *uptime, cgroup);
    };
    until("the pod's time counts", || {
        tell(&leader, Some((&uid, 100)));
        cpu_seconds(&leader.scrape()) == Some(100.0)
    })
    .await;

    // The standby hears none of it, and dies. The pod and an AppWrapper end; who starts now can't learn of them but from
    // the leader.
    standby.kill();
    delete(&pods, "p").await;
    delete(&appwrappers, "short").await;
    until("one AppWrapper is gone", || !leader.scrape().contains("appwrapper=\"short\"")).await;
    tell(&leader, None);
    let fresh = start(&kubeconfig);
    until("the fresh one is ready", || fresh.is_ready()).await;
    tell(&fresh, None);

    let mut leader = leader;
    assert_eq!(cpu_seconds(&leader.scrape()), Some(100.0));
    leader.kill();
    until("the fresh one speaks", || speaks(&fresh)).await;
    let text = fresh.scrape();
    assert_eq!((cpu_seconds(&text), requests_counted(&text)), (Some(100.0), Some(2.0)), "{text}");
}

fn unix_s() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_never_counts_twice_while_leaders_are_paused_asked_to_end_and_killed() {
    let Some((_server, kubeconfig, first, second)) = two().await else { return };
    let Some(prometheus) = Prometheus::start(&[&first.metrics, &second.metrics], None).await else { return };
    let began = unix_s();
    let range = |query: &str| prometheus.range(query, began, unix_s());
    // By instance: that of a leader has figures of the cluster, and lately.
    let seen = |replica: &Aggregator| {
        let lately = unix_s() - 1.5;
        let of_it = range(&format!("sum(mcad_nodes{{instance=\"{}\"}})", replica.metrics));
        of_it.last().is_some_and(|(at, _)| *at > lately)
    };
    until("the first is seen", || seen(&first)).await;

    first.signal("-STOP");
    until("the second is seen", || seen(&second)).await;
    first.signal("-CONT");
    until("the first is ready again", || first.is_ready()).await;

    let mut second = second;
    second.signal("-TERM");
    until("the first is seen again", || seen(&first)).await;
    assert!(second.ended().success());

    let third = start(&kubeconfig);
    prometheus.scrapes(&[&first.metrics, &third.metrics]);
    until("the third is ready", || third.is_ready()).await;
    let mut first = first;
    first.kill();
    until("the third is seen", || seen(&third)).await;

    // One node, in one state, at every instant of it; and at some instants nothing.
    let sums = range("sum(mcad_nodes)");
    assert!(sums.len() > 20, "{sums:?}");
    let twice: Vec<_> = sums.iter().filter(|(_, sum)| (sum - 1.0).abs() > 1e-9).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let gaps: Vec<_> = sums.windows(2).map(|two| two[1].0 - two[0].0).filter(|gap| *gap > 0.15).collect();
    eprintln!(
        "Prometheus saw gaps of {gaps:.1?} s (paused, asked to end, killed) with a Lease of {DURATION:?}, scraping each second"
    );
    // Of the two that vanished without a word. The one that was asked to end may have left none.
    assert!(gaps.len() >= 2, "{gaps:?}");
}
