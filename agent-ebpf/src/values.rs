//! The values that controllers keep of one cgroup, copied group by group. A group is either complete or missing.

use mcad_wire::abi::{CgroupOffsets, CgroupRecord, MAX_DEVICES, group};

use crate::kernel::Kernel;

/// Fills the record and returns the groups that it holds.
#[inline(always)]
pub(crate) fn read(cgroup: Kernel, offsets: &CgroupOffsets, record: &mut CgroupRecord) -> u32 {
    let known = |group: u32| offsets.groups & group != 0;
    let mut groups = 0;
    if known(group::THROTTLING) && throttling(cgroup, offsets, record).is_some() {
        groups |= group::THROTTLING;
    }
    if let Some(memory) = state(cgroup, offsets.groups & group::ANY_MEMORY, offsets.cgroup_memory) {
        if known(group::MEMORY) && usage(memory, offsets, record).is_some() {
            groups |= group::MEMORY;
        }
        if known(group::MEMORY_STATE) && memory_state(memory, offsets, record).is_some() {
            groups |= group::MEMORY_STATE;
        }
        if known(group::MEMORY_EVENTS) && memory_events(memory, offsets, record).is_some() {
            groups |= group::MEMORY_EVENTS;
        }
    }
    if known(group::PIDS) && pids(cgroup, offsets, record).is_some() {
        groups |= group::PIDS;
    }
    if known(group::PRESSURE) && pressure(cgroup, offsets, record).is_some() {
        groups |= group::PRESSURE;
    }
    if let Some(io) = state(cgroup, offsets.groups & group::IO, offsets.cgroup_io) {
        groups |= if add_up_devices(io, offsets, record).is_some() { group::IO } else { group::IO_INCOMPLETE };
    }
    groups
}

/// OOM-killed processes: the only event that is read of a removed cgroup.
#[inline(always)]
pub(crate) fn oom_kills(cgroup: Kernel, offsets: &CgroupOffsets) -> Option<u64> {
    let memory = state(cgroup, offsets.groups & group::MEMORY_EVENTS, offsets.cgroup_memory)?;
    memory.copy(offsets.memory_oom_kills)
}

/// A controller's state of the cgroup. `None` if the controller is disabled there, or none of its groups can be read.
#[inline(always)]
fn state(cgroup: Kernel, groups: u32, offset: u32) -> Option<Kernel> {
    if groups == 0 {
        return None;
    }
    // SAFETY: the agent found this offset in this kernel's BTF.
    unsafe { cgroup.follow(offset) }
}

#[inline(always)]
fn throttling(cgroup: Kernel, offsets: &CgroupOffsets, record: &mut CgroupRecord) -> Option<()> {
    let cpu = state(cgroup, group::THROTTLING, offsets.cgroup_cpu)?;
    record.periods = cpu.copy(offsets.cpu_periods)?;
    record.throttled_periods = cpu.copy(offsets.cpu_throttled_periods)?;
    record.throttled_ns = cpu.copy(offsets.cpu_throttled_ns)?;
    Some(())
}

#[inline(always)]
fn usage(memory: Kernel, offsets: &CgroupOffsets, record: &mut CgroupRecord) -> Option<()> {
    record.memory_pages = memory.copy(offsets.memory_usage)?;
    record.memory_peak_pages = memory.copy(offsets.memory_peak)?;
    record.memory_max_pages = memory.copy(offsets.memory_max)?;
    Some(())
}

#[inline(always)]
fn memory_state(memory: Kernel, offsets: &CgroupOffsets, record: &mut CgroupRecord) -> Option<()> {
    let vmstats = memory.copy_pointer(offsets.memory_vmstats)?;
    record.anon_pages = vmstats.copy(offsets.vmstats_anon)?;
    record.file_pages = vmstats.copy(offsets.vmstats_file)?;
    record.inactive_file_pages = vmstats.copy(offsets.vmstats_inactive_file)?;
    Some(())
}

#[inline(always)]
fn memory_events(memory: Kernel, offsets: &CgroupOffsets, record: &mut CgroupRecord) -> Option<()> {
    record.oom_kills = memory.copy(offsets.memory_oom_kills)?;
    record.max_events = memory.copy(offsets.memory_max_events)?;
    record.high_events = memory.copy(offsets.memory_high_events)?;
    Some(())
}

#[inline(always)]
fn pids(cgroup: Kernel, offsets: &CgroupOffsets, record: &mut CgroupRecord) -> Option<()> {
    let pids = state(cgroup, group::PIDS, offsets.cgroup_pids)?;
    record.pids = pids.copy(offsets.pids_current)?;
    record.pids_limit = pids.copy(offsets.pids_limit)?;
    Some(())
}

#[inline(always)]
fn pressure(cgroup: Kernel, offsets: &CgroupOffsets, record: &mut CgroupRecord) -> Option<()> {
    // SAFETY: the agent found these offsets in this kernel's BTF.
    let psi = unsafe { cgroup.follow(offsets.cgroup_psi) }?;
    if psi.copy::<u8>(offsets.psi_enabled)? == 0 {
        return None;
    }
    record.pressure_ns = psi.copy(offsets.psi_total)?;
    Some(())
}

/// A device may be removed while this runs, so each entry is checked for its owner after it was read.
#[inline(always)]
fn add_up_devices(io: Kernel, offsets: &CgroupOffsets, record: &mut CgroupRecord) -> Option<()> {
    let owner = io.address().wrapping_sub(offsets.io_state as u64);
    let mut bytes = [0_u64; 2];
    let mut node = io.copy_pointer(offsets.io_devices);
    for _ in 0..MAX_DEVICES {
        let Some(device) = node else { break };
        let [read, written]: [u64; 2] = device.container(offsets.device_node).copy(offsets.device_bytes)?;
        if device.container(offsets.device_node).copy::<u64>(offsets.device_owner)? != owner {
            return None;
        }
        bytes[0] += read;
        bytes[1] += written;
        node = device.copy_pointer(offsets.node_next);
    }
    if node.is_some() {
        return None;
    }
    record.io_bytes = bytes;
    Some(())
}
