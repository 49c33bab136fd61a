//! Compares both sources on this machine's kernel, value by value. A value is compared only if it is the same before
//! and after, because otherwise it changed meanwhile. The values of cgroups whose processes are stopped must be equal.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{
    ReadCgroups,
    bpf::BpfCgroups,
    cgroup::CgroupFiles,
    live_tests::{Branch, attach, tree, wait_stopped},
};
use crate::sample::{Cgroup, CgroupSample, Pressure, Stall};

/// A shell in a cgroup that does some work and then stops.
struct Actor(Child);

impl Actor {
    fn play(cgroup: &Path, script: &str) -> Self {
        let script = format!("echo $$ > {}/cgroup.procs; {script}; kill -STOP $$", cgroup.display());
        let child =
            Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_stopped(child.id());
        Self(child)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write(cgroup: &Path, file: &str, text: &str) {
    // Without a controller, both sources have no values of it.
    let _ = fs::write(cgroup.join(file), text);
}

/// A pod with containers that reached each of their limits, and the stopped processes in them.
fn scene(branch: &Branch) -> Vec<Actor> {
    for controller in ["+cpu", "+memory", "+io", "+pids"] {
        write(&branch.path, "cgroup.subtree_control", controller);
    }
    let throttled = branch.child("throttled");
    write(&throttled, "cpu.max", "2000 10000");
    let big = branch.child("big");
    write(&big, "memory.max", "104857600");
    write(&big, "pids.max", "100");
    let killed = branch.child("killed");
    write(&killed, "memory.max", "16777216");
    write(&killed, "memory.swap.max", "0");
    branch.child("empty");
    let spin = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
    // The kernel drops the cache of a device that no process has open. What is in tmpfs is a file, but never inactive.
    let read = "exec 3< /dev/ram0; dd if=/dev/ram0 of=/dev/null bs=1M count=12";
    let hide = format!("{}/mcad-test-{}", std::env::temp_dir().display(), std::process::id());
    let share = format!("exec 4> {hide}; rm {hide}; head -c 3000000 /dev/zero >&4");
    let hold = "x=$(head -c 6000000 /dev/zero | tr '\\0' x)";
    vec![
        Actor::play(&throttled, spin),
        Actor::play(&big, &format!("[ -b /dev/ram0 ] && {{ {read}; }}; {share}; {hold}")),
        Actor::play(&killed, "dd if=/dev/zero of=/dev/null bs=64M count=1"),
    ]
}

/// Every value by its name, in the units of the files.
fn values(cgroup: &Cgroup) -> BTreeMap<&'static str, String> {
    let us = |ns: u64| ns / 1000;
    let stall = |stall: Stall| (us(stall.some_ns), stall.full_ns.map(us));
    let pressure = |of: fn(Pressure) -> Stall| format!("{:?}", cgroup.pressure.map(|pressure| stall(of(pressure))));
    BTreeMap::from([
        ("cpu", format!("{:?}", cgroup.cpu_ns.map(us))),
        (
            "throttling",
            format!("{:?}", cgroup.throttling.map(|of| (of.periods, of.throttled_periods, us(of.throttled_ns)))),
        ),
        ("memory", format!("{:?}", cgroup.memory_bytes)),
        ("memory peak", format!("{:?}", cgroup.memory_peak_bytes)),
        ("memory limit", format!("{:?}", cgroup.memory_limit)),
        ("anon", format!("{:?}", cgroup.memory_anon_bytes)),
        ("file", format!("{:?}", cgroup.memory_file_bytes)),
        ("inactive file", format!("{:?}", cgroup.memory_inactive_file_bytes)),
        ("oom kills", format!("{:?}", cgroup.oom_kills)),
        ("max events", format!("{:?}", cgroup.memory_max_events)),
        ("high events", format!("{:?}", cgroup.memory_high_events)),
        ("pids", format!("{:?}", cgroup.pids)),
        ("pids limit", format!("{:?}", cgroup.pids_limit)),
        ("cpu pressure", pressure(|of| of.cpu)),
        ("memory pressure", pressure(|of| of.memory)),
        ("io pressure", pressure(|of| of.io)),
        ("io", format!("{:?}", cgroup.io)),
    ])
}

fn all_figures(sample: &CgroupSample) -> BTreeMap<(String, &'static str), String> {
    let of_cgroup = |cgroup: &Cgroup| {
        let path = cgroup.path.to_string();
        values(cgroup).into_iter().map(move |(name, value)| ((path.clone(), name), value))
    };
    sample.cgroups.iter().flat_map(of_cgroup).collect()
}

fn find<'a>(sample: &'a CgroupSample, branch: &Branch, name: &str) -> &'a Cgroup {
    let path = format!("{}/{name}", branch.relative);
    sample.cgroups.iter().find(|cgroup| *cgroup.path == path).unwrap()
}

/// Whether the branch's cgroups have this controller.
fn has(branch: &Branch, controller: &str) -> bool {
    fs::read_to_string(branch.path.join("cgroup.subtree_control"))
        .unwrap()
        .split_whitespace()
        .any(|on| on == controller)
}

#[test]
fn both_tiers_give_the_same_figures() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    let _actors = scene(&branch);
    let (mut bpf, mut files) = (attach(&tree, 8192), CgroupFiles::new(tree.clone()));
    // The first read proves the place of memory by kind; reading files brings pressure up to date.
    bpf.read().unwrap();
    let before = all_figures(&files.read().unwrap());
    let sample = bpf.read().unwrap();
    let after = all_figures(&files.read().unwrap());
    let measured = all_figures(&sample);
    let mut compared: BTreeMap<&str, u32> = BTreeMap::new();
    for ((path, name), value) in &measured {
        let key = (path.clone(), *name);
        let (before, after) = (before.get(&key), after.get(&key));
        if before == after && before.is_some() {
            assert_eq!(Some(value), before, "{name} of {path}");
            *compared.entry(name).or_default() += 1;
        } else {
            assert!(!path.starts_with(&branch.relative), "{name} of {path} moved: {before:?} {after:?}");
        }
    }
    // Every value was compared, at least on the five cgroups here.
    assert_eq!(compared.len(), 17, "{compared:?}");
    assert!(compared.values().all(|times| *times >= 5), "{compared:?}");
    // The compared values were not all absent.
    for (controller, names) in [
        ("cpu", &["throttling"][..]),
        ("memory", &["memory", "memory peak", "memory limit", "anon", "file", "inactive file", "oom kills"][..]),
        ("pids", &["pids", "pids limit"][..]),
        ("io", &["io"][..]),
    ] {
        for name in names {
            let absent = measured[&(format!("{}/big", branch.relative), *name)] == "None";
            assert_eq!(absent, !has(&branch, controller), "{name}");
        }
    }
}

#[test]
fn an_oom_kill_is_counted_once_on_the_right_cgroup_and_in_its_pod() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    drop(scene(&branch));
    let sample = attach(&tree, 8192).read().unwrap();
    let kills = |name| find(&sample, &branch, name).oom_kills;
    if !has(&branch, "memory") {
        // Without the controller no process is killed because of the cgroup, and nothing counts kills: absent, not 0.
        // `cargo xtask test-kernels` runs the rest of this on kernels that have it.
        assert_eq!((kills("killed"), kills("big"), kills("throttled")), (None, None, None));
        return;
    }
    assert_eq!((kills("killed"), kills("big"), kills("throttled")), (Some(1), Some(0), Some(0)));
    let pod = sample.cgroups.iter().find(|cgroup| *cgroup.path == branch.relative).unwrap();
    assert_eq!(pod.oom_kills, Some(1));
}

#[test]
fn memory_by_kind_is_proven_before_it_is_believed() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    let _actors = scene(&branch);
    let mut bpf: BpfCgroups = attach(&tree, 8192);
    if !has(&branch, "memory") {
        // As above: what the kernel does not count is absent.
        let sample = bpf.read().unwrap();
        let big = find(&sample, &branch, "big");
        let kinds = [big.memory_anon_bytes, big.memory_file_bytes, big.memory_inactive_file_bytes];
        assert_eq!(kinds, [None; 3], "{big:?}");
        return;
    }
    if !Path::new("/dev/ram0").exists() {
        eprintln!("SKIPPED: memory by kind on this kernel: no /dev/ram0 to write pages of a file to");
        return;
    }
    // Proven by the scene, on every kernel that has it; then files are read only to flush.
    let sample = bpf.read().unwrap();
    let big = find(&sample, &branch, "big");
    assert_eq!(sample.from_files, [], "{big:?}");
    let (file, inactive) = (big.memory_file_bytes.unwrap(), big.memory_inactive_file_bytes.unwrap());
    assert!(inactive > 0 && inactive < file, "{inactive} {file}");
    assert!(big.memory_anon_bytes.unwrap() > 5_000_000);
}
