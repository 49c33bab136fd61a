//! What the kernel programs (`agent-ebpf`) and the agent agree on: record layouts, map names, and the offsets that the
//! agent finds in the kernel's BTF and injects before loading.
//!
//! Every type is `repr(C)`, without padding and without pointers, and any bit pattern of it is a valid value.

/// Name of the iterator program that walks the cgroup tree.
pub const WALK_PROGRAM: &str = "walk_cgroups";
/// Name of the memory-mapped array of [`CgroupRecord`], one per cgroup, in walk order.
pub const RECORDS_MAP: &str = "RECORDS";
/// Name of the memory-mapped array of [`CgroupName`], parallel to the records.
pub const NAMES_MAP: &str = "NAMES";
/// Name of the memory-mapped array whose only entry is the [`WalkState`].
pub const WALK_MAP: &str = "WALK";
/// Name of the read-only global that holds the [`CgroupOffsets`].
pub const OFFSETS_GLOBAL: &str = "OFFSETS";
/// Name of the read-only global that holds the number of records there is room for, a `u32`.
pub const CAPACITY_GLOBAL: &str = "CAPACITY";

/// Name of the program that adds up waits for a processor, at each switch of tasks.
pub const RUN_QUEUE_PROGRAM: &str = "add_up_waits";
/// Name of a program at the same place that does nothing. Only benchmarks load it, to measure the other against.
pub const EMPTY_PROGRAM: &str = "do_nothing";
/// Name of the memory-mapped array of [`RunQueueCpu`], one per processor.
pub const RUN_QUEUE_CPUS_MAP: &str = "RUN_QUEUE_CPUS";
/// Name of the memory-mapped array of [`RunQueueSet`], [`RunQueueOffsets::sets`] per processor.
pub const RUN_QUEUE_SETS_MAP: &str = "RUN_QUEUE_SETS";
/// Name of the memory-mapped array whose only entry, a `u64`, the agent writes: 0 and the program only returns; else the number of
/// this run of it, and what is left of an earlier run is forgotten.
pub const RUN_QUEUE_RUN_MAP: &str = "RUN_QUEUE_RUN";
/// Name of the array of what tasks had waited, [`RUN_QUEUE_TASKS`] words.
pub const RUN_QUEUE_TASKS_MAP: &str = "RUN_QUEUE_TASKS";
/// Tasks that have a place of their own; half a MiB. More of them share places, and some waits of those that do are not seen.
pub const RUN_QUEUE_TASKS: u32 = 1 << 16;
/// Name of the read-only global that holds the [`RunQueueOffsets`].
pub const RUN_QUEUE_OFFSETS_GLOBAL: &str = "RUN_QUEUE_OFFSETS";

/// Name of the program that says what a cgroup had used when it was removed.
pub const REMOVED_PROGRAM: &str = "note_removed";
/// Name of the ring of [`CgroupRemoved`], each cut after its path.
pub const REMOVED_MAP: &str = "REMOVED";
/// Name of the memory-mapped array whose only entry is the [`RemovedCounts`].
pub const REMOVED_COUNTS_MAP: &str = "REMOVED_COUNTS";
/// Name of the read-only global that holds the [`RemovedOffsets`].
pub const REMOVED_OFFSETS_GLOBAL: &str = "REMOVED_OFFSETS";
/// The longest path that the kernel's tracepoint tells, and its NUL: `TRACE_CGROUP_PATH_LEN` of `kernel/cgroup/cgroup-internal.h`.
/// A power of two.
pub const PATH_BYTES: usize = 1024;
/// How far into a `bpf_array` the program reads.
pub const ARRAY_HEAD_BYTES: usize = 1024;

/// The longest name the kernel allows a cgroup (`NAME_MAX`), and its NUL.
pub const NAME_BYTES: usize = 256;

/// Groups of figures that a kernel keeps or does not, each a bit: in [`CgroupOffsets::groups`] what can be read on this
/// kernel, in [`CgroupRecord::groups`] what was read of this cgroup.
pub mod group {
    /// Bandwidth control: periods and throttled time. Needs the cpu controller.
    pub const THROTTLING: u32 = 1 << 0;
    /// Usage, peak and limit of memory. Needs the memory controller, as the next two do.
    pub const MEMORY: u32 = 1 << 1;
    /// Anonymous memory and page cache.
    pub const MEMORY_STATE: u32 = 1 << 2;
    /// How often memory ran into its limits.
    pub const MEMORY_EVENTS: u32 = 1 << 3;
    /// Tasks. Needs the pids controller.
    pub const PIDS: u32 = 1 << 4;
    /// Time lost for want of a resource.
    pub const PRESSURE: u32 = 1 << 5;
    /// Bytes read from and written to block devices. Needs the io controller.
    pub const IO: u32 = 1 << 6;
    /// Not a group: set in place of [`IO`] where there is io that could not be added up.
    pub const IO_INCOMPLETE: u32 = 1 << 7;
    /// All that the memory controller keeps.
    pub const ANY_MEMORY: u32 = MEMORY | MEMORY_STATE | MEMORY_EVENTS;
}

/// Block devices of one cgroup that a walk adds up. A cgroup that uses more has [`group::IO_INCOMPLETE`].
pub const MAX_DEVICES: usize = 16;

/// Byte offsets into kernel structures, which differ between kernels.
///
/// Every field is the offset of a member from the start of its structure. Those of a group that is not in `groups` are 0 and
/// not used.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupOffsets {
    /// The [`group`]s whose offsets are known.
    pub groups: u32,
    /// `cgroup.kn`: the cgroup's node in kernfs.
    pub cgroup_kn: u32,
    /// `cgroup.level`: depth below the hierarchy's root.
    pub cgroup_level: u32,
    /// `cgroup.self.parent`: the parent's `cgroup_subsys_state`.
    pub cgroup_self_parent: u32,
    /// `cgroup.bstat.cputime.sum_exec_runtime`: CPU time of the subtree as of the last rstat flush, in ns.
    pub cgroup_cpu_ns: u32,
    /// `cgroup_subsys_state.cgroup`: the cgroup that a state belongs to.
    pub css_cgroup: u32,
    /// `kernfs_node.id`: the 64-bit inode number in cgroupfs, never used twice.
    pub kernfs_id: u32,
    /// `kernfs_node.name`: a NUL-terminated string.
    pub kernfs_name: u32,

    /// `cgroup.subsys[cpu_cgrp_id]`: the state within a `task_group`; null without the controller, as the other three.
    pub cgroup_cpu: u32,
    /// `task_group.cfs_bandwidth.nr_periods`, from the state; an `int`.
    pub cpu_periods: u32,
    /// `task_group.cfs_bandwidth.nr_throttled`, from the state; an `int`.
    pub cpu_throttled_periods: u32,
    /// `task_group.cfs_bandwidth.throttled_time`, from the state; in ns.
    pub cpu_throttled_ns: u32,

    /// `cgroup.subsys[memory_cgrp_id]`: the state within a `mem_cgroup`.
    pub cgroup_memory: u32,
    /// `mem_cgroup.memory.usage`, from the state; in pages.
    pub memory_usage: u32,
    /// `mem_cgroup.memory.watermark`, from the state; in pages.
    pub memory_peak: u32,
    /// `mem_cgroup.memory.max`, from the state; in pages.
    pub memory_max: u32,
    /// `mem_cgroup.memory_events[MEMCG_OOM_KILL]`, from the state.
    pub memory_oom_kills: u32,
    /// `mem_cgroup.memory_events[MEMCG_MAX]`, from the state.
    pub memory_max_events: u32,
    /// `mem_cgroup.memory_events[MEMCG_HIGH]`, from the state.
    pub memory_high_events: u32,
    /// `mem_cgroup.vmstats`, from the state; a pointer.
    pub memory_vmstats: u32,
    /// The element of `memcg_vmstats.state` for `NR_ANON_MAPPED`; in pages, signed.
    pub vmstats_anon: u32,
    /// The element for `NR_FILE_PAGES`.
    pub vmstats_file: u32,
    /// The element for `NR_INACTIVE_FILE`.
    pub vmstats_inactive_file: u32,

    /// `cgroup.subsys[pids_cgrp_id]`: the state within a `pids_cgroup`.
    pub cgroup_pids: u32,
    /// `pids_cgroup.counter`, from the state.
    pub pids_current: u32,
    /// `pids_cgroup.limit`, from the state.
    pub pids_limit: u32,

    /// `cgroup.psi`: a pointer, null where the kernel keeps no pressure.
    pub cgroup_psi: u32,
    /// `psi_group.enabled`; a `bool`.
    pub psi_enabled: u32,
    /// `psi_group.total`: an array that begins with what [`CgroupRecord::pressure_ns`] holds.
    pub psi_total: u32,

    /// `cgroup.subsys[io_cgrp_id]`: the state within a `blkcg`.
    pub cgroup_io: u32,
    /// `blkcg.blkg_list.first`, from the state: the first device's node.
    pub io_devices: u32,
    /// `hlist_node.next`.
    pub node_next: u32,
    /// `blkcg_gq.blkcg_node`: where a device keeps its node.
    pub device_node: u32,
    /// `blkcg_gq.blkcg`: the `blkcg` that a device's figures belong to.
    pub device_owner: u32,
    /// `blkcg_gq.iostat.cur.bytes`: read, written, discarded.
    pub device_bytes: u32,
    /// `blkcg.css`, to get from a state to its `blkcg`.
    pub io_state: u32,
}

/// What one walk read of one cgroup. Figures of a group that is not in `groups` mean nothing.
///
/// Totals are of the cgroup and all below it, as of the last flush, except throttling, which the kernel keeps of each alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupRecord {
    /// The walk that wrote this record; a record of another session is a left-over.
    pub session: u64,
    /// The cgroup's id: its inode number in cgroupfs.
    pub id: u64,
    /// The parent's id; 0 for the root of the hierarchy.
    pub parent_id: u64,
    /// Depth below the hierarchy's root.
    pub level: u32,
    /// The [`group`]s that were read.
    pub groups: u32,
    /// CPU time.
    pub cpu_ns: u64,
    /// Throttling: periods of bandwidth control that went by.
    pub periods: u32,
    /// Throttling: periods in which the quota was used up.
    pub throttled_periods: u32,
    /// Throttling: time that tasks stood still for it.
    pub throttled_ns: u64,
    /// Memory: pages charged.
    pub memory_pages: u64,
    /// Memory: the most pages ever charged.
    pub memory_peak_pages: u64,
    /// Memory: the limit in pages; the kernel's `PAGE_COUNTER_MAX` where there is none.
    pub memory_max_pages: u64,
    /// Memory state: pages of processes' own memory.
    pub anon_pages: i64,
    /// Memory state: pages of cached files.
    pub file_pages: i64,
    /// Memory state: those of them that are given back first.
    pub inactive_file_pages: i64,
    /// Memory events: processes killed for want of memory.
    pub oom_kills: u64,
    /// Memory events: times the limit was hit.
    pub max_events: u64,
    /// Memory events: times the `memory.high` throttle was hit.
    pub high_events: u64,
    /// Pids: tasks.
    pub pids: i64,
    /// Pids: the limit; above the kernel's `PID_MAX_LIMIT` where there is none.
    pub pids_limit: i64,
    /// Pressure: time lost, `[io, memory, cpu][some, full]`. The kernel brings it up to date every 2 s and when its file is
    /// read.
    pub pressure_ns: [[u64; 2]; 3],
    /// Io: bytes read and written, all devices together.
    pub io_bytes: [u64; 2],
}

/// The name of the cgroup in the record of the same index.
///
/// It is written when the slot changes hands and otherwise left alone: a cgroup is never renamed and its id never used
/// twice, so an equal id means an equal name.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupName {
    /// Id of the cgroup whose name this is.
    pub id: u64,
    /// The last path component, NUL-terminated.
    pub bytes: [u8; NAME_BYTES],
}

/// How the latest walk went.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkState {
    /// The walk that is running or has ended; the kernel numbers them.
    pub session: u64,
    /// The walk that came to its end. Equal to `session` when the records are complete.
    pub finished_session: u64,
    /// Records written in this session.
    pub written: u32,
    /// Cgroups that found no room in this session.
    pub dropped: u32,
}

/// Byte offsets into kernel structures, and the size of a map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunQueueOffsets {
    /// `task_struct.pid`; 0 is the idle task of a processor.
    pub task_pid: u32,
    /// `task_struct.sched_info.run_delay`: time waited for a processor until the latest time it got one, in ns.
    pub task_run_delay: u32,
    /// `task_struct.cgroups`: its `css_set`.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`: its cgroup in the v2 hierarchy.
    pub css_set_cgroup: u32,
    /// `cgroup.self.serial_nr`: a number that is never used twice, on all kernels. Unlike the id it stands where the kernel has just
    /// been when tasks switch.
    pub cgroup_serial: u32,
    /// `cgroup.kn`.
    pub cgroup_kn: u32,
    /// `kernfs_node.id`.
    pub kernfs_id: u32,
    /// Sets per processor, a power of two.
    pub sets: u32,
}

/// Waits of one cgroup on one processor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunQueueWaits {
    /// Time that tasks waited.
    pub wait_ns: u64,
    /// How often they did.
    pub waits: u64,
}

/// Cgroups that share a place on one processor.
pub const RUN_QUEUE_WAYS: usize = 8;

/// One cgroup's waits on one processor. Half a cache line, so that a switch needs one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunQueuePlace {
    /// One more than the cgroup's serial number, for the root's is 0; 0 is free. The program takes what is free; the agent frees what has
    /// ended. Written last when a place is taken, so who sees it sees the rest.
    pub serial: u64,
    /// The cgroup's id.
    pub id: u64,
    /// Its waits.
    pub waits: RunQueueWaits,
}

/// The place of up to [`RUN_QUEUE_WAYS`] cgroups.
pub type RunQueueSet = [RunQueuePlace; RUN_QUEUE_WAYS];

/// Buckets of [`RunQueueCpu::histogram`].
pub const RUN_QUEUE_BUCKETS: usize = 22;
/// Waits below this are in the first bucket; each further one reaches twice as far, and the last holds the rest.
pub const RUN_QUEUE_FIRST_BUCKET_NS: u64 = 8192;

/// What the program keeps for one processor. Totals never fall.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunQueueCpu {
    /// The run that `pid` and `run_delay_ns` belong to.
    pub run: u64,
    /// The task that got the processor last.
    pub pid: u64,
    /// Its `run_delay` before that.
    pub run_delay_ns: u64,
    /// Switches of tasks that were seen.
    pub switches: u64,
    /// Switches in which another task left the processor than the one that got it: some never reach the program.
    pub mismatches: u64,
    /// Switches in which it is not known what the task that left had waited before.
    pub unknown: u64,
    /// Waits, of all cgroups.
    pub all: RunQueueWaits,
    /// Those of them whose cgroup found no place.
    pub dropped: RunQueueWaits,
    /// Switches whose cost was measured.
    pub timed: u64,
    /// What they cost, the clock included.
    pub timed_ns: u64,
    /// Waits by their length.
    pub histogram: [u64; RUN_QUEUE_BUCKETS],
}

/// One switch in so many is timed, as reading the clock costs as much as all the rest. A power of two.
pub const RUN_QUEUE_TIMED: u64 = 1024;

/// What a timed switch counts at most. The program takes a hundredth of that; what took longer was the machine's: an interrupt that can't be
/// masked, or a hypervisor that gave the processor to another guest.
pub const RUN_QUEUE_TIMED_AT_MOST_NS: u64 = 10_000;

/// Byte offsets into kernel structures, beside those of [`CgroupOffsets`], and how many processors there may be.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedOffsets {
    /// `cgroup.root`: its hierarchy.
    pub cgroup_root: u32,
    /// `cgroup_root.hierarchy_id`: 0 for cgroup v2.
    pub root_hierarchy: u32,
    /// `cgroup.rstat_base_cpu`, before 6.16 `cgroup.rstat_cpu`: a pointer to memory of each processor.
    pub cgroup_rstat: u32,
    /// There, `bstat.cputime.sum_exec_runtime`: CPU time of the cgroup alone on that processor, flushed or not.
    pub rstat_cpu_ns: u32,
    /// `bpf_array.pptrs`: pointers to memory of each processor. It ends below [`ARRAY_HEAD_BYTES`].
    pub array_pointers: u32,
    /// Processors.
    pub cpus: u32,
}

/// A cgroup that was removed, and what it had used by then.
///
/// Only cgroups of v2 whose path has `pod` in it are told.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupRemoved {
    /// When, by `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Its id.
    pub id: u64,
    /// Its parent's.
    pub parent_id: u64,
    /// CPU time of the cgroup alone, without any that it had below it: no flush is needed to know it.
    pub cpu_ns: u64,
    /// Processes killed for want of memory in it and all below it, if `groups` has [`group::MEMORY_EVENTS`].
    pub oom_kills: u64,
    /// The [`group`]s that were read.
    pub groups: u32,
    /// Bytes of the path, with its NUL.
    pub path_bytes: u32,
    /// Path from the hierarchy's root; what follows it is not sent.
    pub path: [u8; PATH_BYTES],
}

/// What became of removed cgroups, as totals.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedCounts {
    /// Cgroups of v2 that were removed.
    pub seen: u64,
    /// Those that are in the ring, or were.
    pub told: u64,
    /// Those that found no room in the ring, or could not be read.
    pub dropped: u64,
}
