//! Delivers the latest report to one replica, with one kept connection, a deadline per attempt, and back-off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::{mpsc, watch};

use super::connection::{Connection, SendError};
use super::replicas::Delivered;
use super::{Backoff, Target};
use crate::self_metrics::{SelfMetrics, SendFailure};
use crate::ticker::Outgoing;

/// Delivery to one replica.
pub(super) struct Delivery {
    target: Target,
    /// For one attempt, including connecting.
    deadline: Duration,
    backoff: Backoff,
    metrics: Arc<SelfMetrics>,
    connection: Option<Connection>,
    /// The highest sequence number whose outcome is known: sent, rejected or replaced.
    settled: u64,
    /// How the latest attempt ended. `None` before the first.
    latest: Option<Result<(), SendFailure>>,
    /// Which replica, if there may be several.
    address: Option<SocketAddr>,
    /// Receives the outcome of each attempt.
    outcome_sender: mpsc::Sender<(SocketAddr, Delivered)>,
}

impl Delivery {
    /// A delivery that has not connected yet.
    pub(super) fn new(
        target: Target,
        deadline: Duration,
        backoff: Backoff,
        metrics: Arc<SelfMetrics>,
        outcome_sender: mpsc::Sender<(SocketAddr, Delivered)>,
    ) -> Self {
        Self {
            target,
            deadline,
            backoff,
            metrics,
            connection: None,
            settled: 0,
            latest: None,
            address: None,
            outcome_sender,
        }
    }

    /// The same, to this one of several replicas.
    pub(super) fn of(self, address: SocketAddr) -> Self {
        Self { address: Some(address), ..self }
    }

    /// Sends each report that it finds in the channel. It ends when the channel is closed, after one last attempt if
    /// the latest report is still unsent.
    pub(super) async fn run(mut self, mut reports: watch::Receiver<Option<Outgoing>>) {
        if let (Some(_), Some(latest)) = (self.address, &*reports.borrow()) {
            // Reports from before this replica was known do not count as replaced.
            self.settled = latest.sequence.saturating_sub(1);
        }
        let mut is_last_attempt = false;
        loop {
            let settled = self.settled;
            let is_newer = |latest: &Option<Outgoing>| latest.as_ref().is_some_and(|one| one.sequence > settled);
            let latest = match reports.wait_for(is_newer).await {
                Ok(latest) => latest.clone(),
                Err(_closed) => return,
            };
            let Some(report) = latest else { return };
            let Err(at_least) = self.deliver(report).await else { continue };
            if is_last_attempt {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(self.backoff.after_failure(at_least)) => {}
                () = closed(&mut reports) => is_last_attempt = true,
            }
        }
    }

    /// One attempt. An error means: try the latest report again later, and wait at least as long as the aggregator
    /// requests.
    async fn deliver(&mut self, report: Outgoing) -> Result<(), Duration> {
        self.metrics.reports_replaced(report.sequence - 1 - self.settled);
        self.settled = report.sequence - 1;
        let deadline = self.deadline;
        let attempt = self.attempt(Bytes::from_owner(report.bytes));
        let result = tokio::time::timeout(deadline, attempt).await.unwrap_or(Err(SendError::Deadline));
        self.note(&result);
        self.send_outcome(&result).await;
        match result {
            Ok(()) | Err(SendError::Refused { .. }) => {
                self.settled = report.sequence;
                self.backoff.after_success();
                Ok(())
            }
            Err(error) => Err(error.retry_after()),
        }
    }

    /// Sends the report on the kept connection, or on a new one. The connection is kept only if the exchange was
    /// complete, so a connection whose attempt exceeded its deadline is closed.
    async fn attempt(&mut self, report: Bytes) -> Result<(), SendError> {
        if let Some(mut kept) = self.connection.take() {
            match kept.post(&self.target, report.clone()).await {
                // The aggregator may have closed it since the last report. Delivering a report twice does no harm.
                Err(SendError::Lost(_)) => {}
                result => {
                    self.connection = Some(kept);
                    return result;
                }
            }
        }
        let mut connection = Connection::open(&self.target).await?;
        let result = connection.post(&self.target, report).await;
        if !matches!(result, Err(SendError::Lost(_))) {
            self.connection = Some(connection);
        }
        result
    }

    /// A replica that rejects a report or is overloaded counts as reachable.
    async fn send_outcome(&self, result: &Result<(), SendError>) {
        let Some(address) = self.address else { return };
        let delivered = match result {
            Ok(()) | Err(SendError::Refused { .. } | SendError::NotTaken { .. }) => Delivered::Answered,
            Err(SendError::Connect { .. } | SendError::Tls { .. } | SendError::Lost(_) | SendError::Deadline) => {
                Delivered::Failed
            }
            // This is a problem of the agent's own files.
            Err(SendError::Credentials(_)) => return,
        };
        // An error means that nothing follows the replicas any more and this is the last attempt.
        let _ = self.outcome_sender.send((address, delivered)).await;
    }

    /// Counts each attempt. Logs it if the outcome differs from the previous one.
    fn note(&mut self, result: &Result<(), SendError>) {
        let outcome = match result {
            Ok(()) => {
                self.metrics.report_sent();
                Ok(())
            }
            Err(error) => {
                self.metrics.send_failed(error.reason());
                Err(error.reason())
            }
        };
        if self.latest == Some(outcome) {
            return;
        }
        self.latest = Some(outcome);
        let replica = self.address.map(tracing::field::display);
        match result {
            Ok(()) => tracing::info!(aggregator = %self.target, replica, "reports arrive"),
            Err(error) => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(aggregator = %self.target, replica, reason = error.reason().as_str(), cause, "{error}");
            }
        }
    }
}

/// Completes when no more reports will come.
async fn closed(reports: &mut watch::Receiver<Option<Outgoing>>) {
    while reports.changed().await.is_ok() {}
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
