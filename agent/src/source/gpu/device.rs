//! One device in one initialisation of NVML, and the calls that a round makes for it.
//!
//! A round makes at most 10 calls per device, 3 more per MIG instance, and 3 once for a new instance; a list that grew
//! meanwhile needs up to 2 more. A lost device needs 2 calls. Values that change seldom are read for one device per
//! round: 2 calls, or more if the driver has no sums over all NVLinks (`nvlink.rs`).

use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::{FieldValueSample, MemoryInfo};
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper_sys::bindings::field_id;

use super::nvlink::Nvlinks;
use super::raw::{self, FabricCall, ProcessList, Room};
use super::reading::{DeviceReading, FabricReading, Fault, HealthReading, InstanceReading, Memory, ProcessReading};

/// A device has at most 7 today. If a library claims more than this limit, the rest is not queried.
const MIG_INSTANCES_AT_MOST: u32 = 32;

/// Fields that are read in one call.
const FIELDS: [u32; 4] = [
    field_id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL,
    field_id::NVML_FI_DEV_REMAPPED_PENDING,
    field_id::NVML_FI_DEV_REMAPPED_FAILURE,
    field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
];

/// A device, and what does not change about it.
pub(super) struct OpenDevice<'nvml> {
    device: Device<'nvml>,
    uuid: Arc<str>,
    model: Arc<str>,
    bus_id: Arc<str>,
    /// How many MIG instances it can have.
    mig_slots: u32,
    /// What the device has reported as not supported, which does not change either.
    lacks: Lacks,
    /// How to query the driver for the device's state in the fabric. `None` if the driver or the device does not
    /// support it.
    fabric: Option<FabricCall>,
    /// The last known values: not every round reads them.
    sram_threshold_exceeded: Option<bool>,
    nvlinks: Nvlinks,
    /// The last known mode and instances: the instances of a device that no longer responds are not gone, but broken.
    mig_mode: Option<bool>,
    instances: Vec<InstanceReading>,
    samples_seen_us: u64,
    ratios_seen_us: u64,
    /// Whether the last round listed processes.
    had_processes: bool,
}

#[derive(Default)]
struct Lacks {
    mig: bool,
    sram: bool,
    /// In the order of [`ProcessList::ALL`].
    lists: [bool; ProcessList::ALL.len()],
    /// Whether the driver does not have the function that lists those that compute, so that they are never known.
    compute: bool,
}

/// What the results of all calls on a device mean for the device as a whole.
#[derive(Default)]
struct Answers {
    some: bool,
    lost: bool,
    reset: bool,
}

impl<'nvml> OpenDevice<'nvml> {
    /// Queries what identifies the device.
    pub(super) fn new(device: Device<'nvml>, calls: &mut u32) -> Result<Self, NvmlError> {
        *calls += 4;
        let pci = device.pci_info()?;
        Ok(Self {
            uuid: device.uuid()?.into(),
            model: device.name()?.into(),
            // In the format of sysfs.
            bus_id: format!("{:04x}:{:02x}:{:02x}.0", pci.domain, pci.bus, pci.device).into(),
            mig_slots: device.mig_device_count().unwrap_or(0).min(MIG_INSTANCES_AT_MOST),
            lacks: Lacks::default(),
            fabric: Some(FabricCall::Third),
            sram_threshold_exceeded: None,
            nvlinks: Nvlinks::default(),
            mig_mode: None,
            instances: Vec::new(),
            samples_seen_us: 0,
            ratios_seen_us: 0,
            had_processes: false,
            device,
        })
    }

    pub(super) fn device(&self) -> &Device<'nvml> {
        &self.device
    }

    pub(super) fn uuid(&self) -> &Arc<str> {
        &self.uuid
    }

    /// One round of calls.
    pub(super) fn read(&mut self, room: &mut Room, calls: &mut u32) -> DeviceReading {
        let mut answers = Answers::default();
        *calls += 2;
        let memory = answers.of(self.device.memory_info()).map(|info| memory(&info));
        let health = answers.of(self.device.field_values_for(&FIELDS.map(FieldId)));
        let mut reading = DeviceReading::of(&self.uuid, &self.model, &self.bus_id);
        reading.lists_failed = answers.lost;
        reading.memory = memory;
        reading.health = health.map_or_else(HealthReading::default, |values| fields(&values));
        if !answers.lost {
            self.read_mode(&mut reading, &mut answers, calls);
            self.read_use(&mut reading, &mut answers, room, calls);
        }
        reading.health.sram_threshold_exceeded = self.sram_threshold_exceeded;
        reading.nvlink_errors = self.nvlinks.last();
        reading.health.fault = answers.fault();
        if reading.health.fault.is_none() {
            (self.mig_mode, self.instances) = (reading.mig_mode, reading.instances.clone());
        } else {
            let known = |instance: &InstanceReading| InstanceReading { memory: None, ..instance.clone() };
            (reading.mig_mode, reading.instances) = (self.mig_mode, self.instances.iter().map(known).collect());
        }
        reading
    }

    /// Reads values that change seldom; later rounds use them. A device exceeds the threshold of SRAM errors at most
    /// once in its life, and each error that counts towards it raises an Xid at once. NVLinks have many counters, whose
    /// rates are used over minutes. If the device does not respond, the previous values are kept.
    pub(super) fn read_seldom(&mut self, calls: &mut u32) {
        self.nvlinks.read(&self.device, calls);
        if !self.lacks.sram {
            *calls += 1;
            let exceeded = not_supported(raw::sram_threshold_exceeded(&self.device), &mut self.lacks.sram);
            self.sram_threshold_exceeded = exceeded.ok().or(self.sram_threshold_exceeded);
        }
    }

    /// MIG and fabric.
    fn read_mode(&mut self, reading: &mut DeviceReading, answers: &mut Answers, calls: &mut u32) {
        if !self.lacks.mig {
            *calls += 1;
            let mode = answers.of(not_supported(self.device.mig_mode(), &mut self.lacks.mig));
            reading.mig_mode = match mode {
                Some(mode) => Some(mode.current == 1),
                None if self.lacks.mig => None,
                // It is what it was, as far as is known.
                None => {
                    reading.lists_failed = true;
                    self.mig_mode
                }
            };
        }
        if reading.mig_mode == Some(true) {
            self.read_instances(reading, answers, calls);
        }
        reading.health.fabric = self.read_fabric(answers, calls);
    }

    /// Uses the newest call that the driver supports, which is determined once.
    fn read_fabric(&mut self, answers: &mut Answers, calls: &mut u32) -> Option<FabricReading> {
        while let Some(ask) = self.fabric {
            *calls += 1;
            match raw::fabric(&self.device, ask) {
                Err(error) if raw::is_unknown_to_driver(&error) => self.fabric = ask.older(),
                Err(NvmlError::NotSupported) => {
                    self.fabric = None;
                    answers.some = true;
                }
                answer => return answers.of(answer),
            }
        }
        None
    }

    /// Slots may be empty: an instance keeps its slot while others are created and removed. If a call fails for another
    /// reason, the known instances stay.
    fn read_instances(&self, reading: &mut DeviceReading, answers: &mut Answers, calls: &mut u32) {
        let mut instances: Vec<InstanceReading> = Vec::new();
        let mut has_failed = false;
        for slot in 0..self.mig_slots {
            *calls += 1;
            let instance = self.device.mig_device_by_index(slot);
            has_failed |= instance.as_ref().is_err_and(|error| !is_gone(error));
            let Some(instance) = answers.of(instance) else { continue };
            *calls += 2;
            // The instance may have been removed between two calls; then it is left out.
            let uuid = instance.uuid();
            has_failed |= uuid.as_ref().is_err_and(|error| !is_gone(error));
            let Some(uuid) = answers.of(uuid) else { continue };
            let memory = answers.of(instance.memory_info()).map(|info| memory(&info));
            let known = self.instances.iter().find(|known| *known.uuid == *uuid);
            instances.push(match known {
                Some(known) => InstanceReading { memory, ..known.clone() },
                None => InstanceReading { memory, ..new_instance(&instance, &uuid, answers, calls) },
            });
        }
        if has_failed {
            let is_missing = |known: &&InstanceReading| instances.iter().all(|read| read.uuid != known.uuid);
            let missing: Vec<_> = self.instances.iter().filter(is_missing).cloned().collect();
            instances.extend(missing.into_iter().map(|known| InstanceReading { memory: None, ..known }));
            reading.lists_failed = true;
        }
        reading.instances = instances;
    }

    /// Utilisation and processes.
    fn read_use(&mut self, reading: &mut DeviceReading, answers: &mut Answers, room: &mut Room, calls: &mut u32) {
        self.read_processes(reading, answers, room, calls);
        if reading.mig_mode == Some(true) {
            return;
        }
        *calls += 1;
        let rates = answers.of(self.device.utilization_rates()).filter(|rates| rates.gpu <= 100);
        reading.utilization_ratio = rates.map(|rates| f64::from(rates.gpu) / 100.0);
        let (took, mean) = room.mean_ratio(&self.device, &mut self.samples_seen_us);
        *calls += took;
        reading.mean_ratio = answers.of(mean).flatten();
        // Also of processes that have ended since the last round.
        let has_processes = !reading.processes.is_empty();
        if has_processes || self.had_processes {
            let (took, ratios) = room.process_ratios(&self.device, &mut self.ratios_seen_us);
            *calls += took;
            reading.process_ratios = answers.of(ratios);
        }
        self.had_processes = has_processes;
    }
}

impl OpenDevice<'_> {
    /// All lists together, each process once, in MIG mode once for each instance. A list that the device does not support is
    /// empty; without the function that lists those that compute, nothing is known.
    fn read_processes(&mut self, reading: &mut DeviceReading, answers: &mut Answers, room: &mut Room, calls: &mut u32) {
        for (list, lacks) in ProcessList::ALL.into_iter().zip(&mut self.lacks.lists) {
            if *lacks {
                continue;
            }
            let (took, processes) = room.processes(&self.device, list);
            *calls += took;
            self.lacks.compute |=
                list == ProcessList::Compute && processes.as_ref().is_err_and(raw::is_unknown_to_driver);
            match answers.of(not_supported(processes, lacks)) {
                Some(processes) => reading.processes.extend(processes),
                None => reading.lists_failed |= !*lacks,
            }
        }
        reading.lists_failed |= self.lacks.compute;
        let [lacks_compute, ..] = self.lacks.lists;
        reading.lists_compute = !lacks_compute;
        let is_mig = reading.mig_mode == Some(true);
        let instances = |process: &ProcessReading| (process.gpu_instance, process.compute_instance);
        let key = |process: &ProcessReading| (process.pid, is_mig.then(|| instances(process)));
        // Stable: the list of those that compute has the memory.
        reading.processes.sort_by_key(key);
        reading.processes.dedup_by_key(|process| key(process));
    }
}

impl Answers {
    fn of<T>(&mut self, answer: Result<T, NvmlError>) -> Option<T> {
        match answer {
            Ok(value) => {
                self.some = true;
                return Some(value);
            }
            // These errors show that the device responds.
            Err(NvmlError::NotSupported | NvmlError::NotFound | NvmlError::InvalidArg) => self.some = true,
            Err(NvmlError::GpuLost) => self.lost = true,
            Err(NvmlError::ResetRequired) => self.reset = true,
            Err(_) => {}
        }
        None
    }

    fn fault(&self) -> Option<Fault> {
        match self {
            Self { lost: true, .. } => Some(Fault::Lost),
            Self { reset: true, .. } => Some(Fault::ResetRequired),
            Self { some: false, .. } => Some(Fault::Unreadable),
            Self { .. } => None,
        }
    }
}

/// Whether this is the answer for an empty slot.
fn is_gone(error: &NvmlError) -> bool {
    matches!(error, NvmlError::NotFound | NvmlError::InvalidArg | NvmlError::NotSupported)
}

/// Records when a device reports that it will never support this call.
fn not_supported<T>(answer: Result<T, NvmlError>, lacks: &mut bool) -> Result<T, NvmlError> {
    *lacks = answer
        .as_ref()
        .is_err_and(|error| matches!(error, NvmlError::NotSupported) || raw::is_unknown_to_driver(error));
    answer
}

/// Queries what does not change about an instance.
fn new_instance(instance: &Device<'_>, uuid: &str, answers: &mut Answers, calls: &mut u32) -> InstanceReading {
    *calls += 3;
    InstanceReading {
        uuid: uuid.into(),
        profile: profile(&answers.of(instance.name()).unwrap_or_default()).into(),
        gpu_instance: answers.of(raw::gpu_instance(instance)),
        compute_instance: answers.of(raw::compute_instance(instance)),
        memory: None,
    }
}

fn memory(memory: &MemoryInfo) -> Memory {
    Memory { used_bytes: memory.used, total_bytes: memory.total }
}

fn fields(values: &[Result<FieldValueSample, NvmlError>]) -> HealthReading {
    let count = |id: u32| super::fields::count(values, id);
    HealthReading {
        fault: None,
        ecc_uncorrected: count(field_id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL),
        row_remap_pending: count(field_id::NVML_FI_DEV_REMAPPED_PENDING).map(|value| value != 0),
        row_remap_failed: count(field_id::NVML_FI_DEV_REMAPPED_FAILURE).map(|value| value != 0),
        recovery_action: count(field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION).and_then(|v| u32::try_from(v).ok()),
        sram_threshold_exceeded: None,
        fabric: None,
    }
}

/// The profile in an instance's name, in the spelling of the device plugin: `1g.10gb`, and `1g.10gb.me` for NVML's
/// `1g.10gb+me`, because a resource's name cannot contain a plus.
fn profile(name: &str) -> String {
    name.rsplit_once(" MIG ").map_or_else(String::new, |(_, profile)| profile.trim().replace('+', "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_spelled_as_in_the_resource_name() {
        let check = |name: &str, expected: &str| assert_eq!(profile(name), expected);
        check("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "1g.10gb");
        check("NVIDIA A100-SXM4-40GB MIG 1g.5gb+me", "1g.5gb.me");
        check("NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb", "1c.3g.20gb");
        check("NVIDIA L4", "");
    }

    #[test]
    fn a_device_is_unreadable_only_if_nothing_at_all_was_an_answer() {
        let mut answers = Answers::default();
        answers.of::<()>(Err(NvmlError::Unknown));
        assert_eq!(answers.fault(), Some(Fault::Unreadable));
        answers.of::<()>(Err(NvmlError::NotSupported));
        assert_eq!(answers.fault(), None);
        answers.of::<()>(Err(NvmlError::ResetRequired));
        assert_eq!(answers.fault(), Some(Fault::ResetRequired));
        answers.of::<()>(Err(NvmlError::GpuLost));
        assert_eq!(answers.fault(), Some(Fault::Lost));
    }
}
