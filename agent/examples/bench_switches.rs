//! What the program at the switch of tasks costs: two threads on one processor hand a byte to and fro through a socket, so every
//! hand-over is a switch. Three ways in turn: no program, one that returns at once (paused), one that adds up. `cargo xtask
//! bench-switches` runs it, as root.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result};
use mcad_agent::probe::{MAX_CGROUPS, Probes, RunQueueChoice};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Hand-overs of one measurement: a few ms, so that on a busy machine many measurements are not interrupted.
const HAND_OVERS: u32 = 400;
/// Measurements of each way, in turn; the median tells.
const ROUNDS: usize = 3000;
/// Where the other tasks of a busy node would be: the ones that switch are spread over so many cgroups.
const MANY: usize = 200;

fn main() -> Result<()> {
    let tree = std::env::args().nth(1).context("which cgroup v2 tree? bench_switches TREE")?;
    println!(
        "ns per switch, median of {ROUNDS} measurements of {HAND_OVERS} switches; first and last tenth in brackets"
    );
    let mut pair = Pair::new()?;
    pin();
    let mut without: Vec<f64> = (0..ROUNDS).map(|_| pair.measure()).collect::<Result<_>>()?;
    let (mut paused, mut adding) = (Vec::new(), Vec::new());
    let mut probes =
        Probes::attach("/sys/kernel/btf/vmlinux".as_ref(), tree.as_ref(), MAX_CGROUPS, RunQueueChoice::On)?;
    let probe = probes.run_queue.as_mut().context("the program can't be loaded here")?;
    for _ in 0..ROUNDS {
        probe.pause();
        paused.push(pair.measure()?);
        probe.resume();
        adding.push(pair.measure()?);
    }
    let all = probe.read().all;
    drop(probes);
    for _ in 0..ROUNDS {
        without.push(pair.measure()?);
    }
    let (without, paused, adding) = (Summary::of(without), Summary::of(paused), Summary::of(adding));
    println!("no program     {without}\nreturns only   {paused}\nadds up waits  {adding}");
    println!("net of one that returns only: {:.0} ns", adding.median - paused.median);
    println!("rate of hand-overs kept: {:.1} % of that without a program", 100.0 * without.median / adding.median);
    println!("by the program's own clock, two readings of it included: {} ns", all.timed_ns / all.timed.max(1));
    many_cgroups(tree.as_ref())
}

/// Threads in many cgroups, each waking the next in a ring.
fn many_cgroups(tree: &Path) -> Result<()> {
    let branch = tree.join(format!("mcad-bench-{}", std::process::id()));
    std::fs::create_dir(&branch).context("make a cgroup")?;
    let outcome = ring(tree, &branch);
    for index in 0..MANY {
        let _ = std::fs::remove_dir(branch.join(index.to_string()));
    }
    let _ = std::fs::remove_dir(&branch);
    outcome
}

fn ring(tree: &Path, branch: &Path) -> Result<()> {
    let mut processes = Vec::new();
    let pairs: Vec<(UnixStream, UnixStream)> = (0..=MANY).map(|_| UnixStream::pair()).collect::<Result<_, _>>()?;
    for index in 0..MANY {
        let cgroup = branch.join(index.to_string());
        std::fs::create_dir(&cgroup)?;
        // SAFETY: this process has one thread here, and the child only reads, writes and exits.
        match unsafe { libc::fork() } {
            0 => {
                let _ = std::fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string());
                pin();
                let (mut from, mut to) = (&pairs[index].1, &pairs[index + 1].0);
                let mut byte = [0];
                while from.read_exact(&mut byte).is_ok() && to.write_all(&byte).is_ok() {}
                // SAFETY: ends the child without what the parent has registered.
                unsafe { libc::_exit(0) };
            }
            child => processes.push(child),
        }
    }
    let round = || -> Result<f64> {
        let started = Instant::now();
        let mut byte = [0];
        for _ in 0..HAND_OVERS as usize / MANY {
            (&pairs[0].0).write_all(&byte)?;
            (&pairs[MANY].1).read_exact(&mut byte)?;
        }
        Ok(started.elapsed().as_nanos() as f64 / f64::from(HAND_OVERS))
    };
    pin();
    round()?;
    let mut probes = Probes::attach("/sys/kernel/btf/vmlinux".as_ref(), tree, MAX_CGROUPS, RunQueueChoice::On)?;
    let probe = probes.run_queue.as_mut().context("the program can't be loaded here")?;
    let (mut paused, mut adding) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS / 2 {
        probe.pause();
        paused.push(round()?);
        probe.resume();
        adding.push(round()?);
    }
    let (paused, adding) = (Summary::of(paused), Summary::of(adding));
    println!("{MANY} cgroups, in a ring:\nreturns only   {paused}\nadds up waits  {adding}");
    println!("net of one that returns only: {:.0} ns", adding.median - paused.median);
    for process in processes {
        // SAFETY: plain system calls on a child that is not waited for yet.
        unsafe { libc::kill(process, libc::SIGKILL) };
        // SAFETY: as above; the status is not wanted.
        unsafe { libc::waitpid(process, std::ptr::null_mut(), 0) };
    }
    Ok(())
}

/// This thread, and one that hands every byte back.
struct Pair(UnixStream);

impl Pair {
    fn new() -> Result<Self> {
        let (here, mut there) = UnixStream::pair()?;
        std::thread::spawn(move || {
            pin();
            let mut byte = [0];
            while there.read_exact(&mut byte).is_ok() && there.write_all(&byte).is_ok() {}
        });
        Ok(Self(here))
    }

    /// ns per switch: a byte to the other thread and back is two.
    fn measure(&mut self) -> Result<f64> {
        let mut byte = [0];
        let started = Instant::now();
        for _ in 0..HAND_OVERS / 2 {
            self.0.write_all(&byte)?;
            self.0.read_exact(&mut byte)?;
        }
        Ok(started.elapsed().as_nanos() as f64 / f64::from(HAND_OVERS))
    }
}

/// All on one processor, so that handing over is switching.
fn pin() {
    let mut processors = CpuSet::new();
    processors.set(0);
    let _ = sched_setaffinity(None, &processors);
}

struct Summary {
    first: f64,
    median: f64,
    last: f64,
}

impl Summary {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |tenths: usize| values[values.len() * tenths / 10];
        Self { first: at(1), median: at(5), last: at(9) }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:6.0}  [{:.0} to {:.0}]", self.median, self.first, self.last)
    }
}
