//! The binary as users run it, on this machine's own kernel.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use mcad_agent::cgroup_mount::{self, CgroupMount};
use mcad_wire::report::Report;

fn agent(args: &[&str]) -> Output {
    let agent = Command::new(env!("CARGO_BIN_EXE_mcad-agent")).args(args).env_remove("NODE_NAME").output();
    agent.unwrap()
}

fn report(output: &Output) -> Report {
    let line = str::from_utf8(&output.stdout).unwrap();
    assert_eq!(line.matches('\n').count(), 1, "one line: {line}");
    serde_json::from_str(line).unwrap()
}

fn log(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A cgroup in this machine's cgroup v2 tree, with a process in it that uses CPU all the time.
struct BusyCgroup {
    path: PathBuf,
    process: Child,
}

impl BusyCgroup {
    /// `None`, with a message, if this machine has no cgroup v2 or a cgroup cannot be created.
    fn new() -> Option<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let CgroupMount::At(root) = cgroup_mount::find(&mountinfo) else {
            eprintln!("SKIPPED: no cgroup v2 is mounted here");
            return None;
        };
        let path = root.join(format!("mcad-agent-once-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&path) {
            eprintln!("SKIPPED: no cgroup can be made in {}: {error}", root.display());
            return None;
        }
        let process = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let busy = Self { path, process };
        fs::write(busy.path.join("cgroup.procs"), busy.process.id().to_string()).unwrap();
        // The kernel's own counter shows when there is something to compare.
        while busy.cpu_ns() < 50_000_000 {
            std::thread::yield_now();
        }
        Some(busy)
    }

    fn cpu_ns(&self) -> u64 {
        let stat = fs::read_to_string(self.path.join("cpu.stat")).unwrap();
        let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
        usage.parse::<u64>().unwrap() * 1000
    }
}

impl Drop for BusyCgroup {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir(&self.path);
    }
}

#[test]
fn cpu_time_of_a_busy_cgroup_lies_between_its_cpu_stat_before_and_after() {
    let Some(busy) = BusyCgroup::new() else { return };
    let before = busy.cpu_ns();
    let output = agent(&["--once", "--cgroup-source", "files"]);
    let after = busy.cpu_ns();
    assert!(output.status.success(), "{}", log(&output));
    let cgroups = report(&output).cgroups.unwrap();
    assert_eq!(cgroups.source, "cgroupfs");
    let name = format!("/{}", busy.path.file_name().unwrap().to_str().unwrap());
    let found: Vec<_> = cgroups.cgroups.iter().filter(|cgroup| cgroup.path == name).collect();
    let [cgroup] = found[..] else { panic!("{} times", found.len()) };
    let cpu_ns = cgroup.cpu_ns.unwrap();
    assert!(before <= cpu_ns && cpu_ns <= after, "{before} <= {cpu_ns} <= {after}");
    assert!(before < after, "the process was busy");
    assert_eq!(cgroup.id, fs::metadata(&busy.path).unwrap().ino());
}

#[test]
fn figures_of_the_machine_lie_between_those_before_and_after() {
    let busy_ticks = || {
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let fields: Vec<u64> = stat.lines().next().unwrap().split(' ').filter_map(|field| field.parse().ok()).collect();
        fields[0] + fields[1] + fields[2] + fields[5] + fields[6]
    };
    let before = busy_ticks();
    let output = agent(&["--once", "--cgroup-source", "files"]);
    let after = busy_ticks();
    let report = report(&output);
    let machine = report.machine.unwrap();
    // On every architecture that we build for, Linux counts 100 ticks of USER_HZ per second.
    let ticks = machine.cpu_busy_ns.unwrap() / 10_000_000;
    assert!(before <= ticks && ticks <= after, "{before} <= {ticks} <= {after}");
    assert_eq!(machine.cpus_online, u32::try_from(std::thread::available_parallelism().unwrap().get()).ok());
    assert!(machine.memory_free_bytes.unwrap() < machine.memory_total_bytes.unwrap());
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(report.boot_id, boot_id.trim());
    assert_eq!((report.version, report.sequence, report.interval_ms), (1, 1, 10_000));
}

#[test]
fn the_node_is_named_by_flag_then_environment_then_host() {
    let once = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcad-agent"));
        command.args(["--once", "--cgroup-source", "files"]).env("NODE_NAME", "from-environment");
        command
    };
    assert_eq!(report(&once().output().unwrap()).node, "from-environment");
    assert_eq!(report(&once().args(["--node-name", "from-flag"]).output().unwrap()).node, "from-flag");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(report(&once().env_remove("NODE_NAME").output().unwrap()).node, host.trim().to_lowercase());
}

/// A `/proc` that contains only a mountinfo with these lines.
fn proc_root(mountinfo: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("self")).unwrap();
    fs::write(root.path().join("self/mountinfo"), mountinfo).unwrap();
    root
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_machine_with_cgroup_v1_only_says_so_and_reports_the_rest() {
    let root = proc_root("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n");
    fs::write(root.path().join("stat"), "cpu  1 0 0 0 0 0 0\n").unwrap();
    let output = agent(&["--once", "--proc-root", path(root.path())]);
    assert!(output.status.success(), "{}", log(&output));
    let report = report(&output);
    assert_eq!(report.cgroups, None);
    assert_eq!(report.machine.unwrap().cpu_busy_ns, Some(10_000_000));
    let absences: Vec<String> =
        report.absences.iter().map(|absence| format!("{} {}", absence.source, absence.reason)).collect();
    assert_eq!(absences, ["machine not_found", "cgroups cgroup_v1_only"]);
    assert!(log(&output).contains("only cgroup v1 is mounted"), "{}", log(&output));
}

#[test]
fn once_fails_only_if_nothing_at_all_could_be_read() {
    let root = proc_root("");
    let nowhere = path(root.path());
    let output = agent(&["--once", "--proc-root", nowhere, "--sys-root", nowhere]);
    assert_eq!(output.status.code(), Some(1));
    let report = report(&output);
    assert_eq!((report.machine, report.cgroups), (None, None));
    assert!(log(&output).contains("nothing at all could be read"), "{}", log(&output));
}

#[test]
fn reports_do_not_leave_the_machine_in_the_clear() {
    let output = agent(&["--aggregator", "http://10.0.0.1:9440"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(log(&output).contains("10.0.0.1 is not a loopback address"), "{}", log(&output));
}

fn wait_for_reports(connection: &mut TcpStream, received: &mut Vec<u8>, count: usize) {
    let head = b"POST /v1/report HTTP/1.1\r\n";
    while received.windows(head.len()).filter(|window| window == head).count() < count {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        received.push(byte[0]);
    }
}

#[test]
fn sigterm_ends_the_agent_cleanly_also_while_the_aggregator_hangs() {
    let aggregator = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", aggregator.local_addr().unwrap());
    let mut agent = Command::new(env!("CARGO_BIN_EXE_mcad-agent"))
        .args(["--aggregator", &url, "--interval", "100ms", "--cgroup-source", "files", "--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first report arrives and is accepted, the second gets no response.
    let (mut connection, _) = aggregator.accept().unwrap();
    let mut received = Vec::new();
    wait_for_reports(&mut connection, &mut received, 1);
    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    wait_for_reports(&mut connection, &mut received, 2);
    let mut log = BufReader::new(agent.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("reports arrive")));
    let pid = rustix::process::Pid::from_child(&agent);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(log.any(|line| line.contains("SIGTERM")));
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}
