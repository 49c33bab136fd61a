//! Progress of a verb that takes minutes: the current step, what it does, and how long it may take.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often a progress line is printed during a step that takes longer.
const EVERY: Duration = Duration::from_secs(10);

/// The steps of a verb.
pub(crate) struct Steps {
    verb: &'static str,
    done: usize,
    all: usize,
}

impl Steps {
    /// A verb with this many steps.
    pub(crate) fn new(verb: &'static str, all: usize) -> Self {
        Self { verb, done: 0, all }
    }

    /// Skips steps that have nothing to do.
    pub(crate) fn skip(&mut self, steps: usize) {
        self.done += steps;
    }

    /// Prints what the next step does and how long it may take, then runs it. Prints a line every ten seconds while it
    /// runs.
    pub(crate) fn step<T>(&mut self, what: &str, takes: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.done += 1;
        let step = format!("{}: step {} of {}: {what}", self.verb, self.done, self.all);
        println!("{step} ({takes})");
        repeated(EVERY, |so_far| println!("{step}: {} s so far ({takes})", so_far.as_secs()), work)
    }
}

/// Runs the work. Meanwhile, calls `report` with the elapsed time after each `every`.
fn repeated<T>(every: Duration, report: impl Fn(Duration) + Send, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let (working, worked) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Nothing is ever sent: the channel is closed when the work has ended.
            while worked.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                report(started.elapsed());
            }
        });
        let outcome = work();
        drop(working);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_goes_on_is_reported_until_it_ends() {
        let (report, reports) = mpsc::channel();
        let report = move |so_far| {
            let _the_end_was_reached = report.send(so_far);
        };
        let outcome = repeated(Duration::from_millis(1), report, || {
            let two = [reports.recv().unwrap(), reports.recv().unwrap()];
            assert!(two[0] < two[1]);
            7
        });
        assert_eq!(outcome, 7);
        // Reports that were sent before the end may still be queued; the sender is gone.
        while reports.try_recv().is_ok() {}
        assert_eq!(reports.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn steps_are_counted_and_a_failure_is_handed_on() {
        let mut steps = Steps::new("run", 2);
        assert_eq!(steps.step("one", "soon", || Ok(1)).unwrap(), 1);
        let failed = steps.step("two", "soon", || anyhow::bail!("no"));
        assert_eq!(failed.map(|()| 2).unwrap_err().to_string(), "no");
        assert_eq!(steps.done, steps.all);
    }
}
