//! Pods that come and go between samples, on this machine's kernel: real cgroups in which real processes compute. What is compared are
//! the kernel's own counters, never times.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    ReadCgroups,
    bpf::BpfCgroups,
    live_tests::{Branch, attach, tree},
};
use crate::{
    clock,
    pod_cgroup::PodUid,
    pod_totals::PodTotals,
    probe,
    sample::{CgroupSample, EndedPod},
};

/// The UID of the pod of this number.
fn uid(pod: u32) -> String {
    format!("{pod:08x}-5d8e-4a3f-9c1d-7e6f5a4b3c2d")
}

/// The id of the container of this number.
fn container(number: u32) -> String {
    format!("{number:064x}")
}

/// Kubelet's tree in a test's branch, under the cgroupfs driver.
struct Kubelet {
    branch: Branch,
    root: PathBuf,
}

impl Kubelet {
    fn new(tree: &Path) -> Self {
        let branch = Branch::new(tree);
        for controller in ["+cpu", "+memory"] {
            let _ = fs::write(branch.path.join("cgroup.subtree_control"), controller);
        }
        let root = branch.child("kubepods");
        give_memory(&root);
        Self { branch, root }
    }

    fn pod(&self, number: u32) -> PathBuf {
        let path = self.root.join(format!("pod{}", uid(number)));
        fs::create_dir(&path).unwrap();
        give_memory(&path);
        path
    }
}

/// Where there is a memory controller.
fn give_memory(cgroup: &Path) {
    let _ = fs::write(cgroup.join("cgroup.subtree_control"), "+memory");
}

/// A container in which a process computes so many rounds, and which is gone with it.
fn run_container(pod: &Path, number: u32, rounds: u32) {
    let path = pod.join(container(number));
    fs::create_dir(&path).unwrap();
    run_in(&path, &format!("i=0; while [ $i -lt {rounds} ]; do i=$((i+1)); done"));
    fs::remove_dir(&path).unwrap();
}

/// A shell that does this in a cgroup, and its end.
fn run_in(cgroup: &Path, script: &str) {
    let mut shell = Command::new("sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    fs::write(cgroup.join("cgroup.procs"), shell.id().to_string()).unwrap();
    shell.stdin.take().unwrap().write_all(b"\n").unwrap();
    shell.wait().unwrap();
    // A task that was waited for may still be on its way off the processor.
    while fs::read_to_string(cgroup.join("cgroup.events")).unwrap().contains("populated 1") {
        std::thread::yield_now();
    }
}

fn usage_us(cgroup: &Path) -> u64 {
    let text = fs::read_to_string(cgroup.join("cpu.stat")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse().unwrap()
}

fn sampled(source: &mut BpfCgroups, totals: &mut PodTotals) -> CgroupSample {
    let mut sample = source.read().unwrap();
    totals.take(clock::now().uptime_ns, &mut sample);
    sample
}

fn ended(totals: &PodTotals, pod: u32) -> Option<EndedPod> {
    let uid = PodUid::known(&uid(pod)).unwrap();
    totals.ended().find(|ended| ended.uid == uid).cloned()
}

/// What is measured is never more than the kernel's own figure. A task that has just ended may still be charged some microseconds for
/// leaving its processor.
#[track_caller]
fn check(measured_us: u64, used_us: u64) {
    assert!(measured_us <= used_us, "{measured_us} of {used_us} us");
    assert!(measured_us * 1000 >= used_us * 990, "{measured_us} of {used_us} us");
}

#[test]
fn a_pod_that_came_and_went_between_two_samples_leaves_what_it_used() {
    let Some(tree) = tree() else { return };
    let kubelet = Kubelet::new(&tree);
    let (mut source, mut totals) = (attach(&tree, probe::MAX_CGROUPS), PodTotals::default());
    sampled(&mut source, &mut totals);
    let pod = kubelet.pod(1);
    run_container(&pod, 1, 30_000);
    run_container(&pod, 2, 30_000);
    let used_us = usage_us(&pod);
    fs::remove_dir(&pod).unwrap();
    sampled(&mut source, &mut totals);
    let ended = ended(&totals, 1).unwrap();
    let measured_us = ended.cpu_ns.unwrap() / 1000;
    check(measured_us, used_us);
    assert!(ended.watched);
}
