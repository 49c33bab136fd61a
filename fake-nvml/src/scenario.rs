//! The scenario file: plain values as JSON, and the values computed from them and from the time.
//!
//! Time is a parameter: the same scenario at the same second gives the same values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{self, Model};

/// A machine's GPUs and driver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// The driver.
    pub driver: Driver,
    /// The devices, in NVML's order.
    pub devices: Vec<Device>,
    /// Xid errors so far, oldest first. Adding one raises it.
    pub xids: Vec<Xid>,
    /// Calls that hang.
    pub hangs: Vec<Hang>,
    /// Calls that crash or corrupt the process.
    pub crashes: Vec<Crash>,
    /// Error codes by function name, for calls without a device.
    pub errors: BTreeMap<String, u32>,
    /// Wrong numbers that `nvmlDeviceGetCount_v2` and `nvmlDeviceGetMaxMigDeviceCount` return, by function name.
    pub counts: BTreeMap<String, u32>,
    /// Whether there is always another event, which is not an Xid.
    pub other_events: bool,
    /// The time that values are computed for. `None`: the time since the library was loaded.
    pub clock_s: Option<f64>,
}

/// The driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Driver {
    /// Version; the library adds `-fake` to it.
    pub version: String,
    /// Whether it is loaded. If not, every call returns that error.
    pub loaded: bool,
    /// How often it was reloaded: a process that initialised before the last reload must do so again.
    pub generation: u32,
    /// The newest version of the fabric's struct that it supports: 3 or 2. 1: only the function without a version. 0:
    /// neither.
    pub fabric_info: u32,
}

impl Default for Driver {
    fn default() -> Self {
        Self { version: "580.95.05".into(), loaded: true, generation: 1, fabric_info: 3 }
    }
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    /// One of [`model::MODELS`]; another name is a model without MIG and with an L4's values.
    pub model: String,
    /// `GPU-…`
    pub uuid: String,
    /// PCI address in NVML's format: eight hex digits for the domain.
    pub bus_id: String,
    /// Fraction of the time that it is busy, 0 to 1. Has no effect in MIG mode.
    pub utilization: Level,
    /// Memory used by neither a process nor the driver.
    pub memory_used_bytes: u64,
    /// Processes that compute on it.
    pub processes: Vec<Process>,
    /// If present, it is in MIG mode, with these instances.
    pub mig: Option<Vec<MigInstance>>,
    /// Uncorrectable ECC errors since the driver was loaded.
    pub ecc_uncorrected: u64,
    /// Rows of memory that were replaced.
    pub remapped_rows: RemappedRows,
    /// The action that the driver requests: 0 nothing, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset.
    pub recovery_action: u32,
    /// Whether the number of uncorrectable errors of its SRAM exceeded the threshold.
    pub sram_threshold_exceeded: bool,
    /// State of the NVLink fabric, as NVML's number. `None`: 3 (completed) if the model has a fabric.
    pub fabric_state: Option<u8>,
    /// The result of joining the fabric, as an error code of NVML: 0 for success.
    pub fabric_status: u32,
    /// Health of the fabric, as NVML's mask. `None`: everything is known and nothing is wrong. 0: nothing is known.
    pub fabric_health: Option<u32>,
    /// Its NVLinks. `None`: as many as its model has, all in use and without errors.
    pub nvlinks: Option<Vec<NvLink>>,
    /// Whether it fell off the bus: calls on it return `GPU_IS_LOST`, and a process that initialises now does not see
    /// it.
    pub lost: bool,
    /// Error codes by function name; `"*"` means every call on this device.
    pub errors: BTreeMap<String, u32>,
    /// Error codes by field id, for `nvmlDeviceGetFieldValues`.
    pub field_errors: BTreeMap<u32, u32>,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            model: "NVIDIA H100 80GB HBM3".into(),
            uuid: String::new(),
            bus_id: String::new(),
            utilization: Level::Steady(0.0),
            memory_used_bytes: 0,
            processes: Vec::new(),
            mig: None,
            ecc_uncorrected: 0,
            remapped_rows: RemappedRows::default(),
            recovery_action: 0,
            sram_threshold_exceeded: false,
            fabric_state: None,
            fabric_status: 0,
            fabric_health: None,
            nvlinks: None,
            lost: false,
            errors: BTreeMap::new(),
            field_errors: BTreeMap::new(),
        }
    }
}

/// A value over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Level {
    /// Constant.
    Steady(f64),
    /// Rises and falls linearly.
    Wave {
        /// The lowest value.
        low: f64,
        /// The highest value, half a period later.
        high: f64,
        /// The time from one lowest value to the next.
        period_s: f64,
        /// The position in the period at the start.
        #[serde(default)]
        phase_s: f64,
    },
    /// One value after another, each for the same time, then from the start.
    Steps {
        /// The values.
        steps: Vec<f64>,
        /// The duration of each value.
        each_s: f64,
    },
}

/// A process on a GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Its id in the host's PID namespace.
    pub pid: u32,
    /// Memory it uses on the device. `None`: the driver does not report it.
    pub memory_bytes: Option<u64>,
    /// Fraction of the device's time that it uses. `None`: there are no samples of it.
    pub utilization: Option<Level>,
    /// The GPU instance it runs in.
    pub gpu_instance: Option<u32>,
    /// The compute instance it runs in.
    pub compute_instance: Option<u32>,
    /// NVML's lists that it is in.
    pub lists: Vec<List>,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            pid: 0,
            memory_bytes: None,
            utilization: None,
            gpu_instance: None,
            compute_instance: None,
            lists: vec![List::Compute],
        }
    }
}

/// NVML's lists of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum List {
    /// Those that compute.
    Compute,
    /// Those that draw.
    Graphics,
    /// Clients of MPS.
    Mps,
}

/// One MIG instance: a compute instance of a GPU instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MigInstance {
    /// `MIG-…`
    pub uuid: String,
    /// `1g.10gb`; its first number is the share of the device's slices.
    pub profile: String,
    /// GPU instance id.
    pub gpu_instance: u32,
    /// Compute instance id.
    pub compute_instance: u32,
    /// Memory in use besides that of its processes.
    pub memory_used_bytes: u64,
}

/// Rows of memory that were replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemappedRows {
    /// For correctable errors.
    pub correctable: u32,
    /// For uncorrectable errors.
    pub uncorrectable: u32,
    /// Whether a replacement waits for a reset.
    pub pending: bool,
    /// Whether a replacement failed because no spare row was left.
    pub failure: bool,
}

/// One NVLink of a GPU, and its errors since the driver was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvLink {
    /// Whether it is out of use: nothing is connected, or it could not be trained.
    pub inactive: bool,
    /// Packets that were sent again.
    pub replay: u64,
    /// How often it was trained again.
    pub recovery: u64,
    /// Flow control units with a wrong checksum.
    pub crc_flit: u64,
    /// Data with a wrong checksum.
    pub crc_data: u64,
    /// ECC errors in data.
    pub ecc_data: u64,
}

/// One Xid error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Xid {
    /// UUID of the GPU.
    pub device: String,
    /// The error's code.
    pub xid: u64,
    /// The affected GPU instance.
    pub gpu_instance: Option<u32>,
    /// The affected compute instance.
    pub compute_instance: Option<u32>,
}

/// A call that hangs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hang {
    /// Name of the function; `"*"` means every function. `"dlopen"` is the loading of the library itself.
    pub call: String,
    /// UUID of the GPU on which it hangs. `None`: on every GPU, and without one.
    pub device: Option<String>,
    /// For how long. `None`: until the scenario changes.
    pub seconds: Option<f64>,
    /// How many calls hang, counted since the library was loaded; later calls do not. `None`: all.
    pub calls: Option<u32>,
}

/// A call that crashes or corrupts the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crash {
    /// Name of the function, or `"dlopen"`: the loading of the library itself.
    pub call: String,
    /// What it does to the process.
    pub how: How,
}

/// What a call does to its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// `abort()`.
    Abort,
    /// Writes to an invalid address.
    Segfault,
    /// `exit(3)`.
    Exit,
    /// Writes text to standard output and into every socket of the process, and continues.
    Nonsense,
}

impl Scenario {
    /// A machine with this many GPUs of one model, idle and healthy.
    pub fn of(count: usize, model: &str) -> Self {
        Self { devices: (0..count).map(|index| Device::of(index, model)).collect(), ..Self::default() }
    }

    /// Parses the text of a scenario file.
    ///
    /// # Errors
    ///
    /// The text is not JSON, or has unknown fields.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The driver version that the library reports: marked as fake.
    pub fn driver_version(&self) -> String {
        format!("{}-fake", self.driver.version)
    }
}

impl Device {
    /// The GPU with this index on its machine, idle and healthy.
    pub fn of(index: usize, model: &str) -> Self {
        Self {
            model: model.into(),
            uuid: format!("GPU-fa4e0000-0000-4000-8000-{index:012x}"),
            bus_id: format!("00000000:{:02X}:00.0", 0x18 + index),
            ..Self::default()
        }
    }

    /// Turns MIG mode on, with as many of the smallest instances as the model supports. Requires the UUID that
    /// [`Self::of`] sets, because the instances' UUIDs are made from it.
    #[must_use]
    pub fn in_smallest_instances(mut self) -> Self {
        let model = self.model();
        let gb = mig_memory_bytes(model, 1).div_ceil(1 << 30);
        let instance = |slot: u32| MigInstance {
            uuid: self.uuid.replacen("GPU-", "MIG-", 1).replacen("-4000-", &format!("-41{slot:02}-"), 1),
            profile: format!("1g.{gb}gb"),
            gpu_instance: 7 + slot,
            ..MigInstance::default()
        };
        self.mig = Some((0..model.mig_slices).map(instance).collect());
        self
    }

    /// The properties of its model.
    pub fn model(&self) -> &'static Model {
        model::by_name(&self.model).unwrap_or(&model::MODELS[6])
    }

    /// Its NVLinks.
    pub fn nvlinks(&self) -> Vec<NvLink> {
        self.nvlinks.clone().unwrap_or_else(|| vec![NvLink::default(); self.model().nvlinks])
    }

    /// Memory in use by processes and others, without the driver's reserve.
    pub fn memory_used_bytes(&self) -> u64 {
        let processes: u64 = self.processes.iter().filter_map(|process| process.memory_bytes).sum();
        let instances: u64 = self.mig.iter().flatten().map(|instance| instance.memory_used_bytes).sum();
        let free = self.model().memory_total_bytes - self.model().memory_reserved_bytes;
        (self.memory_used_bytes + processes + instances).min(free)
    }
}

impl MigInstance {
    /// The number of slices in the profile's name: the first number before `g`.
    pub fn slices(&self) -> u32 {
        let before_g = self.profile.split('g').next().unwrap_or_default();
        before_g.rsplit('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(1)
    }

    /// The number of compute slices: fewer than [`Self::slices`] if the profile begins with `Nc.`.
    pub fn compute_slices(&self) -> u32 {
        let compute = self.profile.split_once("c.").and_then(|(digits, _)| digits.parse().ok());
        compute.unwrap_or_else(|| self.slices())
    }

    /// Memory of the instance on this model.
    pub fn memory_total_bytes(&self, model: &Model) -> u64 {
        mig_memory_bytes(model, self.slices())
    }
}

impl Level {
    /// The value at this time, 0 to 1.
    pub fn at(&self, seconds: f64) -> f64 {
        let value = match self {
            Self::Steady(value) => *value,
            Self::Wave { low, high, period_s, phase_s } => {
                let turn = ((seconds + phase_s) / period_s).rem_euclid(1.0);
                let rise = 1.0 - (2.0 * turn - 1.0).abs();
                low + (high - low) * rise
            }
            Self::Steps { steps, each_s } => {
                let step = (seconds / each_s).max(0.0) as usize;
                steps.get(step.checked_rem(steps.len()).unwrap_or(0)).copied().unwrap_or(0.0)
            }
        };
        value.clamp(0.0, 1.0)
    }
}

/// A device has one memory slice more than compute slices; the driver's reserve is taken from all of them.
fn mig_memory_bytes(model: &Model, slices: u32) -> u64 {
    let usable = model.memory_total_bytes - model.memory_reserved_bytes;
    let memory_slices = u64::from(model.mig_slices) + u64::from(model.mig_slices == 7);
    let taken = match (slices, memory_slices) {
        (3 | 4, 8) => 4,
        (7, 8) => 8,
        (slices, _) => u64::from(slices),
    };
    // In whole MiB, as in NVML.
    (usable / memory_slices.max(1) * taken) >> 20 << 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_driver_without_devices() {
        assert_eq!(Scenario::parse("{}").unwrap(), Scenario::default());
    }

    #[test]
    fn what_a_scenario_writes_it_reads_back() {
        let mut scenario = Scenario::of(2, "H100 80GB HBM3");
        scenario.devices[1] = scenario.devices[1].clone().in_smallest_instances();
        scenario.devices[0].utilization = Level::Wave { low: 0.1, high: 0.9, period_s: 60.0, phase_s: 0.0 };
        let text = serde_json::to_string(&scenario).unwrap();
        assert_eq!(Scenario::parse(&text).unwrap(), scenario);
    }

    #[test]
    fn a_slip_in_a_scenario_is_an_error_and_not_a_healthy_gpu() {
        assert!(Scenario::parse(r#"{"devices": [{"lots": true}]}"#).is_err());
    }

    #[test]
    fn a_wave_is_lowest_at_its_start_and_highest_half_a_period_later() {
        let wave = Level::Wave { low: 0.2, high: 0.8, period_s: 10.0, phase_s: 0.0 };
        let at = [0.0, 2.5, 5.0, 10.0].map(|seconds| (wave.at(seconds) * 100.0).round() as u32);
        assert_eq!(at, [20, 50, 80, 20]);
    }

    #[test]
    fn steps_start_over_after_the_last() {
        let steps = Level::Steps { steps: vec![0.0, 1.0], each_s: 2.0 };
        assert_eq!([0.0, 2.0, 3.9, 4.0].map(|seconds| steps.at(seconds) as u32), [0, 1, 1, 0]);
    }

    #[test]
    fn mig_profiles_of_an_h100_have_the_memory_that_their_names_say() {
        let device = Device::of(0, "H100 80GB HBM3").in_smallest_instances();
        let instances = device.mig.as_ref().unwrap();
        assert_eq!((instances.len(), instances[6].profile.as_str(), instances[6].gpu_instance), (7, "1g.10gb", 13));
        let large = MigInstance { profile: "1c.3g.40gb".into(), ..MigInstance::default() };
        assert_eq!((large.slices(), large.compute_slices()), (3, 1));
        assert_eq!(large.memory_total_bytes(device.model()).div_ceil(1 << 30), 40);
    }
}
