//! Measures the cost of the program at task switches. `cargo xtask bench-switches` runs it, as root.
//!
//! First with the kernel's own statistics of each program's time and runs, beside an empty program at the same place:
//! many short stretches of switches, with both programs' cost in each, so that disturbances of the machine affect both.
//! Then with the rate of a ping-pong over a pipe, alternating with and without the program.

use std::{
    fs,
    io::{PipeReader, PipeWriter, Read, Write, pipe},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use mcad_agent::probe::{CostAccount, MAX_CGROUPS, Probes, RunQueueChoice};
use rustix::thread::{CpuSet, sched_setaffinity};

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Switches in one stretch: less than a few ms, so that most stretches are undisturbed.
const SWITCHES: usize = 400;
/// Number of stretches; the median is used.
const STRETCHES: usize = 2000;
/// The number of cgroups that the switching tasks are spread over, like the tasks of a busy node.
const MANY: usize = 200;
/// Number of pairs of rates, with and without the program.
const PAIRS: usize = 60;
const RATE_WINDOW: Duration = Duration::from_millis(100);

fn main() -> Result<()> {
    let tree = PathBuf::from(std::env::args().nth(1).context("pass the cgroup v2 tree: bench_switches TREE")?);
    println!(
        "ns per run in the kernel's statistics, {STRETCHES} stretches of {SWITCHES} switches: median [first to last tenth]"
    );
    println!("{:>22} | {:>20} | {:>20} | {:>20}", "", "empty program", "adds up waits", "net");
    own_cost(&tree, "2 tasks over a pipe", 2)?;
    own_cost(&tree, "200 cgroups in a ring", MANY)?;
    rate(&tree)
}

fn probes(tree: &Path) -> Result<Probes> {
    let probes = Probes::attach(BTF.as_ref(), tree, MAX_CGROUPS, RunQueueChoice::On)?;
    probes.run_queue.as_ref().context("the program can't be loaded here")?;
    Ok(probes)
}

/// The cost in the kernel's statistics, while this many tasks pass a byte around, each in a cgroup of its own.
fn own_cost(tree: &Path, name: &str, tasks: usize) -> Result<()> {
    let mut ring = Ring::new(tree, tasks)?;
    let _probes = probes(tree)?;
    let account = CostAccount::open(BTF.as_ref())?;
    ring.turn(SWITCHES)?;
    let mut columns: [Vec<f64>; 3] = Default::default();
    for _ in 0..STRETCHES {
        let before = account.read()?;
        ring.turn(SWITCHES)?;
        let after = account.read()?;
        let [empty, adding] = [0, 1].map(|program: usize| {
            let runs = after[program].runs - before[program].runs;
            (after[program].time_ns - before[program].time_ns) as f64 / runs.max(1) as f64
        });
        for (column, value) in columns.iter_mut().zip([empty, adding, adding - empty]) {
            column.push(value);
        }
    }
    let [empty, adding, net] = columns.map(Summary::of);
    println!("{name:>22} | {empty} | {adding} | {net}");
    Ok(())
}

/// The rate by the clock: hand-overs per second with the program, compared with the mean of those before and after
/// without it.
fn rate(tree: &Path) -> Result<()> {
    let mut ring = Ring::new(tree, 2)?;
    let mut window = || -> Result<f64> {
        let (started, mut switches) = (Instant::now(), 0);
        while started.elapsed() < RATE_WINDOW {
            ring.turn(SWITCHES)?;
            switches += SWITCHES;
        }
        Ok(switches as f64 / started.elapsed().as_secs_f64())
    };
    window()?;
    let (mut kept, mut rates) = (Vec::new(), Vec::new());
    let mut before = window()?;
    for _ in 0..PAIRS {
        let probes = probes(tree)?;
        let with = window()?;
        drop(probes);
        let after = window()?;
        kept.push(100.0 * with * 2.0 / (before + after));
        rates.push(after);
        before = after;
    }
    println!("ping-pong over a pipe, {PAIRS} pairs of {} ms: median [first to last tenth]", RATE_WINDOW.as_millis());
    println!("  switches a second without the program {}", Summary::of(rates));
    println!("  % of that rate kept with it           {}", Summary::of(kept));
    Ok(())
}

/// Tasks on one CPU, each in its own cgroup, that pass a byte to the next: every hand-over is a switch.
struct Ring {
    first: PipeWriter,
    last: PipeReader,
    tasks: usize,
    processes: Vec<i32>,
    branch: PathBuf,
}

impl Ring {
    /// This task is one of the ring.
    fn new(tree: &Path, tasks: usize) -> Result<Self> {
        let branch = tree.join(format!("mcad-bench-{}", std::process::id()));
        fs::create_dir(&branch).context("cannot create a cgroup")?;
        pin();
        let (mut last, first) = pipe()?;
        let mut processes = Vec::new();
        for index in 1..tasks {
            let cgroup = branch.join(index.to_string());
            fs::create_dir(&cgroup)?;
            let (next, mut to) = pipe()?;
            // SAFETY: this process has one thread, and the child only reads, writes and exits.
            match unsafe { libc::fork() } {
                0 => {
                    let _ = fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string());
                    drop(first);
                    let mut byte = [0];
                    while last.read_exact(&mut byte).is_ok() && to.write_all(&byte).is_ok() {}
                    // SAFETY: ends the child without running the exit handlers of the parent.
                    unsafe { libc::_exit(0) };
                }
                child => processes.push(child),
            }
            last = next;
        }
        let mut ring = Self { first, last, tasks, processes, branch };
        // One round, so that all tasks are in their cgroups.
        ring.turn(tasks)?;
        Ok(ring)
    }

    /// Makes at least this many switches.
    fn turn(&mut self, switches: usize) -> Result<()> {
        let mut byte = [0];
        for _ in 0..switches.div_ceil(self.tasks) {
            self.first.write_all(&byte)?;
            self.last.read_exact(&mut byte)?;
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for process in &self.processes {
            // SAFETY: plain system calls on a child that was not waited for yet.
            unsafe { libc::kill(*process, libc::SIGKILL) };
            // SAFETY: as above; the status is not needed.
            unsafe { libc::waitpid(*process, std::ptr::null_mut(), 0) };
        }
        for index in 1..self.tasks {
            let _ = fs::remove_dir(self.branch.join(index.to_string()));
        }
        let _ = fs::remove_dir(&self.branch);
    }
}

/// Puts all tasks on one CPU, so that every hand-over is a switch, and before other tasks there as far as that is
/// allowed.
fn pin() {
    let mut processors = CpuSet::new();
    processors.set(0);
    let _ = sched_setaffinity(None, &processors);
    let _ = rustix::process::setpriority_process(None, -20);
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
        write!(formatter, "{:6.1} [{:.1} to {:.1}]", self.median, self.first, self.last)
    }
}
