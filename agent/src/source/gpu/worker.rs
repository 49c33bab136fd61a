//! The process that calls NVML: it initialises NVML, reads a round on request, and listens to events in between.
//!
//! A call can hang forever, and the library can end the process that it runs in. That affects only this process: the
//! agent gives up after a deadline, ends it and starts another (`watchdog.rs`). It runs the same program as the agent,
//! without capabilities, and shares with the agent only one end of a socket, which is its standard input.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::library;
use super::message::{Answer, Answered, Asked, Cause, Failure, Line, LineError, Question};
use super::session::Session;
use crate::rights::{self, RightsError};
use crate::sandbox;
use crate::sandbox::Sandbox;

/// How often one request may initialise NVML: otherwise a driver that fails right after each initialisation would be
/// initialised forever.
const ATTEMPTS: u32 = 2;

/// The process name in ps.
const NAME: &std::ffi::CStr = c"mcad-nvml";

/// Why a process for NVML could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It was not started by the agent.
    #[error("standard input is not the agent's socket; only the agent starts `nvml-worker`")]
    NotOurs,
    /// It could not be made to end with the agent.
    #[error("cannot set the signal that ends this process with the agent")]
    DeathSignal(#[source] io::Error),
    /// Its rights could not be dropped.
    #[error("cannot drop all rights")]
    Rights(#[from] RightsError),
    /// The socket could not be moved away from standard input, where the library could find it.
    #[error("cannot move the socket from standard input")]
    Socket(#[source] io::Error),
}

/// Runs this process as the one that calls NVML, until the agent has ended. It loads the library at this path, or from
/// the usual places, and waits this long for events at a time.
pub fn serve_agent(library: Option<&Path>, events: Duration, sandbox: Sandbox) -> Result<(), WorkerError> {
    let stream = socket()?;
    // The kernel kills this process when the agent's thread that started it ends, even while a call hangs.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| WorkerError::DeathSignal(error.into()))?;
    rights::give_up()?;
    if sandbox == Sandbox::On {
        let confined = sandbox::confine_worker(library);
        // The agent has already logged what is not possible here.
        tracing::debug!(?confined, "the process that calls NVML is restricted");
    }
    // The name is only for display.
    let _ = rustix::thread::set_name(NAME);
    // If the agent ended before that, its side of the socket is closed, which the first read notices.
    run(Line::new(stream), library, events);
    Ok(())
}

/// The agent's socket, which was standard input. A library that reads from standard input then finds the end of file.
fn socket() -> Result<UnixStream, WorkerError> {
    let stdin = io::stdin();
    rustix::net::sockopt::socket_type(stdin.as_fd()).map_err(|_| WorkerError::NotOurs)?;
    let stream = stdin.as_fd().try_clone_to_owned().map_err(WorkerError::Socket)?;
    let nothing = std::fs::File::open("/dev/null").map_err(WorkerError::Socket)?;
    rustix::stdio::dup2_stdin(nothing).map_err(|error| WorkerError::Socket(error.into()))?;
    Ok(stream.into())
}

/// The same on any socket: handles requests until the other side is gone.
pub(super) fn run(line: Line, library: Option<&Path>, events: Duration) {
    let mut agent = Agent { line, number: 0, events };
    let mut attempts = ATTEMPTS;
    // Only the end of the agent ends the loop.
    while let Ok(next) = answer_questions(&mut agent, library, attempts) {
        attempts = next;
    }
}

/// The agent, as this process sees it.
struct Agent {
    line: Line,
    /// The number of the request to respond to.
    number: u64,
    /// How long one wait for events lasts.
    events: Duration,
}

/// The agent has ended.
struct Gone;

impl Agent {
    /// Waits this long for a request. `None` if none came.
    fn question(&mut self, wait: Option<Duration>) -> Result<Option<Question>, Gone> {
        let asked = self.line.receive::<Asked>(wait).map_err(|_| Gone)?;
        Ok(asked.map(|asked| {
            self.number = asked.number;
            asked.question
        }))
    }

    fn answer(&mut self, answer: Answer) -> Result<(), Gone> {
        match self.line.send(&Answered { number: self.number, answer }) {
            Err(error @ LineError::TooLong) => {
                let answer = Err(Failure::new(Cause::Driver, error.to_string()));
                self.line.send(&Answered { number: self.number, answer }).map_err(|_| Gone)
            }
            sent => sent.map_err(|_| Gone),
        }
    }
}

/// Handles one request that needs an initialisation, and all later ones that this initialisation can serve. Returns how
/// often the next request may initialise.
fn answer_questions(agent: &mut Agent, library: Option<&Path>, mut attempts: u32) -> Result<u32, Gone> {
    while agent.question(None)?.is_none() {}
    loop {
        let nvml = match initialise(library) {
            Ok(nvml) => nvml,
            Err(error) => return agent.answer(Err(error.failure())).map(|()| ATTEMPTS),
        };
        match serve(&nvml, attempts, agent)? {
            Ended::Answered => return Ok(1),
            Ended::ToBeginAgain => attempts = 1,
        }
    }
}

/// How one initialisation ended.
enum Ended {
    /// The response was an error. The next request begins with an initialisation.
    Answered,
    /// Initialise again, then respond to the request that is still open.
    ToBeginAgain,
}

/// Handles requests until the agent has ended or the driver no longer responds.
fn serve(nvml: &Nvml, mut attempts: u32, agent: &mut Agent) -> Result<Ended, Gone> {
    let mut session = match Session::new(nvml) {
        Ok(session) => session,
        Err(error) => {
            agent.answer(Err(CallError::nvml("list the devices", error).failure()))?;
            return Ok(Ended::Answered);
        }
    };
    loop {
        match session.read() {
            Ok(reading) => agent.answer(Ok(reading))?,
            // It worked before: the driver may have been reloaded.
            Err(error) if attempts > 1 => {
                tracing::info!(%error, "the driver no longer responds; NVML is initialised again");
                return Ok(Ended::ToBeginAgain);
            }
            Err(error) => {
                agent.answer(Err(CallError::nvml("read the devices", error).failure()))?;
                return Ok(Ended::Answered);
            }
        }
        attempts = ATTEMPTS;
        match next_question(&mut session, agent)? {
            Question::Read => {}
            Question::ReadAnew => return Ok(Ended::ToBeginAgain),
        }
    }
}

/// Listens to events until a request comes.
fn next_question(session: &mut Session<'_>, agent: &mut Agent) -> Result<Question, Gone> {
    loop {
        if let Some(question) = agent.question(Some(Duration::ZERO))? {
            return Ok(question);
        }
        if !session.listen(agent.events) {
            // There are no events to wait for, or each wait ends at once: then wait for the request itself.
            if let Some(question) = agent.question(Some(agent.events))? {
                return Ok(question);
            }
        }
    }
}

/// Why a call has no usable result.
#[derive(Debug, thiserror::Error)]
enum CallError {
    /// There is no library, or none for this architecture.
    #[error("cannot load {}", path.display())]
    Library {
        /// The path that was tried first.
        path: PathBuf,
        /// The error of the loader.
        source: NvmlError,
    },
    /// A call failed that all others depend on.
    #[error("NVML cannot {step}")]
    Nvml {
        /// What was attempted.
        step: &'static str,
        /// The error of NVML.
        source: NvmlError,
    },
}

impl CallError {
    fn nvml(step: &'static str, source: NvmlError) -> Self {
        Self::Nvml { step, source }
    }

    fn failure(&self) -> Failure {
        let cause = match self {
            Self::Library { .. } => Cause::NoLibrary,
            Self::Nvml { source: NvmlError::NoPermission, .. } => Cause::NotPermitted,
            Self::Nvml { source: NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch, .. } => Cause::NoDriver,
            Self::Nvml { .. } => Cause::Driver,
        };
        Failure::new(cause, crate::sample::chain(self))
    }
}

fn initialise(given: Option<&Path>) -> Result<Nvml, CallError> {
    let mut not_loaded: Option<(PathBuf, NvmlError)> = None;
    for path in library::candidates(given) {
        match Nvml::builder().lib_path(path.as_os_str()).init() {
            Ok(nvml) => return Ok(nvml),
            // The first error is the most useful: it is of the configured path, or of the loader's own search.
            Err(error @ NvmlError::LibloadingError(_)) => {
                not_loaded.get_or_insert((path, error));
            }
            Err(error) => return Err(CallError::nvml("initialise", error)),
        }
    }
    let (path, error) = not_loaded.unwrap_or_else(|| (PathBuf::new(), NvmlError::LibraryNotFound));
    Err(CallError::Library { path, source: error })
}
