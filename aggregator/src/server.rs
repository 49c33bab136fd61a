//! The HTTP server: two listeners, from their first connection to the last. Owns limits on connections and time, and the
//! drain; what is answered is what `routes` owns. Both ends of its life are parameters of [`run`].
mod api;
mod board;
mod pages;
mod routes;
mod scrape;
mod stall;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::history;
use crate::replica::Replica;
use crate::self_metrics::Closed;
use crate::trust::identity::Tokens;
use crate::trust::tls::Certificates;
use board::Board;
use stall::Stall;

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
    /// Open connections for scrapes and the page. Further ones wait to be accepted.
    pub metrics_connections: usize,
    /// Open connections for reports. Further ones are closed.
    pub report_connections: usize,
    /// Bodies that are read at the same time, together, in KiB.
    pub bodies_kib: usize,
    /// From the beginning of a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// From there to the end of the first request's header: who does not even ask is not kept for long.
    pub first: Duration,
    /// From the end of a request, or the beginning of the connection, to the end of the next request's header.
    pub header: Duration,
    /// From the end of the header to the end of the body.
    pub body: Duration,
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
            // One for each agent of a cluster of 10,000 nodes, and some that reconnect; below 20,000 file descriptors.
            report_connections: 16_384,
            // 64 of the largest, or 2,000 of a usual size.
            bodies_kib: 64 * 1024,
            // Three round trips, and a turn at a processor when 10,000 agents come at once.
            handshake: Duration::from_secs(10),
            // An agent connects when it has a report.
            first: Duration::from_secs(10),
            // A connection is also idle between two reports, and an agent may be asked for one a minute.
            header: Duration::from_secs(75),
            // A megabyte at 1 Mbit/s.
            body: Duration::from_secs(10),
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
    bodies: Semaphore,
    /// One scrape or answer of the API at a time: a second would only double the memory and finish no sooner.
    scrape_turn: Arc<Semaphore>,
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
    let (bodies, scrape_turn) = (Semaphore::new(limits.bodies_kib), Arc::new(Semaphore::new(1)));
    let board = Board::new(limits.event_streams);
    let shared = Arc::new(Shared { replica, limits, phase, guard, bodies, scrape_turn, board });
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
    let slots = Arc::new(Semaphore::new(match side {
        Side::Metrics => shared.limits.metrics_connections,
        Side::Reports => shared.limits.report_connections,
    }));
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        tokio::select! {
            () = draining(&mut phase) => break,
            Some(_) = connections.join_next() => {}
            accepted = next(&listener, side, &slots) => match accepted {
                Ok((_, None)) => shared.refuse(side, Closed::Full),
                Ok((stream, Some(slot))) => {
                    failing = false;
                    connections.spawn(connection(stream, slot, side, Arc::clone(shared)));
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(?side, %error, "no connection can be accepted");
                    }
                    failing = true;
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

/// The next connection, and its place among those that there may be.
async fn next(
    listener: &TcpListener,
    side: Side,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Option<OwnedSemaphorePermit>)> {
    // A scrape waits for its turn; an agent that is told at once tries the next replica, or later.
    let slot = match side {
        Side::Metrics => Some(Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?),
        Side::Reports => None,
    };
    let (stream, _) = listener.accept().await?;
    // An answer is written whole; waiting for more to send with it only delays it.
    stream.set_nodelay(true)?;
    Ok((stream, slot.or_else(|| Arc::clone(slots).try_acquire_owned().ok())))
}

async fn connection(stream: TcpStream, _slot: OwnedSemaphorePermit, side: Side, shared: Arc<Shared>) {
    let figures = shared.replica.figures();
    let _open = match side {
        Side::Metrics => figures.metrics_connection(),
        Side::Reports => figures.report_connection(),
    };
    let stream = Stall::new(stream, shared.limits.stall);
    let Some(certificates) = shared.tls(side) else { return serve(stream, side, &shared).await };
    let Some(config) = certificates.config() else { return shared.refuse(side, Closed::NoCertificate) };
    let mut phase = shared.phase.clone();
    let shaking = tokio::time::timeout(shared.limits.handshake, TlsAcceptor::from(config).accept(stream));
    let shaken = tokio::select! {
        shaken = shaking => shaken,
        () = draining(&mut phase) => return,
    };
    match shaken {
        Ok(Ok(stream)) => serve(stream, side, &shared).await,
        Ok(Err(error)) => {
            tracing::debug!(?side, %error, "no TLS connection");
            shared.refuse(side, Closed::Handshake);
        }
        Err(_) => shared.refuse(side, Closed::HandshakeSlow),
    }
}

/// Answers requests for as long as they come.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, side: Side, shared: &Arc<Shared>) {
    let (asked, mut first) = watch::channel(false);
    let service = service_fn(|request| {
        asked.send_replace(true);
        let shared = Arc::clone(shared);
        async move { Ok::<_, Infallible>(routes::answer(request, side, &shared).await) }
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
    let result = tokio::select! {
        result = connection.as_mut() => result,
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
