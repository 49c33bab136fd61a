//! What the program at the switch of tasks costs. `cargo xtask bench-switches` runs it, as root.
//!
//! First by the kernel's own account of each program's time and runs, beside a program that does nothing at the same place: many
//! short stretches of switches, each with both programs' cost in it, so that what disturbs the machine disturbs both. Then by the rate
//! of a ping-pong over a pipe, with and without the program, in turn.

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
/// Switches of one stretch: under a few ms, so that most stretches are undisturbed.
const SWITCHES: usize = 400;
/// Stretches; the median tells.
const STRETCHES: usize = 2000;
/// Where the other tasks of a busy node would be: the ones that switch are spread over so many cgroups.
const MANY: usize = 200;
/// Pairs of rates, with and without the program.
const PAIRS: usize = 60;
const RATE_WINDOW: Duration = Duration::from_millis(100);

fn main() -> Result<()> {
    let tree = PathBuf::from(std::env::args().nth(1).context("which cgroup v2 tree? bench_switches TREE")?);
    println!(
        "ns per run by the kernel's account, {STRETCHES} stretches of {SWITCHES} switches: median [first to last tenth]"
    );
    println!("{:>22} | {:>20} | {:>20} | {:>20}", "", "does nothing", "adds up waits", "net");
    own_cost(&tree, "2 tasks over a pipe", 2)?;
    own_cost(&tree, "200 cgroups in a ring", MANY)?;
    rate(&tree)
}

fn probes(tree: &Path) -> Result<Probes> {
    let probes = Probes::attach(BTF.as_ref(), tree, MAX_CGROUPS, RunQueueChoice::On)?;
    probes.run_queue.as_ref().context("the program can't be loaded here")?;
    Ok(probes)
}

/// By the kernel's account, while so many tasks hand a byte around, each in a cgroup of its own.
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

/// By the clock: hand-overs a second with the program against the mean of those before and after without it.
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

/// Tasks on one processor, each in its own cgroup, that hand a byte to the next: every hand-over is a switch.
struct Ring {
    first: PipeWriter,
    last: PipeReader,
    tasks: usize,
    processes: Vec<i32>,
    branch: PathBuf,
}

impl Ring {
    /// This task is one of them.
    fn new(tree: &Path, tasks: usize) -> Result<Self> {
        let branch = tree.join(format!("mcad-bench-{}", std::process::id()));
        fs::create_dir(&branch).context("make a cgroup")?;
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
                    // SAFETY: ends the child without what the parent has registered.
                    unsafe { libc::_exit(0) };
                }
                child => processes.push(child),
            }
            last = next;
        }
        let mut ring = Self { first, last, tasks, processes, branch };
        // Once around, so that all are in their cgroups.
        ring.turn(tasks)?;
        Ok(ring)
    }

    /// At least so many switches.
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
            // SAFETY: plain system calls on a child that is not waited for yet.
            unsafe { libc::kill(*process, libc::SIGKILL) };
            // SAFETY: as above; the status is not wanted.
            unsafe { libc::waitpid(*process, std::ptr::null_mut(), 0) };
        }
        for index in 1..self.tasks {
            let _ = fs::remove_dir(self.branch.join(index.to_string()));
        }
        let _ = fs::remove_dir(&self.branch);
    }
}

/// All on one processor, so that handing over is switching, and before others on it as far as that is allowed.
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
