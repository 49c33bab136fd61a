//! Compares reading all cgroups by the kernel's iterator with reading their files, in the same run. `cargo xtask
//! bench-cgroups` runs it, as root; with `--kernel` in an emulated guest, where only ratios are meaningful.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result};
use mcad_agent::{
    probe::{MAX_CGROUPS, RunQueueChoice},
    source::{ReadCgroups, bpf::BpfCgroups, cgroup::CgroupFiles},
};

/// The files that file-reading collectors open for each cgroup.
const SIX: [&str; 6] = ["cpu.stat", "memory.current", "memory.stat", "memory.events", "io.stat", "pids.current"];
/// Number of measurements of each kind.
const ROUNDS: usize = 11;

fn main() -> Result<()> {
    let tree = PathBuf::from(std::env::args().nth(1).context("pass the cgroup v2 tree: bench_cgroups TREE")?);
    println!("medians of {ROUNDS}, us per cgroup; six files: those of them that this kernel's tree has");
    println!(
        "{:>8} {:>7} | {:>9} {:>9} {:>9} | {:>9} {:>9} {:>9} | {:>8} {:>8}",
        "cgroups", "active", "walk", "decoded", "flushed", "cpu.stat", "six files", "all files", "x 1 file", "x 6"
    );
    let prover = Prover::new(&tree)?;
    for (count, active) in [(1000, 0), (1000, 20), (200, 200), (1000, 200)] {
        let branch = Branch::new(&tree, count)?;
        let mut actors = branch.actors(active)?;
        measure(&tree, &branch, active, &mut actors)?;
    }
    drop(prover);
    Ok(())
}

/// A cgroup with memory of every kind, as every node has one. Without it, the agent has no proof that this kernel keeps
/// memory by kind where the walk reads it, and reads every cgroup's `memory.stat` instead.
struct Prover {
    cgroup: PathBuf,
    process: Child,
}

impl Prover {
    fn new(tree: &Path) -> Result<Self> {
        let cgroup = tree.join(format!("mcad-prover-{}", std::process::id()));
        fs::create_dir(&cgroup).context("cannot create a cgroup")?;
        // Pages of a file on a disk, or on the guest's RAM disk; held open, because the kernel drops those of a closed
        // device. And pages of a file in memory, which are never inactive: if all file pages were inactive, two values
        // would be equal and prove nothing.
        let file = if Path::new("/dev/ram0").exists() { "/dev/ram0" } else { "/proc/self/exe" };
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec 3< {file}; dd if={file} of=/dev/null bs=1M count=8 2>/dev/null; \
             cd /dev/shm 2>/dev/null || cd /tmp; exec 4> prover-$$; rm prover-$$; head -c 1000000 /dev/zero >&4; \
             x=$(head -c 3000000 /dev/zero | tr '\\0' x); echo; read never",
            cgroup.display()
        );
        let mut process =
            Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        // One line is printed when everything is in memory.
        let mut line = [0];
        process.stdout.as_mut().context("no pipe")?.read_exact(&mut line).context("the prover ended")?;
        Ok(Self { cgroup, process })
    }
}

impl Drop for Prover {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir(&self.cgroup);
    }
}

fn measure(tree: &Path, branch: &Branch, active: usize, actors: &mut [Actor]) -> Result<()> {
    let mut bpf = BpfCgroups::attach("/sys".as_ref(), tree, MAX_CGROUPS, RunQueueChoice::Off)?;
    let mut files = CgroupFiles::new(tree.to_owned());
    // The first read searches for the proof, the second uses it.
    bpf.read()?;
    let from_files = bpf.read()?.from_files;
    let (mut walk, mut decoded, mut flushed) = (Vec::new(), Vec::new(), Vec::new());
    let (mut one, mut six, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        wake(actors)?;
        let started = Instant::now();
        let sample = bpf.read()?;
        let total = us(started);
        let cost = sample.probes.context("no cost")?;
        let cgroups = f64::from(sample.seen);
        walk.push(cost.walk_ns as f64 / 1000.0 / cgroups);
        decoded.push((total - cost.flush_ns as f64 / 1000.0) / cgroups);
        flushed.push(total / cgroups);
        wake(actors)?;
        one.push(read_files(&branch.cgroups, &SIX[..1]) / branch.cgroups.len() as f64);
        wake(actors)?;
        six.push(read_files(&branch.cgroups, &SIX) / branch.cgroups.len() as f64);
        wake(actors)?;
        let started = Instant::now();
        let sample = files.read()?;
        all.push(us(started) / f64::from(sample.seen));
    }
    if !from_files.is_empty() {
        println!("also read from files for each cgroup: {from_files:?}");
    }
    let [walk, decoded, flushed, one, six, all] = [walk, decoded, flushed, one, six, all].map(median);
    println!(
        "{:>8} {active:>7} | {walk:>9.2} {decoded:>9.2} {flushed:>9.2} | {one:>9.2} {six:>9.2} {all:>9.2} | {:>8.1} {:>8.1}",
        branch.cgroups.len(),
        one / flushed,
        six / flushed
    );
    Ok(())
}

/// Opens, reads and closes the files; the cost of parsing is not included.
fn read_files(cgroups: &[PathBuf], names: &[&str]) -> f64 {
    let mut buffer = vec![0; 16 * 1024];
    let started = Instant::now();
    for cgroup in cgroups {
        for name in names {
            if let Ok(mut file) = File::open(cgroup.join(name)) {
                while file.read(&mut buffer).is_ok_and(|read| read > 0) {}
            }
        }
    }
    us(started)
}

/// Pods with ten containers each, removed at the end.
struct Branch {
    root: PathBuf,
    cgroups: Vec<PathBuf>,
}

impl Branch {
    fn new(tree: &Path, count: usize) -> Result<Self> {
        let root = tree.join(format!("mcad-bench-{}", std::process::id()));
        let mut branch = Self { root: root.clone(), cgroups: Vec::new() };
        fs::create_dir(&root).context("cannot create a cgroup")?;
        give_controllers(&root);
        for pod in 0..count / 10 {
            let pod = root.join(format!("pod{pod}"));
            fs::create_dir(&pod)?;
            give_controllers(&pod);
            for container in 0..9 {
                let container = pod.join(container.to_string());
                fs::create_dir(&container)?;
                branch.cgroups.push(container);
            }
            branch.cgroups.push(pod);
        }
        Ok(branch)
    }

    /// Starts a process in each of this many containers, which computes and allocates a little when it is woken.
    fn actors(&self, count: usize) -> Result<Vec<Actor>> {
        self.cgroups.iter().filter(|path| is_leaf(path)).take(count).map(|path| Actor::new(path)).collect()
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        for cgroup in &self.cgroups {
            let _ = fs::remove_dir(cgroup);
        }
        let _ = fs::remove_dir(&self.root);
    }
}

fn is_leaf(cgroup: &Path) -> bool {
    cgroup.file_name().is_some_and(|name| !name.to_string_lossy().starts_with("pod"))
}

fn give_controllers(cgroup: &Path) {
    for controller in ["+cpu", "+memory", "+io", "+pids"] {
        let _ = fs::write(cgroup.join("cgroup.subtree_control"), controller);
    }
}

struct Actor {
    process: i32,
    line: UnixStream,
}

impl Actor {
    fn new(cgroup: &Path) -> Result<Self> {
        let (line, mut theirs) = UnixStream::pair()?;
        // SAFETY: this process has one thread, and the child only computes, reads, writes and exits.
        let process = unsafe { libc::fork() };
        if process == 0 {
            let _ = fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string());
            drop(line);
            let mut byte = [0];
            let mut kept: Vec<Vec<u8>> = Vec::new();
            while theirs.read_exact(&mut byte).is_ok() {
                kept.push(vec![1; 16 * 1024]);
                kept.truncate(8);
                if theirs.write_all(&byte).is_err() {
                    break;
                }
            }
            // SAFETY: ends the child without running the exit handlers of the parent.
            unsafe { libc::_exit(0) };
        }
        Ok(Self { process, line })
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // SAFETY: plain system calls on a child that was not waited for yet.
        unsafe { libc::kill(self.process, libc::SIGKILL) };
        // SAFETY: as above; the status is not needed.
        unsafe { libc::waitpid(self.process, std::ptr::null_mut(), 0) };
    }
}

/// Every actor does its work once, so that each of their cgroups has something to flush.
fn wake(actors: &mut [Actor]) -> Result<()> {
    let mut byte = [0];
    for actor in actors {
        actor.line.write_all(&byte)?;
        actor.line.read_exact(&mut byte)?;
    }
    Ok(())
}

fn us(started: Instant) -> f64 {
    started.elapsed().as_nanos() as f64 / 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
