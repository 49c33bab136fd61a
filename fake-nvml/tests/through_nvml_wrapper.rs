//! The library as unmodified nvml-wrapper uses it, through the C ABI.
#![allow(clippy::unwrap_used, reason = "all of this file is tests, also what they share")]

use std::mem;

use fake_nvml::scenario::{Device, Hang, Level, NvLink, Process, Scenario, Xid};
use fake_nvml::{Installation, model};
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, Sampling};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper_sys::bindings as nv;
use tempfile::TempDir;

const H100: &str = "H100 80GB HBM3";

struct Machine {
    _directory: TempDir,
    installation: Installation,
}

impl Machine {
    fn new(scenario: &Scenario) -> Self {
        let directory = TempDir::new().unwrap();
        let library = Installation::built_for_this_test().unwrap();
        let installation = Installation::new(&library, directory.path(), scenario).unwrap();
        Self { _directory: directory, installation }
    }

    fn init(&self) -> Result<Nvml, NvmlError> {
        Nvml::builder().lib_path(self.installation.library().as_os_str()).init()
    }

    fn set(&self, scenario: &Scenario) {
        self.installation.set(scenario).unwrap();
    }
}

#[test]
fn eight_healthy_gpus_show_what_their_model_has() {
    let mut scenario = Scenario::of(8, H100);
    scenario.clock_s = Some(5.0);
    scenario.devices[3].utilization = Level::Wave { low: 0.0, high: 1.0, period_s: 10.0, phase_s: 0.0 };
    scenario.devices[3].memory_used_bytes = 7 << 30;
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    assert_eq!(nvml.sys_driver_version().unwrap(), "580.95.05-fake");
    assert_eq!(nvml.device_count().unwrap(), 8);
    let device = nvml.device_by_index(3).unwrap();
    assert_eq!(device.uuid().unwrap(), "GPU-fa4e0000-0000-4000-8000-000000000003");
    assert_eq!(device.name().unwrap(), "NVIDIA H100 80GB HBM3");
    let pci = device.pci_info().unwrap();
    assert_eq!((pci.bus_id.as_str(), pci.bus, pci.pci_device_id), ("00000000:1B:00.0", 0x1b, 0x2330_10de));
    let memory = device.memory_info().unwrap();
    assert_eq!((memory.total, memory.used), (81_559 << 20, 7 << 30));
    assert_eq!(memory.total, memory.reserved + memory.used + memory.free);
    assert_eq!(device.utilization_rates().unwrap().gpu, 100);
    assert_eq!(device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).unwrap(), 0);
    assert_eq!(nvml.device_by_uuid(device.uuid().unwrap()).unwrap().index().unwrap(), 3);
    assert_eq!(nvml.device_by_pci_bus_id("0000:1b:00.0").unwrap().index().unwrap(), 3);
    assert!(matches!(nvml.device_by_index(8), Err(NvmlError::InvalidArg)));
    assert!(matches!(nvml.device_by_uuid("GPU-none"), Err(NvmlError::NotFound)));
    nvml.shutdown().unwrap();
}

#[test]
fn a_model_without_mig_or_fabric_says_not_supported() {
    let machine = Machine::new(&Scenario::of(1, "L4"));
    let nvml = machine.init().unwrap();
    let device = nvml.device_by_index(0).unwrap();
    assert!(matches!(device.mig_mode(), Err(NvmlError::NotSupported)));
    assert_eq!(device.mig_device_count().unwrap(), 0);
    assert_eq!(fabric(&nvml, &device), nv::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
}

#[test]
fn a_gpu_that_is_lost_says_so_and_is_not_listed_after_the_next_initialisation() {
    let mut scenario = Scenario::of(2, H100);
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    let device = nvml.device_by_index(1).unwrap();
    scenario.devices[1].lost = true;
    machine.set(&scenario);
    assert!(matches!(device.utilization_rates(), Err(NvmlError::GpuLost)));
    assert!(matches!(nvml.device_by_index(1), Err(NvmlError::GpuLost)));
    assert_eq!(nvml.device_count().unwrap(), 2);
    nvml.shutdown().unwrap();
    assert_eq!(machine.init().unwrap().device_count().unwrap(), 1);
}

#[test]
fn a_driver_that_is_absent_or_was_loaded_anew_fails_every_call() {
    let mut scenario = Scenario::of(1, H100);
    scenario.driver.loaded = false;
    let machine = Machine::new(&scenario);
    assert!(matches!(machine.init(), Err(NvmlError::DriverNotLoaded)));
    scenario.driver.loaded = true;
    machine.set(&scenario);
    let nvml = machine.init().unwrap();
    scenario.driver.generation = 2;
    machine.set(&scenario);
    assert!(matches!(nvml.device_count(), Err(NvmlError::Unknown)));
    nvml.shutdown().unwrap();
    assert_eq!(machine.init().unwrap().device_count().unwrap(), 1);
}

#[test]
fn mig_instances_have_their_own_uuid_memory_and_no_utilisation() {
    let mut scenario = Scenario::of(1, H100);
    scenario.devices[0] = scenario.devices[0].clone().in_smallest_instances();
    scenario.devices[0].mig.as_mut().unwrap()[1].memory_used_bytes = 1 << 30;
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!(device.mig_mode().unwrap().current, 1);
    assert_eq!(device.mig_device_count().unwrap(), 7);
    let instance = device.mig_device_by_index(1).unwrap();
    assert_eq!(instance.uuid().unwrap(), "MIG-fa4e0000-0000-4101-8000-000000000000");
    assert_eq!(instance.name().unwrap(), "NVIDIA H100 80GB HBM3 MIG 1g.10gb");
    let memory = instance.memory_info().unwrap();
    assert_eq!((memory.used, memory.total.div_ceil(1 << 30)), (1 << 30, 10));
    let attributes = instance.attributes().unwrap();
    assert_eq!((attributes.gpu_instance_slice_count, attributes.compute_instance_slice_count), (1, 1));
    assert!(matches!(instance.utilization_rates(), Err(NvmlError::NotSupported)));
    assert!(matches!(device.utilization_rates(), Err(NvmlError::NotSupported)));
    assert_eq!(instance.mig_parent_device().unwrap().uuid().unwrap(), device.uuid().unwrap());
    assert_eq!(nvml.device_by_uuid(instance.uuid().unwrap()).unwrap().memory_info().unwrap().used, 1 << 30);
    scenario.devices[0].mig.as_mut().unwrap().truncate(1);
    machine.set(&scenario);
    assert!(matches!(instance.uuid(), Err(NvmlError::NotFound)));
    assert!(matches!(device.mig_device_by_index(1), Err(NvmlError::NotFound)));
}

#[test]
fn an_xid_reaches_who_listened_before_and_a_second_one_hides_the_first_ones_code() {
    let mut scenario = Scenario::of(2, H100);
    let uuid = scenario.devices[1].uuid.clone();
    let xid = |xid| Xid { device: uuid.clone(), xid, ..Xid::default() };
    scenario.xids.push(xid(13));
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    let mut set = nvml.create_event_set().unwrap();
    for device in 0..2 {
        let device = nvml.device_by_index(device).unwrap();
        set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|error| error.error).unwrap();
    }
    assert!(matches!(set.wait(0), Err(NvmlError::Timeout)));
    scenario.xids.extend([xid(31), xid(79)]);
    machine.set(&scenario);
    for _ in 0..2 {
        let event = set.wait(0).unwrap();
        assert_eq!(event.device.uuid().unwrap(), uuid);
        assert!(matches!(event.event_data, Some(XidError::Value(79))));
    }
    assert!(matches!(set.wait(0), Err(NvmlError::Timeout)));
}

#[test]
fn processes_are_counted_before_they_are_listed() {
    let mut scenario = Scenario::of(1, H100);
    let process = |pid: u32| Process {
        pid,
        memory_bytes: (pid != 7).then_some(1 << 20),
        utilization: (pid == 7).then_some(Level::Steady(0.25)),
        ..Process::default()
    };
    scenario.devices[0].processes = (1..=4000).map(process).collect();
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!(device.running_compute_processes_count().unwrap(), 4000);
    let processes = device.running_compute_processes().unwrap();
    assert_eq!((processes.len(), processes[3].used_gpu_memory.clone()), (4000, UsedGpuMemory::Used(1 << 20)));
    assert_eq!(processes[6].used_gpu_memory, UsedGpuMemory::Unavailable);
    assert_eq!(processes[6].gpu_instance_id, None);
    let samples = device.process_utilization_stats(0).unwrap();
    assert_eq!((samples.len(), samples[0].pid, samples[0].sm_util), (1, 7, 25));
    assert!(matches!(device.process_utilization_stats(u64::MAX), Err(NvmlError::NotFound)));
}

#[test]
fn samples_of_utilisation_are_those_after_the_last_one_seen() {
    let mut scenario = Scenario::of(1, H100);
    scenario.clock_s = Some(2.0);
    scenario.devices[0].utilization = Level::Steps { steps: vec![0.0, 1.0], each_s: 1.0 };
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    let device = nvml.device_by_index(0).unwrap();
    let samples = device.samples(Sampling::GpuUtilization, 0).unwrap();
    let busy = samples.iter().filter(|sample| matches!(sample.value, SampleValue::U32(100))).count();
    assert_eq!((samples.len(), busy), (13, 6));
    let last = samples.last().unwrap().timestamp;
    assert!(matches!(device.samples(Sampling::GpuUtilization, last), Err(NvmlError::NotFound)));
    scenario.clock_s = Some(3.0);
    machine.set(&scenario);
    assert_eq!(device.samples(Sampling::GpuUtilization, last).unwrap().len(), 6);
}

#[test]
fn health_is_read_in_one_call_of_fields_and_one_may_fail_alone() {
    let mut scenario = Scenario::of(1, H100);
    scenario.devices[0].ecc_uncorrected = 3;
    scenario.devices[0].remapped_rows.failure = true;
    scenario.devices[0].recovery_action = 2;
    scenario.devices[0].field_errors.insert(144, nv::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    let device = nvml.device_by_index(0).unwrap();
    let fields = device.field_values_for(&[4, 145, 230, 144, 9999].map(FieldId)).unwrap();
    let values: Vec<_> = fields.into_iter().map(|field| field.unwrap().value.ok()).collect();
    let expected = [Some(SampleValue::U64(3)), Some(SampleValue::U32(1)), Some(SampleValue::U32(2)), None, None];
    assert_eq!(values, expected);
}

#[test]
fn a_struct_of_another_version_is_refused() {
    let machine = Machine::new(&Scenario::of(1, H100));
    let nvml = machine.init().unwrap();
    let device = nvml.device_by_index(0).unwrap();
    let call = nvml.lib().nvmlDeviceGetMemoryInfo_v2.as_ref().unwrap();
    // SAFETY: the struct is plain numbers, and lives through the call.
    let answer = unsafe { call(device.handle(), &mut mem::zeroed()) };
    assert_eq!(answer, nv::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    assert_eq!(fabric(&nvml, &device), nv::nvmlReturn_enum_NVML_SUCCESS);
}

#[test]
fn names_and_uuids_of_maximal_length_fit_and_longer_ones_are_an_error() {
    let mut scenario = Scenario::of(2, H100);
    scenario.devices[0].model = "M".repeat(95);
    scenario.devices[0].uuid = format!("GPU-{}", "u".repeat(75));
    scenario.devices[1].model = "M".repeat(96);
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!((device.name().unwrap().len(), device.uuid().unwrap().len()), (95, 79));
    assert!(matches!(nvml.device_by_index(1).unwrap().name(), Err(NvmlError::InsufficientSize(_))));
}

#[test]
fn a_call_hangs_until_the_scenario_lets_it_go() {
    let mut scenario = Scenario::of(2, H100);
    let uuid = scenario.devices[1].uuid.clone();
    scenario.hangs.push(Hang { call: "nvmlDeviceGetName".into(), device: Some(uuid), ..Hang::default() });
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    assert_eq!(nvml.device_by_index(0).unwrap().name().unwrap(), "NVIDIA H100 80GB HBM3");
    std::thread::scope(|threads| {
        let (before, begun) = std::sync::mpsc::channel();
        let hung = threads.spawn({
            let nvml = &nvml;
            move || {
                let device = nvml.device_by_index(1).unwrap();
                before.send(()).unwrap();
                device.name().unwrap()
            }
        });
        begun.recv().unwrap();
        // Another call responds meanwhile.
        assert_eq!(nvml.device_by_index(1).unwrap().uuid().unwrap().len(), 40);
        assert!(!hung.is_finished());
        scenario.hangs.clear();
        machine.set(&scenario);
        assert_eq!(hung.join().unwrap(), "NVIDIA H100 80GB HBM3");
    });
}

#[test]
fn one_call_on_one_device_can_fail_with_any_code() {
    let mut scenario = Scenario::of(2, H100);
    let reset = nv::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED;
    scenario.devices[0].errors.insert("nvmlDeviceGetMemoryInfo_v2".into(), reset);
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    assert!(matches!(nvml.device_by_index(0).unwrap().memory_info(), Err(NvmlError::ResetRequired)));
    assert!(nvml.device_by_index(1).unwrap().memory_info().is_ok());
}

#[test]
fn before_initialisation_and_after_shut_down_every_call_says_so() {
    let machine = Machine::new(&Scenario::of(1, H100));
    // SAFETY: the library of this repository; its initialisers do nothing.
    let library = unsafe { nv::NvmlLib::new(machine.installation.library()) }.unwrap();
    let mut count = 0;
    // SAFETY: the functions have the types of the binding; the number lives through the calls.
    let answers = unsafe {
        let before = library.nvmlDeviceGetCount_v2(&raw mut count);
        let shut = library.nvmlShutdown();
        library.nvmlInit_v2();
        library.nvmlInit_v2();
        library.nvmlShutdown();
        let between = library.nvmlDeviceGetCount_v2(&raw mut count);
        library.nvmlShutdown();
        [before, shut, between, library.nvmlDeviceGetCount_v2(&raw mut count)]
    };
    assert_eq!((answers, count), ([1, 1, 0, 1], 1));
}

#[test]
fn every_model_can_be_named_with_and_without_its_maker() {
    let scenario = Scenario {
        devices: model::MODELS.iter().enumerate().map(|(index, model)| Device::of(index, model.name)).collect(),
        ..Scenario::default()
    };
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    for (index, model) in model::MODELS.iter().enumerate() {
        assert_eq!(nvml.device_by_index(index as u32).unwrap().name().unwrap(), model.name);
    }
}

/// What a device returns as its state in the fabric for a struct of this version.
fn fabric_of(nvml: &Nvml, device: &nvml_wrapper::Device, version: u32) -> (nv::nvmlReturn_t, u8, u32, u32) {
    let call = nvml.lib().nvmlDeviceGetGpuFabricInfoV.as_ref().unwrap();
    let size =
        if version == 2 { size_of::<nv::nvmlGpuFabricInfo_v2_t>() } else { size_of::<nv::nvmlGpuFabricInfoV_t>() };
    // SAFETY: the struct is plain numbers; the caller's size and version are those of its own type.
    unsafe {
        let mut info: nv::nvmlGpuFabricInfoV_t = mem::zeroed();
        info.version = size as u32 | version << 24;
        let code = call(device.handle(), &raw mut info);
        (code, info.state, info.status, info.healthMask)
    }
}

fn fabric(nvml: &Nvml, device: &nvml_wrapper::Device) -> nv::nvmlReturn_t {
    fabric_of(nvml, device, 3).0
}

#[test]
fn a_sick_fabric_says_so_and_an_older_driver_knows_older_structs_alone() {
    let mut scenario = Scenario::of(2, H100);
    (scenario.devices[1].fabric_status, scenario.devices[1].fabric_health) = (999, Some(0x4aa));
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    let devices = [0, 1].map(|index| nvml.device_by_index(index).unwrap());
    for version in [2, 3] {
        assert_eq!(fabric_of(&nvml, &devices[0], version), (0, 3, 0, 0x1aa), "as a device that is well");
        assert_eq!(fabric_of(&nvml, &devices[1], version), (0, 3, 999, 0x4aa));
    }
    // Version mismatch is 25, and a missing function is 13.
    assert_eq!(fabric_of(&nvml, &devices[1], 4).0, 25);
    for (fabric_info, codes) in [(2, [0, 25]), (1, [13, 13]), (0, [13, 13])] {
        scenario.driver.fabric_info = fabric_info;
        machine.set(&scenario);
        assert_eq!([2, 3].map(|version| fabric_of(&nvml, &devices[1], version).0), codes, "{fabric_info}");
        let call = nvml.lib().nvmlDeviceGetGpuFabricInfo.as_ref().unwrap();
        // SAFETY: the struct is plain numbers, and lives through the call.
        let (code, info) = unsafe {
            let mut info: nv::nvmlGpuFabricInfo_t = mem::zeroed();
            (call(devices[1].handle(), &raw mut info), info)
        };
        let expected = if fabric_info == 0 { (13, 0, 0) } else { (0, 3, 999) };
        assert_eq!((code, info.state, info.status), expected, "{fabric_info}");
    }
}

#[test]
fn a_threshold_of_sram_errors_is_known_from_ampere_on_and_to_the_right_version_alone() {
    let mut scenario = Scenario::of(2, H100);
    scenario.devices[1].sram_threshold_exceeded = true;
    scenario.devices.push(Device::of(2, "Tesla T4"));
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    let call = nvml.lib().nvmlDeviceGetSramEccErrorStatus.as_ref().unwrap();
    let ask = |index, version: u32| {
        let device = nvml.device_by_index(index).unwrap();
        // SAFETY: the struct is plain numbers; its size and version are those of its type.
        unsafe {
            let mut status: nv::nvmlEccSramErrorStatus_t = mem::zeroed();
            status.version = size_of::<nv::nvmlEccSramErrorStatus_t>() as u32 | version << 24;
            (call(device.handle(), &raw mut status), status.bThresholdExceeded)
        }
    };
    assert_eq!([ask(0, 1), ask(1, 1), ask(2, 1), ask(1, 2)], [(0, 0), (0, 1), (3, 0), (25, 0)]);
}

#[test]
fn errors_of_nvlinks_are_counted_by_link_and_kind_and_added_up_over_those_in_use() {
    let mut scenario = Scenario::of(1, "A100-SXM4-80GB");
    let mut links = scenario.devices[0].nvlinks();
    assert_eq!(links.len(), 12);
    links.truncate(3);
    links[0] = NvLink { replay: 5, ecc_data: u64::from(u32::MAX) + 2, ..NvLink::default() };
    links[1] = NvLink { inactive: true, replay: 100, ..NvLink::default() };
    links[2] = NvLink { replay: 2, recovery: 3, crc_flit: 4, crc_data: 1, ..NvLink::default() };
    scenario.devices[0].nvlinks = Some(links);
    scenario.devices.push(Device::of(1, "L4"));
    let machine = Machine::new(&scenario);
    let nvml = machine.init().unwrap();
    let devices = [0, 1].map(|index| nvml.device_by_index(index).unwrap());
    let totals = devices[0].field_values_for(&[52, 59, 38, 45, 160].map(FieldId)).unwrap();
    let totals: Vec<_> = totals.into_iter().map(|field| field.unwrap().value.unwrap()).collect();
    assert_eq!(totals, [7, 3, 4, 1, u64::from(u32::MAX) + 2].map(SampleValue::U64));
    let link = |device: usize, link, kind| {
        let (state, call) = (&nvml.lib().nvmlDeviceGetNvLinkState, &nvml.lib().nvmlDeviceGetNvLinkErrorCounter);
        let (mut active, mut count) = (9, 0);
        // SAFETY: the functions have the types of the binding; the device and the numbers live through the calls.
        unsafe {
            let handle = devices[device].handle();
            let known = state.as_ref().unwrap()(handle, link, &raw mut active);
            let counted = call.as_ref().unwrap()(handle, link, kind, &raw mut count);
            (known, active, counted, count)
        }
    };
    // Replay is 0, recovery 1; not supported is 3, and an invalid argument is 2.
    assert_eq!([link(0, 0, 0), link(0, 2, 1), link(0, 1, 0)], [(0, 1, 0, 5), (0, 1, 0, 3), (0, 0, 3, 0)]);
    assert_eq!([link(0, 3, 0), link(0, 0, 5), link(1, 0, 0)], [(2, 9, 2, 0), (0, 1, 2, 0), (3, 9, 3, 0)]);
}
