//! What the scenario file says: plain values as JSON, and the few figures that follow from them and from the time.
//!
//! Time is a parameter: the same scenario at the same second gives the same figures.

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
    /// Calls that do not return.
    pub hangs: Vec<Hang>,
    /// Calls that end the process, or worse.
    pub crashes: Vec<Crash>,
    /// Error codes by function name, for calls that belong to no device.
    pub errors: BTreeMap<String, u32>,
    /// Numbers that `nvmlDeviceGetCount_v2` and `nvmlDeviceGetMaxMigDeviceCount` tell in place of the right ones, by function name.
    pub counts: BTreeMap<String, u32>,
    /// There is always another event, and it is no Xid.
    pub other_events: bool,
    /// The time that figures are computed for. Absent: since the library was loaded.
    pub clock_s: Option<f64>,
}

/// The driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Driver {
    /// Version; the library adds `-fake` to it.
    pub version: String,
    /// It is there. If not, every call says so.
    pub loaded: bool,
    /// How often it was loaded anew: a process that initialised before the last time must do so again.
    pub generation: u32,
    /// The newest version of the fabric's struct that it knows: 3 or 2. 1: it has the function without a version alone. 0: it
    /// has neither.
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
    /// One of [`model::MODELS`]; another name is a model without MIG and with an L4's figures.
    pub model: String,
    /// `GPU-…`
    pub uuid: String,
    /// PCI address, as NVML writes it: eight hex digits of domain.
    pub bus_id: String,
    /// Part of the time that it is busy, 0 to 1. Of no effect in MIG mode.
    pub utilization: Level,
    /// Memory that neither a process nor the driver accounts for.
    pub memory_used_bytes: u64,
    /// Processes that compute on it.
    pub processes: Vec<Process>,
    /// Present: it is in MIG mode, with these instances.
    pub mig: Option<Vec<MigInstance>>,
    /// Uncorrectable ECC errors since the driver was loaded.
    pub ecc_uncorrected: u64,
    /// Rows of memory that were replaced.
    pub remapped_rows: RemappedRows,
    /// What the driver asks for: 0 nothing, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset.
    pub recovery_action: u32,
    /// It has had more uncorrectable errors of its SRAM than it should.
    pub sram_threshold_exceeded: bool,
    /// State of the NVLink fabric, by NVML's number. Absent: 3 (completed) where the model has a fabric.
    pub fabric_state: Option<u8>,
    /// What became of its place in the fabric, as an error code of NVML: 0 where that went well.
    pub fabric_status: u32,
    /// Health of the fabric, as NVML's mask. Absent: nothing is wrong, and all that can be is known. 0: nothing is known.
    pub fabric_health: Option<u32>,
    /// Its NVLinks. Absent: as many as its model has, all in use and without an error.
    pub nvlinks: Option<Vec<NvLink>>,
    /// It fell off the bus: calls on it say `GPU_IS_LOST`; a process that initialises now does not see it.
    pub lost: bool,
    /// Error codes by function name; `"*"` is every call on this device.
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

/// A figure over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Level {
    /// Always the same.
    Steady(f64),
    /// Up and down in straight lines.
    Wave {
        /// Lowest.
        low: f64,
        /// Highest, half a period later.
        high: f64,
        /// From low to low.
        period_s: f64,
        /// How far into the period it starts.
        #[serde(default)]
        phase_s: f64,
    },
    /// One value after another, each for as long, then from the start.
    Steps {
        /// The values.
        steps: Vec<f64>,
        /// How long each lasts.
        each_s: f64,
    },
}

/// A process that computes on a GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Its id, as the host sees it.
    pub pid: u32,
    /// Memory it holds on the device. Absent: the driver does not say.
    pub memory_bytes: Option<u64>,
    /// Part of the device's time that it takes. Absent: no samples of it.
    pub utilization: Option<Level>,
    /// The GPU instance it runs in.
    pub gpu_instance: Option<u32>,
    /// The compute instance it runs in.
    pub compute_instance: Option<u32>,
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
    /// Memory in use beside its processes'.
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
    /// A replacement waits for a reset.
    pub pending: bool,
    /// A replacement failed: no spare row was left.
    pub failure: bool,
}

/// One NVLink of a GPU, and its errors since the driver was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvLink {
    /// Nothing is at its other end, or it could not be trained.
    pub inactive: bool,
    /// Packets that were sent again.
    pub replay: u64,
    /// Times that it was trained again.
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
    /// The GPU instance it concerns.
    pub gpu_instance: Option<u32>,
    /// The compute instance it concerns.
    pub compute_instance: Option<u32>,
}

/// A call that does not return for a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hang {
    /// Name of the function; `"*"` is every one. `"dlopen"` is the loading of the library itself.
    pub call: String,
    /// UUID of the GPU it hangs on. Absent: on any, or on none.
    pub device: Option<String>,
    /// For how long. Absent: until the scenario no longer says so.
    pub seconds: Option<f64>,
    /// How many calls hang, counted from when the library was loaded; those after them do not. Absent: all.
    pub calls: Option<u32>,
}

/// A call after which the process is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crash {
    /// Name of the function, or `"dlopen"`: the loading of the library itself.
    pub call: String,
    /// What it does.
    pub how: How,
}

/// What a call does to its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// `abort()`.
    Abort,
    /// Writes to an address where nothing is.
    Segfault,
    /// `exit(3)`.
    Exit,
    /// Writes text to standard output and into every socket of the process, and goes on.
    Nonsense,
}

impl Scenario {
    /// A machine with this many GPUs of one model, idle and healthy.
    pub fn of(count: usize, model: &str) -> Self {
        Self { devices: (0..count).map(|index| Device::of(index, model)).collect(), ..Self::default() }
    }

    /// Reads a scenario file's text.
    ///
    /// # Errors
    /// The text is no JSON, or has fields that no scenario has.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The driver version that the library shows: marked as fake.
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

    /// Turns MIG mode on with as many of the smallest instances as the model takes. For a device with the UUID that
    /// [`Self::of`] gives it: the instances' are made from it.
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

    /// What its model has.
    pub fn model(&self) -> &'static Model {
        model::by_name(&self.model).unwrap_or(&model::MODELS[6])
    }

    /// Its NVLinks.
    pub fn nvlinks(&self) -> Vec<NvLink> {
        self.nvlinks.clone().unwrap_or_else(|| vec![NvLink::default(); self.model().nvlinks])
    }

    /// Memory in use by processes and others, the driver's own share apart.
    pub fn memory_used_bytes(&self) -> u64 {
        let processes: u64 = self.processes.iter().filter_map(|process| process.memory_bytes).sum();
        let instances: u64 = self.mig.iter().flatten().map(|instance| instance.memory_used_bytes).sum();
        let free = self.model().memory_total_bytes - self.model().memory_reserved_bytes;
        (self.memory_used_bytes + processes + instances).min(free)
    }
}

impl MigInstance {
    /// Slices of the device that the profile names: the first number before `g`.
    pub fn slices(&self) -> u32 {
        let before_g = self.profile.split('g').next().unwrap_or_default();
        before_g.rsplit('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(1)
    }

    /// Slices that compute: less than [`Self::slices`] where the profile begins with `Nc.`.
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

/// A device has one memory slice more than it has compute slices; what the driver keeps comes off all of them.
fn mig_memory_bytes(model: &Model, slices: u32) -> u64 {
    let usable = model.memory_total_bytes - model.memory_reserved_bytes;
    let memory_slices = u64::from(model.mig_slices) + u64::from(model.mig_slices == 7);
    let taken = match (slices, memory_slices) {
        (3 | 4, 8) => 4,
        (7, 8) => 8,
        (slices, _) => u64::from(slices),
    };
    // In whole MiB, as NVML counts them.
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
