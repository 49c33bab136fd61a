//! Sends requests to the process that calls NVML, gives up when it does not respond in time, and starts another when it
//! has ended.
//!
//! While a call hangs, its process gets no further requests. Its late response is discarded except for the events in
//! it, because its values are out of date. After some time the process is killed and replaced. If its call hangs in the
//! kernel, a process can't be killed before the call returns: therefore hung calls occupy at most two processes. A
//! process that exits, crashes or sends an invalid message is replaced as well, after a wait that doubles each time.

use std::time::{Duration, Instant};

use super::GpuError;
use super::message::{Answered, Asked, LineError, Question};
use super::process::{Launch, Process};
use super::reading::{Reading, XidEvent};
use super::restarts::Restarts;
use super::session::EVENTS_A_ROUND;
use crate::sample::gpu::{WorkerEnd, WorkerEnds};

/// The maximum number of processes: the one in use, and one that could not be killed yet.
const PROCESSES: usize = 2;

/// Processes that call NVML.
pub(super) struct Watchdog {
    launch: Launch,
    /// How long to wait for a response.
    deadline: Duration,
    /// How long a request may stay without a response before its process is given up.
    patience: Duration,
    in_use: Option<InUse>,
    /// Processes that were killed and have not ended yet.
    dying: Vec<Process>,
    restarts: Restarts,
    /// Number of requests so far.
    asked: u64,
    /// Events in responses that came too late.
    late_xids: Vec<XidEvent>,
}

struct InUse {
    process: Process,
    started: Instant,
    open: Option<Open>,
}

/// A request without a response.
#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    since: Instant,
    /// Whether it is the latest request, and not an earlier one.
    newest: bool,
}

/// How the process ended, so that no response will come.
type Lost = (WorkerEnd, String);

impl Watchdog {
    /// Starts processes with this configuration, waits this long for a response, and has this much patience with each
    /// request.
    pub(super) fn new(launch: Launch, deadline: Duration, patience: Duration) -> Self {
        Self {
            launch,
            deadline,
            patience,
            in_use: None,
            dying: Vec::new(),
            restarts: Restarts::default(),
            asked: 0,
            late_xids: Vec::new(),
        }
    }

    /// Sends a request without waiting.
    pub(super) fn ask(&mut self, question: Question) {
        self.dying.retain_mut(|process| !process.is_gone());
        self.look();
        if self.in_use.is_none() && self.dying.len() < PROCESSES && self.restarts.is_due() {
            self.start();
        }
        let Some(in_use) = &mut self.in_use else { return };
        if let Some(open) = &mut in_use.open {
            open.newest = false;
            return;
        }
        self.asked += 1;
        let number = self.asked;
        in_use.open = Some(Open { number, since: Instant::now(), newest: true });
        if let Err(error) = in_use.process.line.send(&Asked { number, question }) {
            self.lost(&error);
        }
    }

    /// Returns the response to the latest request.
    pub(super) fn answer(&mut self) -> Result<Reading, GpuError> {
        let Some(in_use) = &mut self.in_use else { return Err(self.restarts.error()) };
        if in_use.open.is_none_or(|open| !open.newest) {
            // The process still handles an earlier request.
            return Err(GpuError::Timeout);
        }
        match in_use.receive(self.deadline) {
            Ok(None) => Err(GpuError::Timeout),
            Ok(Some(answered)) => {
                self.restarts.answered(in_use.started);
                let reading = answered.answer?;
                Ok(self.with_late_xids(reading))
            }
            Err(error) => {
                self.lost(&error);
                Err(self.restarts.error())
            }
        }
    }

    /// How many processes have ended, by reason.
    pub(super) fn ends(&self) -> WorkerEnds {
        self.restarts.ends()
    }

    /// Checks whether a late response has come, or the process has ended.
    fn look(&mut self) {
        let Some(in_use) = &mut self.in_use else { return };
        match in_use.receive(Duration::ZERO) {
            Ok(None) => {
                if in_use.open.is_some_and(|open| open.since.elapsed() >= self.patience) {
                    let detail = format!("did not respond for {:?}", self.patience);
                    self.end((WorkerEnd::Hung, detail));
                }
            }
            Ok(Some(answered)) => {
                let room = EVENTS_A_ROUND.saturating_sub(self.late_xids.len());
                self.late_xids.extend(answered.answer.into_iter().flat_map(|reading| reading.xids).take(room));
            }
            Err(error) => self.lost(&error),
        }
    }

    fn with_late_xids(&mut self, mut reading: Reading) -> Reading {
        if !self.late_xids.is_empty() {
            let newer = std::mem::replace(&mut reading.xids, std::mem::take(&mut self.late_xids));
            reading.xids.extend(newer);
        }
        reading
    }

    fn start(&mut self) {
        match self.launch.start() {
            Ok(process) => self.in_use = Some(InUse { process, started: Instant::now(), open: None }),
            Err(error) => self.restarts.note((WorkerEnd::NotStarted, format!("could not be started: {error}")), None),
        }
    }

    /// The process in use can no longer be communicated with.
    fn lost(&mut self, error: &LineError) {
        let Some(in_use) = &mut self.in_use else { return };
        let lost = match error {
            LineError::Closed => in_use.process.end(),
            error => (WorkerEnd::Nonsense, format!("sent an invalid message: {}", crate::sample::chain(error))),
        };
        self.end(lost);
    }

    fn end(&mut self, lost: Lost) {
        let Some(mut in_use) = self.in_use.take() else { return };
        self.restarts.note(lost, Some(in_use.started));
        in_use.process.kill();
        if !in_use.process.is_gone() {
            self.dying.push(in_use.process);
        }
    }
}

impl InUse {
    /// Receives the response to the open request. A response without a request is invalid.
    fn receive(&mut self, wait: Duration) -> Result<Option<Answered>, LineError> {
        let Some(answered) = self.process.line.receive::<Answered>(Some(wait))? else { return Ok(None) };
        match self.open.take() {
            Some(open) if open.number == answered.number => Ok(Some(answered)),
            _ => Err(LineError::Nonsense),
        }
    }
}

/// What tests need to inspect and change.
#[cfg(test)]
impl Watchdog {
    /// The number of processes, including hung ones.
    pub(super) fn processes(&mut self) -> usize {
        self.dying.retain_mut(|process| !process.is_gone());
        self.dying.len() + usize::from(self.in_use.is_some())
    }

    /// Changes deadline and patience, for tests of hanging and slow calls. Restarts then need no wait.
    pub(super) fn set_patience(&mut self, deadline: Duration, patience: Duration) {
        (self.deadline, self.patience) = (deadline, patience);
        self.restarts.forget_waits();
    }

    /// Waits until every hung call has returned.
    pub(super) fn wait_for_late_answers(&mut self) {
        let late = Duration::from_mins(2);
        while self.dying.iter_mut().any(|process| !process.is_gone()) {
            std::thread::yield_now();
        }
        if let Some(in_use) = self.in_use.as_mut().filter(|in_use| in_use.open.is_some()) {
            let answered = in_use.receive(late).unwrap().unwrap();
            self.late_xids.extend(answered.answer.into_iter().flat_map(|reading| reading.xids));
        }
    }
}
