//! A node with GPUs from end to end: fake-nvml through the real binding, fake-kubelet through its socket, one sampler,
//! one report. The aggregator's tests read the golden reports.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use fake_kubelet::inventory::{Inventory, Listing};
use fake_kubelet::kubelet::Declared;
use fake_kubelet::pod_resources::{Allocated, Responses};
use fake_kubelet::{DevicePlugin, Kubelet};
use fake_nvml::Installation;
use fake_nvml::scenario::{Device, Level, Process, Scenario, Xid};
use mcad_agent::report::{Identity, Listed, bounded};
use mcad_agent::sample::Moment;
use mcad_agent::sampler::Sampler;
use mcad_agent::sandbox::Sandbox;
use mcad_agent::source::gpu::{DAEMONS, IGNORED_XIDS, NvmlGpus, Settings};
use mcad_agent::source::machine::MachineFiles;
use mcad_agent::source::pods::{PodResources, Socket};
use mcad_wire::report::Report;
use tempfile::TempDir;

const SECOND: u64 = 1_000_000_000;
const UID: &str = "0b0a3c6e-1111-4222-8333-444455556666";
const OTHER_UID: &str = "0b0a3c6e-1111-4222-8333-444455557777";

struct Node {
    directory: TempDir,
    installation: Installation,
    kubelet: Kubelet,
    sampler: Sampler,
    sequence: u64,
}

impl Node {
    fn new(scenario: &Scenario, responses: Responses) -> Self {
        let directory = TempDir::new().unwrap();
        let root = directory.path();
        let library = Installation::built_for_this_test().unwrap();
        let installation = Installation::new(&library, root, scenario).unwrap();
        let socket = root.join("pod-resources.sock");
        let kubelet = Kubelet::start(root, &socket).unwrap();
        *kubelet.pod_resources().responses() = responses;
        let patience = Duration::from_mins(2);
        // Of an agent with `hostPID`.
        std::fs::create_dir_all(root.join("proc/self/ns")).unwrap();
        symlink("pid:[4026531836]", root.join("proc/self/ns/pid")).unwrap();
        let gpus = NvmlGpus::new(&Settings {
            program: Some(env!("CARGO_BIN_EXE_mcad-agent").into()),
            sandbox: Sandbox::On,
            library: Some(installation.library().to_owned()),
            proc_root: root.join("proc"),
            sys_root: root.join("sys"),
            state_dir: None,
            ignored_xids: IGNORED_XIDS.to_vec(),
            daemons: DAEMONS.map(str::to_owned).to_vec(),
            deadline: patience,
            patience,
            listen: Duration::from_millis(1),
        });
        let mut seconds = 1_767_225_600;
        let clock = move || {
            seconds += 10;
            Moment { unix_ms: seconds * 1000, uptime_ns: (seconds - 1_767_200_000) * SECOND }
        };
        let sampler = Sampler::new(Box::new(clock), machine(root), Vec::new())
            .with_gpus(Box::new(gpus), Duration::from_secs(10))
            .with_assignments(Box::new(PodResources::new(&Socket::At(socket), patience)));
        Self { directory, installation, kubelet, sampler, sequence: 0 }
    }

    fn report(&mut self) -> Report {
        let identity = Identity {
            node: "gpu-17".into(),
            boot_id: "5f0c1b7e-93a4-4d1c-8a53-2a6f0c9b1d7e".into(),
            started_at_ms: 1_767_225_600_000,
            interval_ms: 10_000,
            agent_version: "0.1.0".into(),
        };
        self.sequence += 1;
        bounded(&identity, self.sequence, &mut self.sampler.sample(), Listed::Pods)
    }

    fn on_bus(&self, address: &str) {
        let device = self.directory.path().join("sys/bus/pci/devices").join(address);
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("vendor"), "0x10de\n").unwrap();
        std::fs::write(device.join("class"), "0x030200\n").unwrap();
        symlink("../../../../bus/pci/drivers/nvidia", device.join("driver")).unwrap();
    }

    fn process(&self, pid: u32, cgroup: &str) {
        let directory = self.directory.path().join("proc").join(pid.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
    }
}

/// A machine with two CPUs, so that the report is the same everywhere.
fn machine(root: &Path) -> MachineFiles {
    let (proc_root, sys_root) = (root.join("proc"), root.join("sys"));
    std::fs::create_dir_all(&proc_root).unwrap();
    std::fs::create_dir_all(sys_root.join("devices/system/cpu")).unwrap();
    std::fs::write(proc_root.join("stat"), "cpu  0 0 0 0 0 0 0 0 0 0\n").unwrap();
    std::fs::write(proc_root.join("meminfo"), "MemTotal: 1024 kB\nMemFree: 512 kB\nInactive(file): 0 kB\n").unwrap();
    std::fs::write(sys_root.join("devices/system/cpu/online"), "0-1\n").unwrap();
    MachineFiles::new(&proc_root, &sys_root)
}

/// `MCAD_BLESS=1 cargo test -p mcad-agent golden` rewrites the file; review the diff.
#[track_caller]
fn check_golden(report: &Report, golden: &str) {
    let path = format!("{}/tests/golden/{golden}", env!("CARGO_MANIFEST_DIR"));
    let json = serde_json::to_string_pretty(report).unwrap() + "\n";
    if std::env::var_os("MCAD_BLESS").is_some() {
        std::fs::write(&path, &json).unwrap();
    }
    assert_eq!(json, std::fs::read_to_string(&path).unwrap(), "{path}");
}

fn responses(devices: &[Device], held: &[(&str, &[usize])]) -> Responses {
    let mut responses = Responses::default();
    for (pod, indices) in held {
        let ids: Vec<&str> = indices.iter().map(|index| &*devices[*index].uuid).collect();
        responses.assign("ml", pod, "main", "nvidia.com/gpu", &ids);
    }
    responses
}

/// The worked example of the accounting rules: eight installed, four requested, one of these broke while its pod held
/// it.
#[test]
fn golden_report_of_a_gpu_that_broke_in_a_pods_hands() {
    let mut scenario = Scenario::of(8, "H100 80GB HBM3");
    scenario.clock_s = Some(100.0);
    let id = "c".repeat(64);
    for (index, share) in [(0, 0.9), (1, 0.5)] {
        scenario.devices[index].utilization = Level::Steady(share);
        let pid = 4000 + index as u32;
        let (memory_bytes, utilization) = (Some(20 << 30), Some(Level::Steady(share)));
        scenario.devices[index].processes = vec![Process { pid, memory_bytes, utilization, ..Process::default() }];
    }
    let responses = responses(&scenario.devices, &[("train-0", &[0, 1]), ("train-1", &[2, 3])]);
    let mut node = Node::new(&scenario, responses);
    (0..8).for_each(|index| node.on_bus(&format!("0000:{:02x}:00.0", 0x18 + index)));
    for pid in [4000, 4001] {
        node.process(pid, &format!("/kubepods/burstable/pod{UID}/{id}"));
    }
    node.report();
    scenario.clock_s = Some(110.0);
    scenario.xids.push(Xid { device: scenario.devices[3].uuid.clone(), xid: 79, ..Xid::default() });
    scenario.devices[3].lost = true;
    node.installation.set(&scenario).unwrap();
    let report = node.report();
    check_golden(&report, "report-gpu-broke-in-use.json");

    let gpus = report.gpus.unwrap();
    let broken: Vec<&str> =
        gpus.devices.iter().filter(|gpu| !gpu.unhealthy_reasons.is_empty()).map(|gpu| &*gpu.uuid).collect();
    let assigned: Vec<String> =
        report.assignments.unwrap().assigned.iter().flat_map(|one| one.device_ids.clone()).collect();
    assert_eq!((gpus.devices.len(), broken.len(), assigned.len()), (8, 1, 4));
    assert!(assigned.iter().any(|id| id == broken[0]), "the broken one is known to be assigned");
}

/// One GPU of a tray could not join the fabric. Another has errors on its NVLinks and less bandwidth, and works.
#[test]
fn golden_report_of_a_sick_gpu_in_a_tray_of_eight() {
    let mut scenario = Scenario::of(8, "H100 80GB HBM3");
    scenario.clock_s = Some(100.0);
    (scenario.devices[2].fabric_status, scenario.devices[2].fabric_health) = (999, Some(0x19a));
    let mut links = scenario.devices[5].nvlinks();
    (links[4].replay, links[11].replay, links[11].crc_data) = (1200, 34, 7);
    (scenario.devices[5].nvlinks, scenario.devices[5].fabric_health) = (Some(links), Some(0x1a9));
    let responses = responses(&scenario.devices, &[("train-0", &[0, 1]), ("train-1", &[3, 4])]);
    let mut node = Node::new(&scenario, responses);
    (0..8).for_each(|index| node.on_bus(&format!("0000:{:02x}:00.0", 0x18 + index)));
    let report = node.report();
    check_golden(&report, "report-gpu-sick-in-tray.json");
    let devices = report.gpus.unwrap().devices;
    let sick: Vec<_> = devices.iter().filter(|gpu| !gpu.unhealthy_reasons.is_empty()).collect();
    assert_eq!(sick.iter().map(|gpu| &gpu.uuid).collect::<Vec<_>>(), [&scenario.devices[2].uuid]);
    assert_eq!(sick[0].unhealthy_reasons, ["fabric_failed", "fabric_route_unhealthy"]);
}

/// The same from the device plugin on: kubelet knows only what the plugin reports.
#[test]
fn a_gpu_that_a_device_plugin_handed_out_is_known_to_be_assigned_after_it_broke() {
    const GPU: &str = "nvidia.com/gpu";
    let mut scenario = Scenario::of(8, "H100 80GB HBM3");
    let mut node = Node::new(&scenario, Responses::default());
    let found = Inventory::new(&scenario);
    let devices = |scenario: &Scenario| found.devices(scenario, Listing::default()).remove(GPU).unwrap();
    let plugin = DevicePlugin::start(node.directory.path(), GPU, devices(&scenario)).unwrap();
    plugin.register().unwrap();
    let patience = Duration::from_mins(2);
    assert!(node.kubelet.declares(GPU, Declared { capacity: 8, allocatable: 8 }, patience));
    for pod in ["train-0", "train-1"] {
        node.kubelet.admit("ml", pod, GPU, 2).unwrap();
    }
    node.report();
    let broken = scenario.devices[3].uuid.clone();
    scenario.xids.push(Xid { device: broken.clone(), xid: 79, ..Xid::default() });
    node.installation.set(&scenario).unwrap();
    plugin.list(devices(&scenario));
    assert!(node.kubelet.declares(GPU, Declared { capacity: 8, allocatable: 7 }, patience));
    let report = node.report();
    let gpus = report.gpus.unwrap();
    let unhealthy: Vec<_> = gpus.devices.iter().filter(|gpu| !gpu.unhealthy_reasons.is_empty()).collect();
    assert_eq!(unhealthy.iter().map(|gpu| &gpu.uuid).collect::<Vec<_>>(), [&broken]);
    let assignments = report.assignments.unwrap();
    let assigned: Vec<_> = assignments.assigned.iter().flat_map(|one| &one.device_ids).collect();
    assert_eq!((assigned.len(), assigned.contains(&&broken)), (4, true));
    let allocatable: Vec<_> = assignments.allocatable.iter().flat_map(|one| &one.device_ids).collect();
    assert_eq!((allocatable.len(), allocatable.contains(&&broken)), (7, false));
}

#[test]
fn golden_report_of_mig_instances_and_a_lost_gpu() {
    let mut scenario = Scenario::of(4, "A100-SXM4-80GB");
    scenario.clock_s = Some(100.0);
    scenario.devices[0] = Device::of(0, "A100-SXM4-80GB").in_smallest_instances();
    scenario.devices[3].lost = true;
    let instances = scenario.devices[0].mig.clone().unwrap();
    let mut responses = responses(&scenario.devices, &[("train-0", &[1])]);
    responses.assign("ml", "notebook", "main", "nvidia.com/mig-1g.10gb", &[&instances[2].uuid]);
    scenario.devices[0].processes = vec![Process {
        pid: 4000,
        memory_bytes: Some(2 << 30),
        gpu_instance: Some(instances[2].gpu_instance),
        compute_instance: Some(0),
        ..Process::default()
    }];
    let mut node = Node::new(&scenario, responses);
    (0..4).for_each(|index| node.on_bus(&format!("0000:{:02x}:00.0", 0x18 + index)));
    node.process(4000, &format!("/kubepods/pod{UID}/{}", "c".repeat(64)));
    check_golden(&node.report(), "report-gpu-mig.json");
}

/// A process of `notebook` is on the GPU that `train-0` holds, beside a daemon; and a process that has ended left its memory behind, in both
/// reports.
#[test]
fn golden_reports_of_a_stray_and_of_memory_that_a_dead_process_left_behind() {
    const GIB: u64 = 1 << 30;
    let mut scenario = Scenario::of(2, "H100 80GB HBM3");
    scenario.clock_s = Some(100.0);
    let process = |pid| Process { pid, memory_bytes: Some(GIB), ..Process::default() };
    scenario.devices[0].processes = vec![process(4000), process(4001), process(4002), process(4003)];
    scenario.devices[1].processes = vec![process(4004)];
    let responses = responses(&scenario.devices, &[("train-0", &[0]), ("notebook", &[1])]);
    let mut node = Node::new(&scenario, responses);
    (0..2).for_each(|index| node.on_bus(&format!("0000:{:02x}:00.0", 0x18 + index)));
    let container = |uid: &str, id: &str| format!("/kubepods/burstable/pod{uid}/{}", id.repeat(64));
    node.process(4000, &container(UID, "c"));
    node.process(4001, &container(OTHER_UID, "d"));
    node.process(4002, "/system.slice/mps.service");
    std::fs::write(node.directory.path().join("proc/4002/comm"), "nvidia-cuda-mps\n").unwrap();
    node.process(4003, &container(UID, "c"));
    node.process(4004, &container(OTHER_UID, "d"));
    node.report();
    std::fs::remove_dir_all(node.directory.path().join("proc/4003")).unwrap();
    scenario.devices[0].processes.pop();
    scenario.devices[0].memory_used_bytes = GIB;
    node.installation.set(&scenario).unwrap();
    let first = node.report();
    check_golden(&first, "report-gpu-stray.json");
    let second = node.report();
    check_golden(&second, "report-gpu-stray-later.json");
    for report in [first, second] {
        let gpus = report.gpus.unwrap();
        let of_processes =
            |at: usize| gpus.devices[at].uses.iter().map(|used| used.memory_used_bytes.unwrap()).sum::<u64>();
        let unclaimed = [0, 1].map(|at| gpus.devices[at].memory_used_bytes.unwrap() - of_processes(at));
        assert_eq!(unclaimed, [GIB, 0]);
        assert!(gpus.devices.iter().all(|gpu| gpu.uses_complete == Some(true)));
        assert_eq!(gpus.devices[0].uses.iter().map(|used| used.daemons).collect::<Vec<_>>(), [1, 0, 0]);
    }
}

/// Kubelet knows the devices of claims by their driver's names, and by no resource of the node.
#[test]
fn golden_report_of_gpus_that_are_held_through_claims() {
    let mut scenario = Scenario::of(4, "H100 80GB HBM3");
    scenario.clock_s = Some(100.0);
    let gpu = |device| Allocated { driver: "gpu.nvidia.com", pool: "gpu-17", device, share_id: None };
    let mut responses = Responses::default();
    responses.assign_claim("ml", "train-0", "main", "train-0-gpus", &[gpu("gpu-0"), gpu("gpu-1")]);
    let share = Allocated { share_id: Some("8f6d0c2e-7a51-4e0b-9d53-1c2b3a4d5e6f"), ..gpu("gpu-2") };
    responses.assign_claim("ml", "notebook", "main", "shared", &[share]);
    let mut node = Node::new(&scenario, responses);
    (0..4).for_each(|index| node.on_bus(&format!("0000:{:02x}:00.0", 0x18 + index)));
    node.report();
    let report = node.report();
    check_golden(&report, "report-gpu-claims.json");
    let assigned = report.assignments.unwrap().assigned;
    let claimed: Vec<_> = assigned.iter().map(|one| (&*one.pod, &*one.device, one.held_ns)).collect();
    let held = Some(10 * SECOND);
    assert_eq!(claimed, [("notebook", "gpu-2", held), ("train-0", "gpu-0", held), ("train-0", "gpu-1", held)]);
    assert!(assigned.iter().all(|one| one.resource.is_empty() && one.device_ids.is_empty()), "{assigned:?}");
}

#[test]
fn a_gpu_is_unassigned_in_the_first_report_after_its_pod_ended() {
    let scenario = Scenario::of(2, "L4");
    let mut node = Node::new(&scenario, responses(&scenario.devices, &[("a", &[0]), ("b", &[1])]));
    assert_eq!(node.report().assignments.unwrap().assigned.len(), 2);
    node.kubelet.pod_resources().responses().end("ml", "a");
    let assigned = node.report().assignments.unwrap().assigned;
    assert_eq!(assigned.len(), 1);
    assert_eq!((assigned[0].pod.as_str(), assigned[0].held_ns), ("b", Some(10 * SECOND)));
}

#[test]
fn what_does_not_answer_is_absent_with_its_reason_and_the_rest_is_there() {
    let mut scenario = Scenario::of(2, "L4");
    scenario.driver.loaded = false;
    let mut node = Node::new(&scenario, Responses::default());
    node.on_bus("0000:18:00.0");
    node.kubelet.pod_resources().responses().errors = vec![("List", tonic::Code::Internal)];
    let report = node.report();
    let absences: Vec<_> = report.absences.iter().map(|one| (&*one.source, &*one.reason)).collect();
    assert_eq!(absences, [("assignments", "kubelet"), ("gpus", "no_driver")]);
    assert_eq!((report.gpus, report.assignments), (None, None));
    assert_eq!(report.machine.unwrap().cpus_online, Some(2));
}

/// Invalid data of a library or of kubelet affects only its own part of the report; an aggregator would reject the
/// whole report.
#[test]
fn a_part_that_no_aggregator_takes_is_left_out_and_said_and_the_rest_is_there() {
    let check = |scenario: &Scenario, responses: Responses, part: &str, reason: &str| {
        let report = Node::new(scenario, responses).report();
        let absences: Vec<_> = report.absences.iter().map(|one| (&*one.source, &*one.reason)).collect();
        assert_eq!(absences, [(part, reason)]);
        assert_eq!((report.gpus.is_none(), report.assignments.is_none()), (part == "gpus", part == "assignments"));
        assert!(report.machine.is_some());
    };
    let mut twice = Scenario::of(2, "L4");
    twice.devices[1].uuid = twice.devices[0].uuid.clone();
    check(&twice, Responses::default(), "gpus", "malformed");
    let mut nameless = Scenario::of(2, "L4");
    nameless.devices[1].uuid.clear();
    check(&nameless, Responses::default(), "gpus", "malformed");
    check(&Scenario::of(600, "L4"), Responses::default(), "gpus", "too_large");
    let mut responses = Responses::default();
    responses.assign("ml", &"p".repeat(300), "main", "nvidia.com/gpu", &["GPU-1"]);
    check(&Scenario::of(2, "L4"), responses, "assignments", "malformed");
    let mut responses = Responses::default();
    let device = "g".repeat(300);
    let device = Allocated { driver: "gpu.nvidia.com", pool: "gpu-17", device: &device, share_id: None };
    responses.assign_claim("ml", "train-0", "main", "gpus", &[device]);
    check(&Scenario::of(2, "L4"), responses, "assignments", "malformed");
}
