//! A process that `run` starts, watches and ends: its log, its death, its end in good order. What it prints means nothing
//! here.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// How long a child may take to end after it was asked to. Both of ours need less than one.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How many lines of its log tell why a child died.
const LAST_LINES: usize = 15;

/// A running process, ended when dropped.
pub struct Child {
    name: &'static str,
    process: std::process::Child,
    log: PathBuf,
    stdout: Receiver<String>,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts `command`; what it writes goes to `NAME.log` in `folder`, standard output also to [`Self::wait_for_line`].
    pub fn start(name: &'static str, mut command: Command, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.try_clone()?);
        // A group of its own: Ctrl-C in the terminal reaches us alone, and we end the children in order.
        command.process_group(0);
        ends_with_us(&mut command);
        let mut process =
            command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stdout = process.stdout.take().context("it has no standard output")?;
        let stdout = read_lines(stdout, file);
        Ok(Self { name, process, log, stdout, ended: None })
    }

    /// The rest of the first line that starts with `prefix`, or an error when it ends or `timeout` passes before.
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
                // It closed its output; give it the moment to exit, so that `check` can say how.
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.end();
                }
            }
            self.check()?;
            if Instant::now() >= deadline {
                bail!("{} did not say {prefix:?} within {} s{}", self.name, timeout.as_secs(), self.last_lines());
            }
        }
    }

    /// An error, with its last words, if it has ended.
    pub fn check(&mut self) -> Result<()> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().with_context(|| format!("cannot ask for {}", self.name))?;
        }
        match self.ended {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}{}", self.name, self.last_lines()),
        }
    }

    /// Asks it to end, waits, and kills it where it doesn't. True if it ended with success, or of being asked: so does one
    /// that was not far enough yet to clean up.
    pub fn end(&mut self) -> bool {
        let deadline = Instant::now() + END_TIMEOUT;
        let mut asked = false;
        while self.ended.is_none() {
            match self.process.try_wait() {
                Ok(Some(status)) => self.ended = Some(status),
                Ok(None) if !asked => {
                    asked = true;
                    // It was not waited for yet, so the id is still its own.
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

    /// What it is called in messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn last_lines(&self) -> String {
        let log =
            std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("\n  | {line}"));
        format!("; the end of {}:{}", self.log.display(), last.collect::<String>())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

/// Should this process be killed outright, the kernel ends what the command starts.
pub(crate) fn ends_with_us(command: &mut Command) {
    // SAFETY: the closure makes one system call, which is safe between fork and exec, and touches no memory of ours.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}

/// Copies lines into the log and hands on the first few; after that nobody waits for one.
fn read_lines(stdout: impl std::io::Read + Send + 'static, mut log: File) -> Receiver<String> {
    let (lines, received) = mpsc::sync_channel(64);
    // It ends with the child, whose end of the pipe closes.
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
