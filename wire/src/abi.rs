//! The contract between the eBPF programs (`agent-ebpf`) and the agent: record layouts, map names, and the offsets that
//! the agent finds in the kernel's BTF and writes into the programs' globals before it loads them.
//!
//! Every type is `repr(C)`, without padding and without pointers, and every bit pattern is a valid value.

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
/// Name of the read-only global that holds the capacity of the records array, a `u32`.
pub const CAPACITY_GLOBAL: &str = "CAPACITY";

/// Name of the program that adds up run-queue waits at each context switch.
pub const RUN_QUEUE_PROGRAM: &str = "add_up_waits";
/// Name of a program that is attached to the same tracepoint and does nothing. Only benchmarks load it, as a baseline
/// for [`RUN_QUEUE_PROGRAM`].
pub const EMPTY_PROGRAM: &str = "do_nothing";
/// Name of the memory-mapped array of [`RunQueueCpu`], one per CPU.
pub const RUN_QUEUE_CPUS_MAP: &str = "RUN_QUEUE_CPUS";
/// Name of the memory-mapped array of [`RunQueueSet`], [`RunQueueOffsets::sets`] per CPU.
pub const RUN_QUEUE_SETS_MAP: &str = "RUN_QUEUE_SETS";
/// Name of the memory-mapped array whose only entry, a `u64`, the agent writes. 0: the program returns at once.
/// Otherwise: the number of this run; the program ignores what an earlier run left behind.
pub const RUN_QUEUE_RUN_MAP: &str = "RUN_QUEUE_RUN";
/// Name of the array that holds how long each task had waited when it last left a CPU, [`RUN_QUEUE_TASKS`] words.
pub const RUN_QUEUE_TASKS_MAP: &str = "RUN_QUEUE_TASKS";
/// How many tasks have an entry of their own; the array takes half a MiB. If there are more tasks, some share an entry,
/// and some of their waits are missed.
pub const RUN_QUEUE_TASKS: u32 = 1 << 16;
/// Name of the read-only global that holds the [`RunQueueOffsets`].
pub const RUN_QUEUE_OFFSETS_GLOBAL: &str = "RUN_QUEUE_OFFSETS";

/// Name of the program that records what a cgroup had used when it was removed.
pub const REMOVED_PROGRAM: &str = "note_removed";
/// Name of the ring buffer of [`CgroupRemoved`], each truncated after its path.
pub const REMOVED_MAP: &str = "REMOVED";
/// Name of the memory-mapped array whose only entry is the [`RemovedCounts`].
pub const REMOVED_COUNTS_MAP: &str = "REMOVED_COUNTS";
/// Name of the read-only global that holds the [`RemovedOffsets`].
pub const REMOVED_OFFSETS_GLOBAL: &str = "REMOVED_OFFSETS";
/// The longest path that the kernel's tracepoint reports, including its NUL: `TRACE_CGROUP_PATH_LEN` of
/// `kernel/cgroup/cgroup-internal.h`. A power of two.
pub const PATH_BYTES: usize = 1024;
/// How many bytes of a `bpf_array` the program can read.
pub const ARRAY_HEAD_BYTES: usize = 1024;

/// The longest name that the kernel allows for a cgroup (`NAME_MAX`), including its NUL.
pub const NAME_BYTES: usize = 256;

/// Groups of values that a kernel may or may not provide, one bit each. [`CgroupOffsets::groups`] holds those that can
/// be read on this kernel, [`CgroupRecord::groups`] those that were read of this cgroup.
pub mod group {
    /// Bandwidth control: periods and throttled time. Needs the cpu controller.
    pub const THROTTLING: u32 = 1 << 0;
    /// Usage, peak and limit of memory. Needs the memory controller, as the next two do.
    pub const MEMORY: u32 = 1 << 1;
    /// Anonymous memory and page cache.
    pub const MEMORY_STATE: u32 = 1 << 2;
    /// How often memory limits were reached.
    pub const MEMORY_EVENTS: u32 = 1 << 3;
    /// Tasks. Needs the pids controller.
    pub const PIDS: u32 = 1 << 4;
    /// Pressure stall information (PSI): time in which tasks were stalled.
    pub const PRESSURE: u32 = 1 << 5;
    /// Bytes read from and written to block devices. Needs the io controller.
    pub const IO: u32 = 1 << 6;
    /// Not a group: set instead of [`IO`] if the cgroup has I/O that could not be added up.
    pub const IO_INCOMPLETE: u32 = 1 << 7;
    /// Every group that the memory controller provides.
    pub const ANY_MEMORY: u32 = MEMORY | MEMORY_STATE | MEMORY_EVENTS;
    /// No group: an offset that every walk needs.
    pub const NONE: u32 = 0;
    /// Every group.
    pub const ALL: [u32; 7] = [THROTTLING, MEMORY, MEMORY_STATE, MEMORY_EVENTS, PIDS, PRESSURE, IO];
}

/// How many block devices of one cgroup a walk adds up. A cgroup that uses more has [`group::IO_INCOMPLETE`].
pub const MAX_DEVICES: usize = 16;

/// Where kernels keep a value. The agent looks up the offset by these names in the BTF of the running kernel. Nested
/// members are written as a dotted path. Sizes are in bytes; a member that has another size on this kernel is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A member of a structure, of any type.
    Member(&'static str, &'static str),
    /// A member that is a pointer.
    Pointer(&'static str, &'static str),
    /// A member of this size.
    Sized(&'static str, &'static str, u32),
    /// The first element of an array of at least this many longs.
    Longs(&'static str, &'static str, u32),
    /// `cgroup.subsys[…]` of this controller: a pointer to its state, null if the controller is off.
    State(&'static str),
    /// A member of this size in the structure that embeds a controller's state as `css`. The offset is relative to that
    /// state.
    Within(&'static str, &'static str, u32),
    /// The same for a member that is a pointer.
    PointerWithin(&'static str, &'static str),
    /// `mem_cgroup.memory_events[…]` of this event, relative to the state.
    MemoryEvent(&'static str),
    /// The element of `memcg_vmstats.state` for this item: in pages, signed.
    MemoryStatistic(&'static str),
}

macro_rules! cgroup_offsets {
    ($($(#[$doc:meta])* $groups:ident $field:ident = $place:ident($($argument:literal),*);)*) => {
        /// Byte offsets into kernel structures, which differ between kernels.
        ///
        /// Offsets that belong to a group that is not in `groups` are 0 and not used.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CgroupOffsets {
            /// The [`group`]s whose offsets are known.
            pub groups: u32,
            $(
                $(#[$doc])*
                #[doc = ""]
                #[doc = concat!("[`Place::", stringify!($place), "`]", $(" `", $argument, "`",)*)]
                pub $field: u32,
            )*
        }

        impl CgroupOffsets {
            /// Each offset: the groups that need it, where kernels keep the value, and a function that sets the field.
            pub const PLACES: &[(u32, Place, fn(&mut Self, u32))] =
                &[$((group::$groups, Place::$place($($argument),*), |offsets, at| offsets.$field = at)),*];
        }
    };
}

// One line per offset: the groups that need it, its name, and its place.
cgroup_offsets! {
    /// The cgroup's node in kernfs.
    NONE cgroup_kn = Pointer("cgroup", "kn");
    /// Depth below the hierarchy's root.
    NONE cgroup_level = Sized("cgroup", "level", 4);
    /// The parent's `cgroup_subsys_state`.
    NONE cgroup_self_parent = Pointer("cgroup", "self.parent");
    /// CPU time of the subtree as of the last rstat flush, in ns.
    NONE cgroup_cpu_ns = Sized("cgroup", "bstat.cputime.sum_exec_runtime", 8);
    /// The cgroup that a state belongs to.
    NONE css_cgroup = Pointer("cgroup_subsys_state", "cgroup");
    /// The 64-bit inode number in cgroupfs, which is never used twice.
    NONE kernfs_id = Sized("kernfs_node", "id", 8);
    /// A NUL-terminated string.
    NONE kernfs_name = Pointer("kernfs_node", "name");

    /// Within a `task_group`.
    THROTTLING cgroup_cpu = State("cpu_cgrp_id");
    THROTTLING cpu_periods = Within("task_group", "cfs_bandwidth.nr_periods", 4);
    THROTTLING cpu_throttled_periods = Within("task_group", "cfs_bandwidth.nr_throttled", 4);
    THROTTLING cpu_throttled_ns = Within("task_group", "cfs_bandwidth.throttled_time", 8);

    /// Within a `mem_cgroup`.
    ANY_MEMORY cgroup_memory = State("memory_cgrp_id");
    /// In pages, like the next two.
    MEMORY memory_usage = Within("mem_cgroup", "memory.usage", 8);
    MEMORY memory_peak = Within("mem_cgroup", "memory.watermark", 8);
    MEMORY memory_max = Within("mem_cgroup", "memory.max", 8);
    MEMORY_EVENTS memory_oom_kills = MemoryEvent("MEMCG_OOM_KILL");
    MEMORY_EVENTS memory_max_events = MemoryEvent("MEMCG_MAX");
    MEMORY_EVENTS memory_high_events = MemoryEvent("MEMCG_HIGH");
    /// Pointer to the `memcg_vmstats` that holds the next three.
    MEMORY_STATE memory_vmstats = PointerWithin("mem_cgroup", "vmstats");
    MEMORY_STATE vmstats_anon = MemoryStatistic("NR_ANON_MAPPED");
    MEMORY_STATE vmstats_file = MemoryStatistic("NR_FILE_PAGES");
    MEMORY_STATE vmstats_inactive_file = MemoryStatistic("NR_INACTIVE_FILE");

    /// Within a `pids_cgroup`.
    PIDS cgroup_pids = State("pids_cgrp_id");
    PIDS pids_current = Within("pids_cgroup", "counter", 8);
    PIDS pids_limit = Within("pids_cgroup", "limit", 8);

    /// Null if the kernel keeps no pressure.
    PRESSURE cgroup_psi = Pointer("cgroup", "psi");
    /// A `bool`.
    PRESSURE psi_enabled = Sized("psi_group", "enabled", 1);
    /// The values of [`CgroupRecord::pressure_ns`].
    PRESSURE psi_total = Longs("psi_group", "total", 6);

    /// Within a `blkcg`.
    IO cgroup_io = State("io_cgrp_id");
    /// Leads from a state to its `blkcg`.
    IO io_state = Member("blkcg", "css");
    /// The list node of the first device.
    IO io_devices = Within("blkcg", "blkg_list.first", 8);
    IO node_next = Pointer("hlist_node", "next");
    /// The list node in a device.
    IO device_node = Member("blkcg_gq", "blkcg_node");
    /// The `blkcg` that a device's values belong to.
    IO device_owner = Pointer("blkcg_gq", "blkcg");
    /// Bytes read, bytes written.
    IO device_bytes = Longs("blkcg_gq", "iostat.cur.bytes", 2);
}

/// What one walk read of one cgroup. Values of a group that is not in `groups` are undefined.
///
/// Totals include the cgroup and all cgroups below it, as of the last flush, except throttling, which the kernel keeps
/// for each cgroup alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupRecord {
    /// The walk that wrote this record. A record of another session is stale.
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
    /// Throttling: periods of bandwidth control that elapsed.
    pub periods: u32,
    /// Throttling: periods in which the quota was used up.
    pub throttled_periods: u32,
    /// Throttling: time that tasks were stopped.
    pub throttled_ns: u64,
    /// Memory: pages charged.
    pub memory_pages: u64,
    /// Memory: the most pages ever charged.
    pub memory_peak_pages: u64,
    /// Memory: the limit in pages; the kernel's `PAGE_COUNTER_MAX` if there is none.
    pub memory_max_pages: u64,
    /// Memory state: pages of anonymous memory.
    pub anon_pages: i64,
    /// Memory state: pages of page cache.
    pub file_pages: i64,
    /// Memory state: pages of page cache that the kernel reclaims first.
    pub inactive_file_pages: i64,
    /// Memory events: processes that were OOM-killed.
    pub oom_kills: u64,
    /// Memory events: how often the limit was reached.
    pub max_events: u64,
    /// Memory events: how often `memory.high` was reached.
    pub high_events: u64,
    /// Pids: tasks.
    pub pids: i64,
    /// Pids: the limit; above the kernel's `PID_MAX_LIMIT` if there is none.
    pub pids_limit: i64,
    /// Pressure: stalled time, `[io, memory, cpu][some, full]`. The kernel updates it every 2 s and when a process
    /// reads its file.
    pub pressure_ns: [[u64; 2]; 3],
    /// Io: bytes read and bytes written, added up over all devices.
    pub io_bytes: [u64; 2],
}

/// The name of the cgroup in the record of the same index.
///
/// It is written only when the slot gets another cgroup. A cgroup is never renamed and its id is never used twice, so
/// an equal id means an equal name.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupName {
    /// Id of the cgroup that has this name.
    pub id: u64,
    /// The last path component, NUL-terminated.
    pub bytes: [u8; NAME_BYTES],
}

/// The result of the latest walk.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkState {
    /// The walk that is running or has ended. The kernel numbers walks.
    pub session: u64,
    /// The last walk that reached its end. If it equals `session`, the records are complete.
    pub finished_session: u64,
    /// Records written in this session.
    pub written: u32,
    /// Cgroups that did not fit into the records in this session.
    pub dropped: u32,
}

/// Byte offsets into kernel structures, and the size of a map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunQueueOffsets {
    /// `task_struct.pid`; 0 is the idle task of a CPU.
    pub task_pid: u32,
    /// `task_struct.sched_info.run_delay`: how long the task had waited for a CPU until it last got one, in ns.
    pub task_run_delay: u32,
    /// `task_struct.cgroups`: its `css_set`.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`: its cgroup in the v2 hierarchy.
    pub css_set_cgroup: u32,
    /// `cgroup.self.serial_nr`: a number that is never used twice, present on all kernels. Unlike the id, it is in
    /// memory that the kernel has just accessed in a context switch.
    pub cgroup_serial: u32,
    /// `cgroup.kn`.
    pub cgroup_kn: u32,
    /// `kernfs_node.id`.
    pub kernfs_id: u32,
    /// Sets per CPU, a power of two.
    pub sets: u32,
}

/// Run-queue waits of one cgroup on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunQueueWaits {
    /// Time that tasks waited.
    pub wait_ns: u64,
    /// How often tasks waited.
    pub waits: u64,
}

/// Places per set: cgroups that hash to the same set share them.
pub const RUN_QUEUE_WAYS: usize = 8;

/// One cgroup's waits on one CPU. Half a cache line, so that a switch touches only one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunQueuePlace {
    /// The cgroup's serial number plus 1, because the root's number is 0; 0 means free. The program takes free places;
    /// the agent frees the places of cgroups that have ended. When a place is taken, this field is written last, so a
    /// reader that sees the number also sees the other fields.
    pub serial: u64,
    /// The cgroup's id.
    pub id: u64,
    /// Its waits.
    pub waits: RunQueueWaits,
}

/// The places of up to [`RUN_QUEUE_WAYS`] cgroups.
pub type RunQueueSet = [RunQueuePlace; RUN_QUEUE_WAYS];

/// Buckets of [`RunQueueCpu::histogram`].
pub const RUN_QUEUE_BUCKETS: usize = 22;
/// Waits below this are in the first bucket. The bound of each further bucket is twice as high, and the last bucket
/// holds the rest.
pub const RUN_QUEUE_FIRST_BUCKET_NS: u64 = 8192;

/// What the program keeps per CPU. Totals never fall.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunQueueCpu {
    /// The run that `pid` and `run_delay_ns` belong to.
    pub run: u64,
    /// The task that got the CPU last.
    pub pid: u64,
    /// Its `run_delay` before that.
    pub run_delay_ns: u64,
    /// Context switches that the program saw.
    pub switches: u64,
    /// Switches in which the task that left the CPU was not the one that got it last: some switches never reach the
    /// program.
    pub mismatches: u64,
    /// Switches in which it is not known how long the task that left had waited before.
    pub unknown: u64,
    /// Waits of all cgroups.
    pub all: RunQueueWaits,
    /// Waits whose cgroup found no free place; included in `all`.
    pub dropped: RunQueueWaits,
    /// Switches whose cost was measured.
    pub timed: u64,
    /// The cost of those switches, including the time to read the clock.
    pub timed_ns: u64,
    /// Number of waits by duration.
    pub histogram: [u64; RUN_QUEUE_BUCKETS],
}

/// One switch in this many is timed, because reading the clock costs as much as everything else. A power of two.
pub const RUN_QUEUE_TIMED: u64 = 1024;

/// The most that one timed switch counts. The program takes a hundredth of this; anything longer is caused by the
/// machine: an interrupt that cannot be masked, or a hypervisor that ran another guest.
pub const RUN_QUEUE_TIMED_AT_MOST_NS: u64 = 10_000;

/// Byte offsets into kernel structures, in addition to [`CgroupOffsets`], and the number of possible CPUs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedOffsets {
    /// `cgroup.root`: its hierarchy.
    pub cgroup_root: u32,
    /// `cgroup_root.hierarchy_id`: 0 for cgroup v2.
    pub root_hierarchy: u32,
    /// `cgroup.rstat_base_cpu`, before 6.16 `cgroup.rstat_cpu`: a pointer to per-CPU memory.
    pub cgroup_rstat: u32,
    /// In that memory, `bstat.cputime.sum_exec_runtime`: CPU time of the cgroup alone on that CPU, flushed or not.
    pub rstat_cpu_ns: u32,
    /// `bpf_array.pptrs`: pointers to per-CPU memory. The offset is below [`ARRAY_HEAD_BYTES`].
    pub array_pointers: u32,
    /// Number of possible CPUs.
    pub cpus: u32,
}

/// A cgroup that was removed, and what it had used by then.
///
/// Only cgroups of cgroup v2 whose path contains `pod` are recorded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupRemoved {
    /// When it was removed, by `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Its id.
    pub id: u64,
    /// Its parent's id.
    pub parent_id: u64,
    /// CPU time of the cgroup alone, without cgroups below it. It is exact without a flush.
    pub cpu_ns: u64,
    /// Processes that were OOM-killed in it and below it, if `groups` has [`group::MEMORY_EVENTS`].
    pub oom_kills: u64,
    /// The [`group`]s that were read.
    pub groups: u32,
    /// Length of the path in bytes, including its NUL.
    pub path_bytes: u32,
    /// Path from the root of the hierarchy. Bytes after the NUL are not sent.
    pub path: [u8; PATH_BYTES],
}

/// Totals of removed cgroups.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedCounts {
    /// Cgroups of cgroup v2 that were removed.
    pub seen: u64,
    /// Those that were written into the ring buffer.
    pub told: u64,
    /// Those that did not fit into the ring buffer or could not be read.
    pub dropped: u64,
}
