//! `cargo xtask run`: runs the agent and the aggregator on this machine and shows live what a scrape of `/metrics`
//! returns.

use std::io::{IsTerminal, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use mcad_terminal::paint::Paint;

use crate::child::Child;
use crate::interrupts::Interrupts;
use crate::machine;
use crate::progress::Steps;
use crate::view::{Answer, View};
use crate::{build_ebpf, fake_gpus, workspace};

/// How long a process may take until it prints that it listens: it only binds two sockets.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The path of the aggregator's API for what this machine has and uses.
const NODES: &str = "/api/v1/nodes";

/// How often the view is updated, and the agent sends a report.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a response on loopback may take before the aggregator counts as hung.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Switches to the terminal's alternate screen and hides the cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Show this machine: run the agent and the aggregator and show what the aggregator returns.
///
/// Installs what the eBPF build needs; builds the eBPF programs, the agent and the aggregator (with the profile
/// `quick`, which compiles faster than `release`); starts both on loopback; and shows once a second what this machine
/// has, what of it is used, and the busiest cgroups, as /api/v1 returns them. In a terminal it draws a screen in the
/// layout of `mcad-aggregator explain`; otherwise it prints one line a second. Ctrl-C ends everything. Logs are in
/// target/run.
///
/// eBPF needs root (CAP_BPF and CAP_PERFMON). Without these rights the agent reads cgroup files, and a message says so.
#[derive(Args)]
pub(crate) struct Run {
    /// End after this many seconds, and fail if the aggregator then has no measurements of this machine
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// Address of /metrics; port 0 chooses a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: String,
    /// Simulate this many GPUs; their values come from a file that you can edit while it runs
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=16))]
    fake_gpus: Option<u8>,
    /// Cargo profile for the agent and the aggregator
    #[arg(long, value_name = "NAME", default_value = workspace::QUICK)]
    profile: String,
    /// Do not build; run what was built before with that profile
    #[arg(long)]
    no_build: bool,
}

/// CI builds the tests with this profile, and the programs with them.
const PROFILE_OF_CI: &str = "dev";

impl Run {
    /// Runs the agent and the aggregator just long enough to check them, with programs that were built with the tests.
    pub(crate) fn briefly() -> Self {
        let profile = PROFILE_OF_CI.to_owned();
        Self { duration: Some(10), listen: "127.0.0.1:0".to_owned(), fake_gpus: None, profile, no_build: true }
    }

    /// Runs the same on a pseudo terminal, as a user sees it, with fake GPUs.
    pub(crate) fn briefly_in_a_terminal() -> Result<()> {
        // The path where cargo puts this program: building the tests may have replaced the file of the running process.
        let program = workspace::built("dev", "xtask");
        let line =
            format!("'{}' run --duration 10 --fake-gpus 2 --profile {PROFILE_OF_CI} --no-build", program.display());
        let mut command = Command::new("script");
        // `script` is in the package bsdutils, which every Debian has.
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
        let output = command.env("TERM", "xterm").env_remove("NO_COLOR").output().context("cannot start `script`")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(output.status.success(), "in a terminal, `run` exited with {}:\n{said}", output.status);
        let shown =
            [ENTER, "\x1b[1mcpu, in cores\x1b[0m", "in GPUs, FAKE", "░", "Busiest cgroups", LEAVE, "mcad-agent ended"];
        for shown in shown {
            anyhow::ensure!(said.contains(shown), "in a terminal {shown:?} is not shown:\n{said}");
        }
        println!("run: in a terminal it shows the ladder and the busiest cgroups, and restores the screen");
        Ok(())
    }

    pub(crate) fn run(self) -> Result<()> {
        if !workspace::is_root() {
            println!(
                "run: not root, so eBPF programs can't be loaded and cgroups are read from files; run as root to use eBPF"
            );
        }
        let fake_gpus = usize::from(self.fake_gpus.is_some());
        let mut steps = Steps::new("run", build_ebpf::STEPS + 2 + fake_gpus);
        if let Err(error) = build_ebpf::ensure_with(&mut steps) {
            println!("run: WITHOUT eBPF; cgroups are read from files: {error:#}");
        }
        steps.step("compiling mcad-agent and mcad-aggregator", "three minutes the first time", || {
            self.build(&["--bin", "mcad-agent", "--bin", "mcad-aggregator"])
        })?;
        let nvml = self.fake_gpus.map(|count| {
            let install = || {
                self.build(&["--package", "fake-nvml"])?;
                fake_gpus::install(count, &workspace::built(&self.profile, "libfake_nvml.so"), &logs())
            };
            steps.step("compiling fake-nvml, which replaces NVML", "half a minute the first time", install)
        });
        let nvml = nvml.transpose()?;

        // From here on, this process handles Ctrl-C and SIGTERM. Before, they end the builds and this process.
        let interrupts = Interrupts::take_over()?;
        let (mut aggregator, mut agent, metrics) = steps.step(
            "starting mcad-agent and mcad-aggregator",
            "seconds; the first report follows a second later",
            || {
                let mut aggregator = self.start_aggregator()?;
                let listening = aggregator.wait_for_line("listening ", START_TIMEOUT)?;
                let (metrics, reports) = addresses(&listening)
                    .with_context(|| format!("mcad-aggregator printed {listening:?} instead of its addresses"))?;
                let agent = self.start_agent(reports, nvml.as_deref())?;
                Ok((aggregator, agent, metrics.to_owned()))
            },
        )?;
        println!("run: the page is at {metrics}/, and the metrics for Prometheus are at {metrics}/metrics");

        let shown = show(&metrics, &interrupts, self.duration.map(Duration::from_secs), [&mut agent, &mut aggregator]);
        // The agent first, so that the aggregator can receive its last report.
        for child in [&mut agent, &mut aggregator] {
            let words = if child.end() { "ended" } else { "did not exit cleanly" };
            println!("run: {} {words}", child.name());
        }
        shown
    }

    /// Programs are named as README.md names them, with `--bin` and without a package: cargo then compiles their
    /// dependencies with the same features, and the results of one command can be reused by the other.
    fn build(&self, what: &[&str]) -> Result<()> {
        if self.no_build {
            return Ok(());
        }
        workspace::run(workspace::cargo(&["build", "--locked", "--profile", &self.profile]).args(what))
    }

    fn start_aggregator(&self) -> Result<Child> {
        let mut command = Command::new(workspace::built(&self.profile, "mcad-aggregator"));
        command.args(["--cluster", "local", "--listen", &self.listen, "--report-listen", "127.0.0.1:0"]);
        Child::start("mcad-aggregator", command, &logs())
    }

    fn start_agent(&self, reports: &str, nvml: Option<&Path>) -> Result<Child> {
        let mut command = Command::new(workspace::built(&self.profile, "mcad-agent"));
        command.args(["--aggregator", reports, "--report-cgroups", "all", "--interval", "1s"]);
        if let Some(library) = nvml {
            command.arg("--nvml").arg(library);
        }
        Child::start("mcad-agent", command, &logs())
    }
}

fn logs() -> PathBuf {
    workspace::target().join("run")
}

/// Parses `metrics=http://… reports=http://…`.
fn addresses(listening: &str) -> Option<(&str, &str)> {
    let value = |name: &str| listening.split_whitespace().find_map(|word| word.strip_prefix(name));
    Some((value("metrics=")?.trim_end_matches('/').trim_end_matches("/metrics"), value("reports=")?))
}

/// Updates the view until an interrupt, or until a child exits.
fn show(
    address: &str,
    interrupts: &Interrupts,
    duration: Option<Duration>,
    mut children: [&mut Child; 2],
) -> Result<()> {
    let started = Instant::now();
    let mut screen = Screen::open();
    let mut view = View::default();
    loop {
        for child in &mut children {
            child.check()?;
        }
        let answer = ask(address).and_then(|body| machine::parse(&body));
        let machine = answer.with_context(|| format!("cannot read {address}{NODES}"))?;
        view.take(Answer { at_s: started.elapsed().as_secs_f64(), machine });
        screen.draw(&view, address)?;

        let left = duration.map(|duration| duration.saturating_sub(started.elapsed()));
        if interrupts.within(left.map_or(INTERVAL, |left| left.min(INTERVAL))) {
            return Ok(());
        }
        if left.is_some_and(|left| left <= INTERVAL) {
            anyhow::ensure!(view.is_measured(), "{address}{NODES} still has no measurements of an agent");
            return Ok(());
        }
    }
}

/// Queries the values of this machine. It uses HTTP/1.0, so that the body ends with the connection and is not chunked.
fn ask(address: &str) -> Result<String> {
    let host = address.strip_prefix("http://").unwrap_or(address);
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    write!(stream, "GET {NODES} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("its response is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    anyhow::ensure!(status.split_whitespace().nth(1) == Some("200"), "it responds {status:?}");
    Ok(body.to_owned())
}

/// Standard output: the terminal's alternate screen, which keeps the previous contents, or plain lines.
enum Screen {
    Terminal(Paint),
    Lines,
}

impl Screen {
    fn open() -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if is_dumb || !std::io::stdout().is_terminal() {
            return Self::Lines;
        }
        print!("{ENTER}");
        Self::Terminal(Paint::of(&std::io::stdout()))
    }

    fn draw(&mut self, view: &View, address: &str) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        match self {
            Self::Lines => writeln!(stdout, "{}", view.line())?,
            Self::Terminal(paint) => {
                let size = mcad_terminal::size(&stdout).map_or((24, 80), |size| (size.rows, size.columns));
                // Each line clears the rest of itself: clearing the whole screen first would flicker.
                let text = view.screen(address, size, *paint).replace('\n', "\x1b[K\n");
                write!(stdout, "\x1b[H{text}\x1b[K\x1b[J")?;
            }
        }
        Ok(stdout.flush()?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if matches!(self, Self::Terminal(_)) {
            print!("{LEAVE}");
            let _gone = std::io::stdout().flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aggregator_says_where_it_listens() {
        let said = "metrics=http://127.0.0.1:1 reports=http://127.0.0.1:2";
        assert_eq!(addresses(said), Some(("http://127.0.0.1:1", "http://127.0.0.1:2")));
        assert_eq!(addresses("metrics=http://127.0.0.1:1/metrics reports=x"), Some(("http://127.0.0.1:1", "x")));
        assert_eq!(addresses("metrics=http://127.0.0.1:1"), None);
    }
}
