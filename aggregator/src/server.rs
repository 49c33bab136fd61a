//! The HTTP server: two listeners, from their first connection to the last. Owns limits on connections and time, and the
//! drain; what is answered is what `routes` owns. Both ends of its life are parameters of [`run`].
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

/// Two fifths of what an answer may take (docs/benchmarks.md).
const REST: Duration = Duration::from_millis(20);

/// Where connections come in.
#[derive(Debug)]
pub struct Listeners {
    /// For `/metrics`, the page, `/api/v1`, `/live` and `/ready`.
    pub metrics: TcpListener,
    /// For reports.
    pub reports: TcpListener,
    /// The runtime that reports are taken on, which their listener is of: this one, or [one of their own](report_runtime).
    pub report_runtime: Handle,
}

/// Who is let in, and by what.
#[derive(Debug, Default)]
pub struct Guard {
    /// Of the port for scrapes and the page. Absent: it speaks plain HTTP.
    pub metrics_tls: Option<Certificates>,
    /// Of the port for reports. Absent: it speaks plain HTTP, which only loopback may.
    pub report_tls: Option<Certificates>,
    /// Whose tokens reports are taken with. Absent: anybody's are taken, which only loopback may.
    pub tokens: Option<Tokens>,
    /// Whose tokens the past is told to. Absent: to whoever may send reports of any node, which is anybody or nobody.
    pub peers: Option<Tokens>,
}

impl Guard {
    /// Whether there is anybody who may be told the past.
    pub fn tells_past(&self) -> bool {
        self.tokens.is_none() || self.peers.is_some()
    }
}

/// How much and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections for scrapes and the page. When there are as many, the one that has waited longest for a request gives
    /// way to the next.
    pub metrics_connections: usize,
    /// Of these, how many one peer's address may have.
    pub metrics_of_peer: usize,
    /// Beyond these: places in which `/live` and `/ready` alone are answered, when all others are being answered.
    pub probe_connections: usize,
    /// Open connections for reports. When there are as many, one that has not proven whose it is gives way to the next.
    pub report_connections: usize,
    /// Of these, how many may have proven to be of one node. The oldest gives way to the next.
    pub report_connections_of_node: usize,
    /// Bodies that are read at the same time, together, in KiB.
    pub bodies_kib: u32,
    /// From the beginning of a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// From there to the end of the first request's header: who does not even ask is not kept for long.
    pub first: Duration,
    /// From the beginning of a connection for reports to a token that is good, where tokens are asked for.
    pub proof: Duration,
    /// From the end of a request, or the beginning of the connection, to the end of the next request's header.
    pub header: Duration,
    /// From the end of the header to the end of the body.
    pub body: Duration,
    /// For which a scrape waits for its reader while others wait for their turn.
    pub in_turn: Duration,
    /// Without a byte that the peer takes.
    pub stall: Duration,
    /// From the end of serving to the last connection's.
    pub drain: Duration,
    /// Open pages that are told what is new. Further ones stay as they were loaded, and say so.
    pub event_streams: usize,
    /// From one time that they are told to the next.
    pub beat: Duration,
    /// From one point of the page's last hour to the next.
    pub history_step: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A few Prometheus servers, a few people, a kubelet.
            metrics_connections: 64,
            // People may come through one proxy, with 24 open pages; as many are left to others.
            metrics_of_peer: 32,
            // A kubelet asks for two things, and gives up on each after seconds.
            probe_connections: 8,
            // One for each agent of a cluster of 10,000 nodes, and some that reconnect; below 20,000 file descriptors.
            report_connections: 16_384,
            // An agent has one, and may leave one behind where its network broke; another takes its place in an update.
            report_connections_of_node: 4,
            // 64 of the largest, or 2,000 of a usual size.
            bodies_kib: 64 * 1024,
            // Three round trips, and a turn at a processor when 10,000 agents come at once.
            handshake: Duration::from_secs(10),
            // An agent connects when it has a report, and all others when they have a question.
            first: Duration::from_secs(5),
            // What it takes a busy API server to say whose a token is, and some.
            proof: Duration::from_secs(10),
            // A connection is also idle between two reports, and an agent may be asked for one a minute.
            header: Duration::from_secs(75),
            // A megabyte at 1 Mbit/s.
            body: Duration::from_secs(10),
            // As long as making 45 MB of text takes, and compressing it: a reader that is as fast is hardly waited for.
            in_turn: Duration::from_millis(250),
            // Prometheus gives up on a scrape after 10 s by default: who waits behind a dead reader must still be served.
            stall: Duration::from_secs(5),
            // Kubernetes kills 30 s after it asked; the rest of the process needs some of them.
            drain: Duration::from_secs(10),
            // Each holds a connection: they must leave most of them to scrapes.
            event_streams: 24,
            // Nothing that a page shows is newer than an agent's report, of which there is one in ten seconds.
            beat: Duration::from_secs(5),
            history_step: history::STEP,
        }
    }
}

/// Open files that are not for agents' connections: scrapes and probes 72, what is asked of the API server, another replica that
/// asks for the past, logs, certificates and what the runtime needs.
const OTHER_FILES: u64 = 256;

impl Limits {
    /// With as many connections for reports as there is room for where so many files may be open: what scrapes, probes and the API
    /// server need is left to them.
    #[must_use]
    pub fn with_open_files(self, files: u64) -> Self {
        let room = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
        // None at all would be no aggregator.
        Self { report_connections: self.report_connections.min(room).max(1), ..self }
    }
}

/// Which of the two listeners a connection came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Metrics,
    Reports,
}

/// Whether new work is taken.
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
    /// Of scrapes, pages and the API.
    turns: Arc<Turns>,
    /// Of replicas that ask for the past: one answer at a time is in memory.
    past_turn: Arc<Semaphore>,
    /// What pages are made of.
    board: Board,
}

impl Shared {
    fn tls(&self, side: Side) -> Option<&Certificates> {
        match side {
            Side::Metrics => self.guard.metrics_tls.as_ref(),
            Side::Reports => self.guard.report_tls.as_ref(),
        }
    }

    /// A scrape shows until when certificates are valid.
    fn note_certificates(&self) {
        for side in [Side::Metrics, Side::Reports] {
            let not_after_s = self.tls(side).and_then(Certificates::not_after_s);
            self.replica.figures().certificate(side.as_str(), not_after_s);
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
            // Agents may come through one address; who has the most of what has proven nothing gives way first.
            Side::Reports => Bounds {
                all: limits.report_connections,
                of_peer: usize::MAX,
                reserved: 0,
                of_node: limits.report_connections_of_node,
            },
        })
    }

    fn refuse(&self, side: Side, why: Closed) {
        self.replica.figures().connection_refused(side.as_str(), why);
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

/// Serves until `shutdown`, then lets requests under way finish for [`Limits::drain`].
pub async fn run(
    listeners: Listeners,
    replica: Arc<Replica>,
    guard: Guard,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let (change, phase) = watch::channel(Phase::Serving);
    let (bodies, turns, past_turn) = (Bodies::new(limits.bodies_kib), Turns::new(), Arc::new(Semaphore::new(1)));
    let board = Board::new(limits.event_streams);
    let shared = Arc::new(Shared { replica, limits, phase, guard, bodies, turns, past_turn, board });
    let ends = async {
        shutdown.await;
        tracing::info!(drain_s = limits.drain.as_secs(), "shutting down: requests under way may finish");
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
/// Ten thousand agents send one a millisecond, and nobody waits for the answer. To take up each by itself costs nearly twice as much
/// as to take up twenty that came meanwhile, one after the other, while the way that they all go is still near the processor.
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
                        tracing::warn!(?side, %error, unsaid, "no connection can be accepted");
                    }
                    // Out of file descriptors, most likely: to ask again at once would only burn the processor.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(shared.limits.drain, all).await.is_err() {
        tracing::warn!(?side, connections = connections.len(), "connections cut at the end of the drain");
        connections.shutdown().await;
    }
}

async fn draining(phase: &mut watch::Receiver<Phase>) {
    // An error means that nobody is left to begin the drain: the server is ending, too.
    let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
}

/// The next connection, and whose it is.
async fn next(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    let (stream, peer) = listener.accept().await?;
    // An answer is written whole; waiting for more to send with it only delays it.
    stream.set_nodelay(true)?;
    Ok((stream, peer.ip().to_canonical()))
}

async fn connection(stream: TcpStream, visitor: Visitor, shared: Arc<Shared>) {
    let figures = shared.replica.figures();
    let _open = match visitor.side {
        Side::Metrics => figures.metrics_connection(),
        Side::Reports => figures.report_connection(),
    };
    let (side, place) = (visitor.side, Arc::clone(&visitor.place));
    tokio::select! {
        () = shake(stream, visitor, &shared) => {}
        () = place.left() => shared.refuse(side, Closed::GaveWay),
    }
}

/// Speaks TLS where that is spoken.
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
            tracing::debug!(?side, %error, "no TLS connection");
            shared.refuse(side, Closed::Handshake);
        }
        Err(_) => shared.refuse(side, Closed::HandshakeSlow),
    }
}

/// Answers requests for as long as they come.
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
        // A sender that cut its report still gets to read why it was refused; a reader that left a scrape does not wait.
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
        // Time-outs on writing are the stream's own, and no header's.
        if error.is_timeout() || error.is_parse() {
            shared.refuse(side, Closed::Header);
        }
    }
}

#[cfg(test)]
mod tests;
