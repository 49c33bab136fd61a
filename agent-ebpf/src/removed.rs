//! Removed cgroups: what each had used when it went, and its path, while the kernel still knows both.
//!
//! A cgroup that is being removed can't be flushed from here, so its hierarchical totals may be old. But what it used itself the kernel
//! keeps of each processor, fresh at all times; nothing runs in it any more, so the sum over the processors is the last word.
//! (A task that just ended may still be charged a few microseconds later.)
//!
//! Memory of one processor lies at a fixed distance from the pointer that is kept for all of them. That distance has no name in the
//! kernel's types, but a map with memory for each processor shows it: where this processor's part is, less the pointer.

use aya_ebpf::{
    cty::c_void,
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{bpf_map_lookup_percpu_elem, bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_ringbuf_output},
    },
};
use mcad_wire::abi::{ARRAY_HEAD_BYTES, CgroupRemoved, PATH_BYTES, RemovedOffsets, group};

use crate::{cgroup::parent_id, figures, kernel::Kernel, maps};

/// The arguments of the tracepoint: `cgrp`, `path`. It fires with interrupts off and one at a time.
const CONTEXT_CGROUP: u32 = 0;
const CONTEXT_PATH: u32 = 8;

/// More processors than this are not added up: the verifier follows each turn of a loop.
const MAX_CPUS: u32 = 4096;

/// Nobody sleeps on the ring: the agent looks when it samples. `BPF_RB_NO_WAKEUP`
const NO_WAKEUP: u64 = 1;

/// Sent before the path.
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
    // SAFETY: as above. 0 is the hierarchy of v2, on which a machine may also have some of v1.
    if unsafe { root.member::<i32>(offsets.root_hierarchy) } != 0 {
        return 0;
    }
    let (Some(counts), Some(draft)) = (maps::REMOVED_COUNTS.get_ptr_mut(0), maps::REMOVED_DRAFT.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: the entries of these maps. Only one such program runs at a time.
    let (counts, draft) = unsafe { (&mut *counts, &mut *draft) };
    counts.seen += 1;
    // SAFETY: the destination is that long, and the helper takes any address.
    let length =
        unsafe { bpf_probe_read_kernel_str(draft.record.path.as_mut_ptr().cast(), PATH_BYTES as u32 - 1, path.cast()) };
    if length <= 0 {
        counts.dropped += 1;
        return 0;
    }
    // It is never longer; the verifier wants to see that.
    let length = length as usize & (PATH_BYTES - 1);
    // SAFETY: a field of the draft.
    unsafe { (&raw mut draft.record.path_bytes).write_volatile(length as u32) };
    if !has_pod(&draft.record.path, length) {
        return 0;
    }
    // Out of memory again, so that the verifier does not follow the rest for each place at which `pod` was found.
    // SAFETY: a field of the draft.
    let length = unsafe { (&raw const draft.record.path_bytes).read_volatile() } as usize & (PATH_BYTES - 1);
    if fill(cgroup, draft, offsets).is_some() && send(&draft.record, length) {
        counts.told += 1;
    } else {
        counts.dropped += 1;
    }
    0
}

/// Whether there is `pod` in it: kubelet's cgroups are told, and the comings and goings of others leave the ring alone.
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

/// Everything but the path, which is there.
#[inline(always)]
fn fill(cgroup: Kernel, draft: &mut maps::RemovedDraft, offsets: &RemovedOffsets) -> Option<()> {
    let common = &maps::offsets();
    // SAFETY: the agent found these offsets in this kernel's BTF.
    draft.record.id = unsafe { cgroup.follow(common.cgroup_kn)?.member(common.kernfs_id) };
    draft.record.parent_id = parent_id(cgroup, common);
    // SAFETY: a helper without arguments.
    draft.record.at_ns = unsafe { bpf_ktime_get_boot_ns() };
    draft.record.cpu_ns = cpu_ns(cgroup, draft, offsets)?;
    let (oom_kills, groups) = match figures::oom_kills(cgroup, common) {
        Some(oom_kills) => (oom_kills, group::MEMORY_EVENTS),
        None => (0, 0),
    };
    draft.record.oom_kills = oom_kills;
    draft.record.groups = groups;
    Some(())
}

/// What the cgroup alone used on each processor, added up.
#[inline(always)]
fn cpu_ns(cgroup: Kernel, draft: &mut maps::RemovedDraft, offsets: &RemovedOffsets) -> Option<u64> {
    let map = (&raw const maps::REMOVED_DRAFT).cast_mut().cast::<c_void>();
    let end = offsets.array_pointers + size_of::<u64>() as u32;
    if end > ARRAY_HEAD_BYTES as u32 {
        return None;
    }
    // SAFETY: `array_head` is longer than that. The map is its `bpf_array`, for whose beginning no arithmetic is allowed.
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
        // SAFETY: a map with memory for each processor, and its one key.
        let part = unsafe { bpf_map_lookup_percpu_elem(map, (&raw const key).cast(), cpu) };
        // There are as many processors as the agent counted. (No `continue`: the verifier of 6.1 refuses a loop that begins right
        // behind a call.)
        if part.is_null() {
            return None;
        }
        // SAFETY: a field of the draft. Volatile, for the verifier lets pointers be numbers only when they come out of a map again.
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
