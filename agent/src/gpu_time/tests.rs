//! Totals over several samples: what begins, ends, fails and comes back.

use proptest::prelude::*;

use super::*;
use crate::sample::gpu::Part;
use crate::sample::{Cgroup, CgroupSource, Pressure, Stall};

const SECOND: u64 = 1_000_000_000;
const UID: &str = "0b0a3c6e-1111-4222-8333-444455556666";
const OTHER_UID: &str = "0b0a3c6e-1111-4222-8333-444455557777";

fn container(uid: &str) -> GpuUser {
    GpuUser { pod_uid: uid.to_owned(), container_id: "a".repeat(64), unreadable: false }
}

fn used_by(user: GpuUser, processes: u32) -> GpuUse {
    GpuUse { user, processes, daemons: 0, memory_used_bytes: None, busy_ns: None, percent: None, parts: None }
}

/// A healthy device that was busy for so many seconds, with these users.
fn gpu(uuid: &str, busy: Option<u64>, uses: Vec<GpuUse>) -> Gpu {
    Gpu {
        uuid: uuid.into(),
        model: "m".into(),
        bus_id: "b".into(),
        mig_mode: None,
        mig_instances: Vec::new(),
        unhealthy: Vec::new(),
        warnings: Vec::new(),
        load: Load { busy_gain_ns: busy.map(|seconds| seconds * SECOND), uses, ..Load::default() },
        lists_failed: false,
        uses_complete: true,
        xid_errors: Vec::new(),
        nvlink_errors: None,
    }
}

/// The cgroup of a container whose CPU time is this, without stalls.
fn cgroups(uids: &[&str], cpu: u64) -> CgroupSample {
    let none = Stall { some_ns: 0, full_ns: Some(0) };
    let cgroup = |(at, uid): (usize, &&str)| Cgroup {
        id: 10 + at as u64,
        path: format!("/kubepods/pod{uid}/{}", "a".repeat(64)).into(),
        cpu_ns: Some(cpu * SECOND),
        pressure: Some(Pressure { cpu: none, memory: none, io: none }),
        ..Cgroup::default()
    };
    CgroupSample {
        source: CgroupSource::Bpf,
        cgroups: uids.iter().enumerate().map(cgroup).collect(),
        from_files: Vec::new(),
        probes: None,
        seen: 1,
        dropped: 0,
        removals: None,
    }
}

/// Samples ten seconds apart.
struct Node {
    time: GpuTime,
    second: u64,
    responded: bool,
}

impl Node {
    fn new() -> Self {
        Self { time: GpuTime::new(Duration::from_secs(10)), second: 0, responded: false }
    }

    /// Takes a sample of these devices; of none if NVML does not respond.
    fn sample(&mut self, devices: Option<Vec<Gpu>>, cgroups: Option<&CgroupSample>) -> Vec<Gpu> {
        self.second += 10;
        let since_last_ns = self.responded.then_some(10 * SECOND);
        self.responded = devices.is_some();
        let mut sample = devices.map(|devices| GpuSample { devices, since_last_ns, ..GpuSample::default() });
        let at = Moment { unix_ms: 0, uptime_ns: self.second * SECOND };
        self.time.take(at, sample.as_mut(), cgroups);
        sample.map(|sample| sample.devices).unwrap_or_default()
    }
}

fn seconds(parts: Option<Parts>) -> Vec<(&'static str, u64)> {
    let parts = parts.unwrap();
    Part::ALL.map(|part| (part.as_str(), parts.of(part) / SECOND)).into_iter().filter(|(_, s)| *s > 0).collect()
}

#[test]
fn a_container_begins_with_its_first_process_and_goes_on_after_its_last() {
    let mut node = Node::new();
    let idle = |busy| vec![gpu("g", Some(busy), Vec::new())];
    let used = |busy, processes| vec![gpu("g", Some(busy), vec![used_by(container(UID), processes)])];
    let first = &node.sample(Some(idle(0)), None)[0];
    assert_eq!((seconds(first.load.vacant), first.load.uses.len()), (vec![], 0));
    // The device was busy with something that is not there any more, or that is there now.
    let second = &node.sample(Some(used(3, 1)), Some(&cgroups(&[UID], 0)))[0];
    assert_eq!(seconds(second.load.uses[0].parts), []);
    assert_eq!(seconds(second.load.vacant), [("no_process", 10)], "what it was busy with is there now");
    let third = &node.sample(Some(used(4, 1)), Some(&cgroups(&[UID], 2)))[0];
    assert_eq!(seconds(third.load.uses[0].parts), [("busy", 4), ("host", 2), ("asleep", 4)]);
    // It ended in between.
    let fourth = &node.sample(Some(used(1, 0)), None)[0];
    assert_eq!(seconds(fourth.load.uses[0].parts), [("busy", 5), ("host", 2), ("asleep", 4), ("unknown", 9)]);
    let fifth = &node.sample(Some(used(1, 0)), None)[0];
    let expected = [("busy", 5), ("host", 2), ("asleep", 4), ("no_process", 10), ("unknown", 9)];
    assert_eq!(seconds(fifth.load.uses[0].parts), expected);
    assert_eq!(seconds(fifth.load.vacant), [("busy", 1), ("no_process", 39)]);
}

#[test]
fn time_without_nvml_is_in_no_total() {
    let mut node = Node::new();
    let used = || Some(vec![gpu("g", Some(0), vec![used_by(container(UID), 1)])]);
    node.sample(used(), None);
    node.sample(None, None);
    let back = &node.sample(used(), None)[0];
    assert_eq!((seconds(back.load.vacant), seconds(back.load.uses[0].parts)), (vec![], vec![]));
    // More than three intervals: the agent was stopped.
    node.second += 100;
    let mut late = GpuSample { devices: used().unwrap(), since_last_ns: Some(110 * SECOND), ..GpuSample::default() };
    let at = Moment { unix_ms: 0, uptime_ns: node.second * SECOND };
    node.time.take(at, Some(&mut late), None);
    assert_eq!(seconds(late.devices[0].load.vacant), []);
}

#[test]
fn a_device_that_is_gone_or_unhealthy_is_broken_and_one_that_comes_back_is_unknown_at_first() {
    let mut node = Node::new();
    let used = || gpu("g", Some(2), vec![used_by(container(UID), 1)]);
    node.sample(Some(vec![used()]), None);
    node.sample(Some(Vec::new()), None);
    let back = &node.sample(Some(vec![used()]), None)[0];
    assert_eq!(seconds(back.load.uses[0].parts), [("broken", 10), ("unknown", 10)]);
    assert_eq!(seconds(back.load.vacant), [("broken", 10), ("unknown", 10)]);
    let sick = Gpu { unhealthy: vec![Unhealthy::Xid], ..used() };
    let sick = &node.sample(Some(vec![sick]), None)[0];
    assert_eq!(seconds(sick.load.uses[0].parts), [("busy", 2), ("broken", 18), ("unknown", 10)]);
}

#[test]
fn a_list_that_failed_at_either_end_leaves_the_time_unknown() {
    let mut node = Node::new();
    let used = || gpu("g", Some(2), vec![used_by(container(UID), 1)]);
    node.sample(Some(vec![used()]), None);
    let failed = Gpu { lists_failed: true, ..gpu("g", Some(2), vec![used_by(container(UID), 0)]) };
    assert_eq!(seconds(node.sample(Some(vec![failed]), None)[0].load.uses[0].parts), [("unknown", 10)]);
    assert_eq!(seconds(node.sample(Some(vec![used()]), None)[0].load.uses[0].parts), [("unknown", 20)]);
    let known = node.sample(Some(vec![used()]), None);
    assert_eq!(seconds(known[0].load.uses[0].parts), [("busy", 2), ("unknown", 28)], "without cgroups no cause");
}

#[test]
fn the_other_devices_of_a_pod_tell_what_is_uneven_and_the_others_of_a_device_what_is_shared() {
    let mut node = Node::new();
    let of = |uid, percent| GpuUse { percent: Some(percent), ..used_by(container(uid), 1) };
    let devices = || {
        Some(vec![
            gpu("a", Some(10), vec![of(UID, 100)]),
            gpu("b", Some(1), vec![of(UID, 10)]),
            gpu("c", Some(8), vec![of(UID, 10), of(OTHER_UID, 30)]),
        ])
    };
    node.sample(devices(), Some(&cgroups(&[UID, OTHER_UID], 0)));
    let sample = node.sample(devices(), Some(&cgroups(&[UID, OTHER_UID], 10)));
    let parts = |device: usize, at: usize| seconds(sample[device].load.uses[at].parts);
    assert_eq!(parts(0, 0), [("busy", 10)]);
    assert_eq!(parts(1, 0), [("busy", 1), ("uneven", 9)]);
    assert_eq!(parts(2, 0), [("busy", 2), ("shared", 6), ("uneven", 2)]);
    assert_eq!(parts(2, 1), [("busy", 6), ("shared", 2), ("host", 2)]);
}

#[test]
fn daemons_and_processes_outside_pods_have_no_totals_and_daemons_use_nothing() {
    let mut node = Node::new();
    let daemon = || GpuUse { daemons: 1, ..used_by(container(OTHER_UID), 1) };
    let host = || used_by(GpuUser::default(), 1);
    let with = |uses| Some(vec![gpu("g", Some(6), uses)]);
    node.sample(with(vec![daemon()]), None);
    let alone = node.sample(with(vec![daemon()]), None);
    assert_eq!(
        (alone[0].load.uses[0].parts, seconds(alone[0].load.vacant)),
        (None, vec![("busy", 6), ("no_process", 4)])
    );
    let mut node = Node::new();
    node.sample(with(vec![host(), used_by(container(UID), 1)]), None);
    let shared = node.sample(with(vec![host(), used_by(container(UID), 1)]), None);
    assert_eq!(shared[0].load.uses[0].parts, None);
    assert_eq!(seconds(shared[0].load.uses[1].parts), [("busy", 3), ("shared", 3), ("unknown", 4)]);
    // Of a process that cannot be read, nobody knows whose it is.
    let mut node = Node::new();
    let unreadable = || used_by(GpuUser { unreadable: true, ..GpuUser::default() }, 1);
    node.sample(with(vec![unreadable()]), None);
    assert_eq!(seconds(node.sample(with(vec![unreadable()]), None)[0].load.vacant), [("unknown", 10)]);
}

#[test]
fn in_mig_mode_instances_are_held_and_how_busy_they_are_is_not_known() {
    use crate::sample::gpu::MigInstance;
    let instance = |uuid: &str, uses| MigInstance {
        uuid: uuid.into(),
        profile: "1g.10gb".into(),
        gpu_instance: Some(1),
        compute_instance: Some(0),
        unhealthy: Vec::new(),
        load: Load { uses, ..Load::default() },
    };
    let parent = || Gpu {
        mig_mode: Some(true),
        mig_instances: vec![instance("m1", vec![used_by(container(UID), 1)]), instance("m2", Vec::new())],
        ..gpu("g", None, Vec::new())
    };
    let mut node = Node::new();
    node.sample(Some(vec![parent()]), Some(&cgroups(&[UID], 0)));
    let sample = &node.sample(Some(vec![parent()]), Some(&cgroups(&[UID], 10)))[0];
    assert_eq!(sample.load.vacant, None);
    let [first, second] = &sample.mig_instances[..] else { panic!("{sample:?}") };
    assert_eq!(seconds(first.load.uses[0].parts), [("unknown", 10)]);
    assert_eq!(seconds(second.load.vacant), [("no_process", 10)]);
}

/// A device in one sample: how long it was busy, whether it is there, healthy and listed, and its users.
type Any = (Option<u64>, [bool; 3], Vec<(u8, u32, Option<u64>)>);

fn any_device() -> impl Strategy<Value = Any> {
    let used = (0..4_u8, 0..3_u32, prop::option::of(0..101_u64));
    let often = || prop::bool::weighted(0.85);
    (prop::option::of(0..15_u64), [often(), often(), often()], prop::collection::vec(used, 0..4))
}

fn any_sample() -> impl Strategy<Value = (bool, Vec<Any>, Option<u64>)> {
    (prop::bool::weighted(0.9), prop::collection::vec(any_device(), 3), prop::option::of(0..1000_u64))
}

fn made(at: usize, (busy, [_, is_healthy, is_listed], all): &Any) -> Gpu {
    let mut by_user: BTreeMap<GpuUser, GpuUse> = BTreeMap::new();
    for (which, processes, percent) in all {
        let user = match which {
            0 => container(UID),
            1 => container(OTHER_UID),
            2 => GpuUser::default(),
            _ => GpuUser { unreadable: true, ..GpuUser::default() },
        };
        by_user.insert(user.clone(), GpuUse { percent: *percent, ..used_by(user, *processes) });
    }
    Gpu {
        unhealthy: if *is_healthy { Vec::new() } else { vec![Unhealthy::Xid] },
        lists_failed: !is_listed,
        ..gpu(&format!("g{at}"), *busy, by_user.into_values().collect())
    }
}

proptest! {
    #[test]
    fn totals_never_fall_and_grow_by_what_was_seen_and_nothing_else(
        samples in prop::collection::vec(any_sample(), 1..12),
    ) {
        let mut node = Node::new();
        let mut totals: BTreeMap<(Arc<str>, Option<GpuUser>), (Parts, u64)> = BTreeMap::new();
        let (mut split, mut responded) = (0, false);
        for (responds, devices, cpu) in samples {
            let there = devices.iter().enumerate().filter(|(_, (_, [is_there, ..], _))| *is_there);
            let sample = responds.then(|| there.map(|(at, device)| made(at, device)).collect());
            split += if responds && responded { 10 * SECOND } else { 0 };
            responded = responds;
            let cgroups = cpu.map(|cpu| cgroups(&[UID, OTHER_UID], cpu));
            for gpu in node.sample(sample, cgroups.as_ref()) {
                let uses = gpu.load.uses.iter().filter_map(|used| Some((Some(used.user.clone()), used.parts?)));
                for (user, parts) in uses.chain([(None, gpu.load.vacant.unwrap())]) {
                    let (before, since) = totals.entry((gpu.uuid.clone(), user)).or_insert((Parts::default(), split));
                    for part in Part::ALL {
                        prop_assert!(parts.of(part) >= before.of(part), "{part:?}");
                    }
                    *before = parts;
                    prop_assert_eq!(parts.sum(), split - *since);
                }
            }
        }
    }
}
