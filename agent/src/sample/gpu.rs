//! The GPUs of a node at one instant: plain values, read by [`crate::source::gpu`] and sent by [`crate::report`].

use std::sync::Arc;

pub use mcad_wire::parts::Part;
use serde::{Deserialize, Serialize};

/// The GPUs of the machine at one instant. Without devices: a node without GPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuSample {
    /// Version of the driver. `None` if there is no driver.
    pub driver_version: Option<String>,
    /// Whether the devices come from the library `fake-nvml` and are not GPUs.
    pub fake: bool,
    /// The device plugin's resource name of whole GPUs. Empty on a node without GPUs.
    pub resource: &'static str,
    /// The prefix of the resource names of parts of a GPU. Empty like `resource`.
    pub part_prefix: &'static str,
    /// The devices that NVML lists.
    pub devices: Vec<Gpu>,
    /// PCI addresses of devices that the driver should have and NVML does not list.
    pub lost_bus_ids: Vec<String>,
    /// The largest number of devices that this node is known to have had at once.
    pub remembered: Option<u32>,
    /// How many NVML calls this sample took.
    pub calls: u32,
    /// The time since the sample before, if the driver responded then, too.
    pub since_last_ns: Option<u64>,
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
    /// Whether it is in MIG mode. `None` if it does not support MIG.
    pub mig_mode: Option<bool>,
    /// Its MIG instances.
    pub mig_instances: Vec<MigInstance>,
    /// Why it should not be used. Empty if it is healthy.
    pub unhealthy: Vec<Unhealthy>,
    /// Problems of a device that works nevertheless.
    pub warnings: Vec<Warning>,
    /// What it is doing.
    pub load: Load,
    /// Whether a list of its processes could not be read.
    pub lists_failed: bool,
    /// Whether `uses` of its load, or of its instances in MIG mode, include all processes that have it open.
    pub uses_complete: bool,
    /// Xid events by code, counted since the agent started.
    pub xid_errors: Vec<(u64, u64)>,
    /// Errors of its NVLinks. `None` if it has none, or the driver does not report them.
    pub nvlink_errors: Option<NvlinkErrors>,
}

/// Errors of a GPU's NVLinks since the driver was loaded, summed over its links. A counter that the driver does not
/// have is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvlinkErrors {
    /// Packets that were sent again.
    pub replay: Option<u64>,
    /// How often a link was trained again.
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
    /// Why it should not be used, including the reasons of its parent.
    pub unhealthy: Vec<Unhealthy>,
    /// What it is doing.
    pub load: Load,
}

/// What a GPU or a MIG instance is doing. A value that it does not report is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Fraction of the driver's last sampling period in which a kernel ran on it.
    pub utilization_ratio: Option<f64>,
    /// Time it was busy since the agent started, as far as the agent observed it.
    pub busy_ns: Option<u64>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Total memory.
    pub memory_total_bytes: Option<u64>,
    /// Time it was busy since the sample before.
    pub busy_gain_ns: Option<u64>,
    /// Its use by containers.
    pub uses: Vec<GpuUse>,
    /// How a holder without a process on it spent its time. `None` in MIG mode.
    pub vacant: Option<Parts>,
}

/// What the processes of one container use of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuUse {
    /// The container.
    pub user: GpuUser,
    /// How many processes hold the device now.
    pub processes: u32,
    /// How many of them are daemons that serve other processes or observe them.
    pub daemons: u32,
    /// Memory that they use.
    pub memory_used_bytes: Option<u64>,
    /// Time that they kept it busy since the agent started.
    pub busy_ns: Option<u64>,
    /// The newest utilisation of each of its processes, in percent, added up. `None` if the driver does not report it.
    pub percent: Option<u64>,
    /// How the container spent its time on the device since its first process there. `None` for a user outside pods.
    pub parts: Option<Parts>,
}

/// The pod and container whose processes use a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GpuUser {
    /// The pod; empty for a process outside pods.
    pub pod_uid: String,
    /// The container; empty if the cgroup does not determine it.
    pub container_id: String,
    /// Whether the cgroup of the process could not be read, so that its pod is not known.
    pub unreadable: bool,
}

/// A time by part, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts([u64; Part::ALL.len()]);

impl Parts {
    /// The time of one part.
    pub const fn of(&self, part: Part) -> u64 {
        self.0[part as usize]
    }

    /// Adds time to one part.
    pub const fn add(&mut self, part: Part, ns: u64) {
        self.0[part as usize] = self.0[part as usize].saturating_add(ns);
    }

    /// Adds another time, part by part.
    pub fn add_all(&mut self, other: &Self) {
        for (ns, more) in self.0.iter_mut().zip(other.0) {
            *ns = ns.saturating_add(more);
        }
    }

    /// All parts added up.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// As the report has it: without zeros at the end.
    pub fn listed(&self) -> &[u64] {
        let used = self.0.iter().rposition(|ns| *ns > 0).map_or(0, |last| last + 1);
        &self.0[..used]
    }
}

/// Why a process that called NVML has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerEnd {
    /// A call did not return, so the process was killed.
    Hung,
    /// A signal ended it: the library crashed or aborted.
    Signal,
    /// It exited: the library called `exit()`.
    Exited,
    /// It sent an invalid message, so it was killed.
    Nonsense,
    /// It could not be started.
    NotStarted,
}

/// How many processes that called NVML have ended since the agent started, by reason, in the order of
/// [`WorkerEnd::ALL`].
pub type WorkerEnds = [u64; WorkerEnd::ALL.len()];

impl WorkerEnd {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Hung, Self::Signal, Self::Exited, Self::Nonsense, Self::NotStarted];

    /// The value of the label.
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

/// Why a device should not be used. docs/report.md describes each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unhealthy {
    /// The driver reports it as lost: it fell off the bus or does not respond.
    Lost,
    /// All calls on it fail.
    Unreadable,
    /// An Xid that is not on the ignore list, with no sign of recovery since.
    Xid,
    /// An uncorrectable ECC error since the driver was loaded.
    EccUncorrected,
    /// A broken row of its memory could not be replaced.
    RowRemapFailed,
    /// A broken row of its memory will be replaced at the next reset.
    RowRemapPending,
    /// The driver requests a reset of the device.
    NeedsReset,
    /// The driver requests a reboot of the node.
    NeedsReboot,
    /// The driver requests to drain traffic to its peers.
    NeedsDrainP2p,
    /// The driver requests to drain the device, then to reset it.
    NeedsDrainAndReset,
    /// The driver requests an action that this agent does not know.
    NeedsUnknown,
    /// It has not joined the NVLink fabric yet.
    FabricNotReady,
    /// It failed to join the NVLink fabric.
    FabricFailed,
    /// A route through the NVLink fabric does not work.
    FabricRouteUnhealthy,
    /// The NVLink fabric is recovering from accesses that timed out.
    FabricAccessTimeout,
    /// It is in no partition of the NVLink fabric.
    FabricNoPartition,
    /// The NVLink fabric is misconfigured.
    FabricMisconfigured,
    /// The number of uncorrectable errors of its SRAM exceeded the threshold.
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

    /// The name in snake case, as in labels and reports.
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

/// Problems of a device that works nevertheless. docs/report.md describes each.
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

    /// The name in snake case, as in labels and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FabricDegradedBandwidth => "fabric_degraded_bandwidth",
            Self::FabricRouteRecovery => "fabric_route_recovery",
        }
    }
}
