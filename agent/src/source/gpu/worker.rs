//! The thread that calls NVML: initialises, reads a round when asked, listens to events in between.
//!
//! A call can hang for good. Then this thread does, and nobody else: whoever asks gives up after a deadline
//! (`watchdog.rs`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::reading::Reading;
use super::session::Session;
use super::{GpuError, library};

/// What is asked of the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// A round of calls.
    Read,
    /// The same, after initialising anew: devices may have come back.
    ReadAnew,
}

/// What it answers.
pub(super) type Answer = Result<Reading, GpuError>;

/// Our ends of the channels to a thread. Dropping them ends it, once no call hangs.
pub(super) struct Worker {
    pub(super) questions: SyncSender<Question>,
    pub(super) answers: Receiver<Answer>,
}

/// Starts a thread that calls the library at this path, or where nodes keep it, and waits this long for events at a time.
pub(super) fn start(path: Option<Arc<Path>>, listen: Duration) -> io::Result<Worker> {
    // One question at a time is asked.
    let (questions, asked) = sync_channel(1);
    let (answered, answers) = sync_channel(1);
    thread::Builder::new().name("nvml".to_owned()).spawn(move || run(path.as_deref(), listen, &asked, &answered))?;
    Ok(Worker { questions, answers })
}

/// What one initialisation came to.
enum Ended {
    /// Nobody asks any more.
    ForGood,
    /// Initialise again, then answer the question that is still open.
    ToBeginAgain,
}

fn run(path: Option<&Path>, listen: Duration, asked: &Receiver<Question>, answered: &SyncSender<Answer>) {
    let mut open = false;
    loop {
        if !open && asked.recv().is_err() {
            return;
        }
        // A driver that fails at once after it was initialised would be initialised for ever within one question.
        let attempts = if open { 1 } else { 2 };
        open = false;
        match initialise(path) {
            Ok(nvml) => match serve(&nvml, attempts, listen, asked, answered) {
                Ended::ForGood => return,
                Ended::ToBeginAgain => open = true,
            },
            Err(error) => {
                if answered.send(Err(error)).is_err() {
                    return;
                }
            }
        }
    }
}

/// Answers questions until there are none or the driver no longer answers.
fn serve(
    nvml: &Nvml,
    attempts: u32,
    listen: Duration,
    asked: &Receiver<Question>,
    answered: &SyncSender<Answer>,
) -> Ended {
    let mut session = match Session::new(nvml) {
        Ok(session) => session,
        Err(error) => {
            let sent = answered.send(Err(GpuError::nvml("list the devices", error)));
            return if sent.is_ok() { wait_for_question(asked) } else { Ended::ForGood };
        }
    };
    let mut attempts = attempts;
    loop {
        match session.read() {
            Ok(reading) => {
                if answered.send(Ok(reading)).is_err() {
                    return Ended::ForGood;
                }
            }
            // It was well before: the driver may have been loaded anew beneath us.
            Err(error) if attempts > 1 => {
                tracing::info!(%error, "the driver no longer answers; NVML is initialised again");
                return Ended::ToBeginAgain;
            }
            Err(error) => {
                let sent = answered.send(Err(GpuError::nvml("read the devices", error)));
                return if sent.is_ok() { wait_for_question(asked) } else { Ended::ForGood };
            }
        }
        attempts = 2;
        match next_question(&mut session, listen, asked) {
            Some(Question::Read) => {}
            Some(Question::ReadAnew) => return Ended::ToBeginAgain,
            None => return Ended::ForGood,
        }
    }
}

/// Listens to events until a question comes.
fn next_question(session: &mut Session<'_>, listen: Duration, asked: &Receiver<Question>) -> Option<Question> {
    loop {
        match asked.try_recv() {
            Ok(question) => return Some(question),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        if !session.listen(listen) {
            // No events to wait for, or a wait that ends at once: then wait for the question itself.
            match asked.recv_timeout(listen) {
                Ok(question) => return Some(question),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

fn wait_for_question(asked: &Receiver<Question>) -> Ended {
    asked.recv().map_or(Ended::ForGood, |_| Ended::ToBeginAgain)
}

fn initialise(given: Option<&Path>) -> Result<Nvml, GpuError> {
    let mut not_loaded: Option<(PathBuf, NvmlError)> = None;
    for path in library::candidates(given) {
        match Nvml::builder().lib_path(path.as_os_str()).init() {
            Ok(nvml) => return Ok(nvml),
            // The first says most: it is the one that was asked for, or the loader's own search.
            Err(error @ NvmlError::LibloadingError(_)) => {
                not_loaded.get_or_insert((path, error));
            }
            Err(error) => return Err(GpuError::nvml("initialise", error)),
        }
    }
    let (path, error) = not_loaded.unwrap_or_else(|| (PathBuf::new(), NvmlError::LibraryNotFound));
    Err(GpuError::Library { path, source: error })
}
