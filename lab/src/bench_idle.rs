//! `cargo xtask bench-idle`: measures a running agent on a node where little happens, beside another process that reads
//! the same cgroups.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use xtask::{build_ebpf, fake_gpus, workspace};

/// Pods with nine containers each: 1,000 cgroups including the pods' own.
const PODS: usize = 100;
const CONTAINERS: usize = 9;

/// Initial work is over by then: two samples, one to prove where memory by kind is, and one that uses it.
const SETTLE: Duration = Duration::from_secs(25);

/// Measure the cost of an agent that samples 1,000 cgroups every 10 s, by eBPF and by files, over minutes. Needs root.
///
/// The cgroups are created in every hierarchy, so that other readers find them as well, for example a kubelet with this
/// cgroup root.
#[derive(Args)]
pub(crate) struct BenchIdle {
    /// How long to measure
    #[arg(long, value_name = "MINUTES", default_value_t = 3)]
    minutes: u64,
    /// The cgroup in which the 1,000 are created, in every hierarchy
    #[arg(long, value_name = "PATH", default_value = "mcad-bench-idle")]
    below: PathBuf,
    /// Start a third agent, which reads by eBPF and has this many fake GPUs
    #[arg(long, value_name = "COUNT")]
    fake_gpus: Option<u8>,
    /// A running process to measure beside the agents, by its command's name, for example kubelet
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
}

impl BenchIdle {
    pub(crate) fn run(self) -> Result<()> {
        build_ebpf::ensure()?;
        workspace::run(&mut workspace::cargo(&["build", "--quiet", "--release", "--package", "mcad-agent"]))?;
        let _cgroups = Cgroups::new(&self.below)?;
        let sink = sink()?;
        let mut agents = Vec::new();
        for source in ["bpf", "files"] {
            agents.push((format!("agent, {source}"), Agent::start(source, &sink, None)?));
        }
        let install = |count| {
            workspace::run(&mut workspace::cargo(&["build", "--quiet", "--release", "--package", "fake-nvml"]))?;
            fake_gpus::install(count, &workspace::built("release", "libfake_nvml.so"), &workspace::target().join("run"))
        };
        let nvml = self.fake_gpus.map(install).transpose()?;
        if let (Some(count), Some(library)) = (self.fake_gpus, &nvml) {
            agents.push((format!("with {count} GPUs"), Agent::start("bpf", &sink, Some(library))?));
        }
        let mut processes: Vec<(String, u32)> =
            agents.iter().map(|(name, agent)| (name.clone(), agent.0.id())).collect();
        if let Some(peer) = &self.peer {
            processes.push((peer.clone(), process(peer).with_context(|| format!("no {peer} is running"))?));
        }
        thread::sleep(SETTLE);
        for (name, agent) in &agents {
            processes.extend(children(agent.0.id()).into_iter().map(|id| (format!("{name}: NVML"), id)));
        }
        let began = Instant::now();
        let before: Vec<u64> = processes.iter().map(|(_, id)| cpu_ns(*id)).collect::<Result<_>>()?;
        let mut most_resident = vec![0; processes.len()];
        while began.elapsed() < Duration::from_mins(self.minutes) {
            thread::sleep(Duration::from_secs(5));
            for ((_, id), most) in processes.iter().zip(&mut most_resident) {
                *most = status_kib(*id, "VmRSS:")?.max(*most);
            }
        }
        let elapsed_ns = began.elapsed().as_nanos() as f64;
        println!("over {:.0} s, 1,000 cgroups, a report every 10 s:", elapsed_ns / 1e9);
        println!("{:>14} | {:>11} | {:>22} | {:>22}", "", "% of a core", "max. resident, MiB", "peak since start, MiB");
        for (((name, id), before_ns), resident) in processes.iter().zip(before).zip(most_resident) {
            let share = 100.0 * (cpu_ns(*id)? - before_ns) as f64 / elapsed_ns;
            let (resident, ever) = (resident as f64 / 1024.0, status_kib(*id, "VmHWM:")? as f64 / 1024.0);
            println!("{name:>14} | {share:>11.3} | {resident:>22.1} | {ever:>22.1}");
        }
        Ok(())
    }
}

/// CPU time of all living threads. No thread of these processes ends.
fn cpu_ns(process: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{process}/task")).context("a measured process has ended")? {
        // A thread may end between the two lines.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        total += text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
    }
    Ok(total)
}

fn status_kib(process: u32, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).context("a measured process has ended")?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

/// The child processes: the agent's process for NVML.
fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

fn process(name: &str) -> Option<u32> {
    let ids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.into_iter()
        .find(|id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == name))
}

/// An agent that is killed at the end of the benchmark.
struct Agent(Child);

impl Agent {
    fn start(source: &str, sink: &str, nvml: Option<&Path>) -> Result<Self> {
        let mut agent = Command::new(workspace::root().join("target/release/mcad-agent"));
        agent.args(["--aggregator", sink, "--interval", "10s", "--cgroup-source", source]).stderr(Stdio::null());
        if let Some(library) = nvml {
            agent.arg("--nvml").arg(library);
        }
        Ok(Self(agent.spawn().context("cannot start the agent")?))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An aggregator that accepts every report and ignores it.
fn sink() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = BufReader::new(&connection);
                while take(&mut reader, &connection).is_some() {}
            });
        }
    });
    Ok(url)
}

fn take(reader: &mut BufReader<&TcpStream>, mut connection: &TcpStream) -> Option<()> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}

/// The 1,000 cgroups in every hierarchy, named like kubelet's cgroups of pods so that reports list them. Removed at the
/// end.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn new(below: &Path) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
        let trees = mounts.lines().filter(|line| line.contains(" - cgroup2 ") || line.contains(" - cgroup "));
        let trees: Vec<PathBuf> = trees.filter_map(|line| Some(PathBuf::from(line.split(' ').nth(4)?))).collect();
        ensure!(!trees.is_empty(), "no cgroups are mounted here");
        let mut made = Self(Vec::new());
        for tree in trees {
            for part in below.ancestors().collect::<Vec<_>>().into_iter().rev() {
                made.add(tree.join(part))?;
            }
            let pods = tree.join(below).join("kubepods");
            made.add(pods.clone())?;
            for pod in 0..PODS {
                let pod = pods.join(format!("pod00000000-0000-4000-8000-{pod:012}"));
                made.add(pod.clone())?;
                for container in 0..CONTAINERS {
                    made.add(pod.join(format!("{container:064x}")))?;
                }
            }
        }
        Ok(made)
    }

    /// Creates a cgroup. One that exists already is not removed at the end.
    fn add(&mut self, path: PathBuf) -> Result<()> {
        if !path.is_dir() {
            fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
            self.0.push(path);
        }
        Ok(())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for cgroup in self.0.iter().rev() {
            let _ = fs::remove_dir(cgroup);
        }
    }
}
