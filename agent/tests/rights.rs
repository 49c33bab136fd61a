//! The agent with fewer rights than root: which source it chooses, what it logs, and which rights it keeps while it
//! runs.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use mcad_agent::kernel::CgroupSourceChoice;
use mcad_agent::kernel::{CgroupPlan, KernelFacts};
use mcad_agent::probe;
use mcad_wire::report::Report;
use prost::Message as _;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

/// Whether probes can be used on this machine; prints a message if not.
fn has_probes() -> bool {
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - cgroup2 ");
    let facts = KernelFacts::learn("/proc".as_ref(), "/sys".as_ref(), probe::built_in(), mounted);
    let plan = facts.plan(CgroupSourceChoice::Auto).unwrap();
    if plan != CgroupPlan::Bpf {
        eprintln!("SKIPPED: rights of the agent: {plan:?} without any of them taken away");
    }
    plan == CgroupPlan::Bpf
}

/// The agent, started by root with only these capabilities.
fn agent_with(kept: CapabilitySet) -> Command {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_mcad-agent"));
    let bound = move || {
        for number in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << number);
            if !kept.contains(one) && remove_capability_from_bounding_set(one).is_err() {
                break;
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec it only makes system calls.
    unsafe { agent.pre_exec(bound) };
    agent.env_remove("NODE_NAME").env("RUST_LOG", "info");
    agent
}

#[test]
fn without_rights_files_are_read_and_it_is_said_once_with_what_to_do() {
    if !has_probes() {
        return;
    }
    let both = CapabilitySet::BPF | CapabilitySet::PERFMON;
    for (kept, source) in [
        (both, "bpf"),
        (CapabilitySet::empty(), "cgroupfs"),
        (CapabilitySet::BPF, "cgroupfs"),
        (CapabilitySet::PERFMON, "cgroupfs"),
    ] {
        let output = agent_with(kept).arg("--once").output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        let report: Report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {log}"));
        let cgroups = report.cgroups.unwrap();
        assert_eq!(cgroups.source, source, "{kept:?}: {log}");
        assert!(cgroups.cgroups.iter().any(|cgroup| cgroup.cpu_ns.is_some()), "{kept:?}");
        let said = log.matches("CAP_BPF and CAP_PERFMON").count();
        assert_eq!(said, usize::from(source == "cgroupfs"), "{kept:?}: {log}");
    }
    let asked = agent_with(CapabilitySet::empty()).args(["--once", "--cgroup-source", "bpf"]).output().unwrap();
    assert_eq!(asked.status.code(), Some(1), "what was asked for by name can't be had");
}

/// Ends the agent even if an assertion fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads the next report and accepts it.
fn take_report(connection: &mut BufReader<TcpStream>) -> Report {
    let mut length = 0;
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).unwrap();
    connection.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    Report::decode(&*body).unwrap()
}

#[test]
fn a_running_agent_holds_no_capability_on_any_thread_and_goes_on_sampling() {
    if !has_probes() {
        return;
    }
    let aggregator = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", aggregator.local_addr().unwrap());
    let agent = agent_with(CapabilitySet::all())
        .args(["--aggregator", &url, "--interval", "100ms", "--report-cgroups", "all", "--listen", "127.0.0.1:0"])
        .stderr(Stdio::null())
        .spawn();
    let agent = Running(agent.unwrap());
    let mut connection = BufReader::new(aggregator.accept().unwrap().0);
    let first = take_report(&mut connection);
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.0.id())).unwrap();
    let statuses: Vec<String> =
        tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap()).collect();
    assert!(statuses.len() > 1, "the sampler has a thread of its own");
    for status in statuses {
        let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(of(set), "0000000000000000", "{set} of thread {}", of("Name:"));
        }
        assert_eq!(of("NoNewPrivs:"), "1", "thread {}", of("Name:"));
        assert_eq!(of("Seccomp:"), "2", "thread {} has the filter of system calls", of("Name:"));
    }
    // Two further walks, begun after that.
    take_report(&mut connection);
    let later = [take_report(&mut connection), take_report(&mut connection)];
    for report in later {
        assert!(report.sequence > first.sequence && report.absences.is_empty(), "{:?}", report.absences);
        let cgroups = report.cgroups.unwrap();
        assert_eq!(cgroups.source, "bpf");
        assert!(cgroups.cgroups.iter().any(|cgroup| cgroup.run_queue_waits > Some(0)));
    }
}
