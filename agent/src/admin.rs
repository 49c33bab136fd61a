//! The agent's own port: `/metrics` (its cost and failures), `/live`, and for loopback clients `/reports`, the last two
//! reports. The aggregator exports the node's measurements as metrics; `/metrics` here exports them only if there is no
//! aggregator.

pub mod client;
mod places;

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::node_metrics::{self, Sampled};
use crate::self_metrics::SelfMetrics;
use crate::ticker::Outgoing;
use places::{Place, Places};

/// How long a client may take to send the head of its first request: it connects only when it has a request.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take over the head of the next request on a kept connection: longer than the usual scrape interval, so
/// that Prometheus keeps its connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);

/// Not expected: this process encoded the report itself.
const UNREADABLE: &str = "a report cannot be decoded\n";

/// The last two reports, as they were sent.
#[derive(Clone, Default)]
struct Recent {
    before: Option<Arc<[u8]>>,
    /// The report, and when it was put here.
    last: Option<(Arc<[u8]>, Instant)>,
}

impl Recent {
    fn take(&mut self, report: Arc<[u8]>, at: Instant) {
        self.before = self.last.replace((report, at)).map(|(before, _)| before);
    }
}

/// Which metrics `/metrics` exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    /// The agent's own metrics. The aggregator exports those of the node, so that no sum counts them twice.
    Agent,
    /// Also the node's metrics.
    AgentAndNode,
}

/// What requests are answered from.
#[derive(Clone)]
struct State {
    exported: Exported,
    metrics: Arc<SelfMetrics>,
    interval: Duration,
    recent: watch::Receiver<Recent>,
}

/// Serves until dropped. `reports` is the channel that the sender reads, too.
pub async fn run(
    listener: TcpListener,
    exported: Exported,
    metrics: Arc<SelfMetrics>,
    interval: Duration,
    mut reports: watch::Receiver<Option<Outgoing>>,
) -> Infallible {
    let (keep, recent) = watch::channel(Recent::default());
    let state = State { exported, metrics, interval, recent };
    let (places, mut connections) = (Arc::new(Places::default()), JoinSet::new());
    let mut is_sampling = true;
    reports.mark_changed();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
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
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) => {
                // Usually the process is out of file descriptors. An immediate retry would fail again.
                tracing::warn!(%error, "cannot accept connections on the agent's own port");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (state, place) = (state.clone(), places.take(peer));
        connections.spawn(async move {
            tokio::select! {
                () = serve(stream, peer, &place, &state) => {}
                () = place.until_closing() => tracing::debug!(%peer, "a connection to the agent's own port was closed in favour of a new one"),
            }
        });
    }
}

/// Answers requests until the connection ends.
async fn serve(stream: TcpStream, peer: IpAddr, place: &Place, state: &State) {
    let (asked, mut first) = watch::channel(false);
    let service = service_fn(|request: Request<Incoming>| {
        asked.send_replace(true);
        place.requested();
        let answer = answer(&request, peer, state);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let silent = async {
        if tokio::time::timeout(FIRST_TIMEOUT, first.wait_for(|asked| *asked)).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "a connection to the agent's own port failed");
        },
        () = silent => tracing::debug!(%peer, "a connection to the agent's own port sent no request"),
    }
}

fn answer<B>(request: &Request<B>, peer: IpAddr, state: &State) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n");
    }
    match request.uri().path() {
        "/metrics" => metrics(state),
        "/live" => live(state.metrics.since_tick(), state.interval),
        // Reports name pods. The port may be reachable for Prometheus, which does not need them.
        "/reports" if !peer.to_canonical().is_loopback() => text(
            StatusCode::FORBIDDEN,
            "reports are served to loopback clients only: connect to a loopback address of this machine\n",
        ),
        "/reports" => reports(&state.recent.borrow().clone()),
        _ => text(
            StatusCode::NOT_FOUND,
            "not found; the paths are /metrics, /live and, for loopback clients, /reports\n",
        ),
    }
}

/// The agent's own metrics, and those of its node if they are exported here.
fn metrics(state: &State) -> Response<Full<Bytes>> {
    let mut all = match state.metrics.text() {
        Ok(metrics) => metrics,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    let recent = match state.exported {
        Exported::AgentAndNode => state.recent.borrow().clone(),
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

/// The last two reports, the older first, as `--once` prints them, with the age of the newer one.
fn reports(recent: &Recent) -> Response<Full<Bytes>> {
    let Some((last, at)) = &recent.last else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "no sample yet; the first one is taken within one interval\n");
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

/// The agent is live if it took a sample within the last three intervals, but at least 30 s are granted: restarting an
/// agent that a busy node delays would not help.
fn live(since_tick: Duration, interval: Duration) -> Response<Full<Bytes>> {
    let patience = (interval * 3).max(Duration::from_secs(30));
    if since_tick > patience {
        let sentence = format!("no sample for {} s; a source hangs\n", since_tick.as_secs());
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
    use tokio::net::TcpSocket;

    use super::places::{ALL, OF_PEER};
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
        check(31, 10, "no sample for 31 s; a source hangs\n").await;
        check(31, 1, "no sample for 31 s; a source hangs\n").await;
        check(31, 11, "ok\n").await;
    }

    /// Opens the port, which is served until dropped.
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
        let url: client::AgentUrl = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let (slot, reports) = watch::channel(None);
        let metrics = Arc::new(SelfMetrics::new().unwrap());
        let serving = tokio::spawn(run(listener, Exported::Agent, metrics, Duration::from_secs(10), reports));
        let refused = client::fetch(&url).await.unwrap_err().to_string();
        assert!(refused.contains("503") && refused.contains("no sample yet"), "{refused}");
        // The channel holds one report, so each one is waited for.
        let put = async |sequence| {
            slot.send_replace(Some(outgoing(sequence)));
            loop {
                if let Ok(said) = client::fetch(&url).await
                    && said.last.sequence == sequence
                {
                    return said;
                }
            }
        };
        assert_eq!(put(1).await.before, None);
        assert_eq!(put(2).await.before.unwrap().sequence, 1);
        assert_eq!(put(3).await.before.unwrap().sequence, 2);
        // When the agent stops sampling, the last report remains and its age grows.
        drop(slot);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(63)).await;
        tokio::time::resume();
        let said = client::fetch(&url).await.unwrap();
        assert!(said.last.sequence == 3 && said.age >= Duration::from_secs(63), "{said:?}");
        serving.abort();
    }

    fn state(exported: Exported, recent: watch::Receiver<Recent>) -> State {
        let metrics = Arc::new(SelfMetrics::new().unwrap());
        State { exported, metrics, interval: Duration::from_secs(10), recent }
    }

    #[tokio::test(start_paused = true)]
    async fn the_nodes_metrics_are_there_without_an_aggregator_alone_and_not_for_ever() {
        let (keep, recent) = watch::channel(Recent::default());
        let node = Report { node: "n-1".into(), interval_ms: 10_000, ..Report::default() }.encode_to_vec();
        let lines = async |exported| {
            let body = metrics(&state(exported, recent.clone())).into_body().collect().await.unwrap().to_bytes();
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
        let state = state(Exported::Agent, recent);
        let request = Request::get("/reports").body(()).unwrap();
        let status = |peer: &str| answer(&request, peer.parse().unwrap(), &state).status().as_u16();
        assert_eq!(["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"].map(status), [200; 4]);
        assert_eq!(["10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0"].map(status), [403; 4]);
    }

    #[test]
    fn an_agents_address_is_a_url_with_a_port() {
        for good in ["http://127.0.0.1:9464", "http://localhost:1/", "http://[::1]:9464"] {
            assert!(good.parse::<client::AgentUrl>().is_ok(), "{good}");
        }
        for bad in
            ["127.0.0.1:9464", "https://a:1", "http://a", "http://:1", "http://a:b", "http://a:1/x", "http://u@a:1"]
        {
            assert!(bad.parse::<client::AgentUrl>().is_err(), "{bad}");
        }
    }

    /// Sends a request on an open connection, and returns whether there is a response.
    async fn asked(stream: &mut TcpStream) -> bool {
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        stream.read(&mut [0; 1024]).await.unwrap() > 0
    }

    /// A connection from this loopback address.
    async fn from(last: u8, address: std::net::SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        socket.connect(address).await.unwrap()
    }

    #[tokio::test]
    async fn silent_connections_give_way_to_a_probe_however_many_there_are() {
        let (address, serving) = open().await;
        let mut silent = Vec::new();
        for _ in 0..ALL {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        assert!(asked(&mut probe).await);
        assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap_or(0), 0, "the one that was silent for longest");
        serving.abort();
    }

    #[tokio::test]
    async fn one_peer_takes_no_more_places_than_it_may() {
        let (address, serving) = open().await;
        let mut neighbour = from(2, address).await;
        assert!(asked(&mut neighbour).await);
        let mut crowd = Vec::new();
        for _ in 0..3 * ALL {
            let mut one = from(3, address).await;
            assert!(asked(&mut one).await);
            crowd.push(one);
        }
        assert!(asked(&mut neighbour).await);
        let mut open = 0;
        for one in &mut crowd {
            let _ = one.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await;
            open += usize::from(one.read(&mut [0; 1024]).await.unwrap_or(0) > 0);
        }
        assert_eq!(open, OF_PEER);
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_asks_for_nothing_is_cut_in_time() {
        let (address, serving) = open().await;
        let began = tokio::time::Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
        assert_eq!(began.elapsed().as_secs(), FIRST_TIMEOUT.as_secs());
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
        tokio::time::sleep(FIRST_TIMEOUT / 2).await;
        // The rest of the waiting is in real time, which is long enough.
        tokio::time::resume();
        stream.write_all(b"P/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        serving.abort();
    }
}
