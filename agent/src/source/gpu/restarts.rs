//! When the next process for NVML may be started, and what became of those before: counts by reason, and a wait that doubles.

use std::time::{Duration, Instant};

use super::GpuError;
use crate::sample::gpu::{WorkerEnd, WorkerEnds};

/// After the first end; then twice as long each time. A library that ends its process at once costs a start of some milliseconds
/// each time.
const FIRST: Duration = Duration::from_secs(1);
const AT_MOST: Duration = Duration::from_mins(5);

/// A process that answered for so long was well: what ends it then is not what ended those before.
const WELL: Duration = Duration::from_mins(10);

/// Ends of processes, and the wait for the next start.
#[derive(Debug)]
pub(super) struct Restarts {
    ends: WorkerEnds,
    /// Ends in a row, without one between them that was well.
    in_a_row: u32,
    /// When the next may be started.
    due: Option<Instant>,
    last: Option<(WorkerEnd, String)>,
    first: Duration,
    /// The last process has answered.
    answered: bool,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { ends: WorkerEnds::default(), in_a_row: 0, due: None, last: None, first: FIRST, answered: false }
    }
}

impl Restarts {
    /// A process that was started then is no more.
    pub(super) fn note(&mut self, (end, detail): (WorkerEnd, String), started: Option<Instant>) {
        if std::mem::take(&mut self.answered) && started.is_some_and(|started| started.elapsed() >= WELL) {
            self.in_a_row = 0;
        }
        let wait = wait(self.first, self.in_a_row);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.due = Instant::now().checked_add(wait);
        if let Some(count) = self.ends.get_mut(end as usize) {
            *count += 1;
        }
        tracing::warn!(reason = end.as_str(), detail, next_in = ?wait, "the process that calls NVML is replaced");
        self.last = Some((end, detail));
    }

    /// A process that was started then has answered.
    pub(super) fn answered(&mut self, started: Instant) {
        self.answered = true;
        if started.elapsed() >= WELL {
            self.in_a_row = 0;
        }
    }

    /// Whether another may be started now.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }

    /// Why there is no process.
    pub(super) fn error(&self) -> GpuError {
        match &self.last {
            Some((WorkerEnd::Hung, _)) => GpuError::Timeout,
            Some((end, detail)) => GpuError::Worker { end: *end, detail: detail.clone() },
            None => GpuError::Worker { end: WorkerEnd::NotStarted, detail: "was not started".to_owned() },
        }
    }

    /// How many are no more, by reason.
    pub(super) fn ends(&self) -> WorkerEnds {
        self.ends
    }

    /// No wait any more, for tests.
    #[cfg(test)]
    pub(super) fn forget_waits(&mut self) {
        (self.first, self.due) = (Duration::ZERO, None);
    }
}

fn wait(first: Duration, in_a_row: u32) -> Duration {
    first.saturating_mul(1_u32.checked_shl(in_a_row).unwrap_or(u32::MAX)).min(AT_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_the_one_before_up_to_a_bound() {
        let waits: Vec<u64> = [0, 1, 2, 8, 9, 31, 32, u32::MAX].map(|ends| wait(FIRST, ends).as_secs()).into();
        assert_eq!(waits, [1, 2, 4, 256, 300, 300, 300, 300]);
    }

    #[test]
    fn ends_are_counted_by_reason_and_the_last_one_is_why_there_are_no_figures() {
        let mut restarts = Restarts::default();
        assert!(restarts.is_due());
        restarts.note((WorkerEnd::Exited, "ended itself with status 3".to_owned()), Some(Instant::now()));
        restarts.note((WorkerEnd::Signal, "was ended by signal 11".to_owned()), Some(Instant::now()));
        assert!(!restarts.is_due());
        assert_eq!(restarts.ends(), [0, 1, 1, 0, 0]);
        assert_eq!(restarts.error().to_string(), "the process that calls NVML was ended by signal 11");
    }
}
