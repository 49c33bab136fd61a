//! The agent's own port: `/metrics` (its cost and failures), `/live`, and for who asks on this machine `/reports`, the last two.
//! The node's measurements are the aggregator's to show as metrics; `/metrics` here has them where there is no aggregator.

pub mod asked;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AGE, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mcad_wire::report::Report;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::node_metrics::{self, Sampled};
use crate::self_metrics::SelfMetrics;
use crate::ticker::Outgoing;

/// One Prometheus, one kubelet and a person or two; more connections wait in the listener.
const MAX_CONNECTIONS: usize = 16;

/// How long a client may take over the head of a request, also of the next one on a kept connection: longer than the
/// usual scrape interval, so that Prometheus keeps its connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);

/// It was made by this process, so nobody has seen this.
const UNREADABLE: &str = "a report can't be read back\n";

/// The last two reports, as they were sent.
#[derive(Clone, Default)]
struct Recent {
    before: Option<Arc<[u8]>>,
    /// With when it was there.
    last: Option<(Arc<[u8]>, Instant)>,
}

impl Recent {
    fn take(&mut self, report: Arc<[u8]>, at: Instant) {
        self.before = self.last.replace((report, at)).map(|(before, _)| before);
    }
}

/// Whose metrics `/metrics` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    /// The agent's own: an aggregator shows the node, and no sum counts it twice.
    Agent,
    /// The node's, too.
    AgentAndNode,
}

/// What one request is answered from.
#[derive(Clone)]
struct Shown {
    exported: Exported,
    metrics: Arc<SelfMetrics>,
    interval: Duration,
    recent: watch::Receiver<Recent>,
}

/// Serves until dropped. `reports` is the slot that the sender has, too.
pub async fn run(
    listener: TcpListener,
    exported: Exported,
    metrics: Arc<SelfMetrics>,
    interval: Duration,
    mut reports: watch::Receiver<Option<Outgoing>>,
) -> Infallible {
    let (keep, recent) = watch::channel(Recent::default());
    let shown = Shown { exported, metrics, interval, recent };
    let mut connections = JoinSet::new();
    let mut is_sampling = true;
    reports.mark_changed();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
            changed = reports.changed(), if is_sampling => {
                is_sampling = changed.is_ok();
                if let Some(report) = reports.borrow_and_update().clone().filter(|_| is_sampling) {
                    keep.send_modify(|recent| recent.take(report.bytes, Instant::now()));
                }
                continue;
            }
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                // Out of file descriptors, mostly. At once it would fail again.
                tracing::warn!(%error, "no connection can be accepted on the agent's own port");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let shown = shown.clone();
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let answer = answer(&request, peer, &shown);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the agent's own port broke");
            }
        });
    }
}

fn answer<B>(request: &Request<B>, peer: IpAddr, shown: &Shown) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/metrics" => metrics(shown),
        "/live" => live(shown.metrics.since_tick(), shown.interval),
        // They name pods. The port may be open for Prometheus, who needs none of that.
        "/reports" if !peer.to_canonical().is_loopback() => {
            text(StatusCode::FORBIDDEN, "reports are for this machine alone: ask at a loopback address\n")
        }
        "/reports" => reports(&shown.recent.borrow().clone()),
        _ => text(StatusCode::NOT_FOUND, "here are /metrics, /live and, from this machine, /reports\n"),
    }
}

/// What the agent costs, and what its node measures where that is exported.
fn metrics(shown: &Shown) -> Response<Full<Bytes>> {
    let mut all = match shown.metrics.text() {
        Ok(metrics) => metrics,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    let recent = match shown.exported {
        Exported::AgentAndNode => shown.recent.borrow().clone(),
        Exported::Agent => Recent::default(),
    };
    if let Some((last, at)) = &recent.last {
        let before = recent.before.as_deref().map(Report::decode).transpose();
        let (Ok(before), Ok(last)) = (before, Report::decode(&last[..])) else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, UNREADABLE);
        };
        let sampled = Sampled { before: before.as_ref(), last: &last, age: at.elapsed() };
        all.extend_from_slice(node_metrics::text(sampled).as_bytes());
    }
    text(StatusCode::OK, all)
}

/// The last two reports, the older first, as `--once` prints them; the age of the newer.
fn reports(recent: &Recent) -> Response<Full<Bytes>> {
    let Some((last, at)) = &recent.last else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "no sample yet: the first comes within an interval\n");
    };
    let mut lines = Vec::new();
    for bytes in recent.before.iter().chain([last]) {
        let line = Report::decode(&bytes[..]).ok().and_then(|report| serde_json::to_vec(&report).ok());
        let Some(line) = line else { return text(StatusCode::INTERNAL_SERVER_ERROR, UNREADABLE) };
        lines.extend([&line[..], b"\n"].concat());
    }
    let mut response = text(StatusCode::OK, lines);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response.headers_mut().insert(AGE, HeaderValue::from(at.elapsed().as_secs()));
    response
}

/// Alive is who sampled within the last three intervals. At least 30 s are granted, since an agent that a busy node
/// delays is not helped by being killed.
fn live(since_tick: Duration, interval: Duration) -> Response<Full<Bytes>> {
    let patience = (interval * 3).max(Duration::from_secs(30));
    if since_tick > patience {
        let sentence = format!("no sample for {} s: a source hangs\n", since_tick.as_secs());
        return text(StatusCode::SERVICE_UNAVAILABLE, sentence);
    }
    text(StatusCode::OK, "ok\n")
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn prometheus_and_kubelet_get_their_answers_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(SelfMetrics::new().unwrap());
        let ask = async |request: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("{request} HTTP/1.1\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let asked = async {
            let answer = ask("GET /metrics").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
            assert!(answer.contains("\nmcad_agent_ticks_total 0\n"), "{answer}");
            assert!(ask("GET /live").await.ends_with("\r\n\r\nok\n"));
            assert!(ask("GET /").await.starts_with("HTTP/1.1 404 "));
            assert!(ask("POST /metrics").await.starts_with("HTTP/1.1 405 "));
        };
        tokio::select! {
            () = asked => {}
            _ = run(listener, Exported::Agent, metrics, Duration::from_secs(10), watch::channel(None).1) => {}
        }
    }

    #[tokio::test]
    async fn an_agent_whose_source_hangs_is_not_live() {
        let check = async |since_s, interval_s, expected: &str| {
            let answer = live(Duration::from_secs(since_s), Duration::from_secs(interval_s));
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, expected);
        };
        check(30, 10, "ok\n").await;
        check(31, 10, "no sample for 31 s: a source hangs\n").await;
        check(31, 1, "no sample for 31 s: a source hangs\n").await;
        check(31, 11, "ok\n").await;
    }

    /// The port, served until dropped.
    async fn open() -> (std::net::SocketAddr, tokio::task::JoinHandle<Infallible>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(SelfMetrics::new().unwrap());
        (
            address,
            tokio::spawn(run(listener, Exported::Agent, metrics, Duration::from_secs(10), watch::channel(None).1)),
        )
    }

    fn outgoing(sequence: u64) -> Outgoing {
        let report = Report { node: "n-1".into(), sequence, ..Report::default() };
        Outgoing { sequence, bytes: report.encode_to_vec().into() }
    }

    #[tokio::test]
    async fn the_last_two_reports_are_told_with_their_age() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: asked::AgentUrl = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let (slot, reports) = watch::channel(None);
        let metrics = Arc::new(SelfMetrics::new().unwrap());
        let serving = tokio::spawn(run(listener, Exported::Agent, metrics, Duration::from_secs(10), reports));
        let refused = asked::ask(&url).await.unwrap_err().to_string();
        assert!(refused.contains("503") && refused.contains("no sample yet"), "{refused}");
        // The slot has room for one, so each is waited for.
        let put = async |sequence| {
            slot.send_replace(Some(outgoing(sequence)));
            loop {
                if let Ok(said) = asked::ask(&url).await
                    && said.last.sequence == sequence
                {
                    return said;
                }
            }
        };
        assert_eq!(put(1).await.before, None);
        assert_eq!(put(2).await.before.unwrap().sequence, 1);
        assert_eq!(put(3).await.before.unwrap().sequence, 2);
        // Who has stopped sampling still has the last one, and it grows old.
        drop(slot);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(63)).await;
        tokio::time::resume();
        let said = asked::ask(&url).await.unwrap();
        assert!(said.last.sequence == 3 && said.age >= Duration::from_secs(63), "{said:?}");
        serving.abort();
    }

    fn shown(exported: Exported, recent: watch::Receiver<Recent>) -> Shown {
        let metrics = Arc::new(SelfMetrics::new().unwrap());
        Shown { exported, metrics, interval: Duration::from_secs(10), recent }
    }

    #[tokio::test(start_paused = true)]
    async fn the_nodes_metrics_are_there_without_an_aggregator_alone_and_not_for_ever() {
        let (keep, recent) = watch::channel(Recent::default());
        let node = Report { node: "n-1".into(), interval_ms: 10_000, ..Report::default() }.encode_to_vec();
        let lines = async |exported| {
            let body = metrics(&shown(exported, recent.clone())).into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(text.contains("\nmcad_agent_ticks_total 0\n"), "{text}");
            text.lines().filter(|line| line.starts_with("mcad_node_")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(lines(Exported::AgentAndNode).await, Vec::<String>::new(), "before the first sample");
        keep.send_modify(|recent| recent.take(node.into(), Instant::now()));
        assert_eq!(lines(Exported::Agent).await, Vec::<String>::new());
        let up = "mcad_node_agent_up{node=\"n-1\"} 1";
        let source = "mcad_node_source{figure=\"cgroup\",node=\"n-1\",source=\"none\"} 1";
        let age = |seconds| format!("mcad_node_report_age_seconds{{node=\"n-1\"}} {seconds}");
        assert_eq!(lines(Exported::AgentAndNode).await, [up, &age(0), source]);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(lines(Exported::AgentAndNode).await, [up, &age(30), source]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(lines(Exported::AgentAndNode).await, [&*up.replace(" 1", " 0"), &age(31)]);
    }

    #[test]
    fn reports_are_for_this_machine_alone() {
        let (_keep, recent) = watch::channel(Recent { before: None, last: Some((outgoing(1).bytes, Instant::now())) });
        let shown = shown(Exported::Agent, recent);
        let request = Request::get("/reports").body(()).unwrap();
        let status = |peer: &str| answer(&request, peer.parse().unwrap(), &shown).status().as_u16();
        assert_eq!(["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"].map(status), [200; 4]);
        assert_eq!(["10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0"].map(status), [403; 4]);
    }

    #[test]
    fn an_agents_address_is_a_url_with_a_port() {
        for good in ["http://127.0.0.1:9464", "http://localhost:1/", "http://[::1]:9464"] {
            assert!(good.parse::<asked::AgentUrl>().is_ok(), "{good}");
        }
        for bad in
            ["127.0.0.1:9464", "https://a:1", "http://a", "http://:1", "http://a:b", "http://a:1/x", "http://u@a:1"]
        {
            assert!(bad.parse::<asked::AgentUrl>().is_err(), "{bad}");
        }
    }

    /// Asks on a connection that stays open, and reads what answers.
    async fn asked(stream: &mut TcpStream) -> bool {
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        stream.read(&mut [0; 1024]).await.unwrap() > 0
    }

    #[tokio::test]
    async fn as_many_connections_are_served_as_may_be_and_one_more_when_one_leaves() {
        let (address, serving) = open().await;
        let mut all = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            assert!(asked(&mut stream).await);
            all.push(stream);
        }
        let mut one_more = TcpStream::connect(address).await.unwrap();
        let mut answered = Box::pin(asked(&mut one_more));
        // All others are served once more before it.
        for stream in &mut all {
            tokio::select! {
                biased;
                _ = &mut answered => panic!("one more than may be was served"),
                served = asked(stream) => assert!(served),
            }
        }
        drop(all.pop());
        assert!(answered.await);
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_takes_as_long_as_it_may_and_no_longer() {
        let (address, serving) = open().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(asked(&mut stream).await);
        let began = tokio::time::Instant::now();
        assert_eq!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
        assert_eq!(began.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());

        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /live HTT").await.unwrap();
        tokio::time::sleep(HEAD_TIMEOUT / 2).await;
        // What is left of the time is real, and long.
        tokio::time::resume();
        stream.write_all(b"P/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        serving.abort();
    }
}
