//! The most GPUs that this node is known to have had at once, by UUID, kept in a file of the host: after a reboot that
//! hides three of eight, five are not the whole truth.
//!
//! More devices than remembered, or as many others (one was replaced), take the memory's place. So do devices of which
//! not one is remembered: the file came from another machine. A damaged file is as good as none. Who removes the file
//! (`mcad-agent forget-gpus`) makes the present devices the memory.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE: &str = "gpus";
const HEAD: &str = "mcad-agent gpus";

/// More than any node has, MIG instances apart.
const DEVICES_AT_MOST: usize = 256;
/// So many UUIDs of NVML's maximal length, and the head.
const BYTES_AT_MOST: u64 = 32 * 1024;

/// The memory.
#[derive(Debug)]
pub(super) struct Remembered {
    path: Option<PathBuf>,
    uuids: BTreeSet<Arc<str>>,
    /// What is in memory is in the file: if that is gone, someone removed it.
    kept: bool,
    /// The file could not be written, and that was logged.
    failing: bool,
}

impl Remembered {
    /// A memory in this directory; without one, of this process alone.
    pub(super) fn new(state_dir: Option<&Path>) -> Self {
        let path = state_dir.map(|directory| directory.join(FILE));
        Self { path, uuids: BTreeSet::new(), kept: false, failing: false }
    }

    /// Takes note of the devices that are present, and says how many are remembered; none known: absent.
    pub(super) fn note<'a>(&mut self, present: impl Iterator<Item = &'a Arc<str>>) -> Option<u32> {
        self.recall();
        let present: BTreeSet<Arc<str>> = present.take(DEVICES_AT_MOST).cloned().collect();
        let others = !present.is_empty() && present.is_disjoint(&self.uuids);
        if present != self.uuids && (present.len() >= self.uuids.len() || others) {
            self.uuids = present;
            self.kept = false;
        }
        if !self.kept {
            self.keep();
        }
        u32::try_from(self.uuids.len()).ok().filter(|count| *count > 0)
    }

    /// Reads the file, if it says something else than this process knows.
    fn recall(&mut self) {
        let Some(path) = &self.path else { return };
        match read(path) {
            Ok(uuids) => {
                self.uuids = uuids;
                self.kept = true;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.kept {
                    tracing::info!("the GPUs of this node were forgotten");
                    self.uuids.clear();
                }
                self.kept = false;
            }
            Err(error) => {
                if self.kept || !self.failing {
                    tracing::warn!(path = %path.display(), %error, "the memory of GPUs can't be read");
                }
                self.kept = false;
            }
        }
    }

    fn keep(&mut self) {
        let Some(path) = &self.path else { return };
        if self.uuids.is_empty() {
            return;
        }
        match write(path, &self.uuids) {
            Ok(()) => (self.kept, self.failing) = (true, false),
            Err(error) => {
                if !self.failing {
                    tracing::warn!(path = %path.display(), %error, "the memory of GPUs can't be kept");
                }
                self.failing = true;
            }
        }
    }
}

/// Removes the memory in this directory; whether there was one.
pub fn forget(state_dir: &Path) -> io::Result<bool> {
    match fs::remove_file(state_dir.join(FILE)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> io::Result<BTreeSet<Arc<str>>> {
    let mut text = String::new();
    fs::File::open(path)?.take(BYTES_AT_MOST).read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "damaged"))
}

/// The head says how many lines follow, so half a file is not a smaller node.
fn parse(text: &str) -> Option<BTreeSet<Arc<str>>> {
    let mut lines = text.lines();
    let count: usize = lines.next()?.strip_prefix(HEAD)?.trim().parse().ok()?;
    let uuids: BTreeSet<Arc<str>> = lines.map(Arc::from).collect();
    let whole = text.ends_with('\n') && uuids.len() == count && count <= DEVICES_AT_MOST;
    whole.then_some(uuids)
}

fn write(path: &Path, uuids: &BTreeSet<Arc<str>>) -> io::Result<()> {
    let mut text = format!("{HEAD} {}\n", uuids.len());
    for uuid in uuids {
        // To a string it never fails.
        let _ = writeln!(text, "{uuid}");
    }
    let next = path.with_extension("next");
    let mut file = fs::File::create(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuids(names: &str) -> Vec<Arc<str>> {
        names.split(' ').filter(|name| !name.is_empty()).map(Arc::from).collect()
    }

    fn check(directory: &Path, present: &str, expected: Option<u32>) {
        // A new process each time.
        let mut remembered = Remembered::new(Some(directory));
        assert_eq!(remembered.note(uuids(present).iter()), expected, "{present:?}");
        assert_eq!(remembered.note(uuids(present).iter()), expected, "{present:?}, again");
    }

    #[test]
    fn the_most_devices_at_once_are_remembered_over_a_reboot() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        check(directory, "", None);
        check(directory, "a b c d", Some(4));
        check(directory, "a d", Some(4));
        check(directory, "", Some(4));
        check(directory, "a b c d e", Some(5));
        // One was replaced: what is remembered is what is there now.
        check(directory, "a b c d f", Some(5));
        check(directory, "e", Some(1));
    }

    #[test]
    fn forgetting_makes_the_present_devices_the_memory_also_of_a_running_agent() {
        let directory = tempfile::tempdir().unwrap();
        let mut remembered = Remembered::new(Some(directory.path()));
        assert_eq!(remembered.note(uuids("a b c").iter()), Some(3));
        assert_eq!(remembered.note(uuids("a").iter()), Some(3));
        assert!(forget(directory.path()).unwrap());
        assert!(!forget(directory.path()).unwrap());
        assert_eq!(remembered.note(uuids("a").iter()), Some(1));
        check(directory.path(), "", Some(1));
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none_and_is_mended() {
        for damage in ["", "mcad-agent gpus 3\na\nb\n", "mcad-agent gpus 2\na\nb", "\0\0\0", "mcad-agent gpus x\n"] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(FILE), damage).unwrap();
            check(directory.path(), "a b", Some(2));
            assert_eq!(fs::read_to_string(directory.path().join(FILE)).unwrap(), "mcad-agent gpus 2\na\nb\n");
        }
    }

    #[test]
    fn a_file_that_is_damaged_while_the_agent_runs_costs_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut remembered = Remembered::new(Some(directory.path()));
        remembered.note(uuids("a b c").iter());
        fs::write(directory.path().join(FILE), "half").unwrap();
        assert_eq!(remembered.note(uuids("a").iter()), Some(3));
        check(directory.path(), "", Some(3));
    }

    #[test]
    fn without_a_directory_or_rights_the_process_remembers() {
        for directory in [None, Some(Path::new("/nonexistent"))] {
            let mut remembered = Remembered::new(directory);
            assert_eq!(remembered.note(uuids("a b").iter()), Some(2));
            assert_eq!(remembered.note(uuids("a").iter()), Some(2));
        }
    }

    #[test]
    fn the_memory_has_a_bound() {
        let many: Vec<Arc<str>> = (0..5000).map(|n| Arc::from(format!("GPU-{n:092}"))).collect();
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Remembered::new(Some(directory.path())).note(many.iter()), Some(256));
        check(directory.path(), "", Some(256));
    }
}
