//! What a broken library does to the process that it is loaded into.

use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::net::TcpStream;
use std::os::fd::FromRawFd as _;

use crate::scenario::How;

/// As many descriptors are looked at as a small process has.
const DESCRIPTORS: i32 = 64;

/// Does it.
pub(crate) fn crash(how: How) {
    match how {
        How::Abort => std::process::abort(),
        // Rust's own exit would do the same: handlers run, then the process is gone.
        // SAFETY: any number is a status.
        How::Exit => unsafe { libc::exit(3) },
        // SAFETY: none. Nothing is at address 8, and that is the purpose.
        How::Segfault => unsafe { std::ptr::without_provenance_mut::<u32>(8).write_volatile(1) },
        How::Nonsense => write_everywhere(),
    }
}

fn write_everywhere() {
    for descriptor in 0..DESCRIPTORS {
        let mut kind = 0;
        let mut size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: there is room for one number, as `size` says; a descriptor that is none is an error.
        let is_socket = unsafe {
            libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut size)
        } == 0;
        if is_socket || descriptor == 1 {
            // SAFETY: the descriptor is open or writing to it fails; it is not closed here.
            let mut socket = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(descriptor) });
            let _ = socket.write_all(b"NVRM: this is not the answer that anybody waits for\n");
        }
    }
}
