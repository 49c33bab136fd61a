//! One instant of one node, as the sources read it: plain values, all totals or levels, nothing over time.
//!
//! It owns no arithmetic and no names of metrics. [`crate::report`] makes of it what crosses the network.

pub mod assignment;
pub mod gpu;

use std::sync::Arc;

use assignment::AssignmentSample;
use gpu::GpuSample;

/// What was read of the machine at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Moment,
    /// The machine as a whole. A figure that could not be read is absent.
    pub machine: Machine,
    /// The cgroups. Absent: no source could read them, and `failures` says why.
    pub cgroups: Option<CgroupSample>,
    /// The GPUs. Absent: they could not be read, and `failures` says why, or they were not asked for.
    pub gpus: Option<GpuSample>,
    /// What kubelet handed out. Absent: it could not be asked, and `failures` says why, or there is no kubelet.
    pub assignments: Option<AssignmentSample>,
    /// What failed while this sample was taken, in the order it was tried.
    pub failures: Vec<Failure>,
}

/// One instant, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the wall clock, in ms since the Unix epoch. For people, and to see skew; it may jump.
    pub unix_ms: u64,
    /// `CLOCK_BOOTTIME`, in ns: never jumps, counts suspend. Rates divide by differences of this.
    pub uptime_ns: u64,
}

/// The machine as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors online.
    pub cpus_online: Option<u32>,
    /// Time that processors were busy since boot, added up over all of them.
    pub cpu_busy_ns: Option<u64>,
    /// MemTotal.
    pub memory_total_bytes: Option<u64>,
    /// MemFree.
    pub memory_free_bytes: Option<u64>,
    /// Inactive(file).
    pub memory_inactive_file_bytes: Option<u64>,
}

/// The cgroups of the machine at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupSample {
    /// Who read them.
    pub source: CgroupSource,
    /// Each once, parents before children.
    pub cgroups: Vec<Cgroup>,
    /// How many there were, dropped ones included.
    pub seen: u32,
    /// How many of them are missing in `cgroups` for want of room or because they could not be read.
    /// A cgroup that was removed during the walk is neither seen nor dropped.
    pub dropped: u32,
}

/// Who read the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CgroupSource {
    /// The kernel's cgroup iterator, by eBPF.
    Bpf,
    /// The files of cgroup v2.
    Files,
}

impl CgroupSource {
    /// As the report and the metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Files => "cgroupfs",
        }
    }
}

/// One cgroup and all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its inode number in cgroupfs: unique on this boot, never used twice.
    pub id: u64,
    /// The parent's id; 0 for the root of the hierarchy.
    pub parent_id: u64,
    /// Path from the hierarchy's root, `/` for the root itself.
    pub path: Arc<str>,
    /// CPU time used since it was made.
    pub cpu_ns: Option<u64>,
    /// Memory charged to it.
    pub memory_bytes: Option<u64>,
    /// Page cache in it that is given back first.
    pub memory_inactive_file_bytes: Option<u64>,
    /// Processes killed in it for want of memory, since it was made.
    pub oom_kills: Option<u64>,
}

/// One source that could not read its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which source.
    pub source: SourceName,
    /// Why, of a bounded set: a label.
    pub reason: Reason,
    /// Why, in words, with all causes: for the log.
    pub detail: String,
}

/// The sources of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceName {
    /// `/proc` and `/sys`.
    Machine,
    /// One of the cgroup sources.
    Cgroups(CgroupSource),
    /// NVML.
    Gpus,
    /// Kubelet's PodResources API.
    Assignments,
}

impl SourceName {
    /// As the agent's own metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Cgroups(source) => source.as_str(),
            Self::Gpus => "nvml",
            Self::Assignments => "pod_resources",
        }
    }
}

/// Why something could not be measured; docs/report.md has a line for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Only cgroup v1 is mounted.
    CgroupV1Only,
    /// No cgroup hierarchy is mounted, or only a part of one.
    NoCgroupMount,
    /// A file or directory is not there.
    NotFound,
    /// The kernel refused for want of rights.
    NotPermitted,
    /// The kernel answered with some other error.
    Io,
    /// What was read does not look as the kernel's documentation says.
    Malformed,
    /// This build carries no probes.
    NoProbes,
    /// This kernel lacks what the probes need.
    KernelUnsupported,
    /// The walk over the cgroups did not come to its end.
    WalkUnfinished,
    /// No answer in time.
    Timeout,
    /// There are GPUs, and no library to ask about them.
    NoLibrary,
    /// The library is there, and no driver answers it.
    NoDriver,
    /// The driver answered with some other error.
    Driver,
    /// Kubelet answered with an error.
    Kubelet,
}

impl Reason {
    /// Every reason, for tests and documents.
    pub const ALL: [Self; 14] = [
        Self::CgroupV1Only,
        Self::NoCgroupMount,
        Self::NotFound,
        Self::NotPermitted,
        Self::Io,
        Self::Malformed,
        Self::NoProbes,
        Self::KernelUnsupported,
        Self::WalkUnfinished,
        Self::Timeout,
        Self::NoLibrary,
        Self::NoDriver,
        Self::Driver,
        Self::Kubelet,
    ];

    /// In snake case, as labels and reports spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CgroupV1Only => "cgroup_v1_only",
            Self::NoCgroupMount => "no_cgroup_mount",
            Self::NotFound => "not_found",
            Self::NotPermitted => "not_permitted",
            Self::Io => "io",
            Self::Malformed => "malformed",
            Self::NoProbes => "no_probes",
            Self::KernelUnsupported => "kernel_unsupported",
            Self::WalkUnfinished => "walk_unfinished",
            Self::Timeout => "timeout",
            Self::NoLibrary => "no_library",
            Self::NoDriver => "no_driver",
            Self::Driver => "driver",
            Self::Kubelet => "kubelet",
        }
    }
}
