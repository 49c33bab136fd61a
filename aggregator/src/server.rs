//! The HTTP server: two listeners and their connections. Owns limits on connections and time, and the drain; `routes` owns the
//! answers. The listeners and the end of serving are parameters of [`run`].
mod answer;
mod api;
mod board;
mod bodies;
mod pages;
mod places;
mod routes;
mod scrape;
mod stall;
mod turns;
mod visitor;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use board::Board;
use bodies::Bodies;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mcad_present::history;
use places::{Bounds, Places};
use stall::Stall;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use turns::Turns;
use visitor::Visitor;

use crate::replica::Replica;
use crate::seldom::Seldom;
use crate::self_metrics::Closed;
use crate::trust::identity::Tokens;
use crate::trust::tls::Certificates;

/// How long the report runtime rests before it waits: two fifths of the latency budget of an answer (docs/benchmarks.md).
const REST: Duration = Duration::from_millis(20);

/// The listening sockets.
#[derive(Debug)]
pub struct Listeners {
    /// For `/metrics`, the page, `/api/v1`, `/live` and `/ready`.
    pub metrics: TcpListener,
    /// For reports.
    pub reports: TcpListener,
    /// The runtime of the listener for reports: this one, or [a separate one](report_runtime).
    pub report_runtime: Handle,
}

/// TLS and authentication of clients.
#[derive(Debug, Default)]
pub struct Guard {
    /// The certificate of the port for scrapes and the page. `None` for plain HTTP.
    pub metrics_tls: Option<Certificates>,
    /// The certificate of the port for reports. `None` for plain HTTP, which is allowed only on loopback.
    pub report_tls: Option<Certificates>,
    /// Checks the tokens of senders of reports. `None` to accept all senders, which is allowed only on loopback.
    pub tokens: Option<Tokens>,
    /// Checks the tokens of replicas that request a state transfer. `None`: if `tokens` is also `None`, all clients may request it,
    /// otherwise none.
    pub peers: Option<Tokens>,
}

impl Guard {
    /// Whether any client may request a state transfer.
    pub fn allows_state_transfer(&self) -> bool {
        self.tokens.is_none() || self.peers.is_some()
    }
}

/// Limits on connections, memory and time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections for scrapes and the page. At the limit, the connection that has been idle longest gives way to the next.
    pub metrics_connections: usize,
    /// Of these, the most from one peer address.
    pub metrics_of_peer: usize,
    /// Additional connections on which only `/live` and `/ready` are answered, when all others are busy.
    pub probe_connections: usize,
    /// Open connections for reports. At the limit, a connection that has not authenticated gives way to the next.
    pub report_connections: usize,
    /// Of these, the most authenticated connections of one node. The oldest gives way to the next.
    pub report_connections_of_node: usize,
    /// Total size of the bodies that are being read, in KiB.
    pub bodies_kib: u32,
    /// Time from the start of a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// Time from there to the end of the first request's header: a connection without a request is closed soon.
    pub first: Duration,
    /// Time from the start of a connection for reports to a valid token, if tokens are required.
    pub proof: Duration,
    /// Time from the end of a request, or the start of the connection, to the end of the next request's header.
    pub header: Duration,
    /// Time from the end of the header to the end of the body.
    pub body: Duration,
    /// Total time that a scrape waits for its reader while others wait for their turn.
    pub in_turn: Duration,
    /// Time without a byte that the peer reads.
    pub stall: Duration,
    /// Time from the end of serving to the end of the last connection.
    pub drain: Duration,
    /// Open pages that receive updates. Further pages stay as they were loaded, and say so.
    pub event_streams: usize,
    /// Time between two updates of pages.
    pub beat: Duration,
    /// Time between two points of the page's last hour.
    pub history_step: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A few Prometheus servers, a few people, a kubelet.
            metrics_connections: 64,
            // Users may share one proxy with 24 open pages; half of the connections are left to others.
            metrics_of_peer: 32,
            // A kubelet has two probes, and each times out after seconds.
            probe_connections: 8,
            // One for each agent of a cluster of 10,000 nodes, plus reconnects; below 20,000 file descriptors.
            report_connections: 16_384,
            // An agent has one and may leave one behind after a network failure; an update replaces it with another agent.
            report_connections_of_node: 4,
            // 64 of the largest size, or 2,000 of a usual size.
            bodies_kib: 64 * 1024,
            // Three round trips, and waiting for a CPU when 10,000 agents connect at once.
            handshake: Duration::from_secs(10),
            // Clients connect when they have a request to send.
            first: Duration::from_secs(5),
            // The time that a busy API server needs for a TokenReview, with a margin.
            proof: Duration::from_secs(10),
            // A connection is idle between two reports, and the interval may be a minute.
            header: Duration::from_secs(75),
            // A megabyte at 1 Mbit/s.
            body: Duration::from_secs(10),
            // The time to write and compress 45 MB of text: a reader that is as fast causes hardly any waiting.
            in_turn: Duration::from_millis(250),
            // Prometheus times out after 10 s by default: a scrape that waits behind a dead reader must still be served.
            stall: Duration::from_secs(5),
            // Kubernetes kills the process 30 s after SIGTERM; the rest of the shutdown needs part of that time.
            drain: Duration::from_secs(10),
            // Each page holds a connection: most must be left to scrapes.
            event_streams: 24,
            // The page shows nothing newer than the reports, and an agent sends one every ten seconds.
            beat: Duration::from_secs(5),
            history_step: history::STEP,
        }
    }
}

/// Open files that are not for agents' connections: 72 for scrapes and probes, and those for requests to the API server, state
/// transfers, logs, certificates and the runtime.
const OTHER_FILES: u64 = 256;

impl Limits {
    /// Reduces the connections for reports to the limit of open files, minus the files that scrapes, probes and the API server
    /// need.
    #[must_use]
    pub fn with_open_files(self, files: u64) -> Self {
        let room = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
        // At least one: without connections for reports, the aggregator would be useless.
        Self { report_connections: self.report_connections.min(room).max(1), ..self }
    }
}

/// The listener of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Metrics,
    Reports,
}

/// Whether new requests are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
}

/// What every connection shares.
#[derive(Debug)]
struct Shared {
    replica: Arc<Replica>,
    limits: Limits,
    phase: watch::Receiver<Phase>,
    guard: Guard,
    bodies: Bodies,
    /// Turns of scrapes, pages and the API.
    turns: Arc<Turns>,
    /// Turns of state transfers: one at a time is in memory.
    transfer_turn: Arc<Semaphore>,
    /// The content of the pages.
    board: Board,
}

impl Shared {
    fn tls(&self, side: Side) -> Option<&Certificates> {
        match side {
            Side::Metrics => self.guard.metrics_tls.as_ref(),
            Side::Reports => self.guard.report_tls.as_ref(),
        }
    }

    /// Updates the self-metrics on the expiry of the certificates.
    fn note_certificates(&self) {
        for side in [Side::Metrics, Side::Reports] {
            let not_after_s = self.tls(side).and_then(Certificates::not_after_s);
            self.replica.self_metrics().certificate(side.as_str(), not_after_s);
        }
    }

    fn places(&self, side: Side) -> Arc<Places> {
        let limits = &self.limits;
        Places::new(match side {
            Side::Metrics => Bounds {
                all: limits.metrics_connections,
                of_peer: limits.metrics_of_peer,
                reserved: limits.probe_connections,
                of_node: usize::MAX,
            },
            // Agents may share one address; the address with the most unauthenticated connections gives way first.
            Side::Reports => Bounds {
                all: limits.report_connections,
                of_peer: usize::MAX,
                reserved: 0,
                of_node: limits.report_connections_of_node,
            },
        })
    }

    fn refuse(&self, side: Side, why: Closed) {
        self.replica.self_metrics().connection_refused(side.as_str(), why);
    }
}

impl Side {
    fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Reports => "reports",
        }
    }
}

/// Serves until `shutdown`, then lets requests in progress finish for [`Limits::drain`].
pub async fn run(
    listeners: Listeners,
    replica: Arc<Replica>,
    guard: Guard,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let (change, phase) = watch::channel(Phase::Serving);
    let (bodies, turns, transfer_turn) = (Bodies::new(limits.bodies_kib), Turns::new(), Arc::new(Semaphore::new(1)));
    let board = Board::new(limits.event_streams);
    let shared = Arc::new(Shared { replica, limits, phase, guard, bodies, turns, transfer_turn, board });
    let ends = async {
        shutdown.await;
        tracing::info!(drain_s = limits.drain.as_secs(), "shutting down: requests in progress may finish");
        change.send_replace(Phase::Draining);
    };
    let taking = {
        let shared = Arc::clone(&shared);
        listeners.report_runtime.spawn(async move { accept(listeners.reports, Side::Reports, &shared).await })
    };
    let taking = async {
        if let Err(error) = taking.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    };
    tokio::join!(accept(listeners.metrics, Side::Metrics, &shared), taking, board::keep(&shared), ends);
}

/// A runtime of one thread for reports, which rests before it waits for more.
///
/// Ten thousand agents send one report a millisecond, and nobody waits for the answer. To handle each report on its own costs nearly
/// twice as much as to handle in a row the twenty that arrived during a rest, while the code is still in the CPU's caches.
pub fn report_runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("reports")
        .on_thread_park(|| thread::sleep(REST))
        .enable_all()
        .build()
}

async fn accept(listener: TcpListener, side: Side, shared: &Arc<Shared>) {
    let mut phase = shared.phase.clone();
    let places = shared.places(side);
    let mut connections = JoinSet::new();
    let mut warned = Seldom::default();
    loop {
        tokio::select! {
            () = draining(&mut phase) => break,
            Some(_) = connections.join_next() => {}
            accepted = next(&listener) => match accepted {
                Ok((stream, peer)) => {
                    match places.take(peer) {
                        Some(place) => drop(connections.spawn(connection(stream, Visitor::new(side, peer, place), Arc::clone(shared)))),
                        None => shared.refuse(side, Closed::Full),
                    }
                }
                Err(error) => {
                    if let Some(unsaid) = warned.again(shared.replica.now()) {
                        tracing::warn!(?side, %error, unsaid, "connections cannot be accepted");
                    }
                    // Most likely out of file descriptors: an immediate retry would only waste CPU.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(shared.limits.drain, all).await.is_err() {
        tracing::warn!(?side, connections = connections.len(), "connections closed at the end of the drain");
        connections.shutdown().await;
    }
}

async fn draining(phase: &mut watch::Receiver<Phase>) {
    // An error means that the sender was dropped: the server is ending, too.
    let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
}

/// The next connection and its peer address.
async fn next(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    let (stream, peer) = listener.accept().await?;
    // An answer is written completely; waiting for more data would only delay it.
    stream.set_nodelay(true)?;
    Ok((stream, peer.ip().to_canonical()))
}

async fn connection(stream: TcpStream, visitor: Visitor, shared: Arc<Shared>) {
    let self_metrics = shared.replica.self_metrics();
    let _open = match visitor.side {
        Side::Metrics => self_metrics.metrics_connection(),
        Side::Reports => self_metrics.report_connection(),
    };
    let (side, place) = (visitor.side, Arc::clone(&visitor.place));
    tokio::select! {
        () = shake(stream, visitor, &shared) => {}
        () = place.left() => shared.refuse(side, Closed::GaveWay),
    }
}

/// Performs the TLS handshake if the listener uses TLS.
async fn shake(stream: TcpStream, visitor: Visitor, shared: &Arc<Shared>) {
    let side = visitor.side;
    let stream = Stall::new(stream, shared.limits.stall);
    let Some(certificates) = shared.tls(side) else { return serve(stream, visitor, shared).await };
    let Some(config) = certificates.config() else { return shared.refuse(side, Closed::NoCertificate) };
    let mut phase = shared.phase.clone();
    let shaking = tokio::time::timeout(shared.limits.handshake, TlsAcceptor::from(config).accept(stream));
    let shaken = tokio::select! {
        shaken = shaking => shaken,
        () = draining(&mut phase) => return,
    };
    match shaken {
        Ok(Ok(stream)) => serve(stream, visitor, shared).await,
        Ok(Err(error)) => {
            tracing::debug!(?side, %error, "TLS handshake failed");
            shared.refuse(side, Closed::Handshake);
        }
        Err(_) => shared.refuse(side, Closed::HandshakeSlow),
    }
}

/// Answers the requests of a connection.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, visitor: Visitor, shared: &Arc<Shared>) {
    let (side, place) = (visitor.side, Arc::clone(&visitor.place));
    let proof = visitor.came + shared.limits.proof;
    let (asked, mut first) = watch::channel(false);
    let service = service_fn(|request| {
        asked.send_replace(true);
        let (shared, visitor) = (Arc::clone(shared), visitor.clone());
        async move { Ok::<_, Infallible>(routes::serve(&visitor, request, &shared).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.header)
        .max_buf_size(16 * 1024)
        // A sender that ended its report early can still read why it was refused; a scraper does not need this.
        .half_close(side == Side::Reports)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut phase = shared.phase.clone();
    let silent = async {
        let asked = first.wait_for(|asked| *asked);
        if tokio::time::timeout(shared.limits.first, asked).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let unproven = async {
        let is_asked = side == Side::Reports && shared.guard.tokens.is_some();
        if !is_asked || tokio::time::timeout_at(proof, place.proof()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = unproven => return shared.refuse(side, Closed::Unproven),
        () = silent => return shared.refuse(side, Closed::Silent),
        () = draining(&mut phase) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(?side, %error, "connection ended");
        // Time-outs on writing come from the stream; these errors are about a request's header.
        if error.is_timeout() || error.is_parse() {
            shared.refuse(side, Closed::Header);
        }
    }
}

#[cfg(test)]
mod tests;
