//! The maps and globals that the kernel half shares with the agent. Their sizes are set by the agent when it loads them.

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

/// How the walk goes; one entry.
#[map]
pub(crate) static WALK: Array<WalkState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What is kept of each processor.
#[map]
pub(crate) static RUN_QUEUE_CPUS: Array<RunQueueCpu> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Waits by cgroup, processor after processor.
#[map]
pub(crate) static RUN_QUEUE_SETS: Array<RunQueueSet> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What tasks had waited when they last left a processor.
#[map]
pub(crate) static RUN_QUEUE_TASKS: Array<u64> = Array::with_max_entries(1, 0);

/// The run that the agent wants; one entry.
#[map]
pub(crate) static RUN_QUEUE_RUN: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Cgroups that were removed since the agent last looked.
#[map]
pub(crate) static REMOVED: RingBuf = RingBuf::with_byte_size(4096, 0);

/// What became of them; one entry.
#[map]
pub(crate) static REMOVED_COUNTS: Array<RemovedCounts> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Where each processor puts a record together; one entry.
#[map]
pub(crate) static REMOVED_DRAFT: PerCpuArray<RemovedDraft> = PerCpuArray::with_max_entries(1, 0);

/// See [`REMOVED_DRAFT`].
#[repr(C)]
pub(crate) struct RemovedDraft {
    /// What will be sent.
    pub(crate) record: CgroupRemoved,
    /// The beginning of the kernel's own `bpf_array` of this map.
    pub(crate) array_head: [u64; ARRAY_HEAD_BYTES / 8],
    /// An address, put here as a pointer and taken out as a number.
    pub(crate) address: u64,
}

#[unsafe(no_mangle)]
static REMOVED_OFFSETS: RemovedOffsets = NO_REMOVED_OFFSETS;

/// What the agent replaces.
// SAFETY: `u32`s, for which all zeroes are a value.
const NO_REMOVED_OFFSETS: RemovedOffsets = unsafe { core::mem::zeroed() };

/// Where is found what a removed cgroup had used.
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

/// What the agent replaces.
// SAFETY: `u32`s, for which all zeroes are a value.
const NO_OFFSETS: CgroupOffsets = unsafe { core::mem::zeroed() };

/// What the agent replaces.
// SAFETY: as above.
const NO_RUN_QUEUE_OFFSETS: RunQueueOffsets = unsafe { core::mem::zeroed() };

/// Where tasks keep what is read at a switch: each offset is loaded where it is used, as there are more than registers.
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

/// Where kernel structures keep what is read here.
#[inline(always)]
pub(crate) fn offsets() -> CgroupOffsets {
    // SAFETY: a static of a plain type. Volatile, for the agent replaces the zeroes before the kernel sees the program;
    // the kernel freezes the section, so its verifier takes what is loaded as constants.
    unsafe { core::ptr::read_volatile(&raw const OFFSETS) }
}

/// How many records there is room for.
#[inline(always)]
pub(crate) fn capacity() -> u32 {
    // SAFETY: as in `offsets`.
    unsafe { core::ptr::read_volatile(&raw const CAPACITY) }
}
