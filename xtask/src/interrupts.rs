//! Ctrl-C and SIGTERM. At most one owner at a time receives them; if there is no owner, they end this process as usual.
//!
//! A process can set its handler only once, and `cargo xtask ci` runs several verbs one after the other that need one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The exit status that shells report for a process that Ctrl-C ended.
const ENDED_BY_INTERRUPT: i32 = 130;

static SEEN: AtomicBool = AtomicBool::new(false);
static TAKEN: Mutex<Taken> = Mutex::new(Taken { handler: false, by: None });

struct Taken {
    /// Whether the handler is set. It stays set until the process ends.
    handler: bool,
    by: Option<Sender<()>>,
}

/// While this value exists, its owner receives the interrupts.
pub struct Interrupts(Receiver<()>);

impl Interrupts {
    /// Receives interrupts from now on. An error if somebody else owns them.
    pub fn take_over() -> Result<Self> {
        let (interrupt, interrupts) = mpsc::channel();
        let mut taken = taken();
        ensure!(taken.by.is_none(), "Ctrl-C already has a handler");
        if !taken.handler {
            ctrlc::set_handler(hand_on).context("cannot set a handler for Ctrl-C")?;
            taken.handler = true;
        }
        taken.by = Some(interrupt);
        Ok(Self(interrupts))
    }

    /// Waits at most this long. Returns true if there was an interrupt.
    pub fn within(&self, time: Duration) -> bool {
        // The sender lives as long as this value, so an error means that the time is up.
        self.0.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        taken().by = None;
    }
}

/// Whether an owner has received an interrupt since the process started.
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
