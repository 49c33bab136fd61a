//! Ctrl-C and SIGTERM: for whoever has taken them over, one at a time; for nobody, they end this process as ever.
//!
//! A process can set its handler once, and `cargo xtask ci` runs several verbs that want one, each after the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// As shells say of a process that Ctrl-C ended.
const ENDED_BY_INTERRUPT: i32 = 130;

static SEEN: AtomicBool = AtomicBool::new(false);
static TAKEN: Mutex<Taken> = Mutex::new(Taken { handler: false, by: None });

struct Taken {
    /// The handler is set, which lasts until the process ends.
    handler: bool,
    by: Option<Sender<()>>,
}

/// While this is there, an interrupt is its owner's.
pub struct Interrupts(Receiver<()>);

impl Interrupts {
    /// From now on; an error where somebody has them already.
    pub fn take_over() -> Result<Self> {
        let (interrupt, interrupts) = mpsc::channel();
        let mut taken = taken();
        ensure!(taken.by.is_none(), "Ctrl-C is taken over already");
        if !taken.handler {
            ctrlc::set_handler(hand_on).context("cannot take over Ctrl-C")?;
            taken.handler = true;
        }
        taken.by = Some(interrupt);
        Ok(Self(interrupts))
    }

    /// Waits so long at most; true where somebody interrupted.
    pub fn within(&self, time: Duration) -> bool {
        // The sender lives as long as this does: an error is the time that is up.
        self.0.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        taken().by = None;
    }
}

/// An owner was interrupted, at any time.
pub fn seen() -> bool {
    SEEN.load(Ordering::Relaxed)
}

fn hand_on() {
    match &taken().by {
        Some(owner) => {
            SEEN.store(true, Ordering::Relaxed);
            let _already_ending = owner.send(());
        }
        None => std::process::exit(ENDED_BY_INTERRUPT),
    }
}

fn taken() -> MutexGuard<'static, Taken> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[test]
    fn one_after_the_other_takes_over_what_interrupts_this_process() -> Result<()> {
        for signal in [Signal::INT, Signal::TERM] {
            let interrupts = Interrupts::take_over()?;
            assert!(!interrupts.within(Duration::ZERO));
            assert!(Interrupts::take_over().is_err(), "two at a time");
            kill_process(getpid(), signal)?;
            assert!(interrupts.within(Duration::from_mins(1)));
            assert!(seen());
        }
        Ok(())
    }
}
