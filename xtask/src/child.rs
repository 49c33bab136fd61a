//! A process that `run` starts, watches and ends, with its log. This module does not interpret what the process prints.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// How long a child may take to exit after SIGTERM. The agent and the aggregator need less than one second.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How many lines of its log are printed when a child died.
const LAST_LINES: usize = 15;

/// A running process. It is ended when this value is dropped.
pub struct Child {
    name: &'static str,
    process: std::process::Child,
    log: PathBuf,
    stdout: Receiver<String>,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts `command`. Its output goes to `NAME.log` in `folder`; standard output also goes to
    /// [`Self::wait_for_line`].
    pub fn start(name: &'static str, mut command: Command, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.try_clone()?);
        // A process group of its own: Ctrl-C in the terminal then reaches only this process, which ends the children in
        // order.
        command.process_group(0);
        ends_with_us(&mut command);
        let mut process =
            command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stdout = process.stdout.take().context("the process has no standard output")?;
        let stdout = read_lines(stdout, file);
        Ok(Self { name, process, log, stdout, ended: None })
    }

    /// Returns the rest of the first line that starts with `prefix`. An error if the process exits, or `timeout`
    /// passes, before such a line.
    pub fn wait_for_line(&mut self, prefix: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.stdout.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return Ok(rest.to_owned());
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                // The child closed its output. Wait until it exits, so that `check` can report its exit status.
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.end();
                }
            }
            self.check()?;
            if Instant::now() >= deadline {
                bail!("{} did not print {prefix:?} within {} s{}", self.name, timeout.as_secs(), self.last_lines());
            }
        }
    }

    /// Returns an error, with the last lines of its log, if the process has exited.
    pub fn check(&mut self) -> Result<()> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().with_context(|| format!("cannot query the state of {}", self.name))?;
        }
        match self.ended {
            None => Ok(()),
            Some(status) => bail!("{} exited with {status}{}", self.name, self.last_lines()),
        }
    }

    /// Sends SIGTERM, waits, and sends SIGKILL if the process is still there. Returns true if the process exited
    /// successfully or was ended by the SIGTERM, which happens if it has not installed its signal handler yet.
    pub fn end(&mut self) -> bool {
        let deadline = Instant::now() + END_TIMEOUT;
        let mut asked = false;
        while self.ended.is_none() {
            match self.process.try_wait() {
                Ok(Some(status)) => self.ended = Some(status),
                Ok(None) if !asked => {
                    asked = true;
                    // The process was not waited for yet, so its id cannot have been reused.
                    let id = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
                    let _gone = id.map(|id| kill_process(id, Signal::TERM));
                }
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) | Err(_) => {
                    let _gone = self.process.kill();
                    self.ended = self.process.wait().ok();
                    return false;
                }
            }
        }
        self.ended.is_some_and(|status| status.success() || status.signal() == Some(Signal::TERM.as_raw()))
    }

    /// The name of the process in messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn last_lines(&self) -> String {
        let log =
            std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("\n  | {line}"));
        format!("; the last lines of {}:{}", self.log.display(), last.collect::<String>())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

/// Makes the kernel end the child if this process is killed.
pub(crate) fn ends_with_us(command: &mut Command) {
    // SAFETY: the closure makes one system call, which is safe between fork and exec, and touches no memory of this
    // process.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}

/// Copies lines into the log, and also sends the first lines to the receiver; later lines go to the log only.
fn read_lines(stdout: impl std::io::Read + Send + 'static, mut log: File) -> Receiver<String> {
    let (lines, received) = mpsc::sync_channel(64);
    // The thread ends with the child, when the child's end of the pipe closes.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { return };
            let _full_disk = writeln!(log, "{line}");
            let _nobody_waits = lines.try_send(line);
        }
    });
    received
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Child, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        (Child::start("sh", command, folder.path()).unwrap(), folder)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_awaited_line_is_found_behind_others() {
        let (mut child, _folder) = shell("echo warming up; echo listening metrics=http://x; exec cat /dev/zero >&2");
        assert_eq!(child.wait_for_line("listening ", LONG).unwrap(), "metrics=http://x");
        child.check().unwrap();
    }

    #[test]
    fn a_child_that_dies_is_an_error_with_its_last_words() {
        let (mut child, _folder) = shell("echo no such address >&2; exit 7");
        let error = child.wait_for_line("listening ", LONG).unwrap_err().to_string();
        assert!(error.contains("exit status: 7") && error.contains("| no such address"), "{error}");
    }

    #[test]
    fn a_child_that_fails_while_it_ends_did_not_end_in_good_order() {
        let (mut child, _folder) = shell("trap 'exit 3' TERM; echo listening; while :; do sleep 0.01; done");
        child.wait_for_line("listening", LONG).unwrap();
        assert!(!child.end());
    }

    #[test]
    fn a_child_that_is_asked_to_end_may_clean_up_first() {
        let (mut child, folder) =
            shell("trap 'echo bye >&2; exit 0' TERM; echo listening; while :; do sleep 0.01; done");
        child.wait_for_line("listening", LONG).unwrap();
        assert!(child.end());
        assert!(std::fs::read_to_string(folder.path().join("sh.log")).unwrap().contains("bye"));
    }
}
