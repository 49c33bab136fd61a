//! A library that hangs or ends its process, with the agent's own binary: only the GPUs' part of the reports is
//! affected.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use fake_nvml::Installation;
use fake_nvml::scenario::{Crash, Hang, How, Scenario};
use mcad_wire::report::Report;
use prost::Message as _;
use tempfile::TempDir;

/// More than any of these cases takes: the waits after an end are 1, 2, 4 … seconds, and ten reports are sent per
/// second.
const REPORTS_AT_MOST: usize = 1200;

/// A running agent with fake-nvml, and the aggregator's side of its connection.
struct Agent {
    _directory: TempDir,
    installation: Installation,
    process: Child,
    connection: BufReader<TcpStream>,
    own_port: String,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Agent {
    fn start(scenario: &Scenario) -> Self {
        let directory = TempDir::new().unwrap();
        let library = Installation::built_for_this_test().unwrap();
        let installation = Installation::new(&library, directory.path(), scenario).unwrap();
        let aggregator = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", aggregator.local_addr().unwrap());
        let mut process = Command::new(env!("CARGO_BIN_EXE_mcad-agent"))
            .args(["--aggregator", &url, "--interval", "100ms", "--cgroup-source", "files", "--listen", "127.0.0.1:0"])
            .args(["--nvml", installation.library().to_str().unwrap(), "--nvml-patience", "1s"])
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let opened = lines.find(|line| line.contains("own port open")).unwrap();
        let own_port = opened.split("address=").nth(1).unwrap().to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        let (connection, _) = aggregator.accept().unwrap();
        Self { _directory: directory, installation, process, connection: BufReader::new(connection), own_port }
    }

    /// Reads the next report and accepts it.
    fn report(&mut self) -> Report {
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert!(self.connection.read_line(&mut line).unwrap() > 0, "the agent has ended");
            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                _ if line == "\r\n" => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.connection.read_exact(&mut body).unwrap();
        self.connection.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        Report::decode(&*body).unwrap()
    }

    /// The first report that fits. Reports before it must be complete except for the GPUs.
    fn report_that(&mut self, what: &str, fits: impl Fn(&Report) -> bool) -> Report {
        let mut last = Report::default();
        for _ in 0..REPORTS_AT_MOST {
            let report = self.report();
            assert!(report.sequence > last.sequence && report.machine.is_some() && report.cgroups.is_some());
            if fits(&report) {
                return report;
            }
            last = report;
        }
        panic!("no report is so: {what}; the last one: {:?} {:?}", last.gpus, last.absences);
    }

    fn report_with_gpus(&mut self) -> Report {
        self.report_that("it has two GPUs", |report| report.gpus.as_ref().is_some_and(|gpus| gpus.devices.len() == 2))
    }

    /// The agent's counter of ended processes with this reason.
    fn ends(&self, reason: &str) -> u64 {
        let mut stream = TcpStream::connect(&self.own_port).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let name = format!("mcad_agent_nvml_worker_ends_total{{reason=\"{reason}\"}} ");
        let line = answer.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{name} is not in {answer}")).parse().unwrap()
    }

    /// The process that calls NVML, if there is one.
    fn worker(&self) -> Option<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap().map_while(Result::ok);
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        children.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).next()
    }
}

fn two_gpus() -> Scenario {
    Scenario::of(2, "H100 80GB HBM3")
}

fn crashing(call: &str, how: How) -> Scenario {
    Scenario { crashes: vec![Crash { call: call.to_owned(), how }], ..two_gpus() }
}

fn hanging(call: &str) -> Scenario {
    Scenario { hangs: vec![Hang { call: call.to_owned(), ..Hang::default() }], ..two_gpus() }
}

/// The library is broken, from the start or later. The agent continues without GPUs, reports why, and reports the GPUs
/// again when the library works again.
fn check(broken: &Scenario, absence: &str, end: &str) {
    let well = two_gpus();
    for from_the_start in [true, false] {
        let mut agent = Agent::start(if from_the_start { broken } else { &well });
        if !from_the_start {
            agent.report_with_gpus();
            agent.installation.set(broken).unwrap();
        }
        let is_absent = |report: &Report| {
            let why: Vec<_> =
                report.absences.iter().filter(|one| one.source == "gpus").map(|one| &*one.reason).collect();
            report.gpus.is_none() && why == [absence]
        };
        agent.report_that(absence, is_absent);
        while agent.ends(end) == 0 {
            agent.report_that(absence, is_absent);
        }
        agent.installation.set(&two_gpus()).unwrap();
        agent.report_with_gpus();
    }
}

#[test]
fn a_library_that_hangs_while_it_is_loaded_or_called_costs_the_gpus_alone() {
    let mut agent = Agent::start(&hanging("dlopen"));
    let timeout = |report: &Report| report.gpus.is_none() && report.absences.iter().any(|one| one.reason == "timeout");
    agent.report_that("timeout", timeout);
    while agent.ends("hung") == 0 {
        agent.report_that("timeout", timeout);
    }
    agent.installation.set(&two_gpus()).unwrap();
    agent.report_with_gpus();
    check(&hanging("nvmlDeviceGetMemoryInfo_v2"), "timeout", "hung");
}

#[test]
fn a_library_that_aborts_costs_the_gpus_alone() {
    check(&crashing("nvmlDeviceGetMemoryInfo_v2", How::Abort), "crashed", "signal");
}

#[test]
fn a_library_that_crashes_costs_the_gpus_alone() {
    check(&crashing("nvmlDeviceGetMemoryInfo_v2", How::Segfault), "crashed", "signal");
}

#[test]
fn a_library_that_ends_its_process_costs_the_gpus_alone() {
    check(&crashing("nvmlDeviceGetMemoryInfo_v2", How::Exit), "crashed", "exited");
}

#[test]
fn a_library_that_writes_nonsense_costs_the_gpus_alone() {
    check(&crashing("nvmlDeviceGetMemoryInfo_v2", How::Nonsense), "malformed", "nonsense");
}

#[test]
fn whatever_happens_while_it_is_loaded_happens_in_its_own_process() {
    for (how, absence, end) in [
        (How::Abort, "crashed", "signal"),
        (How::Segfault, "crashed", "signal"),
        (How::Exit, "crashed", "exited"),
        (How::Nonsense, "malformed", "nonsense"),
    ] {
        let mut agent = Agent::start(&crashing("dlopen", how));
        agent.report_that(absence, |report| report.absences.iter().any(|one| one.reason == absence));
        while agent.ends(end) == 0 {
            agent.report();
        }
        agent.installation.set(&two_gpus()).unwrap();
        agent.report_with_gpus();
    }
}

#[test]
fn the_process_that_calls_nvml_has_no_rights_and_nothing_of_the_agents_open() {
    let mut agent = Agent::start(&two_gpus());
    agent.report_with_gpus();
    let worker = agent.worker().unwrap();
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(of("Name:"), "mcad-nvml");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(of(set), "0000000000000000", "{set}");
    }
    assert_eq!(of("NoNewPrivs:"), "1");
    let open: Vec<String> = fs::read_dir(format!("/proc/{worker}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned())
        .collect();
    let expected = |name: &&String| *name == "/dev/null" || name.starts_with("pipe:") || name.starts_with("socket:");
    assert!(open.iter().all(|name| expected(&name)), "{open:?}");
    assert_eq!(open.iter().filter(|name| name.starts_with("socket:")).count(), 1, "{open:?}");
}

/// A killed agent has no time to end its processes, and a call that hangs does not notice that the agent is gone.
#[test]
fn the_process_that_calls_nvml_ends_with_the_agent_also_while_it_hangs() {
    for scenario in [two_gpus(), hanging("dlopen")] {
        let mut agent = Agent::start(&scenario);
        agent.report();
        let worker = agent.worker().unwrap();
        agent.process.kill().unwrap();
        agent.process.wait().unwrap();
        // Gone, or a zombie until init reaps it.
        let ended = || {
            let stat = fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
        };
        while !ended() {
            std::thread::yield_now();
        }
    }
}

#[test]
fn one_sample_alone_has_its_gpus_by_a_process_of_their_own_and_outlives_it() {
    let directory = TempDir::new().unwrap();
    let library = Installation::built_for_this_test().unwrap();
    let installation = Installation::new(&library, directory.path(), &two_gpus()).unwrap();
    let once = || {
        let agent = Command::new(env!("CARGO_BIN_EXE_mcad-agent"))
            .args(["--once", "--cgroup-source", "files", "--nvml", installation.library().to_str().unwrap()])
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&agent.stderr).into_owned();
        let report: Report = serde_json::from_slice(&agent.stdout).unwrap_or_else(|error| panic!("{error}: {log}"));
        (report, log)
    };
    assert_eq!(once().0.gpus.unwrap().devices.len(), 2);
    installation.set(&crashing("dlopen", How::Segfault)).unwrap();
    let (report, log) = once();
    assert_eq!((report.gpus, report.absences[0].reason.as_str()), (None, "crashed"));
    assert!(log.contains("the process that calls NVML was killed by signal 11"), "{log}");
}

/// For the test below, which starts itself again: descendants whose parents have ended become its own children.
const LOOK_AFTER: &str = "MCAD_LOOK_AFTER_DESCENDANTS";

/// `kubectl exec … mcad-agent --once` has no parent in the container that reaps its children: what it leaves behind
/// stays, because the container's first process, the running agent, reaps only its own children.
#[test]
fn one_sample_alone_leaves_no_process_behind() {
    if std::env::var_os(LOOK_AFTER).is_none() {
        let again = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "one_sample_alone_leaves_no_process_behind", "--nocapture"])
            .env(LOOK_AFTER, "yes")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(again.status.success(), "{}{said}", String::from_utf8_lossy(&again.stdout));
        return;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let directory = TempDir::new().unwrap();
    let library = Installation::built_for_this_test().unwrap();
    let installation = Installation::new(&library, directory.path(), &two_gpus()).unwrap();
    for _ in 0..5 {
        let agent = Command::new(env!("CARGO_BIN_EXE_mcad-agent"))
            .args(["--once", "--cgroup-source", "files", "--nvml", installation.library().to_str().unwrap()])
            .output()
            .unwrap();
        let report: Report = serde_json::from_slice(&agent.stdout).unwrap();
        assert_eq!(report.gpus.unwrap().devices.len(), 2);
        let left = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert_eq!(left.unwrap_err(), rustix::io::Errno::CHILD, "no child at all, ended or not");
    }
}

#[test]
fn nobody_but_the_agent_starts_it() {
    let worker =
        Command::new(env!("CARGO_BIN_EXE_mcad-agent")).arg("nvml-worker").stdin(Stdio::null()).output().unwrap();
    assert_eq!(worker.status.code(), Some(1));
    let said = String::from_utf8_lossy(&worker.stderr).into_owned();
    assert!(said.contains("only the agent starts `nvml-worker`"), "{said}");
}
