//! Tests of the source with fake-nvml, through the real binding and NVML's C functions. There are no sleeps: a call
//! hangs until the scenario releases it, and the time between samples is a number.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use fake_nvml::Installation;
use fake_nvml::scenario::{Device, Hang, Level, List, Process, RemappedRows, Scenario, Xid};
use tempfile::TempDir;

use super::*;
use crate::sample::gpu::Unhealthy;

mod hangs;
mod nvswitch;

const H100: &str = "H100 80GB HBM3";
const SECOND: u64 = 1_000_000_000;

/// For samples that must succeed, even on a slow machine.
const PATIENT: Duration = Duration::from_mins(2);
/// For samples during a hang, which must fail.
const IMPATIENT: Duration = Duration::from_millis(1);

struct Node {
    directory: TempDir,
    installation: Installation,
    scenario: Scenario,
    gpus: NvmlGpus,
    uptime_ns: u64,
}

impl Node {
    fn new(scenario: Scenario) -> Self {
        let directory = TempDir::new().unwrap();
        let library = Installation::built_for_this_test().unwrap();
        let installation = Installation::new(&library, directory.path(), &scenario).unwrap();
        let gpus = NvmlGpus::new(&settings(directory.path(), installation.library()));
        Self { directory, installation, scenario, gpus, uptime_ns: 0 }
    }

    fn change(&mut self, change: impl FnOnce(&mut Scenario)) {
        change(&mut self.scenario);
        self.installation.set(&self.scenario).unwrap();
    }

    fn hang(&mut self, call: &str) {
        self.change(|scenario| scenario.hangs = vec![Hang { call: call.into(), ..Hang::default() }]);
        self.gpus.watchdog.set_patience(IMPATIENT, PATIENT);
    }

    /// Waits until this many calls have hung.
    fn wait_until_hung(&self, calls: u32) {
        // SAFETY: it is the library of this repository, and its initialisers do nothing.
        let library = unsafe { nvml_wrapper_sys::bindings::NvmlLib::new(self.installation.library()) }.unwrap();
        // SAFETY: the symbol has this type, and the library stays loaded while it is called.
        let hung = unsafe { library.__library.get::<extern "C" fn() -> u32>(b"fakeNvmlHung\0") }.unwrap();
        while hung() < calls {
            std::thread::yield_now();
        }
    }

    /// Ends all hangs, and waits until the hung calls have returned.
    fn mend(&mut self) {
        self.change(|scenario| scenario.hangs.clear());
        self.gpus.watchdog.wait_for_late_answers();
        self.gpus.watchdog.set_patience(PATIENT, PATIENT);
    }

    /// A sample ten seconds after the last.
    fn try_sample(&mut self) -> Result<GpuSample, Reason> {
        self.uptime_ns += 10 * SECOND;
        self.gpus.ask(Moment { unix_ms: 0, uptime_ns: self.uptime_ns });
        self.gpus.answer().map_err(|error| error.reason())
    }

    fn sample(&mut self) -> GpuSample {
        self.try_sample().unwrap()
    }

    /// Restarts the agent, which keeps only its files.
    fn restart_agent(&mut self) {
        self.gpus = NvmlGpus::new(&settings(self.directory.path(), self.installation.library()));
    }

    fn on_bus(&self, address: &str) {
        let device = self.directory.path().join("sys/bus/pci/devices").join(address);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("vendor"), "0x10de\n").unwrap();
        fs::write(device.join("class"), "0x030200\n").unwrap();
        symlink("../../../../bus/pci/drivers/nvidia", device.join("driver")).unwrap();
    }
}

fn settings(directory: &Path, library: &Path) -> Settings {
    Settings {
        program: None,
        sandbox: Sandbox::Off,
        library: Some(library.to_owned()),
        proc_root: directory.join("proc"),
        sys_root: directory.join("sys"),
        state_dir: Some(directory.to_owned()),
        ignored_xids: IGNORED_XIDS.to_vec(),
        daemons: Vec::new(),
        deadline: PATIENT,
        patience: PATIENT,
        listen: Duration::from_millis(1),
    }
}

/// The reasons of each device for being unhealthy.
fn unhealthy(sample: &GpuSample) -> Vec<Vec<&'static str>> {
    sample.devices.iter().map(|gpu| gpu.unhealthy.iter().map(|reason| reason.as_str()).collect()).collect()
}

#[test]
fn eight_healthy_gpus_are_eight_healthy_gpus() {
    let mut node = Node::new(Scenario::of(8, H100));
    (0..8).for_each(|index| node.on_bus(&format!("0000:{:02x}:00.0", 0x18 + index)));
    let sample = node.sample();
    assert_eq!((sample.devices.len(), sample.remembered, sample.fake), (8, Some(8), true));
    assert_eq!(sample.driver_version.as_deref(), Some("580.95.05-fake"));
    assert_eq!(sample.lost_bus_ids, Vec::<String>::new());
    assert_eq!(unhealthy(&sample).concat(), Vec::<&str>::new());
    let gpu = &sample.devices[7];
    assert_eq!(&*gpu.uuid, "GPU-fa4e0000-0000-4000-8000-000000000007");
    assert_eq!((&*gpu.model, &*gpu.bus_id), ("NVIDIA H100 80GB HBM3", "0000:1f:00.0"));
    assert_eq!((gpu.mig_mode, gpu.load.memory_total_bytes), (Some(false), Some(81_559 << 20)));
    assert_eq!((gpu.load.memory_used_bytes, gpu.load.utilization_ratio), (Some(0), Some(0.0)));
    // Plus the values that change seldom, of one device.
    assert_eq!(node.sample().calls, 2 + 8 * 9 + 2);
}

#[test]
fn a_gpu_on_the_bus_that_nvml_does_not_list_is_lost() {
    let mut scenario = Scenario::of(8, H100);
    scenario.devices[3].lost = true;
    let mut node = Node::new(scenario);
    (0..8).for_each(|index| node.on_bus(&format!("0000:{:02x}:00.0", 0x18 + index)));
    let sample = node.sample();
    assert_eq!((sample.devices.len(), sample.lost_bus_ids), (7, vec!["0000:1b:00.0".to_owned()]));
}

#[test]
fn a_gpu_that_falls_off_the_bus_is_lost_by_name_and_comes_back_when_it_is_found_again() {
    let mut node = Node::new(Scenario::of(2, H100));
    node.on_bus("0000:18:00.0");
    node.on_bus("0000:19:00.0");
    node.sample();
    let uuid = node.scenario.devices[1].uuid.clone();
    node.change(|scenario| {
        scenario.xids.push(Xid { device: uuid, xid: 79, ..Xid::default() });
        scenario.devices[1].lost = true;
    });
    let sample = node.sample();
    assert_eq!(unhealthy(&sample), [vec![], vec!["lost", "xid"]]);
    assert_eq!(sample.devices[1].xid_errors, [(79, 1)]);
    assert_eq!(sample.devices[1].load.memory_used_bytes, None);
    // After a minute NVML is initialised again, to find out whether the device is back. It is not: then NVML no longer
    // lists it.
    let searched = (0..7).map(|_| node.sample()).find(|sample| sample.devices.len() == 1).unwrap();
    assert_eq!(searched.lost_bus_ids, ["0000:19:00.0"]);
    assert_eq!(searched.remembered, Some(2));
    node.change(|scenario| scenario.devices[1].lost = false);
    let found = (0..13).map(|_| node.sample()).find(|sample| sample.devices.len() == 2).unwrap();
    assert_eq!(unhealthy(&found), [vec![""; 0], vec![]]);
    assert_eq!((found.devices[1].xid_errors.clone(), found.lost_bus_ids), (vec![(79, 1)], vec![]));
}

#[test]
fn an_xid_of_an_application_is_counted_and_the_gpu_stays_healthy() {
    let mut node = Node::new(Scenario::of(1, H100));
    node.sample();
    let uuid = node.scenario.devices[0].uuid.clone();
    node.change(|scenario| scenario.xids.push(Xid { device: uuid, xid: 13, ..Xid::default() }));
    let sample = node.sample();
    assert_eq!((unhealthy(&sample), sample.devices[0].xid_errors.clone()), (vec![vec![]], vec![(13, 1)]));
}

#[test]
fn broken_memory_and_a_wish_to_be_reset_make_a_gpu_unhealthy_until_they_are_gone() {
    let mut node = Node::new(Scenario::of(5, H100));
    node.change(|scenario| {
        scenario.devices[1].ecc_uncorrected = 2;
        scenario.devices[2].remapped_rows = RemappedRows { failure: true, ..RemappedRows::default() };
        scenario.devices[3].remapped_rows = RemappedRows { pending: true, ..RemappedRows::default() };
        scenario.devices[4].recovery_action = 2;
    });
    let expected =
        [vec![], vec!["ecc_uncorrected"], vec!["row_remap_failed"], vec!["row_remap_pending"], vec!["needs_reboot"]];
    assert_eq!(unhealthy(&node.sample()), expected);
    node.change(|scenario| scenario.devices = Scenario::of(5, H100).devices);
    assert_eq!(unhealthy(&node.sample()).concat(), Vec::<&str>::new());
}

#[test]
fn every_mig_instance_of_a_broken_parent_is_broken_and_none_of_its_neighbour() {
    let mut scenario = Scenario::of(3, H100);
    for device in &mut scenario.devices[..2] {
        *device = device.clone().in_smallest_instances();
    }
    scenario.devices[0].mig.as_mut().unwrap()[2].memory_used_bytes = 1 << 30;
    let mut node = Node::new(scenario);
    let sample = node.sample();
    let modes: Vec<_> = sample.devices.iter().map(|gpu| (gpu.mig_mode, gpu.mig_instances.len())).collect();
    assert_eq!(modes, [(Some(true), 7), (Some(true), 7), (Some(false), 0)]);
    let instance = &sample.devices[0].mig_instances[2];
    assert_eq!((&*instance.profile, instance.gpu_instance, instance.compute_instance), ("1g.10gb", Some(9), Some(0)));
    assert_eq!((instance.load.memory_used_bytes, instance.load.utilization_ratio), (Some(1 << 30), None));
    assert_eq!((sample.devices[0].load.busy_ns, sample.devices[2].load.busy_ns), (None, Some(0)));

    let uuids = [0, 1].map(|index: usize| node.scenario.devices[index].uuid.clone());
    node.change(|scenario| {
        scenario.xids.push(Xid { device: uuids[0].clone(), xid: 48, ..Xid::default() });
        scenario.xids.push(Xid { device: uuids[1].clone(), xid: 94, gpu_instance: Some(8), ..Xid::default() });
    });
    let sample = node.sample();
    let broken = |gpu: &Gpu| gpu.mig_instances.iter().filter(|i| i.unhealthy == [Unhealthy::Xid]).count();
    assert_eq!(sample.devices.iter().map(broken).collect::<Vec<_>>(), [7, 1, 0]);
    assert_eq!(unhealthy(&sample), [vec!["xid"], vec![], vec![]]);
}

#[test]
fn instances_of_a_parent_that_is_lost_are_not_gone_but_broken() {
    let mut scenario = Scenario::of(1, H100);
    scenario.devices[0] = Device::of(0, H100).in_smallest_instances();
    let mut node = Node::new(scenario);
    let before = node.sample();
    node.change(|scenario| scenario.devices[0].lost = true);
    let after = node.sample();
    assert_eq!((unhealthy(&after), after.devices[0].mig_mode), (vec![vec!["lost"]], Some(true)));
    let uuids = |sample: &GpuSample| sample.devices[0].mig_instances.iter().map(|i| i.uuid.clone()).collect::<Vec<_>>();
    assert_eq!((uuids(&after).len(), uuids(&after)), (7, uuids(&before)));
    let broken = |instance: &MigInstance| instance.unhealthy == [Unhealthy::Lost] && instance.load == Load::default();
    assert!(after.devices[0].mig_instances.iter().all(broken));
}

#[test]
fn instances_may_come_and_go_while_the_agent_runs() {
    let mut node = Node::new(Scenario::of(1, H100));
    node.sample();
    node.change(|scenario| scenario.devices[0] = Device::of(0, H100).in_smallest_instances());
    assert_eq!(node.sample().devices[0].mig_instances.len(), 7);
    node.change(|scenario| drop(scenario.devices[0].mig.as_mut().unwrap().drain(1..6)));
    let left: Vec<_> = node.sample().devices[0].mig_instances.iter().map(|i| i.gpu_instance).collect();
    assert_eq!(left, [Some(7), Some(13)]);
}

#[test]
fn a_driver_that_is_loaded_anew_is_initialised_anew_within_the_same_sample() {
    let mut node = Node::new(Scenario::of(2, H100));
    node.sample();
    let uuid = node.scenario.devices[0].uuid.clone();
    node.change(|scenario| scenario.xids.push(Xid { device: uuid, xid: 74, ..Xid::default() }));
    assert_eq!(unhealthy(&node.sample()), [vec!["xid"], vec![]]);
    node.change(|scenario| {
        scenario.driver.generation = 2;
        scenario.driver.version = "590.1.2".into();
    });
    let sample = node.sample();
    assert_eq!(sample.driver_version.as_deref(), Some("590.1.2-fake"));
    assert_eq!(unhealthy(&sample).concat(), Vec::<&str>::new());
}

#[test]
fn a_driver_that_is_away_leaves_the_figures_absent_until_it_is_back() {
    let mut node = Node::new(Scenario::of(2, H100));
    node.on_bus("0000:18:00.0");
    node.sample();
    node.change(|scenario| scenario.driver.loaded = false);
    assert_eq!(node.try_sample(), Err(Reason::NoDriver));
    assert_eq!(node.try_sample(), Err(Reason::NoDriver));
    node.change(|scenario| scenario.driver = fake_nvml::scenario::Driver { generation: 2, ..Default::default() });
    assert_eq!(node.sample().devices.len(), 2);
}

#[test]
fn without_a_library_a_node_has_no_gpus_unless_its_bus_shows_some() {
    let mut node = Node::new(Scenario::default());
    fs::remove_file(node.installation.library()).unwrap();
    assert_eq!(node.sample(), GpuSample::default());
    node.on_bus("0000:18:00.0");
    assert_eq!(node.try_sample(), Err(Reason::NoLibrary));
}

#[test]
fn a_file_that_is_no_library_is_an_error_and_not_a_node_without_gpus() {
    let mut node = Node::new(Scenario::default());
    node.on_bus("0000:18:00.0");
    fs::write(node.installation.library(), "\x7fELF, but no more").unwrap();
    assert_eq!(node.try_sample(), Err(Reason::NoLibrary));
}

#[test]
fn a_device_that_we_may_not_look_at_is_not_lost() {
    let mut node = Node::new(Scenario::of(2, H100));
    node.change(|scenario| {
        scenario.errors.insert("nvmlDeviceGetHandleByIndex_v2".into(), 4);
    });
    assert_eq!(node.try_sample(), Err(Reason::NotPermitted));
}

#[test]
fn a_device_of_which_every_call_fails_is_unreadable_and_its_neighbour_is_not() {
    let mut node = Node::new(Scenario::of(2, H100));
    node.sample();
    node.change(|scenario| {
        scenario.devices[1].errors.insert("*".into(), 999);
    });
    assert_eq!(unhealthy(&node.sample()), [vec![], vec!["unreadable"]]);
}

#[test]
fn what_a_device_does_not_support_is_absent_and_not_asked_for_again() {
    let mut node = Node::new(Scenario::of(1, "Tesla T4"));
    node.change(|scenario| {
        for call in ["nvmlDeviceGetUtilizationRates", "nvmlDeviceGetSamples", "nvmlDeviceGetMemoryInfo_v2"] {
            scenario.devices[0].errors.insert(call.into(), 3);
        }
    });
    let first = node.sample();
    assert_eq!((first.devices[0].mig_mode, first.devices[0].load.clone()), (None, Load::default()));
    assert_eq!(unhealthy(&first), [vec![""; 0]]);
    let second = node.sample();
    // Count and events; memory, fields, three lists of processes, utilisation, samples.
    assert_eq!((first.calls, second.calls), (25, 9));
}

#[test]
fn sixteen_gpus_with_four_thousand_processes_and_the_longest_names_take_a_bounded_number_of_calls() {
    let mut scenario = Scenario::of(16, H100);
    for (index, device) in scenario.devices.iter_mut().enumerate() {
        device.model = format!("{index:0>95}");
        device.uuid = format!("GPU-{index:0>75}");
        device.processes = (0..250)
            .map(|process| Process {
                pid: 1 + (index * 250 + process) as u32,
                memory_bytes: Some(1 << 20),
                utilization: Some(Level::Steady(0.004)),
                ..Process::default()
            })
            .collect();
    }
    let mut node = Node::new(scenario);
    node.sample();
    let sample = node.sample();
    assert_eq!((sample.devices.len(), sample.devices[9].uuid.len(), sample.devices[9].model.len()), (16, 79, 95));
    let processes: u32 = sample.devices.iter().flat_map(|gpu| &gpu.load.uses).map(|entry| entry.processes).sum();
    assert_eq!(processes, 4000);
    assert_eq!(sample.calls, 2 + 16 * 8 + 1);
}

#[test]
fn a_mig_instance_costs_three_calls_once_it_is_known() {
    let mut scenario = Scenario::of(1, H100);
    scenario.devices[0] = Device::of(0, H100).in_smallest_instances();
    let mut node = Node::new(scenario);
    node.sample();
    let sample = node.sample();
    assert_eq!(sample.calls, 2 + 7 + 2 + 7 * 3);
}

#[test]
fn three_of_eight_that_a_reboot_hides_are_not_forgotten() {
    let mut node = Node::new(Scenario::of(8, H100));
    node.sample();
    node.change(|scenario| drop(scenario.devices.drain(2..5)));
    node.restart_agent();
    let sample = node.sample();
    assert_eq!((sample.devices.len(), sample.remembered), (5, Some(8)));
    assert!(forget(node.directory.path()).unwrap());
    assert_eq!(node.sample().remembered, Some(5));
}

#[test]
fn time_is_shared_out_to_the_containers_whose_processes_took_it() {
    let uid = "0b0a3c6e-1111-4222-8333-444455556666";
    let mut scenario = Scenario::of(1, H100);
    scenario.clock_s = Some(100.0);
    scenario.devices[0].utilization = Level::Steady(0.8);
    let process = |pid, share| Process {
        pid,
        memory_bytes: Some(u64::from(pid) << 20),
        utilization: Some(Level::Steady(share)),
        ..Process::default()
    };
    scenario.devices[0].processes = vec![process(10, 0.5), process(11, 0.2), process(12, 0.1)];
    let mut node = Node::new(scenario);
    let id = "c".repeat(64);
    for (pid, cgroup) in
        [(10, format!("kubepods/pod{uid}/{id}")), (11, format!("kubepods/pod{uid}/{id}")), (12, "init.scope".into())]
    {
        let directory = node.directory.path().join("proc").join(pid.to_string());
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("cgroup"), format!("0::/{cgroup}\n")).unwrap();
    }
    node.sample();
    node.change(|scenario| scenario.clock_s = Some(110.0));
    let sample = node.sample();
    let load = &sample.devices[0].load;
    assert_eq!((load.utilization_ratio, load.busy_ns), (Some(0.8), Some(8 * SECOND)));
    let uses: Vec<_> = load
        .uses
        .iter()
        .map(|entry| (&*entry.user.pod_uid, entry.processes, entry.memory_used_bytes, entry.busy_ns))
        .collect();
    let expected = [("", 1, Some(12 << 20), Some(SECOND)), (uid, 2, Some(21 << 20), Some(7 * SECOND))];
    assert_eq!(uses, expected);
    assert_eq!(load.uses[1].user.container_id, id);
}

#[test]
fn a_list_of_processes_that_fails_is_not_an_empty_one_and_one_that_is_not_supported_is() {
    let lists = ["Compute", "Graphics", "MPSCompute"].map(|list| format!("nvmlDeviceGet{list}RunningProcesses_v3"));
    for list in lists {
        // Not supported, or unknown to this driver: for those that draw and for MPS, no such processes. Without a list of those that
        // compute, nothing is known.
        for (code, failed) in [(999, true), (3, false), (13, list.contains("GetCompute"))] {
            let mut node = Node::new(Scenario::of(2, H100));
            node.change(|scenario| {
                scenario.devices[1].errors.insert(list.clone(), code);
            });
            let namespaces = node.directory.path().join("proc/self/ns");
            fs::create_dir_all(&namespaces).unwrap();
            symlink("pid:[4026531836]", namespaces.join("pid")).unwrap();
            node.restart_agent();
            let failures = |sample: &GpuSample| sample.devices.iter().map(|gpu| gpu.lists_failed).collect::<Vec<_>>();
            let first = node.sample();
            assert_eq!(failures(&first), [false, failed], "{list} {code}");
            let complete = [true, !failed && !list.contains("GetCompute")];
            assert_eq!(
                first.devices.iter().map(|gpu| gpu.uses_complete).collect::<Vec<_>>(),
                complete,
                "{list} {code}"
            );
            assert_eq!(unhealthy(&first).concat(), Vec::<&str>::new());
            // What is not supported is not asked for again, and what failed is.
            let fewer = u32::from(code != 999);
            assert_eq!(node.sample().calls, 2 + 2 * 9 + 2 - fewer, "{list} {code}");
            node.change(|scenario| scenario.devices[1].errors.clear());
            assert_eq!(failures(&node.sample()), [false, failed && code == 13]);
        }
    }
}

#[test]
fn instances_of_which_a_call_fails_stay_and_their_processes_are_not_known() {
    let mut scenario = Scenario::of(1, H100);
    scenario.devices[0] = Device::of(0, H100).in_smallest_instances();
    let mut node = Node::new(scenario);
    let seen = |sample: &GpuSample| {
        let gpu = &sample.devices[0];
        // From another PID namespace than the host's, processes are never known to be all.
        assert!(!gpu.uses_complete);
        (gpu.mig_mode, gpu.mig_instances.len(), gpu.lists_failed)
    };
    assert_eq!(seen(&node.sample()), (Some(true), 7, false));
    for call in ["nvmlDeviceGetMigMode", "nvmlDeviceGetMigDeviceHandleByIndex"] {
        node.change(|scenario| {
            scenario.devices[0].errors.insert(call.into(), 999);
        });
        assert_eq!(seen(&node.sample()), (Some(true), 7, true), "{call}");
        node.change(|scenario| scenario.devices[0].errors.clear());
        assert_eq!(seen(&node.sample()), (Some(true), 7, false), "{call}");
    }
}

#[test]
fn a_process_in_several_lists_is_one_process() {
    let mut scenario = Scenario::of(1, H100);
    scenario.devices[0].processes = [
        (7, vec![List::Compute]),
        (8, vec![List::Graphics]),
        (9, vec![List::Mps]),
        (10, vec![List::Compute, List::Graphics]),
    ]
    .map(|(pid, lists)| Process { pid, memory_bytes: Some(1 << 20), lists, ..Process::default() })
    .to_vec();
    let sample = Node::new(scenario).sample();
    let uses: Vec<_> =
        sample.devices[0].load.uses.iter().map(|used| (used.processes, used.memory_used_bytes)).collect();
    assert_eq!(uses, [(4, Some(4 << 20))]);
}

#[test]
fn a_library_that_claims_more_devices_than_can_be_is_not_asked_for_them() {
    let mut node = Node::new(Scenario::of(2, H100));
    let claims =
        |count: u32| move |scenario: &mut Scenario| scenario.counts = [("nvmlDeviceGetCount_v2".into(), count)].into();
    node.change(claims(u32::MAX));
    assert!(node.try_sample().is_err());
    // Each possible instance is queried, and the existing ones are listed.
    node.change(claims(1_000));
    let sample = (0..20).find_map(|_| node.try_sample().ok()).unwrap();
    assert_eq!(sample.devices.len(), 2);
}

#[test]
fn a_device_that_claims_mig_instances_without_end_is_asked_for_a_bounded_number() {
    let mut scenario = Scenario::of(1, H100);
    scenario.devices[0].mig = Some(Vec::new());
    scenario.counts.insert("nvmlDeviceGetMaxMigDeviceCount".into(), u32::MAX);
    let sample = Node::new(scenario).sample();
    assert_eq!(sample.devices.len(), 1);
    assert!(sample.calls < 100, "{}", sample.calls);
}

#[test]
fn events_of_other_kinds_without_end_hold_up_no_round() {
    let mut node = Node::new(Scenario { other_events: true, ..Scenario::of(1, H100) });
    assert_eq!(unhealthy(&node.sample()).concat(), Vec::<&str>::new());
    let uuid = node.scenario.devices[0].uuid.clone();
    node.change(|scenario| {
        scenario.other_events = false;
        scenario.xids.push(Xid { device: uuid, xid: 79, ..Xid::default() });
    });
    assert_eq!(unhealthy(&node.sample()), [vec!["xid"]]);
}
