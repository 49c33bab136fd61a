//! What the sources read of one node at one instant: plain values, all of them totals or levels, none of them rates.
//!
//! It contains no arithmetic and no metric names. [`crate::report`] converts it to a report.

pub mod assignment;
pub mod gpu;

use std::sync::Arc;

use assignment::AssignmentSample;
use gpu::{GpuSample, WorkerEnds};

use crate::pod_cgroup::PodUid;

/// What was read of the machine at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When the sample was taken.
    pub at: Moment,
    /// The machine as a whole. A value that could not be read is `None`.
    pub machine: Machine,
    /// The cgroups. `None` if no source could read them; `failures` has the reason.
    pub cgroups: Option<CgroupSample>,
    /// The GPUs. `None` if they could not be read (`failures` has the reason), or were not requested.
    pub gpus: Option<GpuSample>,
    /// The processes that called NVML and have ended, since the agent started.
    pub worker_ends: WorkerEnds,
    /// What kubelet assigned. `None` if kubelet could not be queried (`failures` has the reason), or there is no
    /// kubelet.
    pub assignments: Option<AssignmentSample>,
    /// Pods whose cgroup is gone, and their total use.
    pub ended_pods: Vec<EndedPod>,
    /// What failed while this sample was taken, in the order it was tried.
    pub failures: Vec<Failure>,
}

/// A pod whose own cgroup is gone, and its total use. A value that was never known is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedPod {
    /// The pod.
    pub uid: PodUid,
    /// The id of the pod's own cgroup.
    pub id: u64,
    /// CPU time.
    pub cpu_ns: Option<u64>,
    /// OOM-killed processes.
    pub oom_kills: Option<u64>,
    /// Run-queue wait, up to the last sample that contained the pod.
    pub run_queue: Option<RunQueue>,
    /// When the pod was found to be gone, by `CLOCK_BOOTTIME`.
    pub ended_ns: u64,
    /// Whether its end was observed. If not, these are the values of the last sample that contained it, and it may have
    /// used more.
    pub watched: bool,
}

/// One instant, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, in ms since the Unix epoch. For display and to detect skew; it may jump.
    pub unix_ms: u64,
    /// `CLOCK_BOOTTIME`, in ns: never jumps, counts suspend. Rates divide by differences of this.
    pub uptime_ns: u64,
}

/// The machine as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Number of CPUs online.
    pub cpus_online: Option<u32>,
    /// Busy time of the CPUs since boot, summed over all of them.
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
    /// The source that read them.
    pub source: CgroupSource,
    /// Each cgroup once, parents before children.
    pub cgroups: Vec<Cgroup>,
    /// Groups of values that `source` cannot read on this kernel, and that were read from the cgroups' files.
    pub from_files: Vec<Group>,
    /// Number of cgroups, including dropped ones.
    pub seen: u32,
    /// What the eBPF programs did. `None` if files are read.
    pub probes: Option<ProbeCost>,
    /// How many of them are missing in `cgroups` because there was no room or they could not be read. A cgroup that was
    /// removed during the walk counts as neither seen nor dropped.
    pub dropped: u32,
    /// Cgroups that were removed before this sample. `None` if removals are not observed.
    pub removals: Option<Removals>,
}

/// Cgroups that were removed since the last sample, in order; and counts of removals, as totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// The removed cgroups of pods.
    pub removed: Vec<Removed>,
    /// When the sample that contains them was complete, by `CLOCK_BOOTTIME`.
    pub read_until_ns: u64,
    /// Number of removed cgroups, whether of pods or not.
    pub seen: u64,
    /// Number of removed cgroups of pods that were reported.
    pub told: u64,
    /// Number of removed cgroups of pods that found no room in the ring.
    pub dropped: u64,
}

/// A cgroup that was removed, and what it had used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// When it was removed, by `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Its id.
    pub id: u64,
    /// Its parent's id.
    pub parent_id: u64,
    /// Path from the hierarchy's root.
    pub path: String,
    /// CPU time of the cgroup alone, without its descendants.
    pub cpu_ns: u64,
    /// OOM-killed processes in the cgroup and its descendants, since it was created.
    pub oom_kills: Option<u64>,
}

/// What the eBPF programs did and cost up to this instant, for the machine as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeCost {
    /// Duration of the latest walk, without flush and decoding.
    pub walk_ns: u64,
    /// Duration of the flush before it.
    pub flush_ns: u64,
    /// The program at task switches. `None` if it is off or cannot be used.
    pub run_queue: Option<RunQueueCost>,
}

/// Counts and costs of the program at task switches, as totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQueueCost {
    /// Whether it is paused because it costs too much.
    pub paused: bool,
    /// Number of switches.
    pub switches: u64,
    /// Switches at which the task that left the CPU was not the task that had last been switched in there.
    pub mismatches: u64,
    /// Switches at which the earlier wait of the task that left the CPU was unknown.
    pub unknown: u64,
    /// Waits of the whole machine.
    pub all: RunQueue,
    /// Waits whose cgroup found no place in the maps.
    pub dropped: RunQueue,
    /// Waits of cgroups that were created and removed between two samples.
    pub unplaced: RunQueue,
    /// Number of switches that were timed.
    pub timed: u64,
    /// Total time of the timed switches, including reading the clock.
    pub timed_ns: u64,
    /// Waits by duration; the bounds are [`mcad_wire::abi::RUN_QUEUE_FIRST_BUCKET_NS`] and its doublings.
    pub histogram: Vec<u64>,
}

/// The source that read the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CgroupSource {
    /// The kernel's cgroup iterator, by eBPF.
    Bpf,
    /// The files of cgroup v2.
    Files,
}

impl CgroupSource {
    /// The name in reports and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Files => "cgroupfs",
        }
    }
}

/// The values of one cgroup including its descendants, except throttling and limits, which are its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Its inode number in cgroupfs: unique on this boot, never reused.
    pub id: u64,
    /// The parent's id; 0 for the root of the hierarchy.
    pub parent_id: u64,
    /// Path from the hierarchy's root, `/` for the root itself.
    pub path: Arc<str>,
    /// CPU time used since it was created.
    pub cpu_ns: Option<u64>,
    /// Bandwidth control.
    pub throttling: Option<Throttling>,
    /// Memory charged to it.
    pub memory_bytes: Option<u64>,
    /// The maximum of memory ever charged to it.
    pub memory_peak_bytes: Option<u64>,
    /// Its memory limit.
    pub memory_limit: Option<Limit>,
    /// Anonymous memory of its processes.
    pub memory_anon_bytes: Option<u64>,
    /// Page cache charged to it.
    pub memory_file_bytes: Option<u64>,
    /// Page cache charged to it that the kernel reclaims first.
    pub memory_inactive_file_bytes: Option<u64>,
    /// OOM-killed processes in it, since it was created.
    pub oom_kills: Option<u64>,
    /// How often it hit its memory limit.
    pub memory_max_events: Option<u64>,
    /// How often it hit `memory.high`.
    pub memory_high_events: Option<u64>,
    /// Number of tasks in it.
    pub pids: Option<u64>,
    /// Its limit of tasks.
    pub pids_limit: Option<Limit>,
    /// Time in which its tasks were stalled because a resource was short.
    pub pressure: Option<Pressure>,
    /// Bytes read from and written to block devices.
    pub io: Option<Io>,
    /// Run-queue wait of its tasks.
    pub run_queue: Option<RunQueue>,
}

/// CPU bandwidth control of one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Number of enforcement periods.
    pub periods: u64,
    /// Number of periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Time in which its tasks were throttled.
    pub throttled_ns: u64,
}

/// A known limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The limit in bytes or tasks.
    At(u64),
    /// No limit of its own.
    None,
}

impl Limit {
    /// The amount, or `None` if there is no limit.
    pub const fn amount(self) -> Option<u64> {
        match self {
            Self::At(amount) => Some(amount),
            Self::None => None,
        }
    }
}

/// Pressure stall totals. From the kernel's iterator they are up to 2 s old, because the kernel updates them that
/// often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Stalls for CPU.
    pub cpu: Stall,
    /// Stalls for memory.
    pub memory: Stall,
    /// Stalls for io.
    pub io: Stall,
}

/// Stall time for one resource, since the cgroup was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Time in which at least one task was stalled.
    pub some_ns: u64,
    /// Time in which all tasks were stalled. `None` for CPU on kernels before 5.13.
    pub full_ns: Option<u64>,
}

/// Bytes read from and written to block devices, summed over all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// Run-queue wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunQueue {
    /// Time in which its tasks were ready to run and waited for a CPU.
    pub wait_ns: u64,
    /// Number of such waits.
    pub waits: u64,
}

/// Values of a cgroup that a kernel supports only as a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// [`Cgroup::throttling`].
    Throttling,
    /// [`Cgroup::memory_bytes`], its peak and limit.
    Memory,
    /// [`Cgroup::memory_anon_bytes`], file, inactive file.
    MemoryState,
    /// [`Cgroup::oom_kills`], max, high.
    MemoryEvents,
    /// [`Cgroup::pids`] and its limit.
    Pids,
    /// [`Cgroup::pressure`].
    Pressure,
    /// [`Cgroup::io`].
    Io,
}

impl Group {
    /// Every group.
    pub const ALL: [Self; 7] =
        [Self::Throttling, Self::Memory, Self::MemoryState, Self::MemoryEvents, Self::Pids, Self::Pressure, Self::Io];

    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttling => "throttling",
            Self::Memory => "memory",
            Self::MemoryState => "memory_state",
            Self::MemoryEvents => "memory_events",
            Self::Pids => "pids",
            Self::Pressure => "pressure",
            Self::Io => "io",
        }
    }
}

/// A source that could not read its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The source.
    pub source: SourceName,
    /// The reason, from a bounded set: used as a label.
    pub reason: Reason,
    /// The reason in words, with all causes: for the log.
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
    /// The name in the agent's own metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Cgroups(source) => source.as_str(),
            Self::Gpus => "nvml",
            Self::Assignments => "pod_resources",
        }
    }
}

/// Why something could not be measured. docs/report.md describes each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Only cgroup v1 is mounted.
    CgroupV1Only,
    /// No cgroup hierarchy is mounted, or only a part of one.
    NoCgroupMount,
    /// A file or directory does not exist.
    NotFound,
    /// The kernel denied access.
    NotPermitted,
    /// The kernel returned some other error.
    Io,
    /// What was read does not have the format of the kernel's documentation.
    Malformed,
    /// This build contains no probes.
    NoProbes,
    /// This kernel lacks what the probes need.
    KernelUnsupported,
    /// The cgroup walk ended early.
    WalkUnfinished,
    /// No response in time.
    Timeout,
    /// There are GPUs, but no library to query them.
    NoLibrary,
    /// The library exists, but no driver responds to it.
    NoDriver,
    /// The driver returned some other error.
    Driver,
    /// NVML's library crashed the process that called it.
    Crashed,
    /// Kubelet returned an error.
    Kubelet,
    /// It is larger than a report may be.
    TooLarge,
}

impl Reason {
    /// Every reason, for tests and documents.
    pub const ALL: [Self; 16] = [
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
        Self::Crashed,
        Self::Kubelet,
        Self::TooLarge,
    ];

    /// The name in snake case, as in labels and reports.
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
            Self::Crashed => "crashed",
            Self::Kubelet => "kubelet",
            Self::TooLarge => "too_large",
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
