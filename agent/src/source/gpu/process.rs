//! One process that calls NVML, as the agent sees it: how it is started and killed, and how it ended.

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

/// This program, even if its file was replaced since the start.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// How long the kernel may take to report how a process ended that has closed its socket or was killed.
const LAST_BREATH: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The thread starts a process and waits.
const KEEPER_STACK_BYTES: usize = 256 * 1024;

/// How processes that call NVML are started.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// The program whose subcommand `nvml-worker` is started. `None` means this program.
    pub(super) program: Option<PathBuf>,
    /// Whether it restricts itself.
    pub(super) sandbox: Sandbox,
    /// Path of the NVML library. `None`: it is searched in the usual places.
    pub(super) library: Option<PathBuf>,
    /// How long one wait for events lasts.
    pub(super) events: Duration,
}

/// A process, and this side of the socket to it. Dropping it ends the process.
pub(super) struct Process {
    pub(super) line: Line,
    life: Life,
}

enum Life {
    Child {
        child: Child,
        /// When this is dropped, the thread that started the process ends, and with it the process.
        keeper: Option<SyncSender<Infallible>>,
    },
    /// Unit tests have no agent binary, so a thread replaces the process. It can't be killed, like a process whose call
    /// hangs in the kernel.
    #[cfg(test)]
    Thread(std::thread::JoinHandle<()>),
}

impl Launch {
    /// Starts a process.
    pub(super) fn start(&self) -> io::Result<Process> {
        let (ours, theirs) = UnixStream::pair()?;
        // A process that does not read must not block the agent.
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
        // Output of the library must not mix with the report that `--once` prints.
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs))).stdout(Stdio::null());
        // Ctrl-C ends the agent, and the agent ends this process after its last report.
        command.process_group(0);
        kept(command)
    }
}

impl Process {
    /// Kills it without waiting: a process whose call hangs in the kernel may never end.
    pub(super) fn kill(&mut self) {
        self.line.close();
        match &mut self.life {
            Life::Child { child, keeper } => {
                drop(keeper.take());
                // If the sandbox denies signals to other processes, dropping the keeper kills it.
                drop(child.kill());
            }
            #[cfg(test)]
            Life::Thread(_) => {}
        }
    }

    /// Whether the process has ended completely.
    pub(super) fn is_gone(&mut self) -> bool {
        match &mut self.life {
            Life::Child { child, .. } => !matches!(child.try_wait(), Ok(None)),
            #[cfg(test)]
            Life::Thread(thread) => thread.is_finished(),
        }
    }

    /// How a process that has closed its socket ended.
    pub(super) fn end(&mut self) -> (WorkerEnd, String) {
        match &mut self.life {
            Life::Child { child, .. } => match status(child) {
                Some(status) => of_status(status),
                None => (WorkerEnd::Nonsense, "has closed its socket but does not exit".to_owned()),
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
        // The agent may exit right after this, and only the agent reaps this process, which would then stay a zombie: so
        // wait for it here. A process whose call hangs in the kernel is not waited for any longer.
        match &mut self.life {
            Life::Child { child, .. } => drop(status(child)),
            #[cfg(test)]
            Life::Thread(_) => {}
        }
    }
}

/// Starts the process from a thread of its own, which waits until the process is no longer needed. The process asks the
/// kernel to be killed when that thread ends (`worker.rs`), so that an agent that may not send signals can end it.
fn kept(mut command: Command) -> io::Result<Life> {
    let (keeper, wanted) = mpsc::sync_channel::<Infallible>(1);
    let (started, start) = mpsc::sync_channel(1);
    thread::Builder::new().name("nvml-keeper".to_owned()).stack_size(KEEPER_STACK_BYTES).spawn(move || {
        let child = command.spawn();
        // It holds the process's side of the socket, which must be closed when the process ends.
        drop(command);
        if started.send(child).is_ok() {
            // Returns an error when the sender is dropped.
            let _ = wanted.recv();
        }
    })?;
    let child = start.recv().map_err(io::Error::other)??;
    Ok(Life::Child { child, keeper: Some(keeper) })
}

/// How it ended, once it has ended.
fn status(child: &mut Child) -> Option<ExitStatus> {
    // If the kernel or a sandbox denies pidfd, the status may become known one round later.
    if let Ok(process) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) {
        let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&LAST_BREATH));
    }
    child.try_wait().ok().flatten()
}

fn of_status(status: ExitStatus) -> (WorkerEnd, String) {
    match (status.signal(), status.code()) {
        (Some(signal), _) => (WorkerEnd::Signal, format!("was killed by signal {signal}")),
        (None, code) => (WorkerEnd::Exited, format!("exited with status {}", code.unwrap_or(-1))),
    }
}
