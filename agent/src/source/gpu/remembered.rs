//! Remembers in a file of the host the largest set of GPUs that this node is known to have had at once, by UUID. So if
//! three of eight GPUs are missing after a reboot, the node does not count as a complete node with five.
//!
//! The file is replaced if there are more devices than remembered, or as many but others (one was replaced). It is
//! never replaced by fewer devices, even if none of them is remembered: a virtual machine that was started on another
//! host has other devices, and may lack some. A file of another machine, as identified by the firmware, is ignored. A
//! damaged file is ignored, too, and kept under another name. Removing the file (`mcad-agent forget-gpus`) makes the
//! agent remember the devices that are present.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use crate::state_file::{self, Durability, StateFile};

const FILE: &str = "gpus";
const HEAD: &str = "mcad-agent gpus";
/// The text before the machine's id in the head.
const MACHINE: &str = " machine ";

/// The firmware's id of the machine, below `/sys`. A virtual machine keeps it when it is started elsewhere, and a copy
/// of one gets another.
const MACHINE_FILE: &str = "class/dmi/id/product_uuid";

/// A UUID has 36 bytes. A longer text is not an id.
const MACHINE_BYTES_AT_MOST: u64 = 64;

/// More than any node has, not counting MIG instances.
const DEVICES_AT_MOST: usize = 256;
/// NVML's maximal length.
const UUID_BYTES_AT_MOST: usize = 96;
/// This many UUIDs of NVML's maximum length, and the head.
const BYTES_AT_MOST: u64 = 32 * 1024;

/// The remembered devices.
#[derive(Debug)]
pub(super) struct Remembered {
    file: Option<StateFile>,
    /// `None` if the firmware or the agent's rights do not allow reading it. Then every file counts as this machine's.
    machine: Option<String>,
    uuids: BTreeSet<Arc<str>>,
    /// Whether the file has the same contents. If it does and is then missing, someone removed it.
    kept: bool,
    /// Whether a problem with the file was logged.
    told: bool,
}

impl Remembered {
    /// Remembers in this directory, for the machine of this `/sys`; without a directory, only in this process.
    pub(super) fn new(state_dir: Option<&Path>, sys_root: &Path) -> Self {
        let file = state_dir.map(|directory| StateFile::new(directory, FILE, BYTES_AT_MOST));
        Self { file, machine: machine(sys_root), uuids: BTreeSet::new(), kept: false, told: false }
    }

    /// Records the devices that are present, and returns how many are remembered. `None` if none are known.
    pub(super) fn note<'a>(&mut self, present: impl Iterator<Item = &'a Arc<str>>) -> Option<u32> {
        self.recall();
        let present: BTreeSet<Arc<str>> = present.filter(|uuid| is_uuid(uuid)).take(DEVICES_AT_MOST).cloned().collect();
        if present != self.uuids && present.len() >= self.uuids.len() {
            self.uuids = present;
            self.kept = false;
        }
        if !self.kept {
            self.keep();
        }
        u32::try_from(self.uuids.len()).ok().filter(|count| *count > 0)
    }

    /// Reads the file, because another process may have changed it.
    fn recall(&mut self) {
        let Some(file) = &self.file else { return };
        let path = file.path().display();
        match read(file) {
            Ok(memory) if memory.is_of(self.machine.as_deref()) => {
                self.uuids = memory.uuids;
                self.kept = true;
            }
            Ok(_) => {
                if !self.told {
                    tracing::info!(%path, "the file of remembered GPUs is from another machine and is ignored");
                }
                (self.kept, self.told) = (false, true);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.kept {
                    tracing::info!("the remembered GPUs of this node were removed");
                    self.uuids.clear();
                }
                self.kept = false;
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                file.put_aside(&error);
                self.kept = false;
            }
            Err(error) => {
                if !self.told {
                    tracing::warn!(%path, %error, "the file of remembered GPUs can't be read");
                }
                (self.kept, self.told) = (false, true);
            }
        }
    }

    fn keep(&mut self) {
        let Some(file) = &self.file else { return };
        if self.uuids.is_empty() {
            return;
        }
        match file.replace(&text(self.machine.as_deref(), &self.uuids), Durability::ForGood) {
            Ok(()) => (self.kept, self.told) = (true, false),
            Err(error) => {
                if !self.told {
                    tracing::warn!(path = %file.path().display(), %error, "the file of remembered GPUs can't be written");
                }
                self.told = true;
            }
        }
    }
}

/// Whether the text can be a line of the file. Invalid data of a broken library cannot.
fn is_uuid(text: &str) -> bool {
    (1..=UUID_BYTES_AT_MOST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Removes the file in this directory. Returns whether there was one.
pub fn forget(state_dir: &Path) -> io::Result<bool> {
    match fs::remove_file(state_dir.join(FILE)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The contents of a file.
struct Memory {
    /// `None` if it was not known.
    machine: Option<String>,
    uuids: BTreeSet<Arc<str>>,
}

impl Memory {
    fn is_of(&self, machine: Option<&str>) -> bool {
        match (self.machine.as_deref(), machine) {
            (Some(written), Some(here)) => written == here,
            _ => true,
        }
    }
}

fn machine(sys_root: &Path) -> Option<String> {
    let mut text = String::new();
    let file = fs::File::open(sys_root.join(MACHINE_FILE)).ok()?;
    file.take(MACHINE_BYTES_AT_MOST).read_to_string(&mut text).ok()?;
    let name = text.trim();
    let is_uuid = name.len() == 36 && name.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    // Firmware without a configured id reports all zeros, or all ones, on every machine.
    let says = |byte: u8| !matches!(byte.to_ascii_lowercase(), b'0' | b'f' | b'-');
    (is_uuid && name.bytes().any(says)).then(|| name.to_ascii_lowercase())
}

fn read(file: &StateFile) -> io::Result<Memory> {
    parse(&file.read()?).ok_or_else(|| state_file::damaged("this version of the agent cannot parse it"))
}

/// The head has the number of lines that follow, so that half a file does not look like a smaller node.
fn parse(text: &str) -> Option<Memory> {
    let mut lines = text.lines();
    let head = lines.next()?.strip_prefix(HEAD)?;
    let (count, machine) =
        head.split_once(MACHINE).map_or((head, None), |(count, name)| (count, Some(name.to_owned())));
    let count: usize = count.trim().parse().ok()?;
    let uuids: BTreeSet<Arc<str>> = lines.map(Arc::from).collect();
    let whole = text.ends_with('\n') && uuids.len() == count && count <= DEVICES_AT_MOST;
    whole.then_some(Memory { machine, uuids })
}

fn text(machine: Option<&str>, uuids: &BTreeSet<Arc<str>>) -> String {
    let mut text = format!("{HEAD} {}", uuids.len());
    if let Some(machine) = machine {
        text.push_str(MACHINE);
        text.push_str(machine);
    }
    text.push('\n');
    for uuid in uuids {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{uuid}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuids(names: &str) -> Vec<Arc<str>> {
        names.split(' ').filter(|name| !name.is_empty()).map(Arc::from).collect()
    }

    fn check(directory: &Path, present: &str, expected: Option<u32>) {
        // A new process each time.
        let mut remembered = Remembered::new(Some(directory), directory);
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
        // One was replaced: the present devices are remembered.
        check(directory, "a b c d f", Some(5));
        // All of them are others, and three are missing.
        check(directory, "v w", Some(5));
        check(directory, "v w x y z", Some(5));
        check(directory, "a b c d f", Some(5));
    }

    #[test]
    fn a_file_of_another_machine_says_nothing_of_this_one() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let is = |name: &str| {
            fs::create_dir_all(directory.join("class/dmi/id")).unwrap();
            fs::write(directory.join(MACHINE_FILE), name).unwrap();
        };
        // It was written while the machine was not known, so it counts as this machine's.
        check(directory, "a b c d", Some(4));
        is("4C4C4544-0042-3510-8052-B4C04F4D4E31\n");
        check(directory, "a b c", Some(4));
        check(directory, "a b c d", Some(4));
        check(directory, "a b c d e", Some(5));
        let text = fs::read_to_string(directory.join(FILE)).unwrap();
        assert!(text.starts_with("mcad-agent gpus 5 machine 4c4c4544-0042-3510-8052-b4c04f4d4e31\na\n"), "{text}");
        is("5C4C4544-0042-3510-8052-B4C04F4D4E31\n");
        check(directory, "x", Some(1));
        check(directory, "", Some(1));
        for no_name in
            ["", "Not Settable", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "00000000-0000-0000-0000-000000000000"]
        {
            is(no_name);
            assert_eq!(machine(directory), None);
            check(directory, "", Some(1));
        }
    }

    #[test]
    fn forgetting_makes_the_present_devices_the_memory_also_of_a_running_agent() {
        let directory = tempfile::tempdir().unwrap();
        let mut remembered = Remembered::new(Some(directory.path()), directory.path());
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
            assert_eq!(fs::read_to_string(directory.path().join("gpus.damaged")).unwrap(), damage);
        }
    }

    #[test]
    fn a_pipe_or_a_link_in_its_place_holds_nobody_up_and_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        check(directory.path(), "a b", Some(2));
        fs::remove_file(&path).unwrap();
        let other = directory.path().join("other");
        fs::write(&other, "mcad-agent gpus 3\na\nb\nc\n").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        check(directory.path(), "a b", Some(2));
        assert_eq!(fs::read_to_string(&other).unwrap(), "mcad-agent gpus 3\na\nb\nc\n");
    }

    #[test]
    fn a_file_that_is_damaged_while_the_agent_runs_costs_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut remembered = Remembered::new(Some(directory.path()), directory.path());
        remembered.note(uuids("a b c").iter());
        fs::write(directory.path().join(FILE), "half").unwrap();
        assert_eq!(remembered.note(uuids("a").iter()), Some(3));
        check(directory.path(), "", Some(3));
    }

    #[test]
    fn without_a_directory_or_rights_the_process_remembers() {
        for directory in [None, Some(Path::new("/nonexistent"))] {
            let mut remembered = Remembered::new(directory, Path::new("/nonexistent"));
            assert_eq!(remembered.note(uuids("a b").iter()), Some(2));
            assert_eq!(remembered.note(uuids("a").iter()), Some(2));
        }
    }

    #[test]
    fn what_is_no_uuid_does_not_damage_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let made_up: Vec<Arc<str>> = ["", "a\nb", "ü", "c d", "e"].map(Arc::from).into();
        assert_eq!(Remembered::new(Some(directory.path()), directory.path()).note(made_up.iter()), Some(1));
        check(directory.path(), "", Some(1));
        assert!(!directory.path().join("gpus.damaged").exists());
    }

    #[test]
    fn the_memory_has_a_bound() {
        let many: Vec<Arc<str>> = (0..5000).map(|n| Arc::from(format!("GPU-{n:092}"))).collect();
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Remembered::new(Some(directory.path()), directory.path()).note(many.iter()), Some(256));
        check(directory.path(), "", Some(256));
    }
}
