//! `cargo xtask run`: the whole chain on this machine, kernel to `/metrics`, and a live view of the far end.

use std::io::{IsTerminal, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use fake_nvml::Installation;
use fake_nvml::scenario::{Level, Scenario};

use crate::child::Child;
use crate::exposition;
use crate::view::{Scrape, View};
use crate::{build_ebpf, workspace};

/// How long a process may take to say that it listens: it binds two sockets.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the view is renewed, and the agent reports.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a scrape on loopback may take before the aggregator counts as hung.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// Show this machine: its cgroups, read by eBPF, through agent and aggregator, from /metrics.
///
/// Installs what the eBPF build needs, builds the kernel half, the agent and the aggregator (the
/// development build, which starts sooner), starts both on loopback, and shows the busiest cgroups
/// once a second, as a scrape of /metrics sees them. Without a terminal it prints a line a second.
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
}

impl Run {
    /// The whole chain, for as long as it takes to show that it works.
    pub(crate) fn briefly() -> Self {
        Self { duration: Some(10), listen: "127.0.0.1:0".to_owned(), fake_gpus: None }
    }

    pub(crate) fn run(self) -> Result<()> {
        if !workspace::is_root() {
            println!(
                "run: not root, so eBPF programs can't be loaded: cgroups are read from files; root reads them by eBPF"
            );
        }
        if let Err(error) = build_ebpf::ensure() {
            println!("run: WITHOUT eBPF, cgroups are read from files: {error:#}");
        }
        println!("run: building mcad-agent and mcad-aggregator (a minute or two when new)");
        workspace::run(&mut workspace::cargo(&[
            "build",
            "--quiet",
            "--locked",
            "-p",
            "mcad-agent",
            "-p",
            "mcad-aggregator",
        ]))?;
        if self.fake_gpus.is_some() {
            build_fake_nvml()?;
        }

        // From here on Ctrl-C and SIGTERM are ours; before, they end the builds and us with them.
        let interrupted = interrupts()?;
        let mut aggregator = self.start_aggregator()?;
        let listening = aggregator.wait_for_line("listening ", START_TIMEOUT)?;
        let (metrics, reports) = addresses(&listening)
            .with_context(|| format!("mcad-aggregator says {listening:?}, and not where it listens"))?;
        let fake = self.fake_gpus.map(fake_gpus).transpose()?;
        let mut agent = start_agent(reports, fake.as_ref())?;
        println!("run: {metrics}/metrics");

        let shown = show(metrics, &interrupted, self.duration.map(Duration::from_secs), [&mut agent, &mut aggregator]);
        // The agent first, so that it has somebody to report to until its end.
        for child in [&mut agent, &mut aggregator] {
            let words = if child.end() { "ended" } else { "did not end in good order" };
            println!("run: {} {words}", child.name());
        }
        shown
    }

    fn start_aggregator(&self) -> Result<Child> {
        let mut command = Command::new(program("mcad-aggregator"));
        command.args(["--cluster", "local", "--listen", &self.listen, "--report-listen", "127.0.0.1:0"]);
        Child::start("mcad-aggregator", command, &logs())
    }
}

fn start_agent(reports: &str, fake: Option<&Installation>) -> Result<Child> {
    let mut command = Command::new(program("mcad-agent"));
    command.args(["--aggregator", reports, "--report-cgroups", "all", "--interval", "1s"]);
    if let Some(fake) = fake {
        command.arg("--nvml").arg(fake.library());
    }
    Child::start("mcad-agent", command, &logs())
}

/// The library that takes NVML's place.
pub(crate) fn build_fake_nvml() -> Result<()> {
    workspace::run(&mut workspace::cargo(&["build", "--quiet", "--locked", "-p", "fake-nvml"]))
}

/// GPUs that are busy in turns.
pub(crate) fn fake_gpus(count: u8) -> Result<Installation> {
    let mut scenario = Scenario::of(count.into(), "H100 80GB HBM3");
    for (index, device) in scenario.devices.iter_mut().enumerate() {
        let phase_s = index as f64 * 5.0;
        device.utilization = Level::Wave { low: 0.0, high: 0.95, period_s: 60.0, phase_s };
        device.memory_used_bytes = (index as u64 + 1) << 30;
    }
    let directory = logs().join("fake-nvml");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let fake = Installation::new(&program("libfake_nvml.so"), &directory, &scenario)
        .with_context(|| format!("cannot put fake-nvml into {}", directory.display()))?;
    let scenario = fake.library().with_file_name("scenario.json");
    println!("run: {count} FAKE GPUs; what they do is in {}, and may be changed there", scenario.display());
    Ok(fake)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace::root().join("target"), PathBuf::from)
}

fn program(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

fn logs() -> PathBuf {
    target().join("run")
}

/// `metrics=http://… reports=http://…`
fn addresses(listening: &str) -> Option<(&str, &str)> {
    let value = |name: &str| listening.split_whitespace().find_map(|word| word.strip_prefix(name));
    Some((value("metrics=")?.trim_end_matches('/').trim_end_matches("/metrics"), value("reports=")?))
}

fn interrupts() -> Result<Receiver<()>> {
    let (interrupt, interrupted) = mpsc::channel();
    ctrlc::set_handler(move || {
        let _already_ending = interrupt.send(());
    })
    .context("cannot take over Ctrl-C")?;
    Ok(interrupted)
}

/// Renews the view until somebody ends it, or a child dies.
fn show(
    address: &str,
    interrupted: &Receiver<()>,
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
        screen.draw(&view, &format!("{address}/metrics"))?;

        let left = duration.map(|duration| duration.saturating_sub(started.elapsed()));
        match interrupted.recv_timeout(left.map_or(INTERVAL, |left| left.min(INTERVAL))) {
            Err(RecvTimeoutError::Timeout) if left.is_none_or(|left| left > INTERVAL) => {}
            Err(RecvTimeoutError::Timeout) => {
                anyhow::ensure!(
                    view.is_measured(),
                    "after all that time, {address}/metrics has no figures of an agent"
                );
                return Ok(());
            }
            _ => return Ok(()),
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
    Terminal,
    Lines,
}

impl Screen {
    fn open() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self::Lines;
        }
        print!("\x1b[?1049h\x1b[?25l");
        Self::Terminal
    }

    fn draw(&mut self, view: &View, address: &str) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        match self {
            Self::Lines => writeln!(stdout, "{}", view.line())?,
            Self::Terminal => {
                let size = rustix::termios::tcgetwinsize(&stdout).map(|size| (size.ws_row.into(), size.ws_col.into()));
                let (rows, columns) = size.unwrap_or((24, 80));
                // Each line clears its own rest: clearing the whole screen first would flicker.
                let text = view.screen(address, rows, columns).replace('\n', "\x1b[K\n");
                write!(stdout, "\x1b[H{text}\x1b[K\x1b[J")?;
            }
        }
        Ok(stdout.flush()?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if matches!(self, Self::Terminal) {
            print!("\x1b[?25h\x1b[?1049l");
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
