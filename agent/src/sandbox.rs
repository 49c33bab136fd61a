//! Restricts what this process can do while it runs, in addition to the dropped capabilities: it can no longer access
//! other processes of its node, load anything into the kernel, or open files that it does not need. docs/decisions/0005
//! lists what each part of the agent needs.
//!
//! There are two mechanisms, and each may be missing: a filter of system calls (`filter`; every kernel that agents run
//! on has it) and Landlock (`files`; since 5.13, signals and abstract sockets since 6.12). The agent logs what the
//! kernel lacks, and continues.

mod files;
mod filter;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use landlock::{LandlockStatus, RulesetError, RulesetStatus};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use self::files::Rules;
use self::filter::Kind;
use crate::vendor::{HOSTS_FOLDERS, VENDORS};

/// Folders with libraries.
const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr", "/nix/store"];

/// The configuration of name resolution. The whole folder, because a file in it that is replaced becomes another file.
const NAMES: &str = "/etc";

/// The files in it that a loader reads.
const LOADER: [&str; 2] = ["/etc/ld.so.cache", "/etc/ld.so.preload"];

/// `--sandbox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// As far as the kernel supports it.
    On,
    /// Not at all.
    Off,
}

/// Paths from the command line.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// The host's `/proc`.
    pub proc_root: PathBuf,
    /// The host's `/sys`.
    pub sys_root: PathBuf,
    /// The cgroup tree, if there is one.
    pub cgroups: Option<PathBuf>,
    /// The NVML library, if a flag names it.
    pub library: Option<PathBuf>,
    /// Files that kubelet renews: certificates, a token.
    pub renewed: Vec<PathBuf>,
    /// The folder of the agent's own files.
    pub state_dir: Option<PathBuf>,
}

/// What is in force.
#[derive(Debug)]
pub struct Confined {
    /// Whether the agent's memory and open files are hidden from processes without capabilities.
    pub hidden: io::Result<()>,
    /// The filter of system calls.
    pub filter: io::Result<()>,
    /// Restrictions of files and signals.
    pub files: Result<Enforced, RulesetError>,
}

/// How much of Landlock is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// Files, and signals and abstract sockets of processes outside.
    FilesAndSignals,
    /// Files, as far as the kernel has access rights for them: before 6.12 no signals and sockets, before 6.10 no
    /// `ioctl`.
    Files,
    /// The kernel has no Landlock.
    Nothing,
}

impl Confined {
    /// Logs for this process what is in force and what is not.
    pub fn log(&self) {
        if let Err(error) = &self.hidden {
            tracing::warn!(%error, "the agent's memory can't be hidden: NVML's library can read it");
        }
        match &self.filter {
            Ok(()) => {
                tracing::info!(
                    "system calls that affect other processes or the kernel are denied from now on (seccomp)"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "no filter of system calls (seccomp): the agent can access the other processes of root");
            }
        }
        match &self.files {
            Ok(Enforced::Nothing) => {
                tracing::warn!(
                    "the kernel has no Landlock, or the container runtime does not allow it: the agent can access files, and other processes' files in /proc"
                );
            }
            Ok(in_force) => tracing::info!(%in_force, "access to files is restricted from now on (Landlock)"),
            Err(error) => tracing::warn!(%error, "Landlock can't be used: access to files is not restricted"),
        }
    }
}

impl fmt::Display for Enforced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::FilesAndSignals => "files, signals, abstract sockets",
            Self::Files => "files",
            Self::Nothing => "nothing",
        })
    }
}

/// Restricts the agent. Call it while there is no other thread, after [`crate::rights::give_up`], which sets
/// `no_new_privs`.
pub fn confine_agent(paths: &Paths) -> Confined {
    let files = restrict(&of_agent(paths));
    // Otherwise the process that calls NVML, which has the same user, could write the agent's memory unless Landlock or
    // Yama forbids it.
    let hidden = hide();
    Confined { hidden, filter: filter::install(Kind::Agent { pid: std::process::id() }), files }
}

/// The effect ends when another program is executed. The process can still read its own files in /proc.
fn hide() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Into::into)
}

/// Restricts the process that calls NVML further: it does not need tokens, certificates or state files, and starts no
/// process.
pub fn confine_worker(library: Option<&Path>) -> Confined {
    let files = restrict(&of_worker(library));
    // It has no secrets that need to be hidden from other processes.
    Confined { hidden: Ok(()), filter: filter::install(Kind::Worker), files }
}

fn restrict(rules: &Rules) -> Result<Enforced, RulesetError> {
    let status = files::restrict(rules)?;
    let knows_signals = matches!(status.landlock, LandlockStatus::Available { effective_abi, .. } if effective_abi >= landlock::ABI::V6);
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => Enforced::Nothing,
        _ if knows_signals => Enforced::FilesAndSignals,
        _ => Enforced::Files,
    })
}

fn of_agent(paths: &Paths) -> Rules {
    let mut rules = of_worker(paths.library.as_deref());
    rules.read.insert(NAMES.into());
    // On many machines this file is a link to another folder.
    rules.read.extend(std::fs::canonicalize("/etc/resolv.conf").ok().map(|path| files::folder_of(&path)));
    rules.read.extend([&paths.proc_root, &paths.sys_root].map(PathBuf::clone));
    rules.read_often.extend(paths.cgroups.clone());
    rules.read.extend(paths.renewed.iter().map(|path| files::folder_of(path)));
    rules.write.extend(paths.state_dir.clone());
    rules.devices.extend(files::devices(&paths.sys_root));
    rules
}

fn of_worker(library: Option<&Path>) -> Rules {
    let mapped = files::mapped();
    let mut read: BTreeSet<PathBuf> =
        LIBRARIES.into_iter().chain(LOADER).chain(["/proc", "/sys"]).map(PathBuf::from).collect();
    // The library's scenario or other libraries may be in the same folder.
    read.extend(library.map(files::folder_of));
    read.extend(HOSTS_FOLDERS.map(PathBuf::from));
    let of_drivers = VENDORS.iter().flat_map(|vendor| vendor.library_folders.iter().chain(vendor.read));
    read.extend(of_drivers.map(PathBuf::from));
    read.extend(mapped.iter().filter(|path| path.to_string_lossy().contains(".so")).map(|path| files::folder_of(path)));
    Rules { read, devices: files::devices(Path::new("/sys")), start: mapped, ..Rules::default() }
}
