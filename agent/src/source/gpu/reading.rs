//! The results of one round of NVML calls: plain values, sent from the process that makes the calls to the agent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::sample::gpu::NvlinkErrors;

/// One round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Reading {
    pub(super) driver_version: String,
    pub(super) devices: Vec<DeviceReading>,
    /// Xid events since the last round, in the order they occurred.
    pub(super) xids: Vec<XidEvent>,
    /// Whether NVML was initialised for this round: what was latched before says nothing about the present.
    pub(super) initialised: bool,
    /// Number of calls. The waits for events between rounds do not count.
    pub(super) calls: u32,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct DeviceReading {
    pub(super) uuid: Arc<str>,
    pub(super) model: Arc<str>,
    pub(super) bus_id: Arc<str>,
    pub(super) mig_mode: Option<bool>,
    pub(super) instances: Vec<InstanceReading>,
    pub(super) memory: Option<Memory>,
    /// Over the driver's last sampling period.
    pub(super) utilization_ratio: Option<f64>,
    /// Mean since the last round.
    pub(super) mean_ratio: Option<f64>,
    pub(super) health: HealthReading,
    /// The last known values: not every round reads them.
    pub(super) nvlink_errors: Option<NvlinkErrors>,
    pub(super) processes: Vec<ProcessReading>,
    /// Whether a list of processes could not be read, so that some may be missing.
    pub(super) lists_failed: bool,
    /// Whether the device supports the list of processes that compute. Without this list, little is known.
    pub(super) lists_compute: bool,
    /// Processes whose share of the device's time is known, each once. `None` if the driver does not report it.
    pub(super) process_ratios: Option<Vec<(u32, f64)>>,
}

impl DeviceReading {
    /// A device of which only the identification was read.
    pub(super) fn of(uuid: &Arc<str>, model: &Arc<str>, bus_id: &Arc<str>) -> Self {
        Self {
            uuid: Arc::clone(uuid),
            model: Arc::clone(model),
            bus_id: Arc::clone(bus_id),
            mig_mode: None,
            instances: Vec::new(),
            memory: None,
            utilization_ratio: None,
            mean_ratio: None,
            health: HealthReading::default(),
            nvlink_errors: None,
            processes: Vec::new(),
            lists_failed: false,
            lists_compute: true,
            process_ratios: None,
        }
    }
}

/// One MIG instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct InstanceReading {
    pub(super) uuid: Arc<str>,
    pub(super) profile: Arc<str>,
    pub(super) gpu_instance: Option<u32>,
    pub(super) compute_instance: Option<u32>,
    pub(super) memory: Option<Memory>,
}

/// Memory of a device or instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    pub(super) used_bytes: u64,
    pub(super) total_bytes: u64,
}

/// What determines whether a device is healthy. A value that the device does not report is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HealthReading {
    pub(super) fault: Option<Fault>,
    pub(super) ecc_uncorrected: Option<u64>,
    pub(super) row_remap_pending: Option<bool>,
    pub(super) row_remap_failed: Option<bool>,
    /// Field 230.
    pub(super) recovery_action: Option<u32>,
    /// The last known value: not every round reads it.
    pub(super) sram_threshold_exceeded: Option<bool>,
    pub(super) fabric: Option<FabricReading>,
}

/// A device's state in the NVLink fabric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FabricReading {
    /// `NVML_GPU_FABRIC_STATE_*`.
    pub(super) state: u8,
    /// The result of joining the fabric, as a return code of NVML. It has a meaning only in the state "completed".
    pub(super) status: u32,
    /// `NVML_GPU_FABRIC_HEALTH_MASK_*`. `None` if the driver is too old to report it.
    pub(super) health_mask: Option<u32>,
}

/// Why a device does not respond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fault {
    Lost,
    ResetRequired,
    Unreadable,
}

/// One process on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessReading {
    pub(super) pid: u32,
    pub(super) memory_bytes: Option<u64>,
    pub(super) gpu_instance: Option<u32>,
    pub(super) compute_instance: Option<u32>,
}

/// One Xid event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct XidEvent {
    pub(super) uuid: Arc<str>,
    pub(super) xid: u64,
    /// The affected GPU instance. `None` if it is the whole device.
    pub(super) gpu_instance: Option<u32>,
}
