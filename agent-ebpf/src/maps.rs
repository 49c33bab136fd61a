//! The maps and globals that the eBPF programs share with the agent. The agent sets their sizes when it loads them.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use mcad_wire::abi::{
    ARRAY_HEAD_BYTES, CgroupName, CgroupOffsets, CgroupRecord, CgroupRemoved, RemovedCounts, RemovedOffsets,
    RunQueueCpu, RunQueueOffsets, RunQueueSet, WalkState,
};

/// One record per cgroup, in walk order.
#[map]
pub(crate) static RECORDS: Array<CgroupRecord> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The name of the cgroup in the record of the same index.
#[map]
pub(crate) static NAMES: Array<CgroupName> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The state of the walk; one entry.
#[map]
pub(crate) static WALK: Array<WalkState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The state of each CPU.
#[map]
pub(crate) static RUN_QUEUE_CPUS: Array<RunQueueCpu> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Waits by cgroup, for one CPU after another.
#[map]
pub(crate) static RUN_QUEUE_SETS: Array<RunQueueSet> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How long tasks had waited when they last left a CPU.
#[map]
pub(crate) static RUN_QUEUE_TASKS: Array<u64> = Array::with_max_entries(1, 0);

/// The number of the run that the agent requests; one entry.
#[map]
pub(crate) static RUN_QUEUE_RUN: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Cgroups that were removed since the agent last read the ring.
#[map]
pub(crate) static REMOVED: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Counts of removed cgroups; one entry.
#[map]
pub(crate) static REMOVED_COUNTS: Array<RemovedCounts> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Where each CPU assembles a record; one entry.
#[map]
pub(crate) static REMOVED_DRAFT: PerCpuArray<RemovedDraft> = PerCpuArray::with_max_entries(1, 0);

/// See [`REMOVED_DRAFT`].
#[repr(C)]
pub(crate) struct RemovedDraft {
    /// The record to be sent.
    pub(crate) record: CgroupRemoved,
    /// The beginning of this map's own `bpf_array` in the kernel.
    pub(crate) array_head: [u64; ARRAY_HEAD_BYTES / 8],
    /// An address, written as a pointer and read as a number.
    pub(crate) address: u64,
}

#[unsafe(no_mangle)]
static REMOVED_OFFSETS: RemovedOffsets = NO_REMOVED_OFFSETS;

/// The value that the agent replaces.
// SAFETY: `u32`s, for which all zeroes are a value.
const NO_REMOVED_OFFSETS: RemovedOffsets = unsafe { core::mem::zeroed() };

/// The offsets for what a removed cgroup used.
#[inline(always)]
pub(crate) fn removed_offsets() -> RemovedOffsets {
    // SAFETY: as in `offsets`.
    unsafe { core::ptr::read_volatile(&raw const REMOVED_OFFSETS) }
}

#[unsafe(no_mangle)]
static RUN_QUEUE_OFFSETS: RunQueueOffsets = NO_RUN_QUEUE_OFFSETS;

#[unsafe(no_mangle)]
static OFFSETS: CgroupOffsets = NO_OFFSETS;

#[unsafe(no_mangle)]
static CAPACITY: u32 = 0;

/// The value that the agent replaces.
// SAFETY: `u32`s, for which all zeroes are a value.
const NO_OFFSETS: CgroupOffsets = unsafe { core::mem::zeroed() };

/// The value that the agent replaces.
// SAFETY: as above.
const NO_RUN_QUEUE_OFFSETS: RunQueueOffsets = unsafe { core::mem::zeroed() };

/// The offsets in tasks that are read at a switch. Each is loaded where it is used, because there are more offsets than
/// registers.
#[derive(Clone, Copy)]
pub(crate) struct Offsets(*const RunQueueOffsets);

macro_rules! offset {
    ($($name:ident)*) => {
        impl Offsets {
            $(
                #[inline(always)]
                pub(crate) fn $name(self) -> u32 {
                    // SAFETY: as in `offsets`.
                    unsafe { core::ptr::read_volatile(&raw const (*self.0).$name) }
                }
            )*
        }
    };
}

offset!(task_pid task_run_delay task_cgroups css_set_cgroup cgroup_serial cgroup_kn kernfs_id sets);

#[inline(always)]
pub(crate) fn run_queue_offsets() -> Offsets {
    Offsets(&raw const RUN_QUEUE_OFFSETS)
}

/// The offsets in the kernel structures that are read here.
#[inline(always)]
pub(crate) fn offsets() -> CgroupOffsets {
    // SAFETY: a static of a plain type. Volatile, because the agent replaces the zeroes before it loads the program;
    // the kernel freezes the section, so its verifier treats the loaded values as constants.
    unsafe { core::ptr::read_volatile(&raw const OFFSETS) }
}

/// The number of records that fit.
#[inline(always)]
pub(crate) fn capacity() -> u32 {
    // SAFETY: as in `offsets`.
    unsafe { core::ptr::read_volatile(&raw const CAPACITY) }
}
