//! The report of an agent: a node with 8 GPUs and 40 pods, each with its cgroup; the pods with a GPU belong to an AppWrapper. If the
//! cgroups of containers are listed, all have paths, named as by containerd and kubelet.
use mcad_wire::report::{
    Assignment, Assignments, Cgroup, Cgroups, DeviceIds, Gpu, GpuUse, Gpus, Machine, REPORT_VERSION, Report,
};

use crate::support::objects::{node_name, uid};

pub(crate) const GPUS: usize = 8;
pub(crate) const PODS: usize = 40;

/// The number of nodes that have the pods of one AppWrapper.
pub(crate) const NODES_EACH: usize = 8;

/// The least time between the samples of one agent, by which reports are distinguished.
const TICK_NS: u64 = 10_000_000;

pub(crate) fn pod_name(node: usize, pod: usize) -> String {
    format!("llama-sft-7f9c4-worker-{}", node * PODS + pod)
}

pub(crate) fn pod_uid(node: usize, pod: usize) -> String {
    uid(node * PODS + pod)
}

pub(crate) fn namespace(node: usize, pod: usize) -> String {
    format!("team-{}", if holds_gpu(pod) { appwrapper(node) % 50 } else { pod })
}

/// The AppWrapper whose pods hold the GPUs of a node.
pub(crate) fn appwrapper(node: usize) -> usize {
    node / NODES_EACH
}

fn gpu_uuid(node: usize, gpu: usize) -> String {
    format!("GPU-{}", uid(20_000_000 + node * GPUS + gpu))
}

/// The first pods hold a GPU each.
pub(crate) fn holds_gpu(pod: usize) -> bool {
    pod < GPUS
}

/// The report with this number of a node whose pods have this many containers each.
pub(crate) fn report(node: usize, sequence: u64, containers: usize, interval_ms: u64) -> Report {
    let cgroups =
        (0..PODS).flat_map(|pod| (0..=containers).map(move |part| cgroup((node, pod, part), containers, sequence)));
    let gpus = (0..GPUS).map(|at| gpu(node, at, sequence));
    let uuids = (0..GPUS).map(|gpu| gpu_uuid(node, gpu));
    Report {
        version: REPORT_VERSION,
        node: node_name(node),
        boot_id: uid(40_000_000 + node),
        started_at_ms: 1_700_000_000_000,
        sequence,
        uptime_ns: 3_600_000_000_000 + sequence * TICK_NS,
        interval_ms,
        agent_version: "0.1.0".into(),
        machine: Some(Machine {
            cpus_online: Some(96),
            cpu_busy_ns: Some(sequence * TICK_NS / 2),
            memory_total_bytes: Some(1_204_566_142_976),
            memory_free_bytes: Some((800 << 30) - node as u64 * 4096),
            memory_inactive_file_bytes: Some(9 << 30),
        }),
        cgroups: Some(Cgroups {
            source: "bpf".into(),
            cgroups: cgroups.collect(),
            seen: Some(400),
            dropped: Some(0),
            ..Cgroups::default()
        }),
        gpus: Some(Gpus { driver_version: "550.54.15".into(), devices: gpus.collect(), ..Gpus::default() }),
        assignments: Some(Assignments {
            assigned: (0..PODS).filter(|pod| holds_gpu(*pod)).map(|pod| assigned(node, pod, sequence)).collect(),
            allocatable: vec![DeviceIds { resource: "nvidia.com/gpu".into(), device_ids: uuids.collect() }],
        }),
        ..Report::default()
    }
}

/// The cgroup of the pod itself is part 0.
fn cgroup((node, pod, part): (usize, usize, usize), containers: usize, sequence: u64) -> Cgroup {
    let pod_uid = pod_uid(node, pod);
    let slice =
        format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice", pod_uid.replace('-', "_"));
    let number = ((node * PODS + pod) * 8 + part) as u64;
    let container_id = if part == 0 { String::new() } else { format!("{:064x}", u128::from(number) << 64 | 0xfeed) };
    let path = match (containers, part) {
        (0, _) => String::new(),
        (_, 0) => slice,
        (_, _) => format!("{slice}/cri-containerd-{container_id}.scope"),
    };
    Cgroup {
        id: number + 1,
        path,
        pod_uid,
        container_id,
        cpu_ns: Some(sequence * (TICK_NS / 200) + number),
        memory_bytes: Some((3 << 30) + number * 4096),
        memory_inactive_file_bytes: Some(1 << 20),
        oom_kills: Some(0),
        run_queue_wait_ns: Some(sequence * 1000 + number),
        run_queue_waits: Some(sequence * 3 + number),
        ..Cgroup::default()
    }
}

fn gpu(node: usize, gpu: usize, sequence: u64) -> Gpu {
    let used = GpuUse {
        pod_uid: pod_uid(node, gpu),
        container_id: format!("{:064x}", u128::from(((node * PODS + gpu) * 8 + 1) as u64) << 64 | 0xfeed),
        processes: 1,
        memory_used_bytes: Some(60 << 30),
        busy_ns: Some(sequence * TICK_NS / 3),
        // Busy; waiting for I/O; code on a CPU; asleep.
        parts: [3, 0, 0, 0, 4, 0, 0, 2, 1].map(|tenths| sequence * TICK_NS / 10 * tenths).to_vec(),
        ..GpuUse::default()
    };
    Gpu {
        uuid: gpu_uuid(node, gpu),
        model: "NVIDIA A100-SXM4-80GB".into(),
        bus_id: format!("00000000:{gpu:02X}:00.0"),
        mig_mode: Some(false),
        utilization_ratio: Some((node * 7 + gpu * 13) as f64 % 101.0 / 100.0),
        busy_ns: Some(sequence * TICK_NS / 3),
        memory_used_bytes: Some(61 << 30),
        memory_total_bytes: Some(85_899_345_920),
        uses: vec![used],
        // Nobody without a process holds it.
        vacant: [0, 0, 0, 0, 0, 0, 0, 0, 0, 1].map(|whole| sequence * TICK_NS * whole).to_vec(),
        ..Gpu::default()
    }
}

fn assigned(node: usize, pod: usize, sequence: u64) -> Assignment {
    Assignment {
        namespace: namespace(node, pod),
        pod: pod_name(node, pod),
        container: "pytorch".into(),
        resource: "nvidia.com/gpu".into(),
        device_ids: vec![gpu_uuid(node, pod)],
        held_ns: Some(sequence * TICK_NS),
        ..Assignment::default()
    }
}
