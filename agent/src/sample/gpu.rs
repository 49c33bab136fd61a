//! The GPUs of one instant: plain values, as [`crate::source::gpu`] makes them and [`crate::report`] sends them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The GPUs of the machine at one instant. Without devices: a node without GPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuSample {
    /// Version of the driver; absent where there is none.
    pub driver_version: Option<String>,
    /// These are not GPUs but the library `fake-nvml`.
    pub fake: bool,
    /// The devices that NVML lists.
    pub devices: Vec<Gpu>,
    /// PCI addresses of devices that the driver should hold and NVML does not list.
    pub lost_bus_ids: Vec<String>,
    /// The most devices that this node is known to have had at once.
    pub remembered: Option<u32>,
    /// How many calls of NVML this sample took.
    pub calls: u32,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// `GPU-…`
    pub uuid: Arc<str>,
    /// Product name.
    pub model: Arc<str>,
    /// PCI address, as sysfs spells it.
    pub bus_id: Arc<str>,
    /// It is in MIG mode. Absent: it has none.
    pub mig_mode: Option<bool>,
    /// Its MIG instances.
    pub mig_instances: Vec<MigInstance>,
    /// Why it should not be used. Empty: healthy.
    pub unhealthy: Vec<Unhealthy>,
    /// What is wrong with it although it works.
    pub warnings: Vec<Warning>,
    /// What it does.
    pub load: Load,
    /// Xid events by code, counted since the agent started.
    pub xid_errors: Vec<(u64, u64)>,
    /// Errors of its NVLinks. Absent: it has none, or the driver does not report them.
    pub nvlink_errors: Option<NvlinkErrors>,
}

/// Errors of a GPU's NVLinks since the driver was loaded, added up over its links. A counter that the driver does not have is
/// absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvlinkErrors {
    /// Packets that were sent again.
    pub replay: Option<u64>,
    /// Times that a link was trained again.
    pub recovery: Option<u64>,
    /// Flow control units with a wrong checksum.
    pub crc_flit: Option<u64>,
    /// Data with a wrong checksum.
    pub crc_data: Option<u64>,
    /// ECC errors in data.
    pub ecc_data: Option<u64>,
}

/// One MIG instance.
#[derive(Clone, Debug, PartialEq)]
pub struct MigInstance {
    /// `MIG-…`
    pub uuid: Arc<str>,
    /// `1g.10gb`
    pub profile: Arc<str>,
    /// GPU instance id.
    pub gpu_instance: Option<u32>,
    /// Compute instance id.
    pub compute_instance: Option<u32>,
    /// Why it should not be used; a sick parent makes it so, too.
    pub unhealthy: Vec<Unhealthy>,
    /// What it does.
    pub load: Load,
}

/// What a GPU or a MIG instance does. What it does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Part of the driver's last sampling period in which a kernel ran on it.
    pub utilization_ratio: Option<f64>,
    /// Time it was busy since the agent started, as far as the agent saw it.
    pub busy_ns: Option<u64>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Memory it has.
    pub memory_total_bytes: Option<u64>,
    /// Who uses it.
    pub uses: Vec<GpuUse>,
}

/// What the processes of one container take of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuUse {
    /// Whose processes.
    pub user: GpuUser,
    /// How many hold the device now.
    pub processes: u32,
    /// Memory that they hold.
    pub memory_used_bytes: Option<u64>,
    /// Time that they kept it busy since the agent started.
    pub busy_ns: Option<u64>,
}

/// Whose processes use a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GpuUser {
    /// The pod; empty for a process of no pod.
    pub pod_uid: String,
    /// The container; empty where the cgroup does not tell it.
    pub container_id: String,
}

/// Why a process that called NVML is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerEnd {
    /// A call did not return, so it was killed.
    Hung,
    /// A signal ended it: the library crashed or aborted.
    Signal,
    /// It ended itself: the library called `exit()`.
    Exited,
    /// What came from it is no answer, so it was killed.
    Nonsense,
    /// It could not be started.
    NotStarted,
}

/// How many processes that called NVML are no more since the agent started, by reason, in the order of [`WorkerEnd::ALL`].
pub type WorkerEnds = [u64; WorkerEnd::ALL.len()];

impl WorkerEnd {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Hung, Self::Signal, Self::Exited, Self::Nonsense, Self::NotStarted];

    /// As the label spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hung => "hung",
            Self::Signal => "signal",
            Self::Exited => "exited",
            Self::Nonsense => "nonsense",
            Self::NotStarted => "not_started",
        }
    }
}

/// Why a device should not be used; docs/report.md has a line for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unhealthy {
    /// The driver says that it is lost: it fell off the bus or does not answer.
    Lost,
    /// No call on it gives an answer.
    Unreadable,
    /// An Xid that is not on the ignore list, not yet followed by a sign of recovery.
    Xid,
    /// An uncorrectable ECC error since the driver was loaded.
    EccUncorrected,
    /// A broken row of its memory could not be replaced.
    RowRemapFailed,
    /// A broken row of its memory is replaced at the next reset.
    RowRemapPending,
    /// The driver asks for a reset of the device.
    NeedsReset,
    /// The driver asks for a reboot of the node.
    NeedsReboot,
    /// The driver asks to drain traffic to its peers.
    NeedsDrainP2p,
    /// The driver asks to drain the device, then to reset it.
    NeedsDrainAndReset,
    /// The driver asks for something that this agent does not know.
    NeedsUnknown,
    /// It has no place in the NVLink fabric yet.
    FabricNotReady,
    /// It was to get a place in the NVLink fabric, and that failed.
    FabricFailed,
    /// A route through the NVLink fabric does not work.
    FabricRouteUnhealthy,
    /// The NVLink fabric recovers from accesses that timed out.
    FabricAccessTimeout,
    /// It is in no partition of the NVLink fabric.
    FabricNoPartition,
    /// The NVLink fabric is not set up as it must be.
    FabricMisconfigured,
    /// Its SRAM has had more uncorrectable errors than it should.
    SramThresholdExceeded,
}

impl Unhealthy {
    /// Every reason, for tests and documents.
    pub const ALL: [Self; 18] = [
        Self::Lost,
        Self::Unreadable,
        Self::Xid,
        Self::EccUncorrected,
        Self::RowRemapFailed,
        Self::RowRemapPending,
        Self::NeedsReset,
        Self::NeedsReboot,
        Self::NeedsDrainP2p,
        Self::NeedsDrainAndReset,
        Self::NeedsUnknown,
        Self::FabricNotReady,
        Self::FabricFailed,
        Self::FabricRouteUnhealthy,
        Self::FabricAccessTimeout,
        Self::FabricNoPartition,
        Self::FabricMisconfigured,
        Self::SramThresholdExceeded,
    ];

    /// In snake case, as labels and reports spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Unreadable => "unreadable",
            Self::Xid => "xid",
            Self::EccUncorrected => "ecc_uncorrected",
            Self::RowRemapFailed => "row_remap_failed",
            Self::RowRemapPending => "row_remap_pending",
            Self::NeedsReset => "needs_reset",
            Self::NeedsReboot => "needs_reboot",
            Self::NeedsDrainP2p => "needs_drain_p2p",
            Self::NeedsDrainAndReset => "needs_drain_and_reset",
            Self::NeedsUnknown => "needs_unknown",
            Self::FabricNotReady => "fabric_not_ready",
            Self::FabricFailed => "fabric_failed",
            Self::FabricRouteUnhealthy => "fabric_route_unhealthy",
            Self::FabricAccessTimeout => "fabric_access_timeout",
            Self::FabricNoPartition => "fabric_no_partition",
            Self::FabricMisconfigured => "fabric_misconfigured",
            Self::SramThresholdExceeded => "sram_threshold_exceeded",
        }
    }
}

/// What is wrong with a device that works all the same; docs/report.md has a line for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Warning {
    /// Its NVLinks have less bandwidth than they should.
    FabricDegradedBandwidth,
    /// A route through the NVLink fabric is being recovered.
    FabricRouteRecovery,
}

impl Warning {
    /// Every warning, for tests and documents.
    pub const ALL: [Self; 2] = [Self::FabricDegradedBandwidth, Self::FabricRouteRecovery];

    /// In snake case, as labels and reports spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FabricDegradedBandwidth => "fabric_degraded_bandwidth",
            Self::FabricRouteRecovery => "fabric_route_recovery",
        }
    }
}
