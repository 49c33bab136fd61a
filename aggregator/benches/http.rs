//! Cost of only receiving reports by HTTP/1.1 and by HTTP/2: `cargo bench -p mcad-aggregator --bench http`.
//!
//! The server reads a report's body and answers: hyper with TLS 1.3 as in the aggregator, on one thread of a separate process.
//! Each agent has a persistent connection, and they send in turns, 1,000 reports a second. The result of `cargo xtask bench-load`
//! minus this one is the cost of the aggregator itself.
#![allow(clippy::unwrap_used, reason = "what is unwrapped was made here")]
#[path = "load/report.rs"]
mod report;
mod support;

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, client, server};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message as _;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use support::{Times, begin, figure, resident_bytes_of, scheduled_ns, trusting};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const AGENTS: usize = 2_000;
const INTERVAL: Duration = Duration::from_secs(2);
/// The duration of one measurement.
const LASTS: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;

/// The same as in the aggregator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

use Protocol::{Http1, Http2};

impl Protocol {
    const ALL: [Self; 2] = [Http1, Http2];

    fn name(self) -> &'static str {
        match self {
            Http1 => "http/1.1",
            Http2 => "h2",
        }
    }
}

fn main() {
    let mut asked = std::env::args().skip_while(|word| word != "serve").skip(1);
    if let Some(name) = asked.next() {
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name).unwrap();
        return one_thread().block_on(serve(protocol));
    }
    begin(&format!("{AGENTS} agents, a report each every {INTERVAL:?}"));
    let agents = one_thread();
    let servers = Protocol::ALL.map(Served::start);
    let sending = servers.each_ref().map(|server| agents.block_on(connect(server)));
    let mut found: [Vec<Duration>; 2] = Default::default();
    // In turns, so that other load on the machine affects both.
    for round in 0..ROUNDS {
        for (at, server) in servers.iter().enumerate() {
            let before = server.cpu();
            let sent = agents.block_on(send(&sending[at], round));
            found[at].push(server.cpu().saturating_sub(before) / sent);
        }
    }
    for (server, found) in servers.iter().zip(found) {
        let times = Times::new(found);
        let (least, most) = (times.quantile(0.0), times.quantile(1.0));
        let name = server.protocol.name();
        let spread = format!("{:.0} µs ({:.0} to {:.0})", micros(times.quantile(0.5)), micros(least), micros(most));
        figure(&format!("{name}: CPU time of a report"), spread, "");
        let kib = (server.resident_bytes() - server.empty_bytes) as f64 / 1024.0 / AGENTS as f64;
        figure(&format!("{name}: resident, a connection"), format!("{kib:.1} KiB"), "≤ 48 KiB");
    }
    println!("  a report has {} bytes; each has a token of a kilobyte beside it", body(0, 1).len());
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn body(agent: usize, sequence: u64) -> Bytes {
    report::report(agent, sequence, 0, INTERVAL.as_millis() as u64).encode_to_vec().into()
}

async fn serve(protocol: Protocol) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![protocol.name().into()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    print!("{}", made.cert.pem());
    println!();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await.unwrap();
            // It ends with the benchmark.
            let _ = answer(protocol, stream).await;
        });
    }
}

async fn answer(protocol: Protocol, stream: TlsStream<TcpStream>) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert!(body.len() > 1024, "a report");
        let mut answer = Response::new(Full::new(Bytes::new()));
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Ok::<_, Infallible>(answer)
    });
    let io = TokioIo::new(stream);
    match protocol {
        Http1 => {
            let mut server = server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(75)).max_buf_size(16 * 1024);
            server.serve_connection(io, service).await
        }
        Http2 => {
            let mut server = server::conn::http2::Builder::new(TokioExecutor::new());
            server.timer(TokioTimer::new()).max_concurrent_streams(1).max_header_list_size(16 * 1024);
            server.serve_connection(io, service).await
        }
    }
}

/// The server's process; killed when the benchmark ends.
struct Served {
    protocol: Protocol,
    child: Child,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    /// Its memory before the first connection.
    empty_bytes: u64,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(protocol: Protocol) -> Self {
        let mut server = Command::new(std::env::current_exe().unwrap());
        let mut child = server.args(["serve", protocol.name()]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = said.next().unwrap().parse().unwrap();
        let pem: String = said.take_while(|line| !line.is_empty()).map(|line| line + "\n").collect();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut new = Self { protocol, child, address, certificate, empty_bytes: 0 };
        new.empty_bytes = new.resident_bytes();
        new
    }

    /// The CPU time of its one thread.
    fn cpu(&self) -> Duration {
        Duration::from_nanos(scheduled_ns(&self.child.id().to_string()).unwrap())
    }

    fn resident_bytes(&self) -> u64 {
        resident_bytes_of(self.child.id())
    }
}

/// A persistent connection.
#[derive(Clone)]
enum Kept {
    Http1(Arc<Mutex<client::conn::http1::SendRequest<Full<Bytes>>>>),
    Http2(client::conn::http2::SendRequest<Full<Bytes>>),
}

/// One for each agent.
async fn connect(server: &Served) -> Vec<Kept> {
    let connector = TlsConnector::from(trusting(&server.certificate, server.protocol.name()));
    let mut all = Vec::with_capacity(AGENTS);
    for _ in 0..AGENTS {
        let stream = TcpStream::connect(server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let io = TokioIo::new(connector.connect(name, stream).await.unwrap());
        all.push(match server.protocol {
            Http1 => {
                let (kept, connection) = client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                Kept::Http1(Arc::new(Mutex::new(kept)))
            }
            Http2 => {
                let (kept, connection) = client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
                tokio::spawn(connection);
                Kept::Http2(kept)
            }
        });
    }
    all
}

/// Lets the agents send in turns; returns the number of reports.
async fn send(agents: &[Kept], round: usize) -> u32 {
    let began = Instant::now();
    let mut sending = JoinSet::new();
    for (at, kept) in agents.iter().cloned().enumerate() {
        let mut next = began + INTERVAL.mul_f64(at as f64 / agents.len() as f64);
        sending.spawn(async move {
            let mut sent = 0;
            while next < began + LASTS {
                sleep_until(next.into()).await;
                let sequence = (round * 1_000) as u64 + u64::from(sent) + 1;
                post(&kept, at, sequence).await;
                (sent, next) = (sent + 1, next + INTERVAL);
            }
            sent
        });
    }
    sending.join_all().await.into_iter().sum()
}

async fn post(kept: &Kept, agent: usize, sequence: u64) {
    let request = Request::builder().method(Method::POST).header("content-type", "application/x-protobuf");
    let request = request.header("authorization", format!("Bearer {agent:0>1200}"));
    let request = |uri: &str| request.uri(uri).body(Full::new(body(agent, sequence))).unwrap();
    let answer = match kept {
        Kept::Http1(kept) => {
            let mut kept = kept.lock().await;
            kept.ready().await.unwrap();
            kept.send_request(request("/v1/report")).await
        }
        Kept::Http2(kept) => kept.clone().send_request(request("https://localhost/v1/report")).await,
    };
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    answer.into_body().collect().await.unwrap();
}
