//! The cgroup iterator: the kernel calls it once per cgroup, parents first, and once more at the end.
//!
//! It runs inside one `read` of the agent, under `cgroup_mutex`, so the tree does not change during the walk. It reads
//! totals that the kernel keeps, and counts nothing itself. It writes no output for that `read`, because the kernel
//! ends a walk after 8 pages of output; records go to a mapped array instead.

use aya_ebpf::{cty::c_void, helpers::bpf_probe_read_kernel_str_bytes};
use mcad_wire::abi::{CgroupOffsets, WalkState};

use crate::{kernel::Kernel, maps, values};

/// `struct bpf_iter__cgroup`: two pointers, `meta` and `cgroup`. It is the iterator's ABI and the same on all kernels.
const CONTEXT_META: u32 = 0;
const CONTEXT_CGROUP: u32 = 8;
/// `struct bpf_iter_meta`: `seq`, `session_id`, `seq_num`; the same.
const META_SESSION: u32 = 8;

/// 0 continues with the next cgroup. No other return value of the iterator is useful here.
const NEXT: i32 = 0;

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter.s/cgroup")]
extern "C" fn walk_cgroups(context: *mut c_void) -> i32 {
    let Some(context) = Kernel::new(context.cast_const().cast()) else { return NEXT };
    // SAFETY: the context's layout is the iterator's ABI.
    let (meta, cgroup) = unsafe { (context.follow(CONTEXT_META), context.follow(CONTEXT_CGROUP)) };
    let Some(meta) = meta else { return NEXT };
    // SAFETY: as above.
    let session: u64 = unsafe { meta.member(META_SESSION) };
    let Some(walk) = maps::WALK.get_ptr_mut(0) else { return NEXT };
    // SAFETY: the map has one entry of this type, and only one walk runs at a time, because the agent has only one
    // reader.
    let walk = unsafe { &mut *walk };
    if walk.session != session {
        *walk = WalkState { session, finished_session: walk.finished_session, written: 0, dropped: 0 };
    }
    match cgroup {
        Some(cgroup) => record(walk, cgroup),
        // The call after the last cgroup.
        None => walk.finished_session = session,
    }
    NEXT
}

#[inline(always)]
fn record(walk: &mut WalkState, cgroup: Kernel) {
    let index = walk.written;
    if index >= maps::capacity() {
        walk.dropped += 1;
        return;
    }
    let (Some(slot), Some(name)) = (maps::RECORDS.get_ptr_mut(index), maps::NAMES.get_ptr_mut(index)) else {
        walk.dropped += 1;
        return;
    };
    let offsets = &maps::offsets();
    // SAFETY: the agent found these offsets in this kernel's BTF.
    let Some(node) = (unsafe { cgroup.follow(offsets.cgroup_kn) }) else {
        walk.dropped += 1;
        return;
    };
    // SAFETY: as above.
    let id: u64 = unsafe { node.member(offsets.kernfs_id) };
    // SAFETY: no other code uses the slot until the walk ends, and any bit pattern is a record.
    let record = unsafe { &mut *slot };
    record.session = walk.session;
    record.id = id;
    record.parent_id = parent_id(cgroup, offsets);
    // SAFETY: the offsets as above.
    unsafe {
        record.level = cgroup.member(offsets.cgroup_level);
        record.cpu_ns = cgroup.member(offsets.cgroup_cpu_ns);
    }
    record.groups = values::read(cgroup, offsets, record);
    // SAFETY: as above. The name is copied only if the slot is given to another cgroup: names do not change, and ids
    // are not reused.
    unsafe {
        if (*name).id != id {
            let text: *const u8 = node.member(offsets.kernfs_name);
            match bpf_probe_read_kernel_str_bytes(text, &mut (*name).bytes) {
                Ok(_) => (*name).id = id,
                Err(_) => (*name).id = 0,
            }
        }
    }
    walk.written = index + 1;
}

/// The parent's id; 0 for the root of the hierarchy.
#[inline(always)]
pub(crate) fn parent_id(cgroup: Kernel, offsets: &CgroupOffsets) -> u64 {
    // SAFETY: the agent found these offsets in this kernel's BTF.
    unsafe {
        let Some(state) = cgroup.follow(offsets.cgroup_self_parent) else { return 0 };
        let Some(parent) = state.follow(offsets.css_cgroup) else { return 0 };
        let Some(node) = parent.follow(offsets.cgroup_kn) else { return 0 };
        node.member(offsets.kernfs_id)
    }
}
