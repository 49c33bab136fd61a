//! Looks up where this kernel keeps what the probes read, and decides what to do if something is missing.
//!
//! The table [`CgroupOffsets::PLACES`] lists which members are needed. Kernels differ in every offset and in some
//! names, so no offset is compiled in: [`KernelTypes`] looks them up.

use mcad_wire::abi::{CgroupOffsets, Place, group};

use crate::kernel_types::{KernelTypes, TypesError};

/// Where the cgroup walk finds what it reads.
#[derive(Debug)]
pub struct Found {
    /// The offsets for the eBPF programs. Groups of values that were not found are not in `groups`.
    pub offsets: CgroupOffsets,
    /// Why each missing group is missing.
    pub missing: Vec<TypesError>,
    /// How totals are brought up to date.
    pub flush: Flush,
}

/// What is updated when the `cpu.stat` file of a cgroup is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// All totals of the cgroup and its descendants.
    Together,
    /// CPU time only; memory and io are updated by their own files (since 6.16).
    Apart,
}

/// The offsets for the cgroup iterator. An error if the kernel lacks a member that every walk needs.
pub fn find(types: &KernelTypes) -> Result<Found, TypesError> {
    let mut offsets = CgroupOffsets::default();
    find_those_of(types, &mut offsets, |groups| groups == group::NONE)?;
    let mut missing = Vec::new();
    for group in group::ALL {
        // On a copy: nothing is kept of a group that is found only in part.
        let mut with_group = offsets;
        let found = is_as_expected(types, group)
            .and_then(|()| find_those_of(types, &mut with_group, |groups| groups & group != 0));
        match found {
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

fn find_those_of(
    types: &KernelTypes,
    offsets: &mut CgroupOffsets,
    wanted: impl Fn(u32) -> bool,
) -> Result<(), TypesError> {
    for (_, place, take) in CgroupOffsets::PLACES.iter().filter(|(groups, ..)| wanted(*groups)) {
        take(offsets, at(types, *place)?);
    }
    Ok(())
}

/// The offset of a place on this kernel.
fn at(types: &KernelTypes, place: Place) -> Result<u32, TypesError> {
    match place {
        Place::Member(structure, path) => types.offset(structure, path),
        Place::Pointer(structure, path) => types.pointer(structure, path),
        Place::Sized(structure, path, bytes) => types.sized(structure, path, bytes),
        Place::Longs(structure, path, count) => {
            types.element(structure, path, count.saturating_sub(1), LONG_BYTES)?;
            types.element(structure, path, 0, LONG_BYTES)
        }
        Place::State(controller) => state(types, controller),
        Place::Within(structure, path, bytes) => after_state(types, structure, types.sized(structure, path, bytes)?),
        Place::PointerWithin(structure, path) => after_state(types, structure, types.pointer(structure, path)?),
        Place::MemoryEvent(event) => {
            let index = types.value("memcg_memory_event", event)?;
            after_state(types, "mem_cgroup", types.element("mem_cgroup", "memory_events", index, LONG_BYTES)?)
        }
        Place::MemoryStatistic(item) => {
            types.element("memcg_vmstats", "state", vmstats_index(types, item)?, LONG_BYTES)
        }
    }
}

/// What a group requires of this kernel besides its places: pressure is copied as it is in memory.
fn is_as_expected(types: &KernelTypes, group: u32) -> Result<(), TypesError> {
    if group != group::PRESSURE {
        return Ok(());
    }
    let order = ["PSI_IO_SOME", "PSI_IO_FULL", "PSI_MEM_SOME", "PSI_MEM_FULL", "PSI_CPU_SOME", "PSI_CPU_FULL"];
    for (place, state) in order.into_iter().enumerate() {
        if types.value("psi_states", state)? as usize != place {
            return Err(TypesError::Unexpected { structure: "psi_group", difference: "its totals have another order" });
        }
    }
    Ok(())
}

/// A `long` or a pointer, the element type of the arrays here, on the 64-bit machines that the agent runs on.
const LONG_BYTES: u32 = 8;

/// Where a cgroup keeps the pointer to a controller's state.
fn state(types: &KernelTypes, controller: &'static str) -> Result<u32, TypesError> {
    let place = types.value("cgroup_subsys_id", controller)?;
    if place >= types.length("cgroup", "subsys")? {
        return Err(TypesError::Unexpected { structure: "cgroup", difference: "it has no entry for a controller" });
    }
    types.element("cgroup", "subsys", place, LONG_BYTES)
}

/// The offset of a member, relative to the member `css`, a controller's state, of the same structure.
fn after_state(types: &KernelTypes, structure: &'static str, member: u32) -> Result<u32, TypesError> {
    let difference = "a member that the agent reads precedes the member `css`";
    let state = types.offset(structure, "css")?;
    member.checked_sub(state).ok_or(TypesError::Unexpected { structure, difference })
}

/// The index of an item in `memcg_vmstats.state`.
///
/// Up to 6.10 it is the item's own number. Later the array holds only what memory.stat shows, in the order of a list in
/// the kernel's source, which BTF does not include. Therefore [`crate::source::bpf`] compares the values with a
/// memory.stat file before it uses them.
fn vmstats_index(types: &KernelTypes, item: &'static str) -> Result<u32, TypesError> {
    let length = types.length("memcg_vmstats", "state")?;
    let index = if length == types.value("memcg_stat_item", "MEMCG_NR_STAT")? {
        types.value("node_stat_item", item)?
    } else {
        let known = COMPACT_STATE.iter().find(|(known, _)| *known == item);
        let unexpected =
            TypesError::Unexpected { structure: "memcg_vmstats", difference: "the index of an item is unknown" };
        known.ok_or(unexpected)?.1
    };
    if index >= length {
        return Err(TypesError::Unexpected {
            structure: "memcg_vmstats",
            difference: "its array `state` is too short",
        });
    }
    Ok(index)
}

/// `memcg_node_stat_items` of `mm/memcontrol.c` from 6.11 on; new items were added after these.
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
        // A kernel may be built without a controller; then an error says what is missing.
        assert_eq!(offsets.groups.count_ones() as usize + missing.len(), group::ALL.len());
        assert!(types.has_function("cgroup_mkdir"));
        assert!(!types.has_function("cgroup"), "a structure is no function");
    }
}
