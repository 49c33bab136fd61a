//! Decides when the next process for NVML may be started, and counts how the previous ones ended: counts by reason, and
//! a wait that doubles.

use std::time::{Duration, Instant};

use super::GpuError;
use crate::sample::gpu::{WorkerEnd, WorkerEnds};

/// The wait after the first end; it doubles each time. A library that ends its process at once costs some milliseconds
/// per start.
const FIRST: Duration = Duration::from_secs(1);
const AT_MOST: Duration = Duration::from_mins(5);

/// If a process responded for this long, it was healthy, and its end has another cause than those before.
const WELL: Duration = Duration::from_mins(10);

/// How processes ended, and the wait for the next start.
#[derive(Debug)]
pub(super) struct Restarts {
    ends: WorkerEnds,
    /// Number of consecutive ends without a healthy process in between.
    in_a_row: u32,
    /// When the next process may be started.
    due: Option<Instant>,
    last: Option<(WorkerEnd, String)>,
    first: Duration,
    /// Whether the last process has responded.
    answered: bool,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { ends: WorkerEnds::default(), in_a_row: 0, due: None, last: None, first: FIRST, answered: false }
    }
}

impl Restarts {
    /// Records that a process has ended which was started at that time.
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
        tracing::warn!(reason = end.as_str(), detail, next_in = ?wait, "the process that calls NVML has ended and will be restarted");
        self.last = Some((end, detail));
    }

    /// Records that a process which was started at that time has responded.
    pub(super) fn answered(&mut self, started: Instant) {
        self.answered = true;
        if started.elapsed() >= WELL {
            self.in_a_row = 0;
        }
    }

    /// Whether another process may be started now.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }

    /// Why no process is running.
    pub(super) fn error(&self) -> GpuError {
        match &self.last {
            Some((WorkerEnd::Hung, _)) => GpuError::Timeout,
            Some((end, detail)) => GpuError::Worker { end: *end, detail: detail.clone() },
            None => GpuError::Worker { end: WorkerEnd::NotStarted, detail: "was not started".to_owned() },
        }
    }

    /// How many processes have ended, by reason.
    pub(super) fn ends(&self) -> WorkerEnds {
        self.ends
    }

    /// Removes the waits, for tests.
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
        restarts.note((WorkerEnd::Exited, "exited with status 3".to_owned()), Some(Instant::now()));
        restarts.note((WorkerEnd::Signal, "was killed by signal 11".to_owned()), Some(Instant::now()));
        assert!(!restarts.is_due());
        assert_eq!(restarts.ends(), [0, 1, 1, 0, 0]);
        assert_eq!(restarts.error().to_string(), "the process that calls NVML was killed by signal 11");
    }
}
