//! One instant of one node, as the sources read it: plain values, all totals or levels, nothing over time.
//!
//! It owns no arithmetic and no names of metrics. [`crate::report`] makes of it what crosses the network.

pub mod assignment;
pub mod gpu;

use std::sync::Arc;

use assignment::AssignmentSample;
use gpu::{GpuSample, WorkerEnds};

use crate::pod_cgroup::PodUid;

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
    /// Processes that called NVML and are no more, since the agent started.
    pub worker_ends: WorkerEnds,
    /// What kubelet handed out. Absent: it could not be asked, and `failures` says why, or there is no kubelet.
    pub assignments: Option<AssignmentSample>,
    /// Pods whose cgroup is gone, and what they used in all.
    pub ended_pods: Vec<EndedPod>,
    /// What failed while this sample was taken, in the order it was tried.
    pub failures: Vec<Failure>,
}

/// A pod whose own cgroup is gone, and what it had used in all. Absent: that was never known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedPod {
    /// The pod.
    pub uid: PodUid,
    /// The id that its own cgroup had.
    pub id: u64,
    /// CPU time.
    pub cpu_ns: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Waits for a processor, until the last sample that saw the pod.
    pub run_queue: Option<RunQueue>,
    /// When it was seen to be gone, by `CLOCK_BOOTTIME`.
    pub ended_ns: u64,
    /// Its end was watched. Else these are the figures of the last sample that saw it, and it may have used more.
    pub watched: bool,
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
    /// Figures that this kernel does not give to `source`, so that they are from the cgroups' files.
    pub from_files: Vec<Group>,
    /// How many there were, dropped ones included.
    pub seen: u32,
    /// What the kernel half did; None where files are read.
    pub probes: Option<ProbeCost>,
    /// How many of them are missing in `cgroups` for want of room or because they could not be read.
    /// A cgroup that was removed during the walk is neither seen nor dropped.
    pub dropped: u32,
    /// Cgroups that were removed before this sample; None where nobody watched.
    pub removals: Option<Removals>,
}

/// Cgroups that were removed since the last sample, in order, and what became of them in all, as totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// Those of pods.
    pub removed: Vec<Removed>,
    /// When the sample that they came with was complete, by `CLOCK_BOOTTIME`.
    pub read_until_ns: u64,
    /// Cgroups that were removed, of pods or not.
    pub seen: u64,
    /// Those of pods that were told of.
    pub told: u64,
    /// Those that found no room in the ring.
    pub dropped: u64,
}

/// A cgroup that was removed, and what it had used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// When, by `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Its id.
    pub id: u64,
    /// Its parent's.
    pub parent_id: u64,
    /// Path from the hierarchy's root.
    pub path: String,
    /// CPU time of the cgroup alone, without any below it.
    pub cpu_ns: u64,
    /// Processes killed for want of memory in it and all below it, ever.
    pub oom_kills: Option<u64>,
}

/// What the kernel half did and cost until this instant, of the machine as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeCost {
    /// The latest walk, flush and decoding apart.
    pub walk_ns: u64,
    /// The flush before it.
    pub flush_ns: u64,
    /// The program at the switch of tasks; None where it is off or can't be had.
    pub run_queue: Option<RunQueueCost>,
}

/// What the program at the switch of tasks saw and cost, as totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQueueCost {
    /// It was paused because it cost too much.
    pub paused: bool,
    /// Switches seen.
    pub switches: u64,
    /// Switches in which another task left the processor than the one that had got it.
    pub mismatches: u64,
    /// Switches in which it was not known what the task that left had waited before.
    pub unknown: u64,
    /// Waits of the whole machine.
    pub all: RunQueue,
    /// Waits whose cgroup found no place in the maps.
    pub dropped: RunQueue,
    /// Waits of cgroups that came and went between two samples.
    pub unplaced: RunQueue,
    /// Switches that were timed.
    pub timed: u64,
    /// What they cost, the clock included.
    pub timed_ns: u64,
    /// Waits by length: [`mcad_wire::abi::RUN_QUEUE_FIRST_BUCKET_NS`] and its doublings are the limits.
    pub histogram: Vec<u64>,
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

/// One cgroup and all below it, except throttling and limits, which are its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Its inode number in cgroupfs: unique on this boot, never used twice.
    pub id: u64,
    /// The parent's id; 0 for the root of the hierarchy.
    pub parent_id: u64,
    /// Path from the hierarchy's root, `/` for the root itself.
    pub path: Arc<str>,
    /// CPU time used since it was made.
    pub cpu_ns: Option<u64>,
    /// Bandwidth control.
    pub throttling: Option<Throttling>,
    /// Memory charged to it.
    pub memory_bytes: Option<u64>,
    /// The most memory ever charged to it.
    pub memory_peak_bytes: Option<u64>,
    /// The most memory that may be charged to it.
    pub memory_limit: Option<Limit>,
    /// Processes' own memory in it.
    pub memory_anon_bytes: Option<u64>,
    /// Cached files in it.
    pub memory_file_bytes: Option<u64>,
    /// Page cache in it that is given back first.
    pub memory_inactive_file_bytes: Option<u64>,
    /// Processes killed in it for want of memory, since it was made.
    pub oom_kills: Option<u64>,
    /// Times that it hit its memory limit.
    pub memory_max_events: Option<u64>,
    /// Times that it hit `memory.high`.
    pub memory_high_events: Option<u64>,
    /// Tasks in it.
    pub pids: Option<u64>,
    /// The most tasks that may be in it.
    pub pids_limit: Option<Limit>,
    /// Time lost for want of a resource.
    pub pressure: Option<Pressure>,
    /// What it read from and wrote to block devices.
    pub io: Option<Io>,
    /// How its tasks waited for a processor.
    pub run_queue: Option<RunQueue>,
}

/// CPU bandwidth control of one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods that went by.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Time that its tasks stood still for it.
    pub throttled_ns: u64,
}

/// A limit that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// This much: bytes, or tasks.
    At(u64),
    /// No limit of its own.
    None,
}

impl Limit {
    /// The amount, where there is one.
    pub const fn amount(self) -> Option<u64> {
        match self {
            Self::At(amount) => Some(amount),
            Self::None => None,
        }
    }
}

/// Pressure stall totals. By the kernel's iterator they are up to 2 s old: the kernel brings them up to date that often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// For want of a processor.
    pub cpu: Stall,
    /// For want of memory.
    pub memory: Stall,
    /// For want of io.
    pub io: Stall,
}

/// Time lost for want of one resource, since the cgroup was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Time that some task waited.
    pub some_ns: u64,
    /// Time that all tasks waited. Absent for the processor on kernels before 5.13.
    pub full_ns: Option<u64>,
}

/// Bytes to and from block devices, all devices together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Read.
    pub read_bytes: u64,
    /// Written.
    pub written_bytes: u64,
}

/// Waits for a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunQueue {
    /// Time that its tasks were ready to run and waited.
    pub wait_ns: u64,
    /// How often they did.
    pub waits: u64,
}

/// Figures of a cgroup that a kernel gives or does not as a whole.
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

    /// As reports spell it.
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
    /// NVML's library ended the process that called it.
    Crashed,
    /// Kubelet answered with an error.
    Kubelet,
    /// There is more of it than a report may hold.
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
