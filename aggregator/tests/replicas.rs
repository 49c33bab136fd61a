//! Two aggregators beside a real kube-apiserver: who speaks for the cluster while they are killed, paused, asked to end and
//! cut off, and what becomes of totals. Waiting is for a state, never for a time.

#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

#[path = "support/apiserver.rs"]
mod apiserver;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use apiserver::ApiServer;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use mcad_wire::report::{Cgroup, Cgroups, REPORT_VERSION, Report};
use prost::Message as _;
use serde_json::{Value, json};

/// Of the Lease. Long enough for a loaded machine to renew it, short enough to wait for its end.
const DURATION: Duration = Duration::from_secs(6);

/// No state that a test waits for takes this long.
const PATIENCE: Duration = Duration::from_mins(2);

/// A family of the cluster's, there as soon as the cluster is known.
const OF_THE_CLUSTER: &str = "\nmcad_nodes{state=";

/// One replica.
struct Replica {
    child: Child,
    metrics: String,
    reports: String,
}

impl Replica {
    fn start(kubeconfig: &Path) -> Self {
        let seconds = DURATION.as_secs().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcad-aggregator"))
            .args(["--listen", "127.0.0.1:0", "--report-listen", "127.0.0.1:0", "--leader-elect", "on"])
            .args(["--lease-namespace", "default", "--lease-duration", &seconds, "--handover", "3600"])
            .env("KUBECONFIG", kubeconfig)
            .env_remove("POD_IP")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let ["listening", metrics, reports] = words[..] else { panic!("{line:?}") };
        let address = |word: &str, name: &str| word.strip_prefix(name).unwrap().to_owned();
        Self { metrics: address(metrics, "metrics=http://"), reports: address(reports, "reports=http://"), child }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// All of `/metrics`.
    fn scrape(&self) -> String {
        scrape(&self.metrics).unwrap()
    }

    fn speaks(&self) -> bool {
        self.scrape().contains(OF_THE_CLUSTER)
    }

    fn is_ready(&self) -> bool {
        exchange(&self.metrics, b"GET /ready HTTP/1.0\r\n\r\n").is_some_and(|answer| answer.starts_with("HTTP/1.0 200"))
    }

    /// Sends what a node's agent tells of the cgroup of one pod, so many seconds after the boot.
    fn report(&self, node: &str, uptime_s: u64, cgroup: Option<(&str, u64)>) {
        let cgroup = cgroup.map(|(uid, cpu_s)| Cgroup {
            id: 7,
            pod_uid: uid.into(),
            cpu_ns: Some(cpu_s * 1_000_000_000),
            ..Cgroup::default()
        });
        let cgroups = Cgroups { source: "bpf".into(), cgroups: cgroup.into_iter().collect(), ..Cgroups::default() };
        let report = Report {
            version: REPORT_VERSION,
            node: node.into(),
            boot_id: "boot".into(),
            sequence: uptime_s,
            uptime_ns: uptime_s * 1_000_000_000,
            interval_ms: 10_000,
            cgroups: Some(cgroups),
            ..Report::default()
        };
        let body = report.encode_to_vec();
        let head = format!(
            "POST /v1/report HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-protobuf\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let answer = exchange(&self.reports, &[head.as_bytes(), &body].concat()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer; None where there is none.
fn exchange(address: &str, request: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    // A paused process takes connections and says nothing.
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(request).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// HTTP/1.0 has no chunks: the body ends with the connection. Prometheus would see one that was cut; here it shows in its
/// last family.
fn scrape(address: &str) -> Option<String> {
    let answer = exchange(address, b"GET /metrics HTTP/1.0\r\n\r\n")?;
    answer.contains("\nmcad_aggregator_scrapes_cut_total").then_some(answer)
}

/// Waits for a state.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{PATIENCE:?} without: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until exactly one speaks; that one, and the other.
async fn settled(a: Replica, b: Replica) -> (Replica, Replica) {
    until("one that speaks and both ready", || a.speaks() != b.speaks() && a.is_ready() && b.is_ready()).await;
    if a.speaks() { (a, b) } else { (b, a) }
}

/// Scrapes both again and again, as Prometheus would, and fails if ever both spoke, the one soon after the other.
struct Witness {
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Seen>>,
}

/// What a witness saw.
#[derive(Debug, Default)]
struct Seen {
    pairs: u64,
    /// Who was seen to speak, by turns.
    turns: Vec<usize>,
    /// When the last scrape began that saw one speak.
    last: Option<Instant>,
}

impl Witness {
    fn of(addresses: [String; 2]) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            loop {
                // What is there when it is asked what it saw, it has seen.
                let is_last = ended.load(Ordering::Relaxed);
                let began = Instant::now();
                let speaks = thread::scope(|scope| {
                    let scrapes = [0, 1].map(|who| {
                        scope.spawn({
                            let address = &addresses[who];
                            move || scrape(address).is_some_and(|text| text.contains(OF_THE_CLUSTER))
                        })
                    });
                    scrapes.map(|scrape| scrape.join().unwrap())
                });
                assert_ne!(speaks, [true, true], "both spoke: {seen:?}");
                seen.pairs += 1;
                if let Some(who) = speaks.iter().position(|speaks| *speaks) {
                    seen.last = Some(began);
                    if seen.turns.last() != Some(&who) {
                        seen.turns.push(who);
                    }
                }
                if is_last {
                    return seen;
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self { end, thread: Some(thread) }
    }

    fn saw(mut self) -> Seen {
        self.end.store(true, Ordering::Relaxed);
        let seen = self.thread.take().unwrap().join().unwrap();
        assert!(seen.pairs > 1, "{seen:?}");
        seen
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

fn api(client: &Client, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    match plural {
        "nodes" | "customresourcedefinitions" => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), "default", &resource),
    }
}

async fn create(api: &Api<DynamicObject>, object: Value) -> DynamicObject {
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

async fn holder(client: &Client) -> String {
    let lease = Api::<Lease>::namespaced(client.clone(), "default").get("mcad-aggregator").await.unwrap();
    lease.spec.unwrap().holder_identity.unwrap()
}

/// An API server with a node, a kubeconfig for it and two replicas, of which the first speaks.
async fn two() -> Option<(ApiServer, PathBuf, Replica, Replica)> {
    let server = ApiServer::start().await?;
    create(
        &api(&server.client(), "", "v1", "Node", "nodes"),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}),
    )
    .await;
    let kubeconfig = server.kubeconfig();
    let (leader, standby) = settled(Replica::start(&kubeconfig), Replica::start(&kubeconfig)).await;
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
    let witness = Witness::of([leader.metrics.clone(), standby.metrics.clone()]);
    leader.child.kill().unwrap();
    leader.child.wait().unwrap();
    let killed = Instant::now();
    until("the other speaks", || standby.speaks()).await;
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
    let witness = Witness::of([leader.metrics.clone(), standby.metrics.clone()]);
    leader.signal("-STOP");
    until("the other speaks", || standby.speaks()).await;
    // A scrape that waits for the paused one since before it woke is the first thing that it answers.
    let mut waiting = TcpStream::connect(&leader.metrics).unwrap();
    waiting.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    leader.signal("-CONT");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\nmcad_aggregator_leader 0\n") && !answer.contains(OF_THE_CLUSTER), "{answer}");
    until("the woken one is ready", || leader.is_ready()).await;
    assert!(standby.speaks() && !leader.speaks());
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
        assert!(!standby.speaks());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(holder(&client).await, before);
    let last = leader.scrape();
    assert!(!last.contains(OF_THE_CLUSTER) && last.contains("\nmcad_aggregator_leader 0\n"), "{last}");
    until("the other speaks", || standby.speaks()).await;
    assert!(leader.child.wait().unwrap().success());
    assert_ne!(holder(&client).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_api_server_nobody_speaks_and_with_it_one_does_again() {
    let Some((mut server, _, leader, standby)) = two().await else { return };
    let witness = Witness::of([leader.metrics.clone(), standby.metrics.clone()]);
    server.kill();
    let killed = Instant::now();
    until("nobody speaks", || !leader.speaks() && !standby.speaks()).await;
    let seen = witness.saw();
    // Not how fast something is, but what may not be: a scrape that began later than the Lease lasts.
    assert!(seen.last.unwrap() < killed + DURATION, "{seen:?}");
    assert!(leader.scrape().contains("\nmcad_aggregator_leader 0\n"));
    let witness = Witness::of([leader.metrics.clone(), standby.metrics.clone()]);
    server.restart().await;
    until("one speaks again", || leader.speaks() || standby.speaks()).await;
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
    for text in [include_str!("crds/workload.codeflare.dev.yaml"), include_str!("crds/mcad.ibm.com.yaml")] {
        let definitions =
            api(&client, "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
        create(&definitions, serde_saphyr::from_str(text).unwrap()).await;
    }
    let appwrappers = api(&client, "mcad.ibm.com", "v1beta1", "AppWrapper", "appwrappers");
    while appwrappers.list(&ListParams::default()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let template = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "image": "x", "resources": {"requests": {"cpu": "3"}}}]}});
    for name in ["w", "short"] {
        let appwrapper = json!({"apiVersion": "mcad.ibm.com/v1beta1", "kind": "AppWrapper", "metadata": {"name": name},
            "spec": {"resources": {"GenericItems": [{"replicas": 1, "generictemplate": template}]}}});
        create(&appwrappers, appwrapper).await;
    }
    let pods = api(&client, "", "v1", "Pod", "pods");
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
    let tell = |replica: &Replica, cgroup| {
        let mut uptime = uptime.lock().unwrap();
        *uptime += 1;
        replica.report("n", *uptime, cgroup);
    };
    until("the pod's time counts", || {
        tell(&leader, Some((&uid, 100)));
        cpu_seconds(&leader.scrape()) == Some(100.0)
    })
    .await;

    // The standby hears none of it, and dies. The pod and an AppWrapper end; who starts now can't learn of them but from
    // the leader.
    standby.child.kill().unwrap();
    standby.child.wait().unwrap();
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    appwrappers.delete("short", &DeleteParams::default()).await.unwrap();
    until("one AppWrapper is gone", || !leader.scrape().contains("appwrapper=\"short\"")).await;
    tell(&leader, None);
    let fresh = Replica::start(&kubeconfig);
    until("the fresh one is ready", || fresh.is_ready()).await;
    tell(&fresh, None);

    let mut leader = leader;
    assert_eq!(cpu_seconds(&leader.scrape()), Some(100.0));
    leader.child.kill().unwrap();
    leader.child.wait().unwrap();
    until("the fresh one speaks", || fresh.speaks()).await;
    let text = fresh.scrape();
    assert_eq!((cpu_seconds(&text), requests_counted(&text)), (Some(100.0), Some(2.0)), "{text}");
}

/// A real Prometheus that scrapes replicas every second.
struct Prometheus {
    child: Child,
    address: String,
    data: tempfile::TempDir,
}

impl Prometheus {
    /// None, and said aloud, where there is none on this machine.
    async fn start(replicas: &[&str]) -> Option<Self> {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("prometheus.yml");
        // A replica that starts later is added to the file that Prometheus watches.
        let targets = data.path().join("targets.json");
        let text = json!({"scrape_configs": [{"job_name": "mcad", "scrape_interval": "1s", "scrape_timeout": "1s",
            "file_sd_configs": [{"files": [targets], "refresh_interval": "1s"}]}]});
        std::fs::write(&config, text.to_string()).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = std::fs::File::create(data.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("tsdb").display()))
            .arg(format!("--web.listen-address={free}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) if std::env::var("CI").as_deref() == Ok("true") => panic!("prometheus: {error}"),
            Err(error) => {
                eprintln!("SKIPPED: no prometheus: {error}; Debian has it in `prometheus`");
                return None;
            }
        };
        let started = Self { child, address: free.to_string(), data };
        started.scrapes(replicas);
        until("Prometheus answers", || started.ask("/-/ready").is_some_and(|answer| answer.contains(" 200 "))).await;
        Some(started)
    }

    fn scrapes(&self, replicas: &[&str]) {
        let targets = self.data.path().join("targets.json");
        std::fs::write(targets, json!([{"targets": replicas}]).to_string()).unwrap();
    }

    fn ask(&self, path: &str) -> Option<String> {
        exchange(&self.address, format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes())
    }

    /// The values of the first series of an answer: times and values.
    fn values(&self, path: &str) -> Vec<(f64, f64)> {
        let answer = self.ask(path).unwrap();
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["status"], "success", "{body}");
        let values = body["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default();
        values.iter().map(|at| (at[0].as_f64().unwrap(), at[1].as_str().unwrap().parse().unwrap())).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unix_s() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_never_counts_twice_while_leaders_are_paused_asked_to_end_and_killed() {
    let Some((_server, kubeconfig, first, second)) = two().await else { return };
    let Some(prometheus) = Prometheus::start(&[&first.metrics, &second.metrics]).await else { return };
    let began = unix_s();
    let range = |query: &str| {
        prometheus.values(&format!("/api/v1/query_range?query={query}&start={began:.3}&end={:.3}&step=0.1", unix_s()))
    };
    // By instance: that of a leader has figures of the cluster, and lately.
    let seen = |replica: &Replica| {
        let lately = unix_s() - 1.5;
        let of_it = range(&format!("sum(mcad_nodes%7Binstance=%22{}%22%7D)", replica.metrics));
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
    assert!(second.child.wait().unwrap().success());

    let third = Replica::start(&kubeconfig);
    prometheus.scrapes(&[&first.metrics, &third.metrics]);
    until("the third is ready", || third.is_ready()).await;
    let mut first = first;
    first.child.kill().unwrap();
    first.child.wait().unwrap();
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
