//! Asks the process that calls NVML, gives up when it does not answer in time, and starts another when it is no more.
//!
//! While a call hangs its process is asked nothing more, and its late answer is thrown away, but for the events in it: the
//! figures are of an instant gone by. After a while it is killed and another takes its place. A process whose call hangs in the
//! kernel can't be killed before that returns: hung calls cost two processes at most. One that ends by itself, crashes or answers
//! nonsense is replaced as well, after a wait that doubles each time.

use std::time::{Duration, Instant};

use super::GpuError;
use super::message::{Answered, Asked, LineError, Question};
use super::process::{Launch, Process};
use super::reading::{Reading, XidEvent};
use super::restarts::Restarts;
use super::session::EVENTS_A_ROUND;
use crate::sample::gpu::{WorkerEnd, WorkerEnds};

/// How many processes there may be: the one in use, and one that could not be killed yet.
const PROCESSES: usize = 2;

/// Processes that call NVML.
pub(super) struct Watchdog {
    launch: Launch,
    /// How long an answer is waited for.
    deadline: Duration,
    /// How long a question may stay unanswered before its process is given up.
    patience: Duration,
    in_use: Option<InUse>,
    /// Killed, and not gone yet.
    dying: Vec<Process>,
    restarts: Restarts,
    /// Questions asked so far.
    asked: u64,
    /// Events of answers that came too late.
    late_xids: Vec<XidEvent>,
}

struct InUse {
    process: Process,
    started: Instant,
    open: Option<Open>,
}

/// A question without an answer.
#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    since: Instant,
    /// It is the one that was asked last, and not one before that.
    newest: bool,
}

/// No answer will come, and why.
type Lost = (WorkerEnd, String);

impl Watchdog {
    /// Asks processes that are started so, waits so long for an answer, and has so much patience with each question.
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

    /// Asks, without waiting.
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

    /// The answer to the question just asked.
    pub(super) fn answer(&mut self) -> Result<Reading, GpuError> {
        let Some(in_use) = &mut self.in_use else { return Err(self.restarts.error()) };
        if in_use.open.is_none_or(|open| !open.newest) {
            // It is still at an earlier question.
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

    /// How many processes are no more, by reason.
    pub(super) fn ends(&self) -> WorkerEnds {
        self.restarts.ends()
    }

    /// Looks whether a late answer has come, or the end.
    fn look(&mut self) {
        let Some(in_use) = &mut self.in_use else { return };
        match in_use.receive(Duration::ZERO) {
            Ok(None) => {
                if in_use.open.is_some_and(|open| open.since.elapsed() >= self.patience) {
                    let detail = format!("left a question without an answer for {:?}", self.patience);
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

    /// The process in use can't be talked to any more.
    fn lost(&mut self, error: &LineError) {
        let Some(in_use) = &mut self.in_use else { return };
        let lost = match error {
            LineError::Closed => in_use.process.end(),
            error => (WorkerEnd::Nonsense, format!("can't be understood: {}", crate::sample::chain(error))),
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
    /// The answer to the open question. One that nobody asked for is nonsense.
    fn receive(&mut self, wait: Duration) -> Result<Option<Answered>, LineError> {
        let Some(answered) = self.process.line.receive::<Answered>(Some(wait))? else { return Ok(None) };
        match self.open.take() {
            Some(open) if open.number == answered.number => Ok(Some(answered)),
            _ => Err(LineError::Nonsense),
        }
    }
}

/// What tests need to see and to change.
#[cfg(test)]
impl Watchdog {
    /// How many processes there are, hung ones included.
    pub(super) fn processes(&mut self) -> usize {
        self.dying.retain_mut(|process| !process.is_gone());
        self.dying.len() + usize::from(self.in_use.is_some())
    }

    /// Another patience, for tests of what hangs and what only is slow; then no restart has to wait.
    pub(super) fn set_patience(&mut self, deadline: Duration, patience: Duration) {
        (self.deadline, self.patience) = (deadline, patience);
        self.restarts.forget_waits();
    }

    /// Waits until every call that hung has returned.
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
