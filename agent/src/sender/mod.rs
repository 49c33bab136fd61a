//! Sends the latest report to every replica of the aggregator. This module follows which replicas there are; `delivery`
//! delivers to one of them.
//!
//! Each replica has its own task, connection and back-off, so that a slow or lost replica delays no other. There is no
//! queue: reports carry totals, so if a newer report replaces one, only resolution is lost, and an aggregator that
//! comes back needs only the latest.

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

/// Time between two look-ups of a name whose replicas are all reached. Ten thousand agents then make 170 look-ups a
/// second. A new replica waits at most a minute; one that replaces another waits much less, because a failure triggers
/// a look-up.
const LOOK_UP_EVERY: Duration = Duration::from_mins(1);

/// Time between two look-ups while something fails. Ten thousand agents that lost an aggregator then make 700 look-ups
/// a second, which one CoreDNS can handle; a pod that replaces another is not ready sooner.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(15);

/// For one look-up. The C library queries each of three servers twice, five seconds each, for every search domain.
const LOOK_UP_DEADLINE: Duration = Duration::from_secs(20);

/// Sends reports to all replicas of one aggregator.
pub struct Sender<L> {
    target: Target,
    look_up: L,
    deadline: Duration,
    backoff: Backoff,
    /// This node's offset in each interval, from 0 to 1. It also spreads the look-ups of the agents.
    turn: f64,
    metrics: Arc<SelfMetrics>,
    replicas: Replicas,
    running: BTreeMap<SocketAddr, AbortHandle>,
    tasks: JoinSet<()>,
    is_failing: Option<bool>,
}

/// Resolves a name with the system's resolver, which honours /etc/hosts and the search domains that kubelet writes to
/// /etc/resolv.conf, as for every other program of a pod. Another resolver would have to implement all of that again.
pub async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

impl<L, F> Sender<L>
where
    L: Fn(String, u16) -> F,
    F: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    /// A sender that has not connected yet. `turn`, from 0 to 1, is this node's offset in the interval.
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

    /// Sends each report that it finds in the channel. It ends when the channel is closed, after one last attempt at
    /// each replica to which the latest report is still unsent.
    pub async fn run(mut self, reports: watch::Receiver<Option<Outgoing>>) {
        let Some((host, port)) = self.target.name() else {
            // Fixed addresses of this machine, all of one aggregator.
            let (outcome_sender, _outcomes) = mpsc::channel(1);
            return self.delivery(self.target.clone(), outcome_sender).run(reports).await;
        };
        // At most one outcome per replica is queued: each is processed before the next attempt.
        let (outcome_sender, mut outcomes) = mpsc::channel(replicas::MAX_REPLICAS);
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
                    let pause = if self.found(answer, &outcome_sender, &reports) { LOOK_UP_AGAIN } else { LOOK_UP_EVERY };
                    // The first pause is this node's share of one, so that its look-ups have this offset from then on.
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
                        // Another replica may have replaced it.
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

    /// Processes the result of a look-up. Returns whether it failed.
    fn found(
        &mut self,
        answer: io::Result<Vec<SocketAddr>>,
        outcome_sender: &mpsc::Sender<(SocketAddr, Delivered)>,
        reports: &watch::Receiver<Option<Outgoing>>,
    ) -> bool {
        let failure = match &answer {
            Ok(addresses) if addresses.is_empty() => Some("the host name has no address".to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        if self.is_failing.replace(failure.is_some()) != Some(failure.is_some()) {
            if let Some(why) = &failure {
                tracing::warn!(aggregator = %self.target, why, "the replicas can't be looked up; reports still go to the known replicas");
            } else {
                tracing::info!(aggregator = %self.target, "the replicas were looked up");
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
            tracing::info!(aggregator = %self.target, %address, "sending reports to this replica");
            let delivery = self.delivery(self.target.at(address), outcome_sender.clone());
            let task = self.tasks.spawn(delivery.of(address).run(reports.clone()));
            self.running.insert(address, task);
        }
        self.metrics.replicas(self.running.len());
        failure.is_some()
    }

    fn delivery(&self, target: Target, outcome_sender: mpsc::Sender<(SocketAddr, Delivered)>) -> Delivery {
        Delivery::new(target, self.deadline, self.backoff.clone(), Arc::clone(&self.metrics), outcome_sender)
    }

    fn stop(&mut self, address: SocketAddr) {
        if let Some(task) = self.running.remove(&address) {
            tracing::info!(aggregator = %self.target, %address, "sending no more reports to this replica");
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
