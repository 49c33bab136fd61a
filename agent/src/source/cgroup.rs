//! Reads cgroups from files: every cgroup v2 directory is walked and read. It is slower than the kernel's iterator by
//! one to two orders of magnitude, needs no rights, and gives the same sample.
//!
//! This module walks the tree; `values` parses a cgroup's files; [`crate::cgroup_mount`] finds where the tree is
//! mounted.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::vec;

use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::sample::{Cgroup, CgroupSample, CgroupSource, Group};
use crate::source::cgroup_file::CgroupFile;
use crate::source::values;
use crate::source::{ReadCgroups, SourceError};

/// The maximum number of cgroups to read; the rest is counted as dropped. A node with 250 pods has about 1,000. The
/// bound prevents a runaway tree from using up the agent's memory.
const MAX_CGROUPS: usize = 65_536;

/// The maximum depth, as each level holds a file descriptor. kubelet nests 5 levels, a cluster in a container 12.
const MAX_DEPTH: usize = 64;

/// Reads cgroups from the files of cgroup v2.
#[derive(Debug)]
pub struct CgroupFiles {
    root: PathBuf,
    max_cgroups: usize,
    max_depth: usize,
}

impl CgroupFiles {
    /// Reads the cgroups of the hierarchy that is mounted at `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root, max_cgroups: MAX_CGROUPS, max_depth: MAX_DEPTH }
    }
}

impl ReadCgroups for CgroupFiles {
    fn source(&self) -> CgroupSource {
        CgroupSource::Files
    }

    fn read(&mut self) -> Result<CgroupSample, SourceError> {
        let failed = |errno: Errno| SourceError::Read { path: self.root.clone(), source: errno.into() };
        let mut walk = Walk::default();
        let root = rustix::fs::open(&self.root, DIRECTORY, Mode::empty()).map_err(failed)?;
        let root = walk.enter(root, 0, Arc::from("/")).map_err(failed)?;
        if !root.is_cgroup_v2 {
            return Err(SourceError::Malformed {
                path: self.root.clone(),
                what: "cgroup.controllers: not a cgroup v2 tree",
            });
        }
        let mut levels = vec![root];
        loop {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { break };
            let Some(name) = level.children.next() else {
                levels.pop();
                continue;
            };
            if walk.cgroups.len() >= self.max_cgroups || depth > self.max_depth {
                walk.dropped += 1;
                continue;
            }
            if let Some(child) = walk.enter_child(level, &name) {
                levels.push(child);
            }
        }
        let seen = u32::try_from(walk.cgroups.len()).unwrap_or(u32::MAX).saturating_add(walk.dropped);
        Ok(CgroupSample {
            source: CgroupSource::Files,
            cgroups: walk.cgroups,
            from_files: Vec::new(),
            probes: None,
            removals: None,
            seen,
            dropped: walk.dropped,
        })
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// One walk over the tree.
#[derive(Default)]
struct Walk {
    cgroups: Vec<Cgroup>,
    /// Ids of `cgroups`, so that none is listed twice, whatever the kernel lists while the tree changes.
    ids: HashSet<u64>,
    dropped: u32,
    /// Reused by every read.
    buffer: Vec<u8>,
}

/// A cgroup whose children are being walked. Its open directory keeps every later step inside this cgroup, even if
/// another one with its name has replaced it.
struct Level {
    directory: OwnedFd,
    id: u64,
    path: Arc<str>,
    children: vec::IntoIter<CString>,
    is_cgroup_v2: bool,
}

/// The contents of a cgroup's directory.
#[derive(Default)]
struct Listing {
    children: Vec<CString>,
    /// Groups of values for which there are files.
    groups: Vec<Group>,
    has_controllers: bool,
    has_cpu_stat: bool,
}

/// Every directory of a cgroup v2 tree has this file.
const CONTROLLERS: &[u8] = b"cgroup.controllers";

impl Walk {
    /// Reads one child and returns it, so that its own children can be walked. `None` if it was removed, can't be read
    /// or was read already.
    fn enter_child(&mut self, parent: &Level, name: &CString) -> Option<Level> {
        let text = name.to_string_lossy();
        let path = if &*parent.path == "/" { format!("/{text}") } else { format!("{}/{text}", parent.path) };
        // cgroupfs has no symbolic links, so a link here would be an attack.
        let entered = rustix::fs::openat(&parent.directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .and_then(|directory| self.enter(directory, parent.id, Arc::from(path)));
        match entered {
            Ok(level) => Some(level),
            Err(errno) if is_gone(errno) => None,
            Err(errno) => {
                tracing::debug!(cgroup = %text, error = %io::Error::from(errno), "a cgroup could not be read");
                self.dropped += 1;
                None
            }
        }
    }

    /// Reads the cgroup of an open directory. `NOENT` means that it was removed or has been read already.
    fn enter(&mut self, directory: OwnedFd, parent_id: u64, path: Arc<str>) -> Result<Level, Errno> {
        let id = rustix::fs::fstat(&directory)?.st_ino;
        let listing = list(&directory)?;
        let mut file = CgroupFile { directory: &directory, buffer: &mut self.buffer };
        // Every cgroup except the root (before Linux 5.8) has a cpu.stat while it exists.
        let mut cgroup = Cgroup { id, parent_id, path: Arc::clone(&path), ..Cgroup::default() };
        match listing.has_cpu_stat {
            true => values::fill_cpu(file.read(values::CPU_STAT)?, &mut cgroup),
            false if parent_id == 0 => {}
            false => return Err(Errno::NOENT),
        }
        for group in &listing.groups {
            values::fill(*group, &mut file, &mut cgroup);
        }
        if !self.ids.insert(id) {
            return Err(Errno::NOENT);
        }
        self.cgroups.push(cgroup);
        let (children, is_cgroup_v2) = (listing.children.into_iter(), listing.has_controllers);
        Ok(Level { directory, id, path, children, is_cgroup_v2 })
    }
}

fn list(directory: &OwnedFd) -> Result<Listing, Errno> {
    let mut listing = Listing::default();
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        match entry.file_type() {
            FileType::Directory if name != c"." && name != c".." => listing.children.push(name.to_owned()),
            FileType::RegularFile => {
                listing.has_controllers |= name.to_bytes() == CONTROLLERS;
                listing.has_cpu_stat |= name.to_bytes() == values::CPU_STAT.as_bytes();
                listing.groups.extend(values::group_of(name.to_bytes()));
            }
            _ => {}
        }
    }
    Ok(listing)
}

/// Whether the cgroup was removed: before its directory was opened, or after that (cgroupfs returns `ENODEV`).
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::sample::Reason;

    fn cgroup(root: &Path, path: &str, files: &[(&str, &str)]) {
        let directory = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in [("cgroup.controllers", ""), ("cpu.stat", "usage_usec 0\n")].iter().chain(files) {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        cgroup(root.path(), "/", &[("cpu.stat", "usage_usec 9\nuser_usec 5\n")]);
        cgroup(
            root.path(),
            "/a",
            &[
                ("cpu.stat", "usage_usec 7\nuser_usec 5\nsystem_usec 2\n"),
                ("memory.current", "4096\n"),
                ("memory.stat", "anon 1\nfile 2048\ninactive_file_x 3\ninactive_file 1024\n"),
                ("memory.events", "low 0\noom 4\noom_kill 2\noom_group_kill 1\n"),
            ],
        );
        cgroup(root.path(), "/a/b", &[]);
        root
    }

    fn paths(sample: &CgroupSample) -> Vec<&str> {
        sample.cgroups.iter().map(|cgroup| &*cgroup.path).collect()
    }

    #[test]
    fn each_cgroup_is_read_once_and_parents_before_children() {
        let root = tree();
        let sample = CgroupFiles::new(root.path().to_owned()).read().unwrap();
        assert_eq!(paths(&sample), ["/", "/a", "/a/b"]);
        assert_eq!((sample.source, sample.seen, sample.dropped), (CgroupSource::Files, 3, 0));
        let [top, a, b] = &sample.cgroups[..] else { panic!("not three") };
        assert_eq!((top.parent_id, a.parent_id, b.parent_id), (0, top.id, a.id));
        assert_eq!(top.cpu_ns, Some(9000));
    }

    #[test]
    fn figures_come_from_their_files_in_ns_and_bytes() {
        let root = tree();
        let sample = CgroupFiles::new(root.path().to_owned()).read().unwrap();
        let a = &sample.cgroups[1];
        assert_eq!(a.cpu_ns, Some(7000));
        assert_eq!((a.memory_bytes, a.memory_inactive_file_bytes, a.oom_kills), (Some(4096), Some(1024), Some(2)));
    }

    #[test]
    fn without_the_memory_controller_memory_is_absent_and_not_zero() {
        let root = tree();
        let sample = CgroupFiles::new(root.path().to_owned()).read().unwrap();
        let b = &sample.cgroups[2];
        assert_eq!((b.memory_bytes, b.memory_inactive_file_bytes, b.oom_kills), (None, None, None));
        assert_eq!(b.cpu_ns, Some(0));
    }

    #[test]
    fn links_and_directories_that_are_no_cgroup_are_not_followed() {
        let root = tree();
        std::os::unix::fs::symlink(root.path().join("a"), root.path().join("link")).unwrap();
        fs::create_dir(root.path().join("dying")).unwrap();
        let sample = CgroupFiles::new(root.path().to_owned()).read().unwrap();
        assert_eq!(paths(&sample), ["/", "/a", "/a/b"]);
        assert_eq!(sample.dropped, 0);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let root = tree();
        let mut narrow = CgroupFiles { max_cgroups: 2, ..CgroupFiles::new(root.path().to_owned()) };
        let sample = narrow.read().unwrap();
        assert_eq!((paths(&sample), sample.seen, sample.dropped), (vec!["/", "/a"], 3, 1));
        let mut shallow = CgroupFiles { max_depth: 1, ..CgroupFiles::new(root.path().to_owned()) };
        let sample = shallow.read().unwrap();
        assert_eq!((paths(&sample), sample.seen, sample.dropped), (vec!["/", "/a"], 3, 1));
    }

    #[test]
    fn a_tree_that_is_missing_or_no_cgroup_v2_is_an_error_with_its_reason() {
        let empty = tempfile::tempdir().unwrap();
        let reason = |path: &Path| CgroupFiles::new(path.to_owned()).read().unwrap_err().reason();
        assert_eq!(reason(empty.path()), Reason::Malformed);
        assert_eq!(reason(&empty.path().join("none")), Reason::NotFound);
    }
}
