//! Restricts with Landlock, as far as the kernel supports it, which files this process can open, which processes it can
//! signal and which abstract sockets it can connect to.
//!
//! Landlock also prevents a process from inspecting processes outside of its own domain: this alone denies access to
//! `/proc/PID/environ`, `mem`, `maps` and open files of others, even if `/proc` may be read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, RestrictionStatus, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, Scope, path_beneath_rules,
};

use crate::vendor::VENDORS;

/// The newest set of file rights that is used. Scopes are from the version after it (6.12).
const KNOWN: ABI = ABI::V5;

/// Paths, by what the process may do there. Paths that do not exist are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Read, including everything below.
    pub(super) read: BTreeSet<PathBuf>,
    /// Read, including everything below, and opened very often: cgroups.
    pub(super) read_often: BTreeSet<PathBuf>,
    /// The agent's own files: read, write, create and remove.
    pub(super) write: BTreeSet<PathBuf>,
    /// Read, write and `ioctl`.
    pub(super) devices: BTreeSet<PathBuf>,
    /// Execute and read.
    pub(super) start: BTreeSet<PathBuf>,
}

/// Applies the rules to this thread and all that it starts.
pub(super) fn restrict(rules: &Rules) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let not_needed: BitFlags<AccessFs> =
        AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeFifo | AccessFs::IoctlDev;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)?
        .create()?
        .add_rules(path_beneath_rules(&rules.read, read))?
        // These two rights have no meaning for a cgroup's files. With them, the kernel does not have to check every
        // folder up to the root at each `open`, where it also determines what may be done with the file later.
        .add_rules(path_beneath_rules(&rules.read_often, read | AccessFs::Truncate | AccessFs::IoctlDev))?
        .add_rules(path_beneath_rules(&rules.write, AccessFs::from_all(KNOWN) & !not_needed))?
        .add_rules(path_beneath_rules(&rules.devices, read | AccessFs::WriteFile | AccessFs::IoctlDev))?
        .add_rules(path_beneath_rules(&rules.start, AccessFs::Execute | AccessFs::ReadFile))?
        .restrict_self()
}

/// The nearest existing folder above the path: the path itself may be created later.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    let above = path.ancestors().skip(1).find(|above| above.is_dir());
    above.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Files that this process consists of: its program, the loader, libraries.
pub(super) fn mapped() -> BTreeSet<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..]))).collect()
}

/// The device files of GPU drivers. If a driver is not loaded yet, its files do not exist yet: then all devices, if the
/// bus has such GPUs.
pub(super) fn devices(sys_root: &Path) -> BTreeSet<PathBuf> {
    let mut devices: BTreeSet<PathBuf> =
        ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"].map(PathBuf::from).into();
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let of_driver = |name: &str| VENDORS.iter().any(|vendor| (vendor.is_device)(name));
    let known = entries.filter(|entry| entry.file_name().to_str().is_some_and(of_driver)).map(|entry| entry.path());
    let before = devices.len();
    devices.extend(known);
    if devices.len() == before && has_gpus(sys_root) {
        devices.insert(PathBuf::from("/dev"));
    }
    devices
}

fn has_gpus(sys_root: &Path) -> bool {
    let entries = fs::read_dir(sys_root.join("bus/pci/devices")).into_iter().flatten().flatten();
    let mut vendors = entries.filter_map(|entry| fs::read_to_string(entry.path().join("vendor")).ok());
    vendors.any(|id| VENDORS.iter().any(|vendor| vendor.pci_id == id.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_is_looked_for_above() {
        let directory = tempfile::tempdir().unwrap();
        let there = directory.path();
        assert_eq!(folder_of(&there.join("token")), there);
        assert_eq!(folder_of(&there.join("later/token")), there);
        assert_eq!(folder_of(Path::new("token")), Path::new("."));
    }

    #[test]
    fn this_program_and_its_loader_are_among_what_it_is_made_of() {
        let mapped = mapped();
        assert!(mapped.contains(&std::env::current_exe().unwrap()), "{mapped:?}");
        assert!(mapped.iter().any(|path| path.to_string_lossy().contains("ld-linux")), "{mapped:?}");
    }

    #[test]
    fn all_devices_are_open_only_for_a_driver_that_is_still_to_come() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("bus/pci/devices/0000:18:00.0");
        fs::create_dir_all(&device).unwrap();
        assert!(!devices(directory.path()).contains(Path::new("/dev")));
        fs::write(device.join("vendor"), "0x10de\n").unwrap();
        let has_names = fs::read_dir("/dev")
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("nvidia"));
        assert_eq!(devices(directory.path()).contains(Path::new("/dev")), !has_names);
    }
}
