//! The agents, one for each node: each has its own token, its own connection and its own time in the interval. They send the same data
//! at the same times as mcad-agent, but in one process and on one thread, so that they disturb the measurement little.
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prost::Message as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::api_server::token;
use crate::report::report;
use crate::support::trusting;

/// How long an agent waits for its answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// State shared by all agents.
pub(crate) struct Fleet {
    connector: TlsConnector,
    target: SocketAddr,
    pub(crate) interval: Duration,
    /// Of each pod.
    containers: usize,
    /// Changes when all connections must be dropped.
    pub(crate) cut: watch::Sender<u32>,
    sent: Mutex<Sent>,
}

/// What was sent since the last query.
#[derive(Default)]
pub(crate) struct Sent {
    /// Times from the first written byte to the answer, for accepted reports.
    pub(crate) accepted: Vec<Duration>,
    /// When each connection was established, including TLS, and how long that took.
    pub(crate) connected: Vec<(Instant, Duration)>,
    /// Reports that were not accepted, by reason.
    pub(crate) failed: BTreeMap<String, usize>,
    pub(crate) bytes: usize,
}

impl Fleet {
    pub(crate) fn new(
        target: SocketAddr,
        certificate: &CertificateDer<'static>,
        interval: Duration,
        containers: usize,
    ) -> Self {
        let connector = TlsConnector::from(trusting(certificate, "http/1.1"));
        let sent = Mutex::default();
        Self { connector, target, interval, containers, cut: watch::channel(0).0, sent }
    }

    /// What was sent since the last call.
    pub(crate) fn sent(&self) -> Sent {
        std::mem::take(&mut self.sent.lock().unwrap())
    }

    fn failed(&self, why: String) {
        *self.sent.lock().unwrap().failed.entry(why).or_default() += 1;
    }
}

/// One agent.
pub(crate) struct Agent {
    node: usize,
    sequence: u64,
    head: String,
    connection: Option<TlsStream<TcpStream>>,
}

impl Agent {
    pub(crate) fn new(node: usize) -> Self {
        let head = format!(
            "POST /v1/report HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\n\
             authorization: Bearer {}\r\ncontent-length: ",
            token(node)
        );
        Self { node, sequence: 0, head, connection: None }
    }

    /// Sends one report over a new connection, which is then closed.
    pub(crate) async fn once(mut self, fleet: Arc<Fleet>, turns: Arc<Semaphore>) -> Self {
        let _turn = turns.acquire().await.unwrap();
        self.send(&fleet).await;
        self.connection = None;
        self
    }

    /// Sends a report every interval until the given time.
    pub(crate) async fn keep_on(mut self, fleet: Arc<Fleet>, until: Instant) -> Self {
        let mut cut = fleet.cut.subscribe();
        let mut next = Instant::now() + fleet.interval.mul_f64(random(self.node as u64));
        while next < until {
            tokio::select! {
                () = sleep_until(next.into()) => {}
                _ = cut.changed() => {
                    self.connection = None;
                    continue;
                }
            }
            if self.send(&fleet).await {
                next += fleet.interval;
            } else {
                // An agent backs off for up to half of an interval at first.
                next = Instant::now() + fleet.interval.mul_f64(random(self.sequence ^ (self.node as u64) << 20) / 2.0);
            }
        }
        self
    }

    /// Sends a report whenever it is its turn, until the given time.
    pub(crate) async fn hurry(mut self, fleet: Arc<Fleet>, turns: Arc<Semaphore>, until: Instant) -> Self {
        while Instant::now() < until {
            let _turn = turns.acquire().await.unwrap();
            if Instant::now() < until && !self.send(&fleet).await {
                sleep(fleet.interval / 10).await;
            }
        }
        self
    }

    /// Whether it was accepted.
    async fn send(&mut self, fleet: &Fleet) -> bool {
        self.sequence += 1;
        let interval_ms = fleet.interval.as_millis() as u64;
        let body = report(self.node, self.sequence, fleet.containers, interval_ms).encode_to_vec();
        let request = [self.head.as_bytes(), format!("{}\r\n\r\n", body.len()).as_bytes(), &body].concat();
        let exchanged = timeout(DEADLINE, self.exchange(fleet, &request)).await;
        match exchanged.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(took) => {
                let mut sent = fleet.sent.lock().unwrap();
                sent.accepted.push(took);
                sent.bytes += request.len();
                true
            }
            Err(why) => {
                self.connection = None;
                fleet.failed(why);
                false
            }
        }
    }

    async fn exchange(&mut self, fleet: &Fleet, request: &[u8]) -> Result<Duration, String> {
        if self.connection.is_none() {
            let began = Instant::now();
            let connection = connect(fleet, self.node).await.map_err(|error| format!("connect: {error}"))?;
            fleet.sent.lock().unwrap().connected.push((Instant::now(), began.elapsed()));
            self.connection = Some(connection);
        }
        let Some(connection) = &mut self.connection else { return Err("no connection".to_owned()) };
        let began = Instant::now();
        connection.write_all(request).await.map_err(|error| format!("write: {error}"))?;
        connection.flush().await.map_err(|error| format!("write: {error}"))?;
        // An answer that accepts has no body; of other answers, the first line is enough.
        let mut answer = [0; 512];
        let mut length = 0;
        while !answer[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            match connection.read(&mut answer[length..]).await {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(read) => length += read,
                Err(error) => return Err(format!("read: {error}")),
            }
        }
        let took = began.elapsed();
        let text = String::from_utf8_lossy(&answer[..length]);
        if text.starts_with("HTTP/1.1 204 ") {
            Ok(took)
        } else {
            Err(text.lines().next().unwrap_or_default().to_owned())
        }
    }
}

async fn connect(fleet: &Fleet, node: usize) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    // An address has 28,000 ports, and each is taken for a minute after its connection is closed.
    socket.bind((Ipv4Addr::new(127, 0, 1, (node % 8) as u8 + 1), 0).into())?;
    let stream = socket.connect(fleet.target).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
    fleet.connector.connect(name, stream).await
}

/// A pseudo-random number between 0 and 1, always the same for the same input.
fn random(number: u64) -> f64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    for factor in [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB] {
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(factor);
    }
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}
