//! The totals of pods after the agent is killed and started again, as an aggregator receives them: real cgroups with a
//! real process.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mcad_agent::cgroup_mount::{self, CgroupMount};
use mcad_wire::report::Report;
use prost::Message as _;

/// The UIDs of a pod that lives and of one that ends. Other tests use other UIDs, because an agent sees all pods of the
/// machine.
fn uids(source: &str) -> [String; 2] {
    let last = if source == "files" { "f" } else { "a" };
    ["0b0a3c6e", "1c1b4d7f"].map(|first| format!("{first}-5d8e-4a3f-9c1d-7e6f5a4b3c2{last}"))
}

/// Kubelet's tree in a cgroup of this test, removed with the test.
struct Tree(PathBuf);

impl Tree {
    /// `None`, with a message, if this machine has no cgroup v2 or a cgroup cannot be created.
    fn new(name: &str) -> Option<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let CgroupMount::At(root) = cgroup_mount::find(&mountinfo) else {
            eprintln!("SKIPPED: no cgroup v2 is mounted here");
            return None;
        };
        let path = root.join(format!("mcad-agent-restart-{name}-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&path) {
            eprintln!("SKIPPED: no cgroup can be made in {}: {error}", root.display());
            return None;
        }
        Some(Self(path))
    }

    fn pod(&self, uid: &str) -> PathBuf {
        let path = self.0.join("kubepods").join(format!("pod{uid}"));
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fn remove(path: &Path) {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove(&entry.path());
                }
            }
            let _ = fs::remove_dir(path);
        }
        remove(&self.0);
    }
}

/// A container with a process that uses CPU all the time.
struct Container {
    path: PathBuf,
    process: Child,
}

impl Container {
    fn start(pod: &Path, number: u32) -> Self {
        let path = pod.join(format!("{number:064x}"));
        fs::create_dir(&path).unwrap();
        let process = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        fs::write(path.join("cgroup.procs"), process.id().to_string()).unwrap();
        Self { path, process }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        while fs::read_to_string(self.path.join("cgroup.events")).is_ok_and(|events| events.contains("populated 1")) {
            std::thread::yield_now();
        }
        let _ = fs::remove_dir(&self.path);
    }
}

fn cpu_ns(pod: &Path) -> u64 {
    let stat = fs::read_to_string(pod.join("cpu.stat")).unwrap();
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
    // Up to the next microsecond, because the file truncates.
    (usage.parse::<u64>().unwrap() + 1) * 1000
}

/// An agent, and the aggregator's side of its connection.
struct Agent {
    process: Child,
    connection: BufReader<TcpStream>,
}

impl Agent {
    fn start(state_dir: &Path, source: &str) -> Self {
        let aggregator = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", aggregator.local_addr().unwrap());
        let process = Command::new(env!("CARGO_BIN_EXE_mcad-agent"))
            .args(["--aggregator", &url, "--interval", "100ms", "--cgroup-source", source])
            .args(["--state-dir", state_dir.to_str().unwrap(), "--nvml", "/nonexistent"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (connection, _) = aggregator.accept().unwrap();
        Self { process, connection: BufReader::new(connection) }
    }

    /// Reads the next report and accepts it.
    fn report(&mut self) -> Report {
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.connection.read_line(&mut line).unwrap();
            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", bytes)) => length = bytes.parse().unwrap(),
                Some(_) => {}
                None if line == "\r\n" => break,
                None => assert!(line.starts_with("POST "), "{line:?}"),
            }
        }
        let mut body = vec![0; length];
        self.connection.read_exact(&mut body).unwrap();
        self.connection.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        Report::decode(&*body).unwrap()
    }

    /// Ends it with SIGKILL: it writes nothing more.
    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// CPU time and run-queue wait of a pod, living or ended.
fn totals(report: &Report, uid: &str) -> Option<(u64, Option<u64>)> {
    let cgroups = report.cgroups.as_ref()?;
    let living = cgroups.cgroups.iter().find(|cgroup| cgroup.pod_uid == uid && cgroup.container_id.is_empty());
    let living = living.map(|cgroup| (cgroup.cpu_ns.unwrap(), cgroup.run_queue_wait_ns));
    let ended = cgroups.ended_pods.iter().find(|pod| pod.uid == uid);
    living.or(ended.map(|pod| (pod.cpu_ns.unwrap(), pod.run_queue_wait_ns)))
}

fn check(source: &str) {
    let Some(tree) = Tree::new(source) else { return };
    let state_dir = tempfile::tempdir().unwrap();
    let uids = uids(source);
    let [living, ended] = [0, 1].map(|at| tree.pod(&uids[at]));
    let mut container = Some(Container::start(&living, 0));
    let mut passing = Some(Container::start(&ended, 100));
    let mut ended_ns = 0;
    let mut before = [(0, Some(0)); 2];
    for life in 0..4 {
        let mut agent = Agent::start(state_dir.path(), source);
        for round in 0..6 {
            let report = agent.report();
            let truth = [cpu_ns(&living), if passing.is_some() { cpu_ns(&ended) } else { ended_ns }];
            for (at, uid) in uids.iter().enumerate() {
                // A pod that ended while a sample was taken may be missing once.
                let Some(now) = totals(&report, uid) else { continue };
                assert!(now.0 >= before[at].0, "{uid}: {now:?} after {:?} in life {life}", before[at]);
                assert!(
                    now.1 >= before[at].1 || now.1.is_none(),
                    "{uid}: {now:?} after {:?} in life {life}",
                    before[at]
                );
                assert!(now.0 <= truth[at], "{uid}: {now:?} of {} in life {life}", truth[at]);
                before[at] = (now.0, now.1.or(before[at].1));
            }
            // Containers restart in the pod, under each agent and between two agents.
            if round % 3 == 2 {
                drop(container.take());
                container = Some(Container::start(&living, life * 10 + round));
            }
            if life == 1 && round == 2 && passing.take().is_some() {
                ended_ns = cpu_ns(&ended);
                fs::remove_dir(&ended).unwrap();
            }
        }
        agent.kill();
    }
    // At the end both pods are known; the ended one was reported by agents that never saw it.
    let mut agent = Agent::start(state_dir.path(), source);
    let last = agent.report();
    agent.kill();
    assert!(totals(&last, &uids[0]).unwrap().0 >= before[0].0);
    assert_eq!(totals(&last, &uids[1]).unwrap().0, before[1].0);
    assert!(before[1].0 > 0);
}

#[test]
fn by_files_totals_never_fall_over_killed_agents_and_are_never_above_the_truth() {
    check("files");
}

#[test]
fn by_ebpf_where_there_is_any_totals_never_fall_over_killed_agents_and_are_never_above_the_truth() {
    check("auto");
}
