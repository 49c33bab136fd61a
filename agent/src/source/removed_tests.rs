//! Pods that start and end between samples, on this machine's kernel: real cgroups in which real processes use CPU. The
//! tests compare the kernel's own counters, never times.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    ReadCgroups,
    bpf::BpfCgroups,
    live_tests::{Branch, alone, attach, tree},
};
use crate::{
    clock,
    pod_cgroup::PodUid,
    pod_totals::PodTotals,
    probe,
    sample::{Cgroup, CgroupSample, EndedPod},
};

/// The id of the container with this number.
fn container(number: u32) -> String {
    format!("{number:064x}")
}

/// Kubelet's tree in a test's branch, with the cgroupfs driver.
struct Kubelet {
    branch: Branch,
    root: PathBuf,
    /// A part of the UIDs of its pods: a source also sees pods of other processes' tests.
    number: u32,
    /// One test at a time: what one removes is in the rings of all.
    _alone: MutexGuard<'static, ()>,
}

impl Kubelet {
    fn new(tree: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let alone = alone();
        let branch = Branch::new(tree);
        for controller in ["+cpu", "+memory"] {
            let _ = fs::write(branch.path.join("cgroup.subtree_control"), controller);
        }
        let root = branch.child("kubepods");
        give_memory(&root);
        Self { branch, root, number: NEXT.fetch_add(1, Ordering::Relaxed), _alone: alone }
    }

    fn uid(&self, pod: u32) -> PodUid {
        let (process, number) = (std::process::id() & 0xffff, self.number);
        PodUid::known(&format!("{pod:08x}-{process:04x}-{number:04x}-9c1d-7e6f5a4b3c2d")).unwrap()
    }

    fn living<'a>(&self, sample: &'a CgroupSample, pod: u32) -> Option<&'a Cgroup> {
        let end = format!("/pod{}", self.uid(pod));
        sample.cgroups.iter().find(|cgroup| cgroup.path.ends_with(&end))
    }

    fn ended(&self, totals: &PodTotals, pod: u32) -> Option<EndedPod> {
        let uid = self.uid(pod);
        totals.ended().find(|ended| ended.uid == uid).cloned()
    }

    fn pod(&self, number: u32) -> PathBuf {
        let path = self.root.join(format!("pod{}", self.uid(number)));
        fs::create_dir(&path).unwrap();
        give_memory(&path);
        path
    }
}

/// Enables the memory controller if there is one.
fn give_memory(cgroup: &Path) {
    let _ = fs::write(cgroup.join("cgroup.subtree_control"), "+memory");
}

/// A process that uses CPU on request, in the cgroup that it was moved to, and sleeps in between.
struct Worker {
    process: Child,
    answers: BufReader<ChildStdout>,
    home: PathBuf,
}

impl Worker {
    /// A process whose own cgroup is this one.
    fn new(home: &Path) -> Self {
        let script = "while read n; do i=0; while [ $i -lt $n ]; do i=$((i+1)); done; echo done; done";
        let mut process =
            Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let worker = Self { process, answers, home: home.to_owned() };
        worker.go_to(home);
        worker
    }

    fn go_to(&self, cgroup: &Path) {
        fs::write(cgroup.join("cgroup.procs"), self.process.id().to_string()).unwrap();
    }

    /// Computes this many rounds in a cgroup, moves back, and returns what the kernel charged to the process meanwhile.
    fn work_ns(&mut self, cgroup: &Path, rounds: u32) -> u64 {
        let before_ns = self.asleep_ns();
        self.go_to(cgroup);
        writeln!(self.process.stdin.as_mut().unwrap(), "{rounds}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let after_ns = self.asleep_ns();
        self.go_to(&self.home);
        after_ns - before_ns
    }

    /// Its CPU time, read while it sleeps: before that the kernel's value is out of date.
    fn asleep_ns(&self) -> u64 {
        let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).unwrap();
        // Reading `syscall` waits for a task that is about to leave its CPU, or reports that it is running.
        while !read("stat").rsplit(") ").next().unwrap().starts_with('S') || read("syscall").starts_with("running") {
            std::thread::yield_now();
        }
        read("schedstat").split(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A container's cgroup.
fn make_container(pod: &Path, number: u32) -> PathBuf {
    let path = pod.join(container(number));
    fs::create_dir(&path).unwrap();
    path
}

/// Runs a container that computes this many rounds and is removed.
fn run_container(worker: &mut Worker, pod: &Path, number: u32, rounds: u32) -> u64 {
    let path = make_container(pod, number);
    let used_ns = worker.work_ns(&path, rounds);
    fs::remove_dir(&path).unwrap();
    used_ns
}

fn usage_us(cgroup: &Path) -> u64 {
    let text = fs::read_to_string(cgroup.join("cpu.stat")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse().unwrap()
}

/// The agent's sources for the tree.
struct Watch {
    source: BpfCgroups,
    totals: PodTotals,
}

impl Watch {
    fn sample(&mut self) -> CgroupSample {
        let mut sample = self.source.read().unwrap();
        self.totals.take(clock::now().uptime_ns, &mut sample);
        sample
    }
}

/// Kubelet's tree, and the agent that observes it from its start on. `None`, with a message, if this machine cannot run
/// such a test.
fn watched() -> Option<(Kubelet, Watch)> {
    let tree = tree()?;
    let kubelet = Kubelet::new(&tree);
    Some((kubelet, Watch { source: attach(&tree, probe::MAX_CGROUPS), totals: PodTotals::default() }))
}

#[test]
fn a_pod_that_came_and_went_between_two_samples_leaves_what_it_used() {
    let Some((kubelet, mut watch)) = watched() else { return };
    let mut worker = Worker::new(&kubelet.branch.child("home"));
    watch.sample();
    let pod = kubelet.pod(1);
    let used_ns = run_container(&mut worker, &pod, 1, 3000) + run_container(&mut worker, &pod, 2, 3000);
    fs::remove_dir(&pod).unwrap();
    watch.sample();
    let ended = kubelet.ended(&watch.totals, 1).unwrap();
    assert_eq!((ended.cpu_ns, ended.watched), (Some(used_ns), true));
}

#[test]
fn a_pod_that_ends_after_a_sample_leaves_what_it_used_since() {
    let Some((kubelet, mut watch)) = watched() else { return };
    let mut worker = Worker::new(&kubelet.branch.child("home"));
    let pod = kubelet.pod(1);
    let mut used_ns = run_container(&mut worker, &pod, 1, 3000);
    let second = make_container(&pod, 2);
    used_ns += worker.work_ns(&second, 3000);
    // The pod is living: its own total includes the ended container.
    let sample = watch.sample();
    assert_eq!(kubelet.living(&sample, 1).unwrap().cpu_ns, Some(used_ns));
    used_ns += worker.work_ns(&second, 3000);
    fs::remove_dir(&second).unwrap();
    used_ns += run_container(&mut worker, &pod, 3, 3000);
    fs::remove_dir(&pod).unwrap();
    assert_eq!(kubelet.living(&watch.sample(), 1), None);
    let ended = kubelet.ended(&watch.totals, 1).unwrap();
    assert_eq!((ended.cpu_ns, ended.watched), (Some(used_ns), true));
}

/// Cgroups that live at once.
const BATCH: u32 = 50;
/// How long they live, at least.
const LIFE: Duration = Duration::from_millis(50);

#[test]
fn a_thousand_cgroups_that_live_50_ms_are_all_in_their_pods_totals() {
    let Some((kubelet, mut watch)) = watched() else { return };
    let mut worker = Worker::new(&kubelet.branch.child("home"));
    let mut used_ns: BTreeMap<u32, u64> = BTreeMap::new();
    let mut numbers = 0..;
    let lasting: Vec<(u32, PathBuf)> = (1..=5).map(|number| (number, kubelet.pod(number))).collect();
    watch.sample();
    for batch in 0..20 {
        let born = Instant::now();
        // Half of them in pods that stay, half in pods that are removed with them.
        let passing: Vec<(u32, PathBuf)> =
            (100 + batch * 5..105 + batch * 5).map(|number| (number, kubelet.pod(number))).collect();
        let pods = lasting.iter().chain(&passing);
        let mut containers = Vec::new();
        for (pod, path) in pods {
            containers.extend(numbers.by_ref().take(5).map(|number| (*pod, make_container(path, number))));
        }
        assert_eq!(containers.len(), BATCH as usize);
        let mut is_first = true;
        while is_first || born.elapsed() < LIFE {
            for (pod, container) in &containers {
                *used_ns.entry(*pod).or_default() += worker.work_ns(container, 100);
            }
            is_first = false;
        }
        for (_, container) in containers {
            fs::remove_dir(container).unwrap();
        }
        for (_, pod) in passing {
            fs::remove_dir(pod).unwrap();
        }
        // Two batches per interval, so that some pods are in a sample and most are in none.
        if batch % 2 == 1 {
            watch.sample();
        }
    }
    let sample = watch.sample();
    assert_eq!(sample.removals.as_ref().unwrap().dropped, 0);
    let living = |pod| kubelet.living(&sample, pod).and_then(|cgroup| cgroup.cpu_ns);
    let measured = |pod| living(pod).or_else(|| kubelet.ended(&watch.totals, pod).and_then(|ended| ended.cpu_ns));
    assert_eq!(used_ns.len(), 105);
    for (pod, used_ns) in &used_ns {
        assert_eq!(measured(*pod), Some(*used_ns), "pod {pod}");
    }
    // Everything that the kernel charged to the tree, including ended cgroups, is not less than what was measured.
    let all_us = usage_us(&kubelet.root);
    assert!(used_ns.values().sum::<u64>() / 1000 <= all_us);
}

#[test]
fn an_oom_kill_in_a_container_that_is_gone_with_its_pod_is_counted_once() {
    let Some((kubelet, mut watch)) = watched() else { return };
    watch.sample();
    let (lasting, passing) = (kubelet.pod(1), kubelet.pod(2));
    for (number, pod) in [&lasting, &passing].into_iter().enumerate() {
        let container = make_container(pod, number as u32);
        let _ = fs::write(container.join("memory.max"), "16777216");
        let _ = fs::write(container.join("memory.swap.max"), "0");
        if fs::exists(container.join("memory.max")).unwrap() {
            let script =
                format!("echo $$ > {}/cgroup.procs; dd if=/dev/zero of=/dev/null bs=64M count=1", container.display());
            let status = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap();
            assert!(!status.success(), "it was not killed");
        }
        // The shell may be killed, too, or see the end of its child; in both cases the cgroup is soon empty.
        while fs::read_to_string(container.join("cgroup.events")).unwrap().contains("populated 1") {
            std::thread::yield_now();
        }
        fs::remove_dir(container).unwrap();
    }
    fs::remove_dir(&passing).unwrap();
    let has_memory = fs::exists(lasting.join("memory.events")).unwrap();
    let sample = watch.sample();
    let living = kubelet.living(&sample, 1).unwrap();
    // Without the controller nothing counts kills: absent, not 0.
    let expected = has_memory.then_some(1);
    assert_eq!((living.oom_kills, kubelet.ended(&watch.totals, 2).unwrap().oom_kills), (expected, expected));
}

#[test]
fn removals_beyond_the_rings_room_are_counted_and_no_total_is_above_the_truth() {
    let Some((kubelet, mut watch)) = watched() else { return };
    let mut worker = Worker::new(&kubelet.branch.child("home"));
    watch.sample();
    let before = watch.source.read().unwrap().removals.unwrap();
    let (lasting, passing) = (kubelet.pod(1), kubelet.pod(2));
    let mut used_ns = [run_container(&mut worker, &lasting, 1, 1000), run_container(&mut worker, &passing, 2, 1000)];
    // As fast as the kernel can: thousands a second, and more than fit into the ring.
    let mut churned = 0;
    for number in 0..5500 {
        fs::remove_dir(make_container(&lasting, 100 + number)).unwrap();
        churned += 1;
    }
    used_ns[0] += run_container(&mut worker, &lasting, 3, 1000);
    used_ns[1] += run_container(&mut worker, &passing, 4, 1000);
    fs::remove_dir(&passing).unwrap();
    let sample = watch.sample();
    let after = sample.removals.as_ref().unwrap();
    let (told, dropped) = (after.told - before.told, after.dropped - before.dropped);
    // Four containers and a pod besides them.
    assert!(told + dropped >= churned + 5, "{told} told, {dropped} dropped");
    assert!(dropped > 0 && told > 1000, "{told} told, {dropped} dropped");
    assert_eq!(kubelet.living(&sample, 1).unwrap().cpu_ns, Some(used_ns[0]));
    // The records of its last container and of its own removal did not fit. It ends when two samples lack it.
    watch.sample();
    let ended = kubelet.ended(&watch.totals, 2).unwrap();
    assert!(!ended.watched);
    assert!(ended.cpu_ns.unwrap() <= used_ns[1], "{ended:?} {used_ns:?}");
}

#[test]
fn long_names_odd_bytes_and_a_deep_tree_in_a_pod_leave_it_its_total() {
    let Some((kubelet, mut watch)) = watched() else { return };
    let mut worker = Worker::new(&kubelet.branch.child("home"));
    watch.sample();
    let pod = kubelet.pod(1);
    let container = make_container(&pod, 1);
    let mut levels = vec![container.clone()];
    let odd = container.join(OsStr::from_bytes(b"odd \xff \"name"));
    let long = container.join("n".repeat(255));
    for level in 0..90 {
        levels.push(levels[level].join(format!("{level}-of-a-tree-longer-than-told")));
    }
    let mut used_ns = 0;
    for path in levels.iter().skip(1).chain([&odd, &long]) {
        fs::create_dir(path).unwrap();
        used_ns += worker.work_ns(path, 100);
    }
    for path in [&odd, &long].into_iter().chain(levels.iter().rev()) {
        fs::remove_dir(path).unwrap();
    }
    fs::remove_dir(&pod).unwrap();
    let sample = watch.sample();
    assert_eq!(sample.removals.unwrap().dropped, 0);
    let ended = kubelet.ended(&watch.totals, 1).unwrap();
    assert_eq!((ended.cpu_ns, ended.watched), (Some(used_ns), true));
}
