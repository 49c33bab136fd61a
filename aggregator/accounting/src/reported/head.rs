//! What is asked of a report again and again, and where its figures come from.
use mcad_wire::reading::Report;

/// Where figures of cgroups come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupSource {
    /// The kernel's iterator.
    Bpf,
    /// Files.
    Cgroupfs,
    /// They could not be read.
    None,
}

/// Where figures of GPUs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuSource {
    /// The driver.
    Nvml,
    /// The library `fake-nvml`: they are made up.
    Fake,
}

/// Where the figures of a node come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Those of its cgroups. Absent: from somewhere that this version does not know.
    pub cgroups: Option<CgroupSource>,
    /// How many cgroups there were, listed or not.
    pub seen: Option<u32>,
    /// How many found no room in the agent's maps.
    pub dropped: Option<u32>,
    /// Those of its GPUs. Absent: nobody looked.
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

/// What tells a report from others of its node, and what rates are made of.
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
