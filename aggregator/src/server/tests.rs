//! Tests of the server over real sockets: requests in, answers out.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use mcad_testkit::reports::{at, cgroups, report};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::Clock;
use crate::known::Known;
use crate::receive::MAX_BODY_BYTES;
use crate::self_metrics::SelfMetrics;

/// A server on its own ports, whose clock the test sets.
struct Served {
    metrics: SocketAddr,
    reports: SocketAddr,
    seconds: Arc<AtomicU64>,
    shutdown: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

/// Long enough that only a deadline under test is ever reached.
const NEVER: Duration = Duration::from_mins(1);
/// A deadline under test. The test awaits its effect and does not sleep.
const SOON: Duration = Duration::from_millis(50);
const PATIENT: Limits = Limits {
    metrics_connections: 8,
    metrics_of_peer: 8,
    probe_connections: 2,
    report_connections: 8,
    report_connections_of_node: 2,
    bodies_kib: 64 * 1024,
    handshake: NEVER,
    first: NEVER,
    proof: NEVER,
    header: NEVER,
    body: NEVER,
    in_turn: SOON,
    stall: NEVER,
    drain: NEVER,
    event_streams: 8,
    beat: NEVER,
    history_step: NEVER,
};

async fn serve(limits: Limits) -> Served {
    serve_guarded(limits, Guard::default()).await
}

async fn serve_guarded(limits: Limits, guard: Guard) -> Served {
    let seconds = Arc::new(AtomicU64::new(0));
    let hand = Arc::clone(&seconds);
    let clock = Clock::from_fn(move || at(hand.load(Ordering::SeqCst)));
    let replica = Arc::new(Replica::new(clock, Known::of_agents(), SelfMetrics::new().unwrap()));
    let any = "127.0.0.1:0";
    let listeners = Listeners {
        metrics: TcpListener::bind(any).await.unwrap(),
        reports: TcpListener::bind(any).await.unwrap(),
        report_runtime: Handle::current(),
    };
    let (metrics, reports) = (listeners.metrics.local_addr().unwrap(), listeners.reports.local_addr().unwrap());
    let (shutdown, asked) = oneshot::channel();
    let ended = tokio::spawn(run(listeners, replica, guard, limits, async { drop(asked.await) }));
    Served { metrics, reports, seconds, shutdown, ended }
}

impl Served {
    async fn get(&self, path: &str, headers: &str) -> (String, Vec<u8>) {
        exchange(
            self.metrics,
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").as_bytes(),
        )
        .await
    }

    async fn exposition(&self) -> String {
        let (head, body) = self.get("/metrics", "").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        String::from_utf8(body).unwrap()
    }

    async fn post(&self, body: &[u8]) -> (String, String) {
        let (head, body) = exchange(self.reports, &post(body.len(), body)).await;
        (head, String::from_utf8(body).unwrap())
    }

    /// Asserts that the answer has this status, that its first word is this reason, and that it was counted once.
    async fn check_refused(&self, request: &[u8], status: &str, reason: &str) {
        let (head, body) = exchange(self.reports, request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {head}");
        assert!(body.starts_with(format!("{reason}: ").as_bytes()), "{reason}: {}", String::from_utf8_lossy(&body));
        let counted = format!("mcad_aggregator_reports_refused_total{{reason=\"{reason}\"}} 1\n");
        let exposition = self.exposition().await;
        assert!(exposition.contains(&counted), "{counted}{exposition}");
    }

    /// Waits until the exposition has this line.
    async fn counts(&self, line: &str) {
        let line = format!("\n{line}\n");
        while !self.exposition().await.contains(&line) {
            tokio::task::yield_now().await;
        }
    }

    async fn end(self) {
        self.shutdown.send(()).unwrap();
        self.ended.await.unwrap();
    }
}

fn post(length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/report HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Sends a request, closes the writing side, reads the whole answer.
async fn exchange(address: SocketAddr, request: &[u8]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    // Prometheus does not half-close; an agent that was interrupted does.
    if request.starts_with(b"POST") {
        stream.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    split(&answer)
}

fn split(answer: &[u8]) -> (String, Vec<u8>) {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let body =
        if head.contains("transfer-encoding: chunked") { unchunk(&answer[end..]) } else { answer[end..].to_vec() };
    (head, body)
}

/// Panics on a body that does not end with its last chunk.
fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|window| window == b"\r\n").expect("a chunk's length");
        let length = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap(), 16).unwrap();
        body = &body[line + 2..];
        if length == 0 {
            assert_eq!(body, b"\r\n");
            return whole;
        }
        whole.extend_from_slice(&body[..length]);
        body = &body[length + 2..];
    }
}

fn valid(sequence: u64) -> Vec<u8> {
    let mut valid = report("n", sequence);
    valid.cgroups = Some(cgroups(&[("/x", sequence * 1_500_000_000)]));
    valid.encode_to_vec()
}

#[tokio::test]
async fn a_report_appears_in_metrics_and_on_the_page() {
    let served = serve(PATIENT).await;
    for sequence in [1, 2] {
        let (head, body) = served.post(&valid(sequence)).await;
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}{body}");
    }
    let exposition = served.exposition().await;
    for line in [
        "mcad_node_agent_up{node=\"n\"} 1\n",
        "mcad_node_used{node=\"n\",owner=\"system\",resource=\"cpu\",unit=\"core\"} 1\n",
        "mcad_cgroup_cpu_seconds_total{cgroup=\"/x\",node=\"n\"} 3\n",
        "mcad_aggregator_reports_received_total 2\n",
    ] {
        assert!(exposition.contains(line), "{line}{exposition}");
    }
    let (head, page) = served.get("/", "").await;
    assert!(head.contains("content-type: text/html") && head.contains("content-security-policy: default-src 'none'"));
    assert!(String::from_utf8(page).unwrap().contains("the values are what 1 of 1 agents measure"));
    served.end().await;
}

#[tokio::test]
async fn a_killed_agent_turns_agent_up_to_0_and_takes_its_figures_along() {
    let served = serve(PATIENT).await;
    served.post(&valid(1)).await;
    served.post(&valid(2)).await;
    served.seconds.store(30, Ordering::SeqCst);
    assert!(served.exposition().await.contains("mcad_node_used{"));
    served.seconds.store(31, Ordering::SeqCst);
    let silent = served.exposition().await;
    assert!(silent.contains("mcad_node_agent_up{node=\"n\"} 0\n"), "{silent}");
    assert!(silent.contains("mcad_node_report_age_seconds{node=\"n\"} 31\n"), "{silent}");
    for family in ["mcad_node_used", "mcad_node_installed", "mcad_cluster_used", "mcad_cgroup_cpu_seconds_total"] {
        assert!(!silent.contains(&format!("\n{family}{{")), "{family} stands still\n{silent}");
    }
    served.end().await;
}

#[tokio::test]
async fn bad_bodies_are_answered_with_their_reason_and_counted() {
    let served = serve(PATIENT).await;
    let whole = valid(1);
    let cut = &whole[..whole.len() - 1];
    served.check_refused(&post(cut.len(), cut), "400", "truncated").await;
    let later = mcad_wire::report::Report { version: 2, ..report("n", 1) }.encode_to_vec();
    served.check_refused(&post(later.len(), &later), "400", "unsupported_version").await;
    let random = [0x9f, 0x3a, 0x07, 0xc4, 0x51, 0xee];
    served.check_refused(&post(random.len(), &random), "400", "not_protobuf").await;
    let large = vec![0; 4 * MAX_BODY_BYTES];
    served.check_refused(&post(large.len(), &large), "413", "oversized").await;
    let unnamed = report("", 1).encode_to_vec();
    served.check_refused(&post(unnamed.len(), &unnamed), "400", "node_name").await;
    let untyped = b"POST /v1/report HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    served.check_refused(untyped, "415", "content_type").await;
    assert!(served.exposition().await.contains("mcad_aggregator_reports_received_total 0\n"));
    served.end().await;
}

#[tokio::test]
async fn a_body_that_ends_before_its_length_is_truncated() {
    let served = serve(PATIENT).await;
    let whole = valid(1);
    served.check_refused(&post(whole.len() + 1, &whole), "400", "truncated").await;
    served.end().await;
}

#[tokio::test]
async fn a_report_sent_again_is_answered_with_success_and_counted() {
    let served = serve(PATIENT).await;
    served.post(&valid(2)).await;
    for sequence in [2, 1] {
        assert!(served.post(&valid(sequence)).await.0.starts_with("HTTP/1.1 204 "));
    }
    let exposition = served.exposition().await;
    for reason in ["duplicate", "older"] {
        let line = format!("mcad_aggregator_reports_dropped_total{{reason=\"{reason}\"}} 1\n");
        assert!(exposition.contains(&line), "{line}{exposition}");
    }
    served.end().await;
}

#[tokio::test]
async fn one_node_more_than_are_kept_is_told_to_come_back() {
    let served = serve(PATIENT).await;
    for node in 0..mcad_accounting::nodes::Limits::LOCAL.nodes {
        let body = report(&format!("n{node}"), 1).encode_to_vec();
        assert!(served.post(&body).await.0.starts_with("HTTP/1.1 204 "));
    }
    let body = report("one-more", 1).encode_to_vec();
    served.check_refused(&post(body.len(), &body), "429", "too_many_nodes").await;
    served.end().await;
}

#[tokio::test]
async fn the_api_answers_json_and_says_in_a_sentence_what_it_cannot() {
    let served = serve(PATIENT).await;
    served.post(&valid(1)).await;
    served.seconds.store(2, Ordering::SeqCst);
    let check = async |path: &str, status: &str, expected: &str| {
        let (head, body) = served.get(path, "").await;
        let body = String::from_utf8(body).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
        assert!(head.contains("content-type: application/json"), "{path}: {head}");
        assert!(body.starts_with(expected), "{path}: {body}");
    };
    check("/api/v1/cluster", "200", r#"{"snapshot_age_seconds":0.0,"cluster":{"agents":{"up":1,"down":0},"ladder":"#)
        .await;
    let node = r#"{"name":"n","agent":{"state":"up","report_age_seconds":2.0,"cgroup_source":"bpf"},"ladder":{"cpu_millicores":{"installed":2000,"#;
    check("/api/v1/nodes?limit=5", "200", &format!(r#"{{"snapshot_age_seconds":0.0,"nodes":[{node}"#)).await;
    check("/api/v1/nodes/%6E", "200", &format!(r#"{{"snapshot_age_seconds":0.0,"node":{node}"#)).await;
    check("/api/v1/nodes/m", "404", "{\"error\":\"no node named m\"}\n").await;
    check("/api/v1/appwrappers", "404", r#"{"error":"there are no AppWrappers without Kubernetes"#).await;
    check("/api/v1/nodes?limit=0", "400", r#"{"error":"limit must be a number from 1 to 1000"}"#).await;
    check("/api/v1/", "404", r#"{"error":"not found: the paths are /api/v1/cluster"#).await;
    let post = b"POST /api/v1/nodes HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(exchange(served.metrics, post).await.0.starts_with("HTTP/1.1 405 "));
    let reports = b"GET /api/v1/nodes HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(exchange(served.reports, reports).await.0.starts_with("HTTP/1.1 404 "));
    served.end().await;
}

#[tokio::test]
async fn other_paths_and_methods_are_told_what_there_is() {
    let served = serve(PATIENT).await;
    let (head, body) = served.get("/metric", "").await;
    assert!(head.starts_with("HTTP/1.1 404 ") && body.starts_with(b"not found: the paths are /metrics"), "{head}");
    let (head, _) = exchange(served.metrics, b"POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("allow: GET"), "{head}");
    // Neither port answers the requests of the other: only one of them may be open to other machines.
    let (head, _) = exchange(served.metrics, &post(0, b"")).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let (head, _) = exchange(served.reports, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    for path in ["/live", "/ready"] {
        assert!(served.get(path, "").await.0.starts_with("HTTP/1.1 200 "));
    }
    served.end().await;
}

/// Reads until the server closes the connection, and returns what was read.
async fn read_to_cut(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // A reset counts as closing.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn a_header_that_does_not_end_is_cut() {
    let served = serve(Limits { header: SOON, ..PATIENT }).await;
    for address in [served.metrics, served.reports] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhos").await.unwrap();
        let answer = String::from_utf8(read_to_cut(&mut stream).await).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    served.end().await;
}

#[tokio::test]
async fn a_body_that_does_not_end_is_answered_and_cut() {
    let served = serve(Limits { body: SOON, ..PATIENT }).await;
    let mut stream = TcpStream::connect(served.reports).await.unwrap();
    stream.write_all(&post(100, b"\x08\x01")).await.unwrap();
    let (head, body) = split(&read_to_cut(&mut stream).await);
    assert!(head.starts_with("HTTP/1.1 408 ") && body.starts_with(b"too_slow: "), "{head}");
    served.end().await;
}

/// Sends reports of this many nodes of 9,000 cgroups.
async fn fill(served: &Served, nodes: usize) {
    for node in 0..nodes {
        let paths: Vec<_> = (0..9_000).map(|cgroup| format!("/some.slice/some-{cgroup}.service")).collect();
        let mut large = report(&format!("node-{node}"), 1);
        large.cgroups = Some(cgroups(&paths.iter().map(|path| (path.as_str(), 1)).collect::<Vec<_>>()));
        let (head, body) = served.post(&large.encode_to_vec()).await;
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_is_cut_and_the_next_one_is_served() {
    let served = serve(Limits { stall: SOON, ..PATIENT }).await;
    // 12 MB, more than sockets take on the way.
    fill(&served, 16).await;
    let mut stalled = TcpStream::connect(served.metrics).await.unwrap();
    stalled.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stalled.readable().await.unwrap();
    served.counts("mcad_aggregator_scrapes_cut_total 1").await;
    // When the client reads on, the body is incomplete.
    assert!(!read_to_cut(&mut stalled).await.ends_with(b"0\r\n\r\n"));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_take_nothing_keep_no_scrape_page_or_answer_from_others_and_may_go_on() {
    let served = serve(PATIENT).await;
    fill(&served, 16).await;
    let mut stalled = Vec::new();
    for last in [2, 3, 3] {
        let mut one = place_tests::from(last, served.metrics).await;
        one.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        one.readable().await.unwrap();
        stalled.push(one);
    }
    for path in ["/", "/api/v1/cluster", "/metrics"] {
        assert!(served.get(path, "").await.0.starts_with("HTTP/1.1 200 "), "{path}");
    }
    // A third one of the same peer is not waited for.
    let mut third = place_tests::from(3, served.metrics).await;
    third.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    served.counts("mcad_aggregator_scrapes_cut_total 1").await;
    assert!(!read_to_cut(&mut third).await.ends_with(b"0\r\n\r\n"));
    for one in &mut stalled {
        assert!(read_to_cut(one).await.ends_with(b"0\r\n\r\n"), "it was waited for");
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrapes_at_the_same_time_are_both_whole() {
    let served = serve(PATIENT).await;
    fill(&served, 2).await;
    let (one, two) = tokio::join!(served.exposition(), served.exposition());
    for exposition in [one, two] {
        assert_eq!(exposition.matches("\nmcad_cgroup_cpu_seconds_total{").count(), 2 * 9_000);
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_is_the_same_text() {
    let served = serve(PATIENT).await;
    fill(&served, 2).await;
    let (head, packed) = served.get("/metrics", "accept-encoding: gzip\r\n").await;
    assert!(head.contains("content-encoding: gzip\r\n"), "{head}");
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut unpacked).unwrap();
    // The self-metrics changed between the two.
    let cluster = |text: &str| text.split("# HELP mcad_aggregator_connections").next().map(str::to_owned);
    assert_eq!(cluster(&unpacked), cluster(&served.exposition().await));
    assert!(packed.len() * 5 < unpacked.len());
    served.end().await;
}

#[tokio::test]
async fn the_drain_lets_a_request_under_way_finish_and_takes_no_new_one() {
    let served = serve(PATIENT).await;
    let body = valid(1);
    let request = post(body.len(), &body);
    let mut under_way = TcpStream::connect(served.reports).await.unwrap();
    under_way.write_all(&request[..request.len() - 1]).await.unwrap();
    // An answer on another connection shows that the server is past accepting this one.
    let mut idle = TcpStream::connect(served.reports).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    idle.readable().await.unwrap();
    served.shutdown.send(()).unwrap();
    assert!(read_to_cut(&mut idle).await.starts_with(b"HTTP/1.1 404 "));
    under_way.write_all(&request[request.len() - 1..]).await.unwrap();
    let (head, _) = split(&read_to_cut(&mut under_way).await);
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    served.ended.await.unwrap();
    assert!(TcpStream::connect(served.metrics).await.is_err());
}

#[tokio::test]
async fn the_drain_ends_though_a_request_does_not() {
    let served = serve(Limits { drain: SOON, ..PATIENT }).await;
    let mut forever = TcpStream::connect(served.reports).await.unwrap();
    let head = "POST /v1/report HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 100\r\n";
    forever.write_all(format!("{head}expect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    // The server has requested the body and waits for it.
    forever.readable().await.unwrap();
    served.end().await;
    assert_eq!(read_to_cut(&mut forever).await, b"HTTP/1.1 100 Continue\r\n\r\n");
}

#[tokio::test]
async fn one_connection_more_than_there_may_be_is_closed_and_counted() {
    let served = serve(Limits { report_connections: 1, ..PATIENT }).await;
    let mut first = TcpStream::connect(served.reports).await.unwrap();
    let head = String::from_utf8_lossy(&post(valid(1).len(), b"")).replace("connection: close\r\n", "");
    first.write_all(&[head.as_bytes(), &valid(1)].concat()).await.unwrap();
    // It was answered and stays open: a connection of an agent does not give way.
    first.readable().await.unwrap();
    let mut second = TcpStream::connect(served.reports).await.unwrap();
    assert_eq!(read_to_cut(&mut second).await, b"");
    served.counts("mcad_aggregator_connections{listener=\"reports\"} 1").await;
    served.counts("mcad_aggregator_connections_refused_total{listener=\"reports\",reason=\"full\"} 1").await;
    drop(first);
    served.counts("mcad_aggregator_connections{listener=\"reports\"} 0").await;
    assert!(served.post(&valid(2)).await.0.starts_with("HTTP/1.1 204 "));
    served.end().await;
}

mod limit_tests;
mod page_tests;
mod place_tests;
mod trust_tests;
