//! Compares run-queue wait per cgroup with the waits that this machine's kernel keeps for each task
//! (`/proc/PID/schedstat`).

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::MutexGuard,
    thread,
};

use super::{
    ReadCgroups,
    bpf::BpfCgroups,
    live_tests::{Branch, alone, tree, wait_stopped},
};
use crate::{
    probe::RunQueueChoice,
    sample::{CgroupSample, RunQueue, RunQueueCost},
};

/// Processes that compete for a CPU. Each is forked, put into its cgroup and stopped before it runs, so all its waits
/// from then on belong to the cgroup.
struct Rivals {
    children: Vec<Child>,
    _alone: MutexGuard<'static, ()>,
}

impl Rivals {
    fn new(cgroups: &[&Path]) -> Self {
        let start = |cgroup: &&Path| {
            // No external program, because a fork is another task.
            let script = format!("echo $$ > {}/cgroup.procs; kill -STOP $$; while :; do :; done", cgroup.display());
            Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap()
        };
        let rivals = Self { _alone: alone(), children: cgroups.iter().map(start).collect() };
        rivals.wait_stopped();
        rivals
    }

    fn signal(&self, signal: i32) {
        for child in &self.children {
            // SAFETY: a plain system call on a child that was not waited for yet, so its id cannot have been reused.
            assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        }
    }

    /// Puts all of them on one CPU, however many there are.
    fn crowd(&self) {
        // SAFETY: plain numbers.
        let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: both work on a set of this function.
        let (size, first) = unsafe {
            assert_eq!(libc::sched_getaffinity(0, size_of_val(&one), &raw mut one), 0);
            (size_of_val(&one), (0..libc::CPU_SETSIZE as usize).find(|cpu| libc::CPU_ISSET(*cpu, &one)).unwrap())
        };
        // SAFETY: as above.
        unsafe {
            libc::CPU_ZERO(&mut one);
            libc::CPU_SET(first, &mut one);
        }
        for child in &self.children {
            // SAFETY: a plain system call on a child that was not waited for yet, with a set of that size.
            assert_eq!(unsafe { libc::sched_setaffinity(child.id() as i32, size, &raw const one) }, 0);
        }
    }

    fn wait_stopped(&self) {
        for child in &self.children {
            wait_stopped(child.id());
        }
    }

    fn stop(&self) {
        self.signal(libc::SIGSTOP);
        self.wait_stopped();
    }

    /// How long this process waited, according to the kernel.
    fn waited_ns(&self, rival: usize) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.children[rival].id())).unwrap();
        text.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Rivals {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn attach(tree: &Path) -> BpfCgroups {
    BpfCgroups::attach("/sys".as_ref(), tree, 8192, RunQueueChoice::On).unwrap()
}

fn of(sample: &CgroupSample, path: &str) -> RunQueue {
    known(sample, path).unwrap()
}

fn known(sample: &CgroupSample, path: &str) -> Option<RunQueue> {
    let found = sample.cgroups.iter().find(|cgroup| &*cgroup.path == path);
    found.unwrap_or_else(|| panic!("{path} is not in the sample")).run_queue
}

/// 0 if the cgroup has no value: while waits of others are dropped, a cgroup without waits has none.
fn waited_ns(sample: &CgroupSample, path: &str) -> u64 {
    known(sample, path).map_or(0, |total| total.wait_ns)
}

fn cost(sample: &CgroupSample) -> &RunQueueCost {
    sample.probes.as_ref().unwrap().run_queue.as_ref().unwrap()
}

#[test]
fn waits_of_a_cgroup_are_those_that_the_kernel_keeps_of_its_tasks() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    let (one, two) = (branch.child("one"), branch.child("two"));
    let rivals = Rivals::new(&[&one, &one, &one, &two, &two]);
    let kernel = |range: std::ops::Range<usize>| range.map(|rival| rivals.waited_ns(rival)).sum::<u64>();
    let mut source = attach(&tree);
    let path = |name: &str| format!("{}/{name}", branch.relative);
    let (before, before_kernel) = (source.read().unwrap(), [kernel(0..3), kernel(3..5)]);
    rivals.signal(libc::SIGCONT);
    // Over two seconds of waits, however long that takes.
    while kernel(0..3) - before_kernel[0] < 2_000_000_000 {
        thread::yield_now();
    }
    rivals.stop();
    let (after, after_kernel) = (source.read().unwrap(), [kernel(0..3), kernel(3..5)]);
    let mut parts_ns = 0;
    for (name, place) in [("one", 0), ("two", 1)] {
        let measured_ns = of(&after, &path(name)).wait_ns - waited_ns(&before, &path(name));
        let expected_ns = after_kernel[place] - before_kernel[place];
        // Equal to the nanosecond in most runs, up to 0.9 % lower in others (docs/decisions/0004 lists them). The cause
        // is probably switches that never reach the program, which exist on every kernel; the value is never too high.
        assert!(measured_ns <= expected_ns, "{name}: {measured_ns} of {expected_ns} ns, {:?}", cost(&after));
        assert!(measured_ns >= expected_ns / 100 * 97, "{name}: {measured_ns} of {expected_ns} ns, {:?}", cost(&after));
        eprintln!("{name}: {measured_ns} of {expected_ns} ns");
        parts_ns += of(&after, &path(name)).wait_ns;
    }
    // The pod's total is the sum of its containers'.
    assert_eq!(of(&after, &branch.relative).wait_ns, parts_ns);
    let cost = cost(&after);
    assert_eq!(cost.dropped, RunQueue::default());
    assert!(cost.histogram.iter().sum::<u64>() == cost.all.waits, "{cost:?}");
}

#[test]
fn waits_of_tasks_in_the_root_are_the_roots() {
    let Some(tree) = tree() else { return };
    let rivals = Rivals::new(&[&tree, &tree, &tree]);
    let mut source = attach(&tree);
    let kernel = || (0..3).map(|rival| rivals.waited_ns(rival)).sum::<u64>();
    let (before, before_kernel) = (waited_ns(&source.read().unwrap(), "/"), kernel());
    rivals.signal(libc::SIGCONT);
    while kernel() - before_kernel < 500_000_000 {
        thread::yield_now();
    }
    rivals.stop();
    let (after, after_kernel) = (of(&source.read().unwrap(), "/").wait_ns, kernel());
    // Tasks of others also wait in the root.
    let expected_ns = (after_kernel - before_kernel) / 100 * 97;
    assert!(after - before >= expected_ns, "{} of {expected_ns} ns", after - before);
}

#[test]
fn waits_that_find_no_place_are_counted_and_no_cgroup_gets_those_of_another() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    // More cgroups than there are places per CPU.
    let cgroups: Vec<_> = (0..24).map(|number| branch.child(&format!("c{number}"))).collect();
    let rivals = Rivals::new(&cgroups.iter().map(|path| &**path).collect::<Vec<_>>());
    rivals.crowd();
    let mut source = BpfCgroups::attach("/sys".as_ref(), &tree, 8192, RunQueueChoice::Crowded).unwrap();
    let kernel = || (0..24).map(|rival| rivals.waited_ns(rival)).collect::<Vec<_>>();
    let before = kernel();
    let sample = source.read().unwrap();
    let path = |number: usize| format!("{}/c{number}", branch.relative);
    let before_ours: Vec<_> = (0..24).map(|number| waited_ns(&sample, &path(number))).collect();
    rivals.signal(libc::SIGCONT);
    while kernel().iter().sum::<u64>() - before.iter().sum::<u64>() < 2_000_000_000 {
        thread::yield_now();
    }
    rivals.stop();
    let after = kernel();
    let sample = source.read().unwrap();
    let cost = cost(&sample);
    assert!(cost.dropped.waits > 0 && cost.dropped.wait_ns > 0, "{cost:?}");
    let mut counted = 0;
    for number in 0..24 {
        // A cgroup of which nothing was counted has no value, not 0.
        let total = known(&sample, &path(number));
        assert!(total.is_none_or(|total| total.waits > 0), "{number}: {total:?}");
        let measured_ns = total.map_or(0, |total| total.wait_ns) - before_ours[number];
        let expected_ns = after[number] - before[number];
        assert!(measured_ns <= expected_ns, "{number}: {measured_ns} of {expected_ns} ns, {cost:?}");
        counted += measured_ns;
    }
    // The sum of counted and dropped waits equals all waits, here and in all other cgroups.
    let root_ns = of(&sample, "/").wait_ns;
    assert!(counted <= root_ns && root_ns + cost.dropped.wait_ns >= cost.all.wait_ns / 100 * 97, "{root_ns}, {cost:?}");
}

#[test]
fn a_container_that_ended_leaves_its_waits_to_its_pod() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    let container = branch.child("container");
    let ended_path = format!("{}/container", branch.relative);
    let mut source = attach(&tree);
    source.read().unwrap();
    let rivals = Rivals::new(&[&container, &container, &container]);
    rivals.signal(libc::SIGCONT);
    while rivals.waited_ns(0) < 300_000_000 {
        thread::yield_now();
    }
    rivals.stop();
    let alive = of(&source.read().unwrap(), &branch.relative);
    assert!(alive.wait_ns > 200_000_000, "{alive:?}");
    drop(rivals);
    while fs::remove_dir(&container).is_err() {
        thread::yield_now();
    }
    for _ in 0..3 {
        let sample = source.read().unwrap();
        assert!(sample.cgroups.iter().all(|cgroup| *cgroup.path != ended_path), "{ended_path} is still there");
        let ended = of(&sample, &branch.relative);
        assert!(ended.wait_ns >= alive.wait_ns && ended.waits >= alive.waits, "{alive:?} {ended:?}");
    }
}
