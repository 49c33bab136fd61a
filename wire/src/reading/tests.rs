//! What is read, held against what prost reads.
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::report as owned;

fn numbers(from: u64) -> impl FnMut() -> Option<u64> {
    // As long on the wire as they can be, and as short.
    let mut at = from;
    move || {
        at += 1;
        Some(u64::MAX.checked_shr((at * 7 % 70) as u32).unwrap_or(0))
    }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).into()).collect()
}

fn detail() -> owned::CgroupDetail {
    let mut n = numbers(0);
    owned::CgroupDetail {
        periods: n(),
        throttled_periods: n(),
        throttled_ns: n(),
        memory_peak_bytes: n(),
        memory_limit_bytes: n(),
        memory_anon_bytes: n(),
        memory_file_bytes: n(),
        memory_max_events: n(),
        memory_high_events: n(),
        pids: n(),
        pids_limit: n(),
        cpu_some_ns: n(),
        cpu_full_ns: n(),
        memory_some_ns: n(),
        memory_full_ns: n(),
        io_some_ns: n(),
        io_full_ns: n(),
        io_read_bytes: n(),
        io_written_bytes: n(),
    }
}

fn cgroup(id: u64, detail: Option<owned::CgroupDetail>) -> owned::Cgroup {
    let mut n = numbers(id);
    owned::Cgroup {
        id,
        path: format!("/kubepods/{id}"),
        pod_uid: format!("uid-{id} ü"),
        container_id: "c".repeat(id as usize % 200),
        cpu_ns: n(),
        memory_bytes: n(),
        memory_inactive_file_bytes: Some(0),
        oom_kills: None,
        run_queue_wait_ns: n(),
        run_queue_waits: n(),
        detail: detail.map(Box::new),
    }
}

fn gpus() -> owned::Gpus {
    let mut n = numbers(3);
    let uses = vec![owned::GpuUse {
        pod_uid: "u".into(),
        container_id: "c".into(),
        processes: u32::MAX,
        memory_used_bytes: n(),
        busy_ns: None,
    }];
    let instance = owned::MigInstance {
        uuid: "MIG-1".into(),
        profile: "1g.10gb".into(),
        gpu_instance: Some(0),
        compute_instance: Some(7),
        unhealthy_reasons: texts(&["a", "b"]),
        utilization_ratio: Some(0.25),
        busy_ns: n(),
        memory_used_bytes: n(),
        memory_total_bytes: n(),
        uses: uses.clone(),
    };
    let gpu = owned::Gpu {
        uuid: "GPU-1".into(),
        model: "NVIDIA A100".into(),
        bus_id: "0:1:2.0".into(),
        mig_mode: Some(true),
        mig_instances: vec![instance, owned::MigInstance::default()],
        unhealthy_reasons: texts(&["xid_79"]),
        utilization_ratio: Some(-0.0),
        busy_ns: n(),
        memory_used_bytes: n(),
        memory_total_bytes: n(),
        xid_errors: vec![owned::XidErrors { xid: 79, count: 1 }, owned::XidErrors { xid: u64::MAX, count: 0 }],
        uses,
        warnings: texts(&["slow", ""]),
        nvlink_errors: Some(Box::new(owned::NvlinkErrors {
            replay: n(),
            recovery: n(),
            crc_flit: Some(0),
            crc_data: None,
            ecc_data: n(),
        })),
    };
    owned::Gpus {
        driver_version: "550".into(),
        devices: vec![gpu, owned::Gpu::default()],
        lost_bus_ids: texts(&["0:3:0.0", ""]),
        remembered: Some(9),
        fake: true,
    }
}

/// With everything that there can be.
fn full() -> owned::Report {
    let mut n = numbers(1);
    let ended = owned::EndedPod {
        uid: "gone".into(),
        id: 9,
        cpu_ns: n(),
        oom_kills: Some(0),
        run_queue_wait_ns: None,
        run_queue_waits: n(),
        ended_uptime_ns: 5,
        watched: true,
    };
    owned::Report {
        version: 1,
        node: "gpu-17".into(),
        boot_id: "b".into(),
        started_at_ms: 1,
        sequence: 2,
        sampled_at_ms: u64::MAX,
        uptime_ns: 4,
        interval_ms: 10_000,
        agent_version: "0.1.0".into(),
        machine: Some(owned::Machine {
            cpus_online: Some(96),
            cpu_busy_ns: n(),
            memory_total_bytes: n(),
            memory_free_bytes: n(),
            memory_inactive_file_bytes: None,
        }),
        cgroups: Some(owned::Cgroups {
            source: "bpf".into(),
            cgroups: vec![
                cgroup(1, Some(detail())),
                cgroup(300, Some(owned::CgroupDetail::default())),
                cgroup(0, None),
            ],
            seen: Some(3),
            dropped: Some(0),
            from_files: texts(&["io", "pids"]),
            ended_pods: vec![ended],
        }),
        gpus: Some(gpus()),
        assignments: Some(owned::Assignments {
            assigned: vec![owned::Assignment {
                namespace: "a".into(),
                pod: "p".into(),
                container: "main".into(),
                resource: "nvidia.com/gpu".into(),
                device_ids: texts(&["GPU-1", "GPU-2::3"]),
                held_ns: n(),
            }],
            allocatable: vec![owned::DeviceIds { resource: "nvidia.com/gpu".into(), device_ids: texts(&["GPU-1"]) }],
        }),
        absences: vec![owned::Absence { source: "gpus".into(), reason: "timeout".into() }],
    }
}

#[test]
fn all_of_a_report_is_read() {
    let bytes = full().encode_to_vec();
    let read = Report::read(&bytes).unwrap();
    assert_eq!(read.to_owned(), full());
    assert_eq!(Report::read_with_room(&bytes, 3).unwrap(), read);
    assert_eq!(Report::read(&[]).unwrap().to_owned(), owned::Report::default());
}

#[test]
fn a_part_that_comes_again_goes_on_and_a_figure_that_comes_again_counts() {
    let [first, second] = [1, 2].map(|id| owned::Report {
        sequence: id,
        cgroups: Some(owned::Cgroups { cgroups: vec![cgroup(id, None)], seen: Some(id as u32), ..Default::default() }),
        ..Default::default()
    });
    let bytes = [first.encode_to_vec(), second.encode_to_vec()].concat();
    let read = Report::read(&bytes).unwrap();
    assert_eq!(read.sequence, 2);
    assert_eq!(read.cgroups.as_ref().unwrap().cgroups.iter().map(|cgroup| cgroup.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(read.to_owned(), owned::Report::decode(&*bytes).unwrap());
}

#[test]
fn what_is_no_report_is_told_from_one_that_was_cut() {
    let check = |bytes: &[u8], expected| assert_eq!(Report::read(bytes), Err(expected), "{bytes:?}");
    check(&[0x08], Malformed::Cut);
    check(&[0x12, 2, b'a'], Malformed::Cut);
    check(&[0x00], Malformed::Wrong("field 0"));
    check(&[0x0b], Malformed::Wrong("a wire type that no report has"));
    check(&[0x0a, 0], OTHER_TYPE);
    check(&[0x12, 1, 0xff], Malformed::Wrong("a text that is not UTF-8"));
    check(&[&[0x08][..], &[0xff; 10]].concat(), Malformed::Wrong("a number of more than 64 bits"));
    check(&[0x80, 0x80, 0x80, 0x80, 0x10, 0], Malformed::Wrong("a field's number of more than 29 bits"));
}

/// What may happen to bytes on their way.
#[derive(Clone, Debug)]
enum Damage {
    Set { at: usize, byte: u8 },
    Cut { at: usize },
    Again { from: usize, bytes: usize, to: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set { at, byte }),
        1 => any::<usize>().prop_map(|at| Damage::Cut { at }),
        2 => (any::<usize>(), 0..64_usize, any::<usize>()).prop_map(|(from, bytes, to)| Damage::Again { from, bytes, to }),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let length = bytes.len().max(1);
        match *damage {
            Damage::Set { at, byte } => bytes.iter_mut().skip(at % length).take(1).for_each(|known| *known = byte),
            Damage::Cut { at } => bytes.truncate(at % length),
            Damage::Again { from, bytes: count, to } => {
                let part: Vec<u8> = bytes.iter().skip(from % length).take(count).copied().collect();
                let to = (to % length).min(bytes.len());
                bytes.splice(to..to, part);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_is_read_is_what_prost_reads(damages in proptest::collection::vec(damage(), 0..4)) {
        let bytes = damaged(full().encode_to_vec(), &damages);
        match (Report::read(&bytes), owned::Report::decode(&*bytes)) {
            // By text: a ratio may be no number, which equals nothing.
            (Ok(read), Ok(decoded)) => prop_assert_eq!(format!("{:?}", read.to_owned()), format!("{decoded:?}")),
            // Groups prost passes over where it does not know the field.
            (Err(_), Err(_)) | (Err(Malformed::Wrong("a wire type that no report has")), Ok(_)) => {}
            (read, decoded) => prop_assert!(false, "{read:?}, prost: {decoded:?}"),
        }
    }
}
