//! Where this kernel keeps what the probes read: which members are wanted, and what to do where one is missing.
//!
//! Kernels differ in every offset and in some names, so nothing here is compiled in. [`KernelTypes`] looks them up.

use mcad_wire::abi::{CgroupOffsets, group};

use crate::kernel_types::{KernelTypes, TypesError};

/// Where a walk finds what it reads.
#[derive(Debug)]
pub struct Found {
    /// For the kernel half. Groups of figures that can't be found are not in `groups`.
    pub offsets: CgroupOffsets,
    /// Why each missing group is missing.
    pub missing: Vec<TypesError>,
    /// How fresh totals are made.
    pub flush: Flush,
}

/// What reading a cgroup's `cpu.stat` brings up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// All totals of the cgroup and those below it.
    Together,
    /// CPU time alone; memory and io by their own files (from 6.16 on).
    Apart,
}

/// Offsets of the cgroup iterator. An error where the kernel lacks what no walk can do without.
pub fn find(types: &KernelTypes) -> Result<Found, TypesError> {
    let mut offsets = CgroupOffsets {
        cgroup_kn: types.pointer("cgroup", "kn")?,
        cgroup_level: types.sized("cgroup", "level", 4)?,
        cgroup_self_parent: types.pointer("cgroup", "self.parent")?,
        cgroup_cpu_ns: types.sized("cgroup", "bstat.cputime.sum_exec_runtime", 8)?,
        css_cgroup: types.pointer("cgroup_subsys_state", "cgroup")?,
        kernfs_id: types.sized("kernfs_node", "id", 8)?,
        kernfs_name: types.pointer("kernfs_node", "name")?,
        ..CgroupOffsets::default()
    };
    let mut missing = Vec::new();
    for (group, find) in GROUPS {
        // On a copy: of a group that is found by half, nothing is kept.
        let mut with_group = offsets;
        match find(types, &mut with_group) {
            Ok(()) => offsets = CgroupOffsets { groups: offsets.groups | group, ..with_group },
            Err(why) => missing.push(why),
        }
    }
    let flush = match types.offset("cgroup_subsys_state", "rstat_cpu") {
        Ok(_) => Flush::Apart,
        Err(_) => Flush::Together,
    };
    Ok(Found { offsets, missing, flush })
}

type FindGroup = fn(&KernelTypes, &mut CgroupOffsets) -> Result<(), TypesError>;

const GROUPS: [(u32, FindGroup); 7] = [
    (group::THROTTLING, throttling),
    (group::MEMORY, memory),
    (group::MEMORY_STATE, memory_state),
    (group::MEMORY_EVENTS, memory_events),
    (group::PIDS, pids),
    (group::PRESSURE, pressure),
    (group::IO, io),
];

fn throttling(types: &KernelTypes, offsets: &mut CgroupOffsets) -> Result<(), TypesError> {
    offsets.cgroup_cpu = state(types, "cpu_cgrp_id")?;
    offsets.cpu_periods = within(types, "task_group", "cfs_bandwidth.nr_periods", 4)?;
    offsets.cpu_throttled_periods = within(types, "task_group", "cfs_bandwidth.nr_throttled", 4)?;
    offsets.cpu_throttled_ns = within(types, "task_group", "cfs_bandwidth.throttled_time", 8)?;
    Ok(())
}

fn memory(types: &KernelTypes, offsets: &mut CgroupOffsets) -> Result<(), TypesError> {
    offsets.cgroup_memory = state(types, "memory_cgrp_id")?;
    offsets.memory_usage = within(types, "mem_cgroup", "memory.usage", 8)?;
    offsets.memory_peak = within(types, "mem_cgroup", "memory.watermark", 8)?;
    offsets.memory_max = within(types, "mem_cgroup", "memory.max", 8)?;
    Ok(())
}

fn memory_state(types: &KernelTypes, offsets: &mut CgroupOffsets) -> Result<(), TypesError> {
    offsets.cgroup_memory = state(types, "memory_cgrp_id")?;
    types.pointer("mem_cgroup", "vmstats")?;
    offsets.memory_vmstats = within(types, "mem_cgroup", "vmstats", 8)?;
    let element = |item| types.element("memcg_vmstats", "state", vmstats_index(types, item)?, LONG_BYTES);
    offsets.vmstats_anon = element("NR_ANON_MAPPED")?;
    offsets.vmstats_file = element("NR_FILE_PAGES")?;
    offsets.vmstats_inactive_file = element("NR_INACTIVE_FILE")?;
    Ok(())
}

fn memory_events(types: &KernelTypes, offsets: &mut CgroupOffsets) -> Result<(), TypesError> {
    offsets.cgroup_memory = state(types, "memory_cgrp_id")?;
    let element = |event| {
        let place = types.value("memcg_memory_event", event)?;
        after_state(types, "mem_cgroup", types.element("mem_cgroup", "memory_events", place, LONG_BYTES)?)
    };
    offsets.memory_oom_kills = element("MEMCG_OOM_KILL")?;
    offsets.memory_max_events = element("MEMCG_MAX")?;
    offsets.memory_high_events = element("MEMCG_HIGH")?;
    Ok(())
}

fn pids(types: &KernelTypes, offsets: &mut CgroupOffsets) -> Result<(), TypesError> {
    offsets.cgroup_pids = state(types, "pids_cgrp_id")?;
    offsets.pids_current = within(types, "pids_cgroup", "counter", 8)?;
    offsets.pids_limit = within(types, "pids_cgroup", "limit", 8)?;
    Ok(())
}

fn pressure(types: &KernelTypes, offsets: &mut CgroupOffsets) -> Result<(), TypesError> {
    let order = ["PSI_IO_SOME", "PSI_IO_FULL", "PSI_MEM_SOME", "PSI_MEM_FULL", "PSI_CPU_SOME", "PSI_CPU_FULL"];
    for (place, state) in order.into_iter().enumerate() {
        if types.value("psi_states", state)? as usize != place {
            return Err(TypesError::Unexpected {
                structure: "psi_group",
                difference: "its totals are in another order",
            });
        }
    }
    offsets.cgroup_psi = types.pointer("cgroup", "psi")?;
    offsets.psi_enabled = types.sized("psi_group", "enabled", 1)?;
    // The first of them; as many as are read must be there.
    types.element("psi_group", "total", order.len() as u32 - 1, LONG_BYTES)?;
    offsets.psi_total = types.element("psi_group", "total", 0, LONG_BYTES)?;
    Ok(())
}

fn io(types: &KernelTypes, offsets: &mut CgroupOffsets) -> Result<(), TypesError> {
    offsets.cgroup_io = state(types, "io_cgrp_id")?;
    offsets.io_state = types.offset("blkcg", "css")?;
    offsets.io_devices = within(types, "blkcg", "blkg_list.first", 8)?;
    offsets.node_next = types.pointer("hlist_node", "next")?;
    offsets.device_node = types.offset("blkcg_gq", "blkcg_node")?;
    offsets.device_owner = types.pointer("blkcg_gq", "blkcg")?;
    // Read and written.
    types.element("blkcg_gq", "iostat.cur.bytes", 1, LONG_BYTES)?;
    offsets.device_bytes = types.element("blkcg_gq", "iostat.cur.bytes", 0, LONG_BYTES)?;
    Ok(())
}

/// A `long` or a pointer: what the arrays here are made of, on the 64-bit machines that the agent runs on.
const LONG_BYTES: u32 = 8;

/// Where a cgroup keeps the pointer to a controller's state.
fn state(types: &KernelTypes, controller: &'static str) -> Result<u32, TypesError> {
    let place = types.value("cgroup_subsys_id", controller)?;
    if place >= types.length("cgroup", "subsys")? {
        return Err(TypesError::Unexpected { structure: "cgroup", difference: "a controller has no place in it" });
    }
    types.element("cgroup", "subsys", place, LONG_BYTES)
}

/// A member of so many bytes of the structure that embeds a controller's state as `css`, counted from that state.
fn within(types: &KernelTypes, structure: &'static str, path: &'static str, bytes: u32) -> Result<u32, TypesError> {
    after_state(types, structure, types.sized(structure, path, bytes)?)
}

fn after_state(types: &KernelTypes, structure: &'static str, member: u32) -> Result<u32, TypesError> {
    let difference = "what is read stands before its state";
    let state = types.offset(structure, "css")?;
    member.checked_sub(state).ok_or(TypesError::Unexpected { structure, difference })
}

/// The place of an item in `memcg_vmstats.state`.
///
/// Up to 6.10 it is the item's own number. Later the array holds only what memory.stat shows, in the order of the kernel's own list,
/// which BTF does not tell; so this is what [`crate::source::bpf`] checks against a memory.stat before it is believed.
fn vmstats_index(types: &KernelTypes, item: &'static str) -> Result<u32, TypesError> {
    let length = types.length("memcg_vmstats", "state")?;
    let index = if length == types.value("memcg_stat_item", "MEMCG_NR_STAT")? {
        types.value("node_stat_item", item)?
    } else {
        let known = COMPACT_STATE.iter().find(|(known, _)| *known == item);
        let unexpected =
            TypesError::Unexpected { structure: "memcg_vmstats", difference: "an item has no known place" };
        known.ok_or(unexpected)?.1
    };
    if index >= length {
        return Err(TypesError::Unexpected { structure: "memcg_vmstats", difference: "its state is too short" });
    }
    Ok(index)
}

/// `memcg_node_stat_items` of `mm/memcontrol.c` from 6.11 on; new items were added behind these.
/// <https://github.com/torvalds/linux/blob/v6.12/mm/memcontrol.c#L290-L330>
const COMPACT_STATE: [(&str, u32); 3] = [("NR_INACTIVE_FILE", 2), ("NR_ANON_MAPPED", 14), ("NR_FILE_PAGES", 16)];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn this_kernel_has_them_all() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        if !path.exists() {
            eprintln!("SKIPPED: this kernel has no BTF");
            return;
        }
        let types = KernelTypes::open(path).unwrap();
        let Ok(Found { offsets, missing, .. }) = find(&types) else { panic!("no walk on this kernel") };
        // Members of one structure do not overlap.
        let mut of_cgroup =
            [offsets.cgroup_kn, offsets.cgroup_level, offsets.cgroup_self_parent, offsets.cgroup_cpu_ns];
        of_cgroup.sort_unstable();
        assert!(of_cgroup.windows(2).all(|pair| pair[1] - pair[0] >= 4), "{offsets:?}");
        // A kernel may be built without a controller; what is missing then is said.
        assert_eq!(offsets.groups.count_ones() as usize + missing.len(), GROUPS.len());
        assert!(types.has_function("cgroup_mkdir"));
        assert!(!types.has_function("cgroup"), "a structure is no function");
    }
}
