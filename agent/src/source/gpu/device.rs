//! One device of one initialisation, and the calls that a round makes of it.
//!
//! A round makes at most 8 calls a device, 3 more a MIG instance, and 3 once for an instance not seen before; a list
//! that grew meanwhile costs up to 2 more. A device that is lost costs 2. What changes seldom is read of one device a round: 2
//! calls, or more where the driver does not add up over NVLinks (`nvlink.rs`).

use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::{FieldValueSample, MemoryInfo};
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper_sys::bindings::field_id;

use super::nvlink::Nvlinks;
use super::raw::{self, FabricCall, Room};
use super::reading::{DeviceReading, FabricReading, Fault, HealthReading, InstanceReading, Memory};

/// A device has 7 at most today. A library that claims more is not asked for all of them.
const MIG_INSTANCES_AT_MOST: u32 = 32;

/// Asked for in one call.
const FIELDS: [u32; 4] = [
    field_id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL,
    field_id::NVML_FI_DEV_REMAPPED_PENDING,
    field_id::NVML_FI_DEV_REMAPPED_FAILURE,
    field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
];

/// A device and what does not change about it.
pub(super) struct Held<'nvml> {
    device: Device<'nvml>,
    uuid: Arc<str>,
    model: Arc<str>,
    bus_id: Arc<str>,
    /// How many MIG instances it can have.
    mig_slots: u32,
    /// What it has said that it does not support. That does not change either.
    lacks: Lacks,
    /// How its driver is asked for its place in the fabric. Absent: the driver or the device knows of none.
    fabric: Option<FabricCall>,
    /// As they last were: not every round reads them.
    sram_threshold_exceeded: Option<bool>,
    nvlinks: Nvlinks,
    /// Mode and instances as they last were: those of a device that no longer answers are not gone, but broken.
    mig_mode: Option<bool>,
    instances: Vec<InstanceReading>,
    samples_seen_us: u64,
    ratios_seen_us: u64,
}

#[derive(Default)]
struct Lacks {
    mig: bool,
    sram: bool,
}

/// What the answers of one device say about itself.
#[derive(Default)]
struct Answers {
    some: bool,
    lost: bool,
    reset: bool,
}

impl<'nvml> Held<'nvml> {
    /// Asks the device who it is.
    pub(super) fn new(device: Device<'nvml>, calls: &mut u32) -> Result<Self, NvmlError> {
        *calls += 4;
        let pci = device.pci_info()?;
        Ok(Self {
            uuid: device.uuid()?.into(),
            model: device.name()?.into(),
            // As sysfs spells it.
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

    /// Reads what changes seldom; the rounds have it from then on. A device passes the threshold of SRAM errors once in its life,
    /// and each error that counts towards it raises an Xid at once. NVLinks have many counters, of which a rate over minutes is
    /// asked for. A device that gives no answer keeps what it had.
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
            reading.mig_mode = mode.map(|mode| mode.current == 1);
        }
        if reading.mig_mode == Some(true) {
            reading.instances = self.read_instances(answers, calls);
        }
        reading.health.fabric = self.read_fabric(answers, calls);
    }

    /// In the newest way that the driver knows, which is found once.
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

    /// Slots may be empty: an instance keeps its own while others come and go.
    fn read_instances(&self, answers: &mut Answers, calls: &mut u32) -> Vec<InstanceReading> {
        let mut instances = Vec::new();
        for slot in 0..self.mig_slots {
            *calls += 1;
            let Some(instance) = answers.of(self.device.mig_device_by_index(slot)) else { continue };
            *calls += 2;
            // Gone between two calls, perhaps: then it is not there.
            let Some(uuid) = answers.of(instance.uuid()) else { continue };
            let memory = answers.of(instance.memory_info()).map(|info| memory(&info));
            let known = self.instances.iter().find(|known| *known.uuid == *uuid);
            instances.push(match known {
                Some(known) => InstanceReading { memory, ..known.clone() },
                None => InstanceReading { memory, ..new_instance(&instance, &uuid, answers, calls) },
            });
        }
        instances
    }

    /// Utilisation and processes.
    fn read_use(&mut self, reading: &mut DeviceReading, answers: &mut Answers, room: &mut Room, calls: &mut u32) {
        let (took, processes) = room.processes(&self.device);
        *calls += took;
        reading.processes = answers.of(processes).unwrap_or_default();
        if reading.mig_mode == Some(true) {
            return;
        }
        *calls += 1;
        let rates = answers.of(self.device.utilization_rates()).filter(|rates| rates.gpu <= 100);
        reading.utilization_ratio = rates.map(|rates| f64::from(rates.gpu) / 100.0);
        let (took, mean) = room.mean_ratio(&self.device, &mut self.samples_seen_us);
        *calls += took;
        reading.mean_ratio = answers.of(mean).flatten();
        if !reading.processes.is_empty() {
            let (took, ratios) = room.process_ratios(&self.device, &mut self.ratios_seen_us);
            *calls += took;
            reading.process_ratios = answers.of(ratios);
        }
    }
}

impl Answers {
    fn of<T>(&mut self, answer: Result<T, NvmlError>) -> Option<T> {
        match answer {
            Ok(value) => {
                self.some = true;
                return Some(value);
            }
            // These are answers, too.
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

/// Notes when a device says that it will never answer this.
fn not_supported<T>(answer: Result<T, NvmlError>, lacks: &mut bool) -> Result<T, NvmlError> {
    *lacks = answer
        .as_ref()
        .is_err_and(|error| matches!(error, NvmlError::NotSupported) || raw::is_unknown_to_driver(error));
    answer
}

/// What does not change about an instance.
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
    let figure = |id: u32| super::fields::figure(values, id);
    HealthReading {
        fault: None,
        ecc_uncorrected: figure(field_id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL),
        row_remap_pending: figure(field_id::NVML_FI_DEV_REMAPPED_PENDING).map(|value| value != 0),
        row_remap_failed: figure(field_id::NVML_FI_DEV_REMAPPED_FAILURE).map(|value| value != 0),
        recovery_action: figure(field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION).and_then(|v| u32::try_from(v).ok()),
        sram_threshold_exceeded: None,
        fabric: None,
    }
}

/// The profile in an instance's name, as the device plugin spells it: `1g.10gb`, and `1g.10gb.me` for NVML's
/// `1g.10gb+me`, since a resource's name has no plus.
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
