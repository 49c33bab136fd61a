//! The `bpf` commands of the cgroup iterator that aya has no function for.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// `enum bpf_cmd`, `enum bpf_attach_type` and `enum bpf_cgroup_iter_order` of `include/uapi/linux/bpf.h`. aya 0.14
/// attaches iterators without the link information that the cgroup iterator requires.
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
const BPF_TRACE_ITER: u32 = 28;
const BPF_CGROUP_ITER_DESCENDANTS_PRE: u32 = 2;

/// `struct` for `BPF_LINK_CREATE` within `union bpf_attr`.
#[repr(C)]
struct LinkCreate {
    prog_fd: i32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    /// Padding to a multiple of 8; the kernel requires 0.
    padding: u32,
}

/// `cgroup` within `union bpf_iter_link_info`.
#[repr(C)]
struct CgroupLinkInfo {
    order: u32,
    cgroup_fd: i32,
    cgroup_id: u64,
}

/// `struct` for `BPF_ITER_CREATE` within `union bpf_attr`.
#[repr(C)]
struct IterCreate {
    link_fd: i32,
    flags: u32,
}

pub(super) fn create_link(program: BorrowedFd<'_>, tree: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let info = CgroupLinkInfo { order: BPF_CGROUP_ITER_DESCENDANTS_PRE, cgroup_fd: tree.as_raw_fd(), cgroup_id: 0 };
    bpf(
        BPF_LINK_CREATE,
        &LinkCreate {
            prog_fd: program.as_raw_fd(),
            target_fd: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            iter_info: (&raw const info) as u64,
            iter_info_len: size_of::<CgroupLinkInfo>() as u32,
            padding: 0,
        },
    )
}

pub(super) fn create_iterator(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    bpf(BPF_ITER_CREATE, &IterCreate { link_fd: link.as_raw_fd(), flags: 0 })
}

/// A `bpf` command that returns a new file descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes, which exist and are initialised, and what they point to, which
    // the callers keep alive.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just created this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(answer as i32) })
}
