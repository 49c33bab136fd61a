//! Sends the latest report to the aggregator. It owns delivery: one kept connection, a deadline per attempt, back-off.
//!
//! It has no queue. Reports carry totals, so a report that was overtaken by a newer one has lost nothing but
//! resolution, and an aggregator that comes back needs only the latest.

mod backoff;
mod connection;
mod credentials;
mod target;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::watch;

pub use self::backoff::Backoff;
use self::connection::{Connection, SendError};
pub use self::credentials::{Credentials, CredentialsError};
pub use self::target::{Target, TargetError};
use crate::self_metrics::{SelfMetrics, SendFailure};
use crate::ticker::Outgoing;

/// Sends reports to one aggregator.
pub struct Sender {
    target: Target,
    /// For one attempt, connecting included.
    deadline: Duration,
    backoff: Backoff,
    metrics: Arc<SelfMetrics>,
    connection: Option<Connection>,
    /// The highest sequence number whose fate is known: sent, refused or replaced.
    settled: u64,
    /// How the latest attempt ended; `None` before the first.
    latest: Option<Result<(), SendFailure>>,
}

impl Sender {
    /// A sender that has not connected yet.
    pub fn new(target: Target, deadline: Duration, backoff: Backoff, metrics: Arc<SelfMetrics>) -> Self {
        Self { target, deadline, backoff, metrics, connection: None, settled: 0, latest: None }
    }

    /// Sends each report that it finds in the slot. It ends when the slot is closed: after one last attempt if the
    /// latest report is still unsent.
    pub async fn run(mut self, mut reports: watch::Receiver<Option<Outgoing>>) {
        let mut is_last_attempt = false;
        loop {
            let settled = self.settled;
            let is_newer = |latest: &Option<Outgoing>| latest.as_ref().is_some_and(|one| one.sequence > settled);
            let latest = match reports.wait_for(is_newer).await {
                Ok(latest) => latest.clone(),
                Err(_closed) => return,
            };
            let Some(report) = latest else { return };
            if self.deliver(report).await {
                continue;
            }
            if is_last_attempt {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(self.backoff.after_failure()) => {}
                () = closed(&mut reports) => is_last_attempt = true,
            }
        }
    }

    /// One attempt. False: try the latest report again after a while.
    async fn deliver(&mut self, report: Outgoing) -> bool {
        self.metrics.reports_replaced(report.sequence - 1 - self.settled);
        self.settled = report.sequence - 1;
        let deadline = self.deadline;
        let attempt = self.attempt(Bytes::from_owner(report.bytes));
        let result = tokio::time::timeout(deadline, attempt).await.unwrap_or(Err(SendError::Deadline));
        self.note(&result);
        match result {
            Ok(()) | Err(SendError::Refused { .. }) => {
                self.settled = report.sequence;
                self.backoff.after_success();
                true
            }
            Err(_) => false,
        }
    }

    /// Posts on the kept connection, or on a new one. The connection is kept only if the exchange came to its end, so
    /// one whose attempt ran past its deadline is closed with it.
    async fn attempt(&mut self, report: Bytes) -> Result<(), SendError> {
        if let Some(mut kept) = self.connection.take() {
            match kept.post(&self.target, report.clone()).await {
                // The aggregator may have closed it since the last report. A report may arrive twice without harm.
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

    /// Counts each attempt; logs when the outcome is another than the last time.
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
        match result {
            Ok(()) => tracing::info!(aggregator = %self.target, "reports arrive"),
            Err(error) => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(aggregator = %self.target, reason = error.reason().as_str(), cause, "{error}");
            }
        }
    }
}

/// Completes when no more reports will come.
async fn closed(reports: &mut watch::Receiver<Option<Outgoing>>) {
    while reports.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests;
