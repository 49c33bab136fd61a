//! The cgroup sources against this machine's kernel: real cgroups, real processes. The tests compare counters that were
//! read around the walk, never times.

use std::{
    collections::HashMap,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use super::{ReadCgroups, bpf::BpfCgroups};
use crate::{
    kernel::CgroupSourceChoice,
    kernel::{CgroupPlan, KernelFacts},
    probe::{self, RunQueueChoice},
    sample::CgroupSample,
};

/// The cgroup v2 tree of this machine, if it has one and this process may write to it and load probes. Otherwise prints
/// why not.
pub(super) fn tree() -> Option<PathBuf> {
    let mounted = mounted();
    let facts = KernelFacts::learn("/proc".as_ref(), "/sys".as_ref(), probe::built_in(), mounted.is_some());
    match facts.plan(CgroupSourceChoice::Bpf) {
        Ok(CgroupPlan::Bpf) => mounted,
        Ok(_) => skip("no cgroup v2 tree is mounted"),
        Err(why) => skip(&why.0.to_string()),
    }
}

/// Where a cgroup v2 tree is mounted.
fn mounted() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().find_map(|line| line.contains(" - cgroup2 ").then(|| PathBuf::from(line.split(' ').nth(4).unwrap())))
}

/// Set by tests that know this kernel (`cargo xtask test-kernels`): the source that must be chosen here.
const EXPECTED_TIER: &str = "MCAD_EXPECTED_TIER";

fn skip(why: &str) -> Option<PathBuf> {
    assert_ne!(
        std::env::var(EXPECTED_TIER).as_deref(),
        Ok("bpf"),
        "this kernel can be read by its iterator, but {why}"
    );
    eprintln!("SKIPPED: cgroup iterator on this kernel: {why}");
    None
}

/// A lock for tests that affect the probes of others: a thousand cgroups at once leave no places for waits, and what
/// one test removes is in the rings of all.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The prefix of the names of tests' cgroups, before the id of the process.
const BRANCH: &str = "mcad-test-";

/// A cgroup of this test, removed with its descendants when the test ends.
pub(super) struct Branch {
    pub(super) path: PathBuf,
    pub(super) relative: String,
}

impl Branch {
    pub(super) fn new(tree: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| Self::sweep(tree));
        let name = format!("{BRANCH}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = tree.join(&name);
        fs::create_dir(&path).unwrap();
        Self { path, relative: format!("/{name}") }
    }

    pub(super) fn child(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    /// Removes the cgroups of tests that were killed.
    fn sweep(tree: &Path) {
        for entry in fs::read_dir(tree).unwrap().flatten() {
            let name = entry.file_name();
            let maker = name.to_str().and_then(|name| name.strip_prefix(BRANCH)?.split('-').next());
            if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                drop(Self { path: entry.path(), relative: String::new() });
            }
        }
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        // cgroupfs has no recursive removal, so the deepest are removed first.
        fn remove(path: &Path) {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    remove(&entry.path());
                }
            }
            let _ = fs::remove_dir(path);
        }
        remove(&self.path);
    }
}

/// A process in a cgroup that only uses CPU.
struct Busy(Child);

impl Busy {
    fn start(cgroup: &Path) -> Self {
        let child = Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        Self(child)
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a plain system call on a child that was not waited for yet, so its id cannot have been reused.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }

    fn stop(&self) {
        self.signal(libc::SIGSTOP);
        wait_stopped(self.0.id());
    }
}

/// Waits until the kernel reports that a process is stopped and has left its CPU.
pub(super) fn wait_stopped(process: u32) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
    while !matches!(read("stat").rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('T' | 'Z')) {
        thread::yield_now();
    }
    // A task is reported as stopped before it has left its CPU. Reading this file waits for that, or reports that the
    // task is running.
    while read("syscall").starts_with("running") {
        thread::yield_now();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn usage_usec(cgroup: &Path) -> u64 {
    let text = fs::read_to_string(cgroup.join("cpu.stat")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse().unwrap()
}

fn cpu_ns(sample: &CgroupSample, path: &str) -> u64 {
    let found = sample.cgroups.iter().find(|cgroup| &*cgroup.path == path);
    found.unwrap_or_else(|| panic!("{path} is not in the sample")).cpu_ns.unwrap()
}

pub(super) fn attach(tree: &Path, capacity: u32) -> BpfCgroups {
    BpfCgroups::attach("/sys".as_ref(), tree, capacity, RunQueueChoice::Off).unwrap()
}

#[test]
fn the_tier_is_the_best_that_this_kernel_gives() {
    let mounted = mounted();
    let facts = KernelFacts::learn("/proc".as_ref(), "/sys".as_ref(), probe::built_in(), mounted.is_some());
    let chosen = match facts.plan(CgroupSourceChoice::Auto).unwrap() {
        CgroupPlan::Bpf => "bpf",
        CgroupPlan::Files(_) => "files",
        CgroupPlan::Nowhere => "nowhere",
    };
    let works = || {
        let Some(tree) = mounted else { return "nowhere" };
        if BpfCgroups::attach("/sys".as_ref(), &tree, 16, RunQueueChoice::Off).is_ok() { "bpf" } else { "files" }
    };
    let expected = std::env::var(EXPECTED_TIER).unwrap_or_else(|_| works().to_owned());
    assert_eq!(chosen, expected, "{facts:?}");
}

#[test]
fn cpu_of_a_busy_cgroup_lies_between_its_cpu_stat_before_and_after() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    let inner = branch.child("x");
    let path = format!("{}/x", branch.relative);
    let mut source = attach(&tree, probe::MAX_CGROUPS);
    let _busy = Busy::start(&inner);
    let mut walks = 0;
    let mut last_ns = 0;
    // Over two seconds of its own CPU time, however long that takes.
    while last_ns < 2_000_000_000 {
        let before_us = usage_usec(&inner);
        let sample = source.read().unwrap();
        let after_us = usage_usec(&inner);
        let measured_ns = cpu_ns(&sample, &path);
        // cpu.stat truncates to microseconds.
        assert!(
            (before_us..=after_us).contains(&(measured_ns / 1000)),
            "{measured_ns} ns is not within {before_us}..={after_us} us"
        );
        assert!(measured_ns >= last_ns, "a total fell");
        last_ns = measured_ns;
        walks += 1;
    }
    assert!(walks > 10, "only {walks} walks");
}

#[test]
fn cpu_of_a_stopped_cgroup_equals_its_cpu_stat() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    let mut source = attach(&tree, probe::MAX_CGROUPS);
    let busy = Busy::start(&branch.path);
    while usage_usec(&branch.path) < 200_000 {
        thread::yield_now();
    }
    busy.stop();
    let file_us = usage_usec(&branch.path);
    let measured_ns = cpu_ns(&source.read().unwrap(), &branch.relative);
    assert_eq!(measured_ns / 1000, file_us);
    assert_eq!(usage_usec(&branch.path), file_us, "it was not stopped");
    busy.signal(libc::SIGCONT);
}

#[test]
fn of_3000_cgroups_none_is_lost_and_none_comes_twice_while_others_come_and_go() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    // Neither flat nor deep: 30 pods with 100 containers.
    let mut kept = Vec::new();
    for pod in 0..30 {
        branch.child(&format!("p{pod}"));
        for container in 0..99 {
            branch.child(&format!("p{pod}/{container}"));
            kept.push(format!("{}/p{pod}/{container}", branch.relative));
        }
        kept.push(format!("{}/p{pod}", branch.relative));
    }
    assert_eq!(kept.len(), 3000);
    let mut source = attach(&tree, probe::MAX_CGROUPS);
    let done = AtomicBool::new(false);
    let churned = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for pod in 0..30 {
                    let path = branch.path.join(format!("p{pod}/passing"));
                    fs::create_dir(&path).unwrap();
                    fs::remove_dir(&path).unwrap();
                    churned.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut walks = 0;
        while walks < 50 || churned.load(Ordering::Relaxed) < 300 {
            let sample = source.read().unwrap();
            walks += 1;
            assert_eq!(sample.dropped, 0);
            assert_eq!(sample.seen as usize, sample.cgroups.len());
            let mut times: HashMap<&str, u32> = HashMap::new();
            let mut ids: HashMap<u64, u32> = HashMap::new();
            for cgroup in &sample.cgroups {
                *times.entry(&cgroup.path).or_default() += 1;
                *ids.entry(cgroup.id).or_default() += 1;
            }
            assert!(kept.iter().all(|path| times.get(path.as_str()) == Some(&1)));
            assert!(ids.values().all(|times| *times == 1));
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn cgroups_without_room_are_counted_not_forgotten() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    for name in 0..20 {
        branch.child(&name.to_string());
    }
    let mut source = attach(&tree, 5);
    let sample = source.read().unwrap();
    assert_eq!(sample.cgroups.len(), 5);
    assert_eq!(sample.seen, 5 + sample.dropped);
    assert!(sample.dropped >= 17, "{} dropped", sample.dropped);
}

#[test]
fn names_of_maximal_length_odd_bytes_and_a_deep_tree_come_out() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    let long = "n".repeat(255);
    branch.child(&long);
    let odd = branch.path.join(std::ffi::OsStr::from_bytes(b"odd \xff \"name"));
    fs::create_dir(&odd).unwrap();
    let mut deep = String::new();
    for level in 0..100 {
        deep = format!("{deep}{}{level}", if level == 0 { "" } else { "/" });
        branch.child(&deep);
    }
    let sample = attach(&tree, probe::MAX_CGROUPS).read().unwrap();
    for expected in [&long, "odd \u{fffd} \"name", &deep] {
        let path = format!("{}/{expected}", branch.relative);
        assert_eq!(sample.cgroups.iter().filter(|cgroup| *cgroup.path == path).count(), 1, "{path}");
    }
}

#[test]
fn a_cgroup_made_anew_under_an_old_name_is_another_one() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    let mut source = attach(&tree, probe::MAX_CGROUPS);
    let name = format!("{}/again", branch.relative);
    let id_of =
        |sample: CgroupSample| sample.cgroups.iter().find(|cgroup| *cgroup.path == name).map(|cgroup| cgroup.id);
    let path = branch.child("again");
    let first = id_of(source.read().unwrap());
    fs::remove_dir(&path).unwrap();
    assert_eq!(id_of(source.read().unwrap()), None);
    branch.child("again");
    let second = id_of(source.read().unwrap());
    assert!(first.is_some() && second.is_some() && first != second, "{first:?} {second:?}");
}
