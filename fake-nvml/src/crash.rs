//! Simulates what a broken library does to the process that loads it.

use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::net::TcpStream;
use std::os::fd::FromRawFd as _;

use crate::scenario::How;

/// How many descriptors are checked: as many as a small process has.
const DESCRIPTORS: i32 = 64;

/// Carries out the crash.
pub(crate) fn crash(how: How) {
    match how {
        How::Abort => std::process::abort(),
        // Like Rust's own exit: handlers run, then the process ends. SAFETY: any number is a valid status.
        How::Exit => unsafe { libc::exit(3) },
        // SAFETY: none. The write to the invalid address 8 is intended.
        How::Segfault => unsafe { std::ptr::without_provenance_mut::<u32>(8).write_volatile(1) },
        How::Nonsense => write_everywhere(),
    }
}

fn write_everywhere() {
    for descriptor in 0..DESCRIPTORS {
        let mut kind = 0;
        let mut size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: there is room for one number, according to `size`; an invalid descriptor is an error.
        let is_socket = unsafe {
            libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut size)
        } == 0;
        if is_socket || descriptor == 1 {
            // SAFETY: the descriptor is open, or writing to it fails; it is not closed here.
            let mut socket = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(descriptor) });
            let _ = socket.write_all(b"NVRM: this is not the answer that anybody waits for\n");
        }
    }
}
