//! Removed cgroups: what each had used when it was removed, and its path, while the kernel still has both.
//!
//! A cgroup that is being removed can't be flushed from here, so its hierarchical totals may be out of date. But the
//! kernel keeps what the cgroup itself used for each CPU, always up to date. Nothing runs in it any more, so the sum
//! over the CPUs is final. (A task that just ended may still be charged a few microseconds later.)
//!
//! The memory of one CPU is at a fixed distance from the pointer that is kept for all of them. The kernel's types have
//! no name for that distance, but a map with memory for each CPU reveals it: the address of this CPU's part minus the
//! pointer.

use aya_ebpf::{
    cty::c_void,
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{bpf_map_lookup_percpu_elem, bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_ringbuf_output},
    },
};
use mcad_wire::abi::{ARRAY_HEAD_BYTES, CgroupRemoved, PATH_BYTES, RemovedOffsets, group};

use crate::{cgroup::parent_id, kernel::Kernel, maps, values};

/// The arguments of the tracepoint: `cgrp`, `path`. It fires with interrupts off and for one cgroup at a time.
const CONTEXT_CGROUP: u32 = 0;
const CONTEXT_PATH: u32 = 8;

/// Limit of CPUs that are summed up, because the verifier follows each iteration of a loop.
const MAX_CPUS: u32 = 4096;

/// No process waits for the ring: the agent reads it when it samples. `BPF_RB_NO_WAKEUP`
const NO_WAKEUP: u64 = 1;

/// The part that is sent before the path.
const HEAD_BYTES: usize = size_of::<CgroupRemoved>() - PATH_BYTES;

#[unsafe(no_mangle)]
#[unsafe(link_section = "tp_btf/cgroup_rmdir")]
extern "C" fn note_removed(context: *mut c_void) -> i32 {
    let Some(context) = Kernel::new(context.cast_const().cast()) else { return 0 };
    // SAFETY: these arguments are the tracepoint's ABI.
    let (cgroup, path): (_, *const u8) = unsafe { (context.follow(CONTEXT_CGROUP), context.member(CONTEXT_PATH)) };
    let Some(cgroup) = cgroup else { return 0 };
    let offsets = &maps::removed_offsets();
    // SAFETY: the agent found these offsets in this kernel's BTF.
    let Some(root) = (unsafe { cgroup.follow(offsets.cgroup_root) }) else { return 0 };
    // SAFETY: as above. 0 is the hierarchy of v2; a machine may also have hierarchies of v1.
    if unsafe { root.member::<i32>(offsets.root_hierarchy) } != 0 {
        return 0;
    }
    let (Some(counts), Some(draft)) = (maps::REMOVED_COUNTS.get_ptr_mut(0), maps::REMOVED_DRAFT.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: the entries of these maps. Only one such program runs at a time.
    let (counts, draft) = unsafe { (&mut *counts, &mut *draft) };
    counts.seen += 1;
    // SAFETY: the destination is that long, and the helper accepts any address.
    let length =
        unsafe { bpf_probe_read_kernel_str(draft.record.path.as_mut_ptr().cast(), PATH_BYTES as u32 - 1, path.cast()) };
    if length <= 0 {
        counts.dropped += 1;
        return 0;
    }
    // It is never longer, but the verifier requires proof.
    let length = length as usize & (PATH_BYTES - 1);
    // SAFETY: a field of the draft.
    unsafe { (&raw mut draft.record.path_bytes).write_volatile(length as u32) };
    if !has_pod(&draft.record.path, length) {
        return 0;
    }
    // Read from memory again, so that the verifier does not follow the rest for each position at which `pod` was found.
    // SAFETY: a field of the draft.
    let length = unsafe { (&raw const draft.record.path_bytes).read_volatile() } as usize & (PATH_BYTES - 1);
    if fill(cgroup, draft, offsets).is_some() && send(&draft.record, length) {
        counts.told += 1;
    } else {
        counts.dropped += 1;
    }
    0
}

/// Whether the path contains `pod`: only kubelet's cgroups are reported, so that others do not fill the ring.
#[inline(always)]
fn has_pod(path: &[u8; PATH_BYTES], length: usize) -> bool {
    for at in 0..PATH_BYTES - 3 {
        if at + 3 > length {
            return false;
        }
        if path[at] == b'p' && path[at + 1] == b'o' && path[at + 2] == b'd' {
            return true;
        }
    }
    false
}

/// Sets everything except the path, which is already there.
#[inline(always)]
fn fill(cgroup: Kernel, draft: &mut maps::RemovedDraft, offsets: &RemovedOffsets) -> Option<()> {
    let common = &maps::offsets();
    // SAFETY: the agent found these offsets in this kernel's BTF.
    draft.record.id = unsafe { cgroup.follow(common.cgroup_kn)?.member(common.kernfs_id) };
    draft.record.parent_id = parent_id(cgroup, common);
    // SAFETY: a helper without arguments.
    draft.record.at_ns = unsafe { bpf_ktime_get_boot_ns() };
    draft.record.cpu_ns = cpu_ns(cgroup, draft, offsets)?;
    let (oom_kills, groups) = match values::oom_kills(cgroup, common) {
        Some(oom_kills) => (oom_kills, group::MEMORY_EVENTS),
        None => (0, 0),
    };
    draft.record.oom_kills = oom_kills;
    draft.record.groups = groups;
    Some(())
}

/// What the cgroup alone used, summed over the CPUs.
#[inline(always)]
fn cpu_ns(cgroup: Kernel, draft: &mut maps::RemovedDraft, offsets: &RemovedOffsets) -> Option<u64> {
    let map = (&raw const maps::REMOVED_DRAFT).cast_mut().cast::<c_void>();
    let end = offsets.array_pointers + size_of::<u64>() as u32;
    if end > ARRAY_HEAD_BYTES as u32 {
        return None;
    }
    // SAFETY: `array_head` is longer than that. The map points to its `bpf_array`, on which the verifier allows no
    // arithmetic.
    let failed = unsafe { bpf_probe_read_kernel(draft.array_head.as_mut_ptr().cast(), end, map.cast_const()) };
    if failed != 0 {
        return None;
    }
    // SAFETY: it ends within `array_head`, as was just checked.
    let pointer: u64 = unsafe {
        draft.array_head.as_ptr().cast::<u8>().add(offsets.array_pointers as usize).cast::<u64>().read_volatile()
    };
    let own = cgroup.copy::<u64>(offsets.cgroup_rstat)?.wrapping_add(u64::from(offsets.rstat_cpu_ns));
    let mut sum = 0;
    let key = 0_u32;
    for cpu in 0..MAX_CPUS {
        if cpu >= offsets.cpus {
            return Some(sum);
        }
        // SAFETY: a map with memory for each CPU, and its only key.
        let part = unsafe { bpf_map_lookup_percpu_elem(map, (&raw const key).cast(), cpu) };
        // There are no more CPUs. (No `continue`: the verifier of 6.1 rejects a loop that begins right after a call.)
        if part.is_null() {
            return None;
        }
        // SAFETY: a field of the draft. Volatile, because the verifier treats a pointer as a number only if it was
        // written to a map and read back.
        let part = unsafe {
            (&raw mut draft.address).cast::<*mut c_void>().write_volatile(part);
            (&raw const draft.address).read_volatile()
        };
        let distance = part.wrapping_sub(pointer);
        sum += Kernel::at(own.wrapping_add(distance)).copy::<u64>(0)?;
    }
    None
}

#[inline(always)]
fn send(record: &CgroupRemoved, length: usize) -> bool {
    let ring = (&raw const maps::REMOVED).cast_mut().cast();
    let size = (HEAD_BYTES + length) as u64;
    // SAFETY: the record is longer than its head and the longest path.
    unsafe { bpf_ringbuf_output(ring, (&raw const *record).cast_mut().cast(), size, NO_WAKEUP) == 0 }
}
