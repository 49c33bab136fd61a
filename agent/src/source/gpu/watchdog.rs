//! Asks the thread that calls NVML, and gives up when it does not answer in time.
//!
//! While a call hangs its thread is asked nothing more, and its late answer is thrown away, but for the events in it: the
//! figures are of an instant gone by. After a while one other thread takes its place, since a driver may serve a newcomer
//! while an old call never returns. If that one hangs, too, no third is started: hung calls cost two threads at most.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::Duration;

use super::GpuError;
use super::reading::{Reading, XidEvent};
use super::session::EVENTS_A_ROUND;
use super::worker::{self, Answer, Question, Worker};

/// Questions that a thread must leave unanswered before another is tried: initialising takes up to 6 s on a node with
/// eight GPUs, and a thread that only is slow needs no rival.
const PATIENCE: u32 = 3;

/// How many threads there may be: the one in use, and one that hangs.
const THREADS: usize = 2;

/// Threads that call NVML. The last one is in use.
pub(super) struct Watchdog {
    path: Option<Arc<Path>>,
    listen: Duration,
    deadline: Duration,
    threads: Vec<Thread>,
    /// Events of answers that came too late.
    late_xids: Vec<XidEvent>,
}

struct Thread {
    worker: Worker,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was asked that is not answered.
    Free,
    /// It was asked, and has since missed so many questions that it could not be asked.
    Busy { missed: u32 },
}

impl Watchdog {
    /// Asks the library at this path, or where nodes keep it, and waits this long for an answer.
    pub(super) fn new(path: Option<Arc<Path>>, listen: Duration, deadline: Duration) -> Self {
        Self { path, listen, deadline, threads: Vec::new(), late_xids: Vec::new() }
    }

    /// Asks, without waiting.
    pub(super) fn ask(&mut self, question: Question) {
        for thread in &mut self.threads {
            thread.look(&mut self.late_xids);
        }
        // Who was given up and is free again is not needed: without channels its thread ends.
        let in_use = self.threads.pop();
        self.threads.retain(|thread| thread.state != State::Free);
        self.threads.extend(in_use);

        let hangs = |thread: &Thread| matches!(thread.state, State::Busy { missed } if missed >= PATIENCE);
        if self.threads.last().is_none_or(hangs) && self.threads.len() < THREADS {
            self.start();
        }
        if let Some(thread) = self.threads.last_mut().filter(|thread| thread.state == State::Free) {
            match thread.worker.questions.try_send(question) {
                Ok(()) => thread.state = State::Busy { missed: 0 },
                // It panicked, which was logged. The next question starts another.
                Err(_) => drop(self.threads.pop()),
            }
        }
    }

    /// The answer to the question just asked.
    pub(super) fn answer(&mut self) -> Answer {
        let Some(thread) = self.threads.last_mut() else { return Err(GpuError::NoThread) };
        if thread.state != (State::Busy { missed: 0 }) {
            // It is still at an earlier question.
            return Err(GpuError::Timeout);
        }
        let answer = match thread.worker.answers.recv_timeout(self.deadline) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => return Err(GpuError::Timeout),
            Err(RecvTimeoutError::Disconnected) => {
                self.threads.pop();
                return Err(GpuError::NoThread);
            }
        };
        thread.state = State::Free;
        answer.map(|reading| self.with_late_xids(reading))
    }

    /// How many threads there are, hung ones included.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Another patience, for tests of what hangs and what only is slow.
    #[cfg(test)]
    pub(super) fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Waits until every call that hung has returned.
    #[cfg(test)]
    pub(super) fn wait_for_late_answers(&mut self) {
        for thread in self.threads.iter_mut().filter(|thread| thread.state != State::Free) {
            let answer = thread.worker.answers.recv().unwrap();
            thread.take_late(answer, &mut self.late_xids);
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
        if !self.threads.is_empty() {
            tracing::warn!("a call of NVML hangs; another thread takes over");
        }
        match worker::start(self.path.clone(), self.listen) {
            Ok(worker) => self.threads.push(Thread { worker, state: State::Free }),
            Err(error) => tracing::warn!(%error, "no thread for NVML"),
        }
    }
}

impl Thread {
    /// Looks whether a late answer has come.
    fn look(&mut self, late_xids: &mut Vec<XidEvent>) {
        let State::Busy { missed } = self.state else { return };
        match self.worker.answers.try_recv() {
            Ok(answer) => self.take_late(answer, late_xids),
            // Found out when it is asked.
            Err(TryRecvError::Disconnected) => self.state = State::Free,
            Err(TryRecvError::Empty) => self.state = State::Busy { missed: missed + 1 },
        }
    }

    fn take_late(&mut self, answer: Answer, late_xids: &mut Vec<XidEvent>) {
        let room = EVENTS_A_ROUND.saturating_sub(late_xids.len());
        late_xids.extend(answer.into_iter().flat_map(|reading| reading.xids).take(room));
        self.state = State::Free;
    }
}
