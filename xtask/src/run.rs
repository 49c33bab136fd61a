//! `cargo xtask run`: the whole chain on this machine, kernel to `/metrics`, and a live view of the far end.

use std::io::{IsTerminal, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use mcad_terminal::paint::Paint;

use crate::child::Child;
use crate::exposition;
use crate::interrupts::Interrupts;
use crate::progress::Steps;
use crate::view::{Scrape, View};
use crate::{build_ebpf, fake_gpus, workspace};

/// How long a process may take to say that it listens: it binds two sockets.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the view is renewed, and the agent reports.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a scrape on loopback may take before the aggregator counts as hung.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// To the terminal's second screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Show this machine: its cgroups, read by eBPF, through agent and aggregator, from /metrics.
///
/// Installs what the eBPF build needs, builds the kernel half, the agent and the aggregator (by the
/// profile `quick`, which compiles sooner than `release`), starts both on loopback, and shows what this machine has,
/// what of it is used, and the busiest cgroups, once a second, as a scrape of /metrics sees them. In a
/// terminal that is a screen, set as `mcad-aggregator explain` is; else a line a second.
/// Ctrl-C ends all. Logs are in target/run.
///
/// Needs root (CAP_BPF and CAP_PERFMON) for eBPF. Without, the agent reads cgroup files and says so.
#[derive(Args)]
pub(crate) struct Run {
    /// End by itself after so many seconds, and fail if /metrics then has no figures of this machine
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// Where to serve /metrics; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: String,
    /// Pretend to have so many GPUs, whose figures come from a file that may be edited meanwhile
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=16))]
    fake_gpus: Option<u8>,
    /// By which of cargo's profiles the agent and the aggregator are built
    #[arg(long, value_name = "NAME", default_value = workspace::QUICK)]
    profile: String,
    /// Run what was built before by that profile
    #[arg(long)]
    no_build: bool,
}

/// In CI the tests are built by this profile, and the programs with them.
const PROFILE_OF_CI: &str = "dev";

impl Run {
    /// The whole chain, for as long as it takes to show that it works, of programs that were built with the tests.
    pub(crate) fn briefly() -> Self {
        let profile = PROFILE_OF_CI.to_owned();
        Self { duration: Some(10), listen: "127.0.0.1:0".to_owned(), fake_gpus: None, profile, no_build: true }
    }

    /// The same as a person sees it: this program again, on a pseudo terminal, with GPUs of a file's.
    pub(crate) fn briefly_in_a_terminal() -> Result<()> {
        // Where cargo puts this program: that of this process may have been replaced there when the tests were built.
        let program = workspace::built("dev", "xtask");
        let line =
            format!("'{}' run --duration 10 --fake-gpus 2 --profile {PROFILE_OF_CI} --no-build", program.display());
        let mut command = Command::new("script");
        // Of bsdutils, which no Debian is without.
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
        let output = command.env("TERM", "xterm").env_remove("NO_COLOR").output().context("cannot start `script`")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(output.status.success(), "in a terminal it ended with {}:\n{said}", output.status);
        let shown =
            [ENTER, "\x1b[1mcpu, in cores\x1b[0m", "in GPUs, FAKE", "░", "Busiest cgroups", LEAVE, "mcad-agent ended"];
        for shown in shown {
            anyhow::ensure!(said.contains(shown), "in a terminal {shown:?} is not shown:\n{said}");
        }
        println!("run: in a terminal it shows the ladder and the busiest cgroups, and leaves the screen as it was");
        Ok(())
    }

    pub(crate) fn run(self) -> Result<()> {
        if !workspace::is_root() {
            println!(
                "run: not root, so eBPF programs can't be loaded: cgroups are read from files; root reads them by eBPF"
            );
        }
        let fake_gpus = usize::from(self.fake_gpus.is_some());
        let mut steps = Steps::new("run", build_ebpf::STEPS + 2 + fake_gpus);
        if let Err(error) = build_ebpf::ensure_with(&mut steps) {
            println!("run: WITHOUT eBPF, cgroups are read from files: {error:#}");
        }
        steps.step("compiling mcad-agent and mcad-aggregator", "three minutes when new", || {
            self.build(&["--bin", "mcad-agent", "--bin", "mcad-aggregator"])
        })?;
        let nvml = self.fake_gpus.map(|count| {
            let install = || {
                self.build(&["--package", "fake-nvml"])?;
                fake_gpus::install(count, &workspace::built(&self.profile, "libfake_nvml.so"), &logs())
            };
            steps.step("compiling the library that takes the place of NVML", "half a minute when new", install)
        });
        let nvml = nvml.transpose()?;

        // From here on Ctrl-C and SIGTERM are ours; before, they end the builds and us with them.
        let interrupts = Interrupts::take_over()?;
        let (mut aggregator, mut agent, metrics) =
            steps.step("starting both", "seconds; the first report follows a second later", || {
                let mut aggregator = self.start_aggregator()?;
                let listening = aggregator.wait_for_line("listening ", START_TIMEOUT)?;
                let (metrics, reports) = addresses(&listening)
                    .with_context(|| format!("mcad-aggregator says {listening:?}, and not where it listens"))?;
                let agent = self.start_agent(reports, nvml.as_deref())?;
                Ok((aggregator, agent, metrics.to_owned()))
            })?;
        println!("run: the page is at {metrics}/, what Prometheus scrapes at {metrics}/metrics");

        let shown = show(&metrics, &interrupts, self.duration.map(Duration::from_secs), [&mut agent, &mut aggregator]);
        // The agent first, so that it has somebody to report to until its end.
        for child in [&mut agent, &mut aggregator] {
            let words = if child.end() { "ended" } else { "did not end in good order" };
            println!("run: {} {words}", child.name());
        }
        shown
    }

    /// Programs are named as README.md names them, `--bin` and no package: cargo then compiles their dependencies with the same features,
    /// and what it compiled for either serves the other.
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

/// `metrics=http://… reports=http://…`
fn addresses(listening: &str) -> Option<(&str, &str)> {
    let value = |name: &str| listening.split_whitespace().find_map(|word| word.strip_prefix(name));
    Some((value("metrics=")?.trim_end_matches('/').trim_end_matches("/metrics"), value("reports=")?))
}

/// Renews the view until somebody ends it, or a child dies.
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
        let text = scrape(address).with_context(|| format!("cannot read {address}/metrics"))?;
        view.take(Scrape { at_s: started.elapsed().as_secs_f64(), samples: exposition::parse(&text) });
        screen.draw(&view, address)?;

        let left = duration.map(|duration| duration.saturating_sub(started.elapsed()));
        if interrupts.within(left.map_or(INTERVAL, |left| left.min(INTERVAL))) {
            return Ok(());
        }
        if left.is_some_and(|left| left <= INTERVAL) {
            anyhow::ensure!(view.is_measured(), "after all that time, {address}/metrics has no figures of an agent");
            return Ok(());
        }
    }
}

/// One scrape. HTTP/1.0, so that the body ends with the connection and is in one piece.
fn scrape(address: &str) -> Result<String> {
    let host = address.strip_prefix("http://").unwrap_or(address);
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(SCRAPE_TIMEOUT))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("its answer is no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    anyhow::ensure!(status.split_whitespace().nth(1) == Some("200"), "it answers {status:?}");
    Ok(body.to_owned())
}

/// Standard output: the terminal's second screen, which leaves what was there alone, or plain lines.
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
                let size = rustix::termios::tcgetwinsize(&stdout).map(|size| (size.ws_row.into(), size.ws_col.into()));
                // A terminal that does not say how large it is says 0, or nothing.
                let size = size.ok().filter(|(rows, columns)| *rows > 0 && *columns > 0).unwrap_or((24, 80));
                // Each line clears its own rest: clearing the whole screen first would flicker.
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
