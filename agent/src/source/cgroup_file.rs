//! Reads the files of one cgroup as text through its open directory. `values` parses them.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::values::Texts;

/// Limit of a file's length. `memory.stat` has about 2 KiB; `io.stat` some 100 bytes per device.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// The files of one cgroup, read through its open directory: if another cgroup takes its name later, that one is never
/// read instead.
#[derive(Debug)]
pub struct CgroupFile<'a> {
    /// The cgroup's directory.
    pub directory: &'a OwnedFd,
    /// The contents of the last file; reused for the next.
    pub buffer: &'a mut Vec<u8>,
}

impl Texts for CgroupFile<'_> {
    fn text(&mut self, file: &str) -> Option<&str> {
        self.read(file).ok()
    }
}

impl CgroupFile<'_> {
    /// The text of one file. A file longer than the limit is rejected, because its format is unknown.
    pub fn read(&mut self, file: &str) -> Result<&str, Errno> {
        const STEP: usize = 4096;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.directory, file, flags, Mode::empty())?;
        let mut length = 0;
        loop {
            self.buffer.resize(length + STEP, 0);
            match rustix::io::read(&file, &mut self.buffer[length..])? {
                0 => break,
                read => length += read,
            }
            if length > MAX_FILE_BYTES {
                return Err(Errno::FBIG);
            }
        }
        std::str::from_utf8(&self.buffer[..length]).map_err(|_| Errno::ILSEQ)
    }
}

/// The directory of the cgroup with this id.
pub(super) fn open(tree: &Path, id: u64, path: &str) -> Option<OwnedFd> {
    let path = tree.join(path.trim_start_matches('/'));
    let directory = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    (rustix::fs::fstat(&directory).ok()?.st_ino == id).then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_that_is_too_long_nothing_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let directory = OwnedFd::from(std::fs::File::open(folder.path()).unwrap());
        let read = |bytes: usize| {
            let mut buffer = Vec::new();
            std::fs::write(folder.path().join("memory.events"), "x".repeat(bytes)).unwrap();
            let mut file = CgroupFile { directory: &directory, buffer: &mut buffer };
            file.read("memory.events").map(str::len)
        };
        assert_eq!(read(MAX_FILE_BYTES), Ok(MAX_FILE_BYTES));
        assert_eq!(read(MAX_FILE_BYTES + 1), Err(Errno::FBIG));
    }
}
