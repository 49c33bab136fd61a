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

/// The longest name the kernel allows a cgroup (`NAME_MAX`), and its NUL.
pub const NAME_BYTES: usize = 256;

/// Byte offsets into kernel structures, which differ between kernels.
///
/// Every field is the offset of a member from the start of its structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupOffsets {
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
}

/// What one walk read of one cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupRecord {
    /// The walk that wrote this record; a record of another session is a left-over.
    pub session: u64,
    /// The cgroup's id: its inode number in cgroupfs.
    pub id: u64,
    /// The parent's id; 0 for the root of the hierarchy.
    pub parent_id: u64,
    /// CPU time of the cgroup and all below it, in ns, as of the last flush.
    pub cpu_ns: u64,
    /// Depth below the hierarchy's root.
    pub level: u32,
    /// Keeps the record free of padding; 0.
    pub reserved: u32,
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
