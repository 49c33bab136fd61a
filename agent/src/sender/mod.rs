//! Sends the latest report to every replica of the aggregator. It owns which replicas there are; how a report gets to one of
//! them is `delivery`'s.
//!
//! Each replica has a task, a connection and a back-off of its own, so that one that is slow or gone delays no other.
//! There is no queue anywhere: reports carry totals, so a report that was overtaken by a newer one has lost nothing but
//! resolution, and an aggregator that comes back needs only the latest.

mod backoff;
mod connection;
mod credentials;
mod delivery;
mod replicas;
mod target;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, Timeout};

pub use self::backoff::Backoff;
pub use self::credentials::{Credentials, CredentialsError};
use self::delivery::Delivery;
use self::replicas::{Delivered, Replicas};
pub use self::target::{Target, TargetError};
use crate::self_metrics::SelfMetrics;
use crate::ticker::Outgoing;

/// Between two looks-up of a name whose replicas are all reached. Ten thousand agents ask 170 times a second then; a new
/// replica waits a minute at most, and one that took the place of another far less, for a failure asks sooner.
const LOOK_UP_EVERY: Duration = Duration::from_mins(1);

/// Between two looks-up while something fails. Ten thousand agents that lost an aggregator ask 700 times a second then, which
/// one CoreDNS answers; a pod that takes another's place is not ready sooner.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(15);

/// For one look-up. The C library asks each of three servers twice, five seconds each, for every domain to search.
const LOOK_UP_DEADLINE: Duration = Duration::from_secs(20);

/// Sends reports to all replicas of one aggregator.
pub struct Sender<L> {
    target: Target,
    look_up: L,
    deadline: Duration,
    backoff: Backoff,
    /// When in each interval this node's turn is, from 0 to 1: agents do not ask for names at the same time either.
    turn: f64,
    metrics: Arc<SelfMetrics>,
    replicas: Replicas,
    running: BTreeMap<SocketAddr, AbortHandle>,
    tasks: JoinSet<()>,
    is_failing: Option<bool>,
}

/// Asks the system's resolver, which honours /etc/hosts and the search domains that kubelet writes to /etc/resolv.conf as
/// every other program of a pod does. A resolver of our own would have to be told all that anew.
pub async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

impl<L, F> Sender<L>
where
    L: Fn(String, u16) -> F,
    F: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    /// A sender that has not connected yet. `turn`, from 0 to 1, is this node's own.
    pub fn new(
        target: Target,
        look_up: L,
        deadline: Duration,
        backoff: Backoff,
        turn: f64,
        metrics: Arc<SelfMetrics>,
    ) -> Self {
        let replicas = Replicas::default();
        let (running, tasks) = (BTreeMap::new(), JoinSet::new());
        Self { target, look_up, deadline, backoff, turn, metrics, replicas, running, tasks, is_failing: None }
    }

    /// Sends each report that it finds in the slot. It ends when the slot is closed: after one last attempt at each replica
    /// if the latest report is still unsent there.
    pub async fn run(mut self, reports: watch::Receiver<Option<Outgoing>>) {
        let Some((host, port)) = self.target.name() else {
            // Addresses of this machine, the one or the other of one aggregator.
            let (tell, _outcomes) = mpsc::channel(1);
            return self.delivery(self.target.clone(), tell).run(reports).await;
        };
        // As many outcomes as there are replicas wait at most: each is told before the next attempt.
        let (tell, mut outcomes) = mpsc::channel(replicas::MOST);
        let mut slot = reports.clone();
        let mut due = Instant::now();
        let mut last: Option<Instant> = None;
        let mut look_up: Option<Pin<Box<Timeout<F>>>> = None;
        loop {
            let is_asking = look_up.is_some();
            let answer = async {
                match look_up.as_mut() {
                    Some(look_up) => look_up.as_mut().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                answer = answer => {
                    look_up = None;
                    let answer = answer.unwrap_or_else(|_: Elapsed| Err(io::ErrorKind::TimedOut.into()));
                    let pause = if self.found(answer, &tell, &reports) { LOOK_UP_AGAIN } else { LOOK_UP_EVERY };
                    // The first pause is this node's part of one: from then on its turn is its own.
                    let share = if last.is_none() { self.turn } else { 1.0 };
                    last = Some(Instant::now());
                    due = Instant::now() + pause.mul_f64(share).max(LOOK_UP_AGAIN);
                }
                () = tokio::time::sleep_until(due), if !is_asking => {
                    let answer = (self.look_up)(host.clone(), port);
                    look_up = Some(Box::pin(tokio::time::timeout(LOOK_UP_DEADLINE, answer)));
                }
                Some((address, delivered)) = outcomes.recv() => {
                    if self.replicas.delivered(address, delivered) {
                        self.stop(address);
                    }
                    if delivered == Delivered::Failed {
                        // Another may have taken its place.
                        due = due.min(last.map_or(due, |last| last + LOOK_UP_AGAIN));
                    }
                }
                Some(_) = self.tasks.join_next() => {}
                changed = slot.changed() => if changed.is_err() {
                    break;
                },
            }
        }
        drop(outcomes);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Takes in what a look-up found; whether it failed.
    fn found(
        &mut self,
        answer: io::Result<Vec<SocketAddr>>,
        tell: &mpsc::Sender<(SocketAddr, Delivered)>,
        reports: &watch::Receiver<Option<Outgoing>>,
    ) -> bool {
        let failure = match &answer {
            Ok(addresses) if addresses.is_empty() => Some("no address".to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        if self.is_failing.replace(failure.is_some()) != Some(failure.is_some()) {
            if let Some(why) = &failure {
                tracing::warn!(aggregator = %self.target, why, "its replicas can't be looked up: those that are known stay");
            } else {
                tracing::info!(aggregator = %self.target, "its replicas are looked up");
            }
        }
        if failure.is_some() {
            self.metrics.look_up_failed();
        }
        let change = self.replicas.found(&answer.unwrap_or_default());
        for address in change.gone {
            self.stop(address);
        }
        for address in change.new {
            tracing::info!(aggregator = %self.target, %address, "a replica to report to");
            let delivery = self.delivery(self.target.at(address), tell.clone());
            let task = self.tasks.spawn(delivery.of(address).run(reports.clone()));
            self.running.insert(address, task);
        }
        self.metrics.replicas(self.running.len());
        failure.is_some()
    }

    fn delivery(&self, target: Target, tell: mpsc::Sender<(SocketAddr, Delivered)>) -> Delivery {
        Delivery::new(target, self.deadline, self.backoff.clone(), Arc::clone(&self.metrics), tell)
    }

    fn stop(&mut self, address: SocketAddr) {
        if let Some(task) = self.running.remove(&address) {
            tracing::info!(aggregator = %self.target, %address, "no longer a replica");
            task.abort();
        }
        self.metrics.replicas(self.running.len());
    }
}

#[cfg(test)]
mod limits;
#[cfg(test)]
mod posted;
#[cfg(test)]
mod tests;
