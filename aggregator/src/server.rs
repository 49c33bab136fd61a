//! The HTTP server: two listeners, from their first connection to the last. Owns limits on connections and time, and the
//! drain; what is answered is what `routes` owns. Both ends of its life are parameters of [`run`].
mod api;
mod routes;
mod scrape;
mod stall;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::replica::Replica;
use stall::Stall;

/// Where connections come in.
#[derive(Debug)]
pub struct Listeners {
    /// For `/metrics`, the page, `/api/v1`, `/live` and `/ready`.
    pub metrics: TcpListener,
    /// For reports.
    pub reports: TcpListener,
}

/// How much and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections for scrapes and the page. Further ones wait to be accepted.
    pub metrics_connections: usize,
    /// Open connections for reports. Further ones wait to be accepted.
    pub report_connections: usize,
    /// From the end of a request, or the beginning of the connection, to the end of the next request's header.
    pub header: Duration,
    /// From the end of the header to the end of the body.
    pub body: Duration,
    /// Without a byte that the peer takes.
    pub stall: Duration,
    /// From the end of serving to the last connection's.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A few Prometheus servers, a few people, a kubelet.
            metrics_connections: 64,
            // One for each agent, with local agents only: `store::Limits::LOCAL` and some that reconnect.
            report_connections: 256,
            // A connection is also idle between two reports, and an agent may be asked for one a minute.
            header: Duration::from_secs(75),
            // A megabyte at 1 Mbit/s.
            body: Duration::from_secs(10),
            // Prometheus gives up on a scrape after 10 s by default: who waits behind a dead reader must still be served.
            stall: Duration::from_secs(5),
            // Kubernetes kills 30 s after it asked; the rest of the process needs some of them.
            drain: Duration::from_secs(10),
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
    /// One scrape or answer of the API at a time: a second would only double the memory and finish no sooner.
    scrape_turn: Arc<Semaphore>,
}

/// Serves until `shutdown`, then lets requests under way finish for [`Limits::drain`].
pub async fn run(listeners: Listeners, replica: Arc<Replica>, limits: Limits, shutdown: impl Future<Output = ()>) {
    let (change, phase) = watch::channel(Phase::Serving);
    let shared = Arc::new(Shared { replica, limits, phase, scrape_turn: Arc::new(Semaphore::new(1)) });
    let ends = async {
        shutdown.await;
        tracing::info!(drain_s = limits.drain.as_secs(), "shutting down: requests under way may finish");
        change.send_replace(Phase::Draining);
    };
    tokio::join!(
        accept(listeners.metrics, Side::Metrics, &shared),
        accept(listeners.reports, Side::Reports, &shared),
        ends
    );
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
            accepted = next(&listener, &slots) => match accepted {
                Ok((stream, slot)) => {
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

async fn next(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // An answer is written whole; waiting for more to send with it only delays it.
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}

async fn connection(stream: TcpStream, _slot: OwnedSemaphorePermit, side: Side, shared: Arc<Shared>) {
    let figures = shared.replica.figures();
    let _open = match side {
        Side::Metrics => figures.metrics_connection(),
        Side::Reports => figures.report_connection(),
    };
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(routes::answer(request, side, &shared).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.header)
        .max_buf_size(16 * 1024)
        // A sender that cut its report still gets to read why it was refused; a reader that left a scrape does not wait.
        .half_close(side == Side::Reports)
        .serve_connection(TokioIo::new(Stall::new(stream, shared.limits.stall)), service);
    let mut connection = std::pin::pin!(connection);
    let mut phase = shared.phase.clone();
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = draining(&mut phase) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(?side, %error, "connection ended");
    }
}

#[cfg(test)]
mod tests;
