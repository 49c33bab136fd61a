//! One process that calls NVML, seen from the agent: how it is started, how it is ended, and what became of it.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::message::Line;
use crate::sample::gpu::WorkerEnd;
use crate::sandbox::Sandbox;

/// This program, also where its file was replaced since it was started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// A process that has closed its socket, or was killed, is about to end. How long the kernel may take to say how.
const LAST_BREATH: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// It starts a process and waits.
const KEEPER_STACK_BYTES: usize = 256 * 1024;

/// How processes that call NVML are started.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// Whose subcommand `nvml-worker` it is. Absent: this program's.
    pub(super) program: Option<PathBuf>,
    /// Whether it confines itself.
    pub(super) sandbox: Sandbox,
    /// NVML's library. Absent: searched where nodes keep it.
    pub(super) library: Option<PathBuf>,
    /// How long one wait for events lasts.
    pub(super) events: Duration,
}

/// A process, and our end of the socket to it. Dropping it ends the process.
pub(super) struct Process {
    pub(super) line: Line,
    life: Life,
}

enum Life {
    Child {
        child: Child,
        /// Without it the thread that started the process ends, and with that the process.
        keeper: Option<SyncSender<Infallible>>,
    },
    /// Unit tests have no agent at hand: there a thread takes the process's place. It can't be killed, as a process can't be whose
    /// call hangs in the kernel.
    #[cfg(test)]
    Thread(std::thread::JoinHandle<()>),
}

impl Launch {
    /// Starts one.
    pub(super) fn start(&self) -> io::Result<Process> {
        let (ours, theirs) = UnixStream::pair()?;
        // Who does not read must not hold us up.
        ours.set_nonblocking(true)?;
        let life = self.life(theirs)?;
        Ok(Process { line: Line::new(ours), life })
    }

    #[cfg(test)]
    fn life(&self, theirs: UnixStream) -> io::Result<Life> {
        if self.program.is_some() {
            return self.child(theirs);
        }
        let (library, events) = (self.library.clone(), self.events);
        let work = move || super::worker::run(Line::new(theirs), library.as_deref(), events);
        std::thread::Builder::new().name("nvml".to_owned()).spawn(work).map(Life::Thread)
    }

    #[cfg(not(test))]
    fn life(&self, theirs: UnixStream) -> io::Result<Life> {
        self.child(theirs)
    }

    fn child(&self, theirs: UnixStream) -> io::Result<Life> {
        let program = self.program.as_deref().unwrap_or(Path::new(THIS_PROGRAM));
        let mut command = Command::new(program);
        command.arg0("mcad-agent");
        if let Some(library) = &self.library {
            command.arg("--nvml").arg(library);
        }
        if self.sandbox == Sandbox::Off {
            command.args(["--sandbox", "off"]);
        }
        command.arg("nvml-worker").arg("--events").arg(format!("{}ms", self.events.as_millis()));
        // The library's own words are not the report that `--once` prints.
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs))).stdout(Stdio::null());
        // Ctrl-C ends the agent, and the agent ends this one after its last report.
        command.process_group(0);
        kept(command)
    }
}

impl Process {
    /// Kills it, without waiting until it is gone: one whose call hangs in the kernel may never be.
    pub(super) fn kill(&mut self) {
        self.line.close();
        match &mut self.life {
            Life::Child { child, keeper } => {
                drop(keeper.take());
                // Where signals to others are refused (`sandbox`) this is, too.
                drop(child.kill());
            }
            #[cfg(test)]
            Life::Thread(_) => {}
        }
    }

    /// Whether it is gone, and leaves nothing behind.
    pub(super) fn is_gone(&mut self) -> bool {
        match &mut self.life {
            Life::Child { child, .. } => !matches!(child.try_wait(), Ok(None)),
            #[cfg(test)]
            Life::Thread(thread) => thread.is_finished(),
        }
    }

    /// What became of one that has closed its socket.
    pub(super) fn end(&mut self) -> (WorkerEnd, String) {
        match &mut self.life {
            Life::Child { child, .. } => match status(child) {
                Some(status) => of_status(status),
                None => (WorkerEnd::Nonsense, "has closed its socket and does not end".to_owned()),
            },
            #[cfg(test)]
            Life::Thread(_) => (WorkerEnd::Exited, "ended".to_owned()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if self.is_gone() {
            return;
        }
        // Who drops it may end at once, and is the only one who looks after it: it would stay as a zombie. One whose call hangs in the kernel
        // is not waited for any longer.
        match &mut self.life {
            Life::Child { child, .. } => drop(status(child)),
            #[cfg(test)]
            Life::Thread(_) => {}
        }
    }
}

/// Starts it from a thread of its own, which waits until nobody wants the process any more. The process asks the kernel to be killed when
/// that thread ends (`worker.rs`): so it can be ended by an agent that may send no signal.
fn kept(mut command: Command) -> io::Result<Life> {
    let (keeper, wanted) = mpsc::sync_channel::<Infallible>(1);
    let (started, start) = mpsc::sync_channel(1);
    thread::Builder::new().name("nvml-keeper".to_owned()).stack_size(KEEPER_STACK_BYTES).spawn(move || {
        let child = command.spawn();
        // It holds the process's end of the socket, which must close with the process.
        drop(command);
        if started.send(child).is_ok() {
            // Ends with an error, when the other end is dropped.
            let _ = wanted.recv();
        }
    })?;
    let child = start.recv().map_err(io::Error::other)??;
    Ok(Life::Child { child, keeper: Some(keeper) })
}

/// How it ended, once it has.
fn status(child: &mut Child) -> Option<ExitStatus> {
    // A kernel or a sandbox without pidfd: then it is known a round later, if it is.
    if let Ok(process) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) {
        let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&LAST_BREATH));
    }
    child.try_wait().ok().flatten()
}

fn of_status(status: ExitStatus) -> (WorkerEnd, String) {
    match (status.signal(), status.code()) {
        (Some(signal), _) => (WorkerEnd::Signal, format!("was ended by signal {signal}")),
        (None, code) => (WorkerEnd::Exited, format!("ended itself with status {}", code.unwrap_or(-1))),
    }
}
