//! The process that calls NVML: initialises, reads a round when asked, listens to events in between.
//!
//! A call can hang for good, and the library can end the process that it is in. Then this process does, and nothing else: the
//! agent gives up after a deadline, ends it and starts another (`watchdog.rs`). It is this same program, without capabilities,
//! and has nothing of the agent's but one end of a socket, which it finds as its standard input.

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

/// How often one question may initialise: a driver that fails at once after it was initialised would be initialised for ever.
const ATTEMPTS: u32 = 2;

/// By this name people see the process.
const NAME: &std::ffi::CStr = c"mcad-nvml";

/// Why a process for NVML could not begin.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Somebody else than the agent started it.
    #[error("standard input is not the agent's socket: the agent itself starts `nvml-worker`, nobody else does")]
    NotOurs,
    /// It could not be made to end with the agent.
    #[error("ask to be ended with the agent")]
    DeathSignal(#[source] io::Error),
    /// Its rights could not be given up.
    #[error("give up all rights")]
    Rights(#[from] RightsError),
    /// The socket could not be moved away from the library's sight.
    #[error("take the socket from standard input")]
    Socket(#[source] io::Error),
}

/// Runs this process as the one that calls NVML, until the agent is gone. It calls the library at this path, or where nodes keep it, and waits this
/// long for events at a time.
pub fn serve_agent(library: Option<&Path>, events: Duration, sandbox: Sandbox) -> Result<(), WorkerError> {
    let stream = socket()?;
    // The kernel ends us with the agent's thread that started us, also while a call hangs.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| WorkerError::DeathSignal(error.into()))?;
    rights::give_up()?;
    if sandbox == Sandbox::On {
        let confined = sandbox::confine_worker(library);
        // The agent has said what can't be had here.
        tracing::debug!(?confined, "the process that calls NVML is confined");
    }
    // A name is for people.
    let _ = rustix::thread::set_name(NAME);
    // If the agent was gone before that, its end of the socket is closed, which the first read finds.
    run(Line::new(stream), library, events);
    Ok(())
}

/// The agent's socket, which was standard input. A library that reads from there finds the end.
fn socket() -> Result<UnixStream, WorkerError> {
    let stdin = io::stdin();
    rustix::net::sockopt::socket_type(stdin.as_fd()).map_err(|_| WorkerError::NotOurs)?;
    let stream = stdin.as_fd().try_clone_to_owned().map_err(WorkerError::Socket)?;
    let nothing = std::fs::File::open("/dev/null").map_err(WorkerError::Socket)?;
    rustix::stdio::dup2_stdin(nothing).map_err(|error| WorkerError::Socket(error.into()))?;
    Ok(stream.into())
}

/// The same on any line: answers questions until the other side is gone.
pub(super) fn run(line: Line, library: Option<&Path>, events: Duration) {
    let mut agent = Agent { line, number: 0, events };
    let mut attempts = ATTEMPTS;
    // Nothing else ends it.
    while let Ok(next) = answer_questions(&mut agent, library, attempts) {
        attempts = next;
    }
}

/// The agent, as this process sees it.
struct Agent {
    line: Line,
    /// The question that is to be answered.
    number: u64,
    /// How long one wait for events lasts.
    events: Duration,
}

/// The agent is gone.
struct Gone;

impl Agent {
    /// Waits for a question, this long. `None`: none came.
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

/// One question that begins an initialisation, and all that can be answered with it. Returns how often the next may initialise.
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

/// What one initialisation came to.
enum Ended {
    /// An error was the answer. The next question begins with an initialisation.
    Answered,
    /// Initialise again, then answer the question that is still open.
    ToBeginAgain,
}

/// Answers questions until the agent is gone or the driver no longer answers.
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
            // It was well before: the driver may have been loaded anew beneath us.
            Err(error) if attempts > 1 => {
                tracing::info!(%error, "the driver no longer answers; NVML is initialised again");
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

/// Listens to events until a question comes.
fn next_question(session: &mut Session<'_>, agent: &mut Agent) -> Result<Question, Gone> {
    loop {
        if let Some(question) = agent.question(Some(Duration::ZERO))? {
            return Ok(question);
        }
        if !session.listen(agent.events) {
            // No events to wait for, or a wait that ends at once: then wait for the question itself.
            if let Some(question) = agent.question(Some(agent.events))? {
                return Ok(question);
            }
        }
    }
}

/// Why a call gave nothing that others could rest on.
#[derive(Debug, thiserror::Error)]
enum CallError {
    /// There is no library, or not one for this machine.
    #[error("load {}", path.display())]
    Library {
        /// What was tried first.
        path: PathBuf,
        /// What the loader said.
        source: NvmlError,
    },
    /// A call failed that all others rest on.
    #[error("ask NVML to {step}")]
    Nvml {
        /// What was being done.
        step: &'static str,
        /// What NVML said.
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
            // The first says most: it is the one that was asked for, or the loader's own search.
            Err(error @ NvmlError::LibloadingError(_)) => {
                not_loaded.get_or_insert((path, error));
            }
            Err(error) => return Err(CallError::nvml("initialise", error)),
        }
    }
    let (path, error) = not_loaded.unwrap_or_else(|| (PathBuf::new(), NvmlError::LibraryNotFound));
    Err(CallError::Library { path, source: error })
}
