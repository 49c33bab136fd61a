//! The fields of a report that are read often, and the sources of its measurements.
use mcad_wire::reading::Report;

/// Where cgroup measurements come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupSource {
    /// The kernel's BPF iterator.
    Bpf,
    /// The files of cgroupfs.
    Cgroupfs,
    /// Cgroups could not be read.
    None,
}

impl CgroupSource {
    /// As a label of `/metrics` and in JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Cgroupfs => "cgroupfs",
            Self::None => "none",
        }
    }
}

/// Where GPU measurements come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuSource {
    /// The driver of the vendor.
    Nvml,
    /// The library `fake-nvml`: the values are made up.
    Fake,
}

/// Where a node's measurements come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The source of cgroup measurements. `None` if this version does not know the source.
    pub cgroups: Option<CgroupSource>,
    /// How many cgroups there were, including those that are not in the report.
    pub seen: Option<u32>,
    /// How many cgroups did not fit into the agent's maps.
    pub dropped: Option<u32>,
    /// The source of GPU measurements. `None` if GPUs were not examined.
    pub gpus: Option<GpuSource>,
}

impl Sources {
    pub(super) fn of(report: &Report<'_>) -> Self {
        let cgroups = match report.cgroups.as_ref().map(|cgroups| cgroups.source) {
            Some("bpf") => Some(CgroupSource::Bpf),
            Some("cgroupfs") => Some(CgroupSource::Cgroupfs),
            Some(_) => None,
            None => Some(CgroupSource::None),
        };
        let counts = report.cgroups.as_ref();
        let gpus = report.gpus.as_ref().map(|gpus| if gpus.fake { GpuSource::Fake } else { GpuSource::Nvml });
        Self {
            cgroups,
            seen: counts.and_then(|cgroups| cgroups.seen),
            dropped: counts.and_then(|cgroups| cgroups.dropped),
            gpus,
        }
    }
}

/// The fields that distinguish a report from others of its node, and those that rates are computed from.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) boot_id: Box<str>,
    pub(super) started_at_ms: u64,
    pub(super) sequence: u64,
    pub(super) uptime_ns: u64,
    pub(super) cpu_busy_ns: Option<u64>,
    pub(super) cpus_online: Option<u32>,
}

impl Head {
    pub(super) fn of(report: &Report<'_>) -> Self {
        let machine = report.machine.as_ref();
        Self {
            boot_id: report.boot_id.into(),
            started_at_ms: report.started_at_ms,
            sequence: report.sequence,
            uptime_ns: report.uptime_ns,
            cpu_busy_ns: machine.and_then(|machine| machine.cpu_busy_ns),
            cpus_online: machine.and_then(|machine| machine.cpus_online),
        }
    }
}
