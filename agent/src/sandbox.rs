//! What this process can't do any more once it runs, beyond the capabilities that it gave up: reach other processes of its node, load
//! anything into the kernel, open files that it does not need. What each part of the agent needs is docs/decisions/0005.
//!
//! Two guards, each of which may be missing: a filter of system calls (`filter`; every kernel that agents run on has it) and Landlock
//! (`files`; from 5.13 on, signals and sockets without a path from 6.12 on). What the kernel lacks is said, and the agent goes on.

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
use crate::driver_folders::DRIVER_FOLDERS;

/// Libraries, and where drivers keep theirs.
const LIBRARIES: [&str; 6] = ["/lib", "/lib64", "/usr", "/run/nvidia", "/home/kubernetes/bin/nvidia", "/nix/store"];

/// How names are looked up; a file of it that is replaced is another one, so the folder.
const NAMES: &str = "/etc";

/// Of it, what a loader reads.
const LOADER: [&str; 3] = ["/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/nvidia"];

/// `--sandbox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// As far as the kernel can.
    On,
    /// Not at all.
    Off,
}

/// Paths that the agent was given.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// The host's `/proc`.
    pub proc_root: PathBuf,
    /// The host's `/sys`.
    pub sys_root: PathBuf,
    /// The tree of cgroups, where there is one.
    pub cgroups: Option<PathBuf>,
    /// NVML's library, where it was named.
    pub library: Option<PathBuf>,
    /// Files that kubelet renews: certificates, a token.
    pub renewed: Vec<PathBuf>,
    /// Where files of the agent's own are.
    pub state_dir: Option<PathBuf>,
}

/// What is in force.
#[derive(Debug)]
pub struct Confined {
    /// Nobody without capabilities may look into the agent's memory and open files.
    pub hidden: io::Result<()>,
    /// The filter of system calls.
    pub filter: io::Result<()>,
    /// Files and signals.
    pub files: Result<Enforced, RulesetError>,
}

/// How much of Landlock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// Files, and signals and sockets without a path to processes outside.
    FilesAndSignals,
    /// Files as far as the kernel knows rights to them: before 6.12 no signals and sockets, before 6.10 no `ioctl`.
    Files,
    /// The kernel has none.
    Nothing,
}

impl Confined {
    /// Logs what is in force, and what can't be, for this process.
    pub fn say(&self) {
        if let Err(error) = &self.hidden {
            tracing::warn!(%error, "the agent's memory can't be hidden: NVML's library can look into it");
        }
        match &self.filter {
            Ok(()) => {
                tracing::info!("system calls on other processes and on the kernel are refused from here on (seccomp)");
            }
            Err(error) => tracing::warn!(%error, "no filter of system calls: other processes of root are in reach"),
        }
        match &self.files {
            Ok(Enforced::Nothing) => {
                tracing::warn!(
                    "no Landlock in this kernel, or none allowed by what starts containers: files, and what others have in /proc, are in reach"
                );
            }
            Ok(in_force) => tracing::info!(%in_force, "what may be opened is bounded from here on (Landlock)"),
            Err(error) => tracing::warn!(%error, "Landlock can't be used: files are in reach as before"),
        }
    }
}

impl fmt::Display for Enforced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::FilesAndSignals => "files, signals, sockets without a path",
            Self::Files => "files",
            Self::Nothing => "nothing",
        })
    }
}

/// Confines the agent. Call it while there is no other thread, after [`crate::rights::give_up`], which sets `no_new_privs`.
pub fn confine_agent(paths: &Paths) -> Confined {
    let files = restrict(&of_agent(paths));
    // Without it the process that calls NVML, which is of the same user, could write the agent's memory where neither Landlock nor Yama forbids it.
    let hidden = hide();
    Confined { hidden, filter: filter::install(Kind::Agent { pid: std::process::id() }), files }
}

/// Ends with the next program that is started; what this process looks at of itself it may still see.
fn hide() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Into::into)
}

/// Confines the process that calls NVML further: it has no business with tokens, certificates and state files, and starts nothing.
pub fn confine_worker(library: Option<&Path>) -> Confined {
    let files = restrict(&of_worker(library));
    // It has nothing that its neighbours do not have.
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
    // On many machines it is a link to elsewhere.
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
    // Its scenario or other libraries may be beside it.
    read.extend(library.map(files::folder_of));
    read.extend(DRIVER_FOLDERS.map(PathBuf::from));
    read.extend(mapped.iter().filter(|path| path.to_string_lossy().contains(".so")).map(|path| files::folder_of(path)));
    Rules { read, devices: files::devices(Path::new("/sys")), start: mapped, ..Rules::default() }
}
