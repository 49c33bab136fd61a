//! Loads the eBPF programs and attaches them. Besides `source/bpf`, this is the only file that uses aya.
//!
//! After loading, only file descriptors and mapped memory remain; aya's own state is dropped.

mod cost;
mod mapped;
mod removed;
mod run_queue;
mod syscalls;
mod walk;

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{Btf, EbpfLoader, Pod};
use mcad_wire::abi::{self, CgroupOffsets, RemovedOffsets, RunQueueOffsets};
use thiserror::Error;

pub use cost::{CostAccount, ProgramCost};
pub use removed::{RemovedPlan, RemovedProbe};
pub use run_queue::{RunQueuePlan, RunQueueProbe, RunQueueReading};
pub use walk::{CgroupWalk, WalkError, Walked};

use crate::{
    kernel_types::{KernelTypes, TypesError},
    offsets,
};

/// The eBPF object, embedded by the build script. Empty in a build without an eBPF toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes.o"));

/// How many cgroups one walk can hold. A node with 250 pods has about 1,000; the maps take 4 MiB to be on the safe
/// side.
pub const MAX_CGROUPS: u32 = 8192;

/// Why the eBPF programs are not running.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The kernel's BTF lacks something.
    #[error("cannot find the kernel's structures")]
    Offsets(#[source] TypesError),
    /// aya could not read the BTF.
    #[error("cannot read the kernel's BTF at {}", path.display())]
    Btf {
        /// Path of the file.
        path: PathBuf,
        /// The error of aya.
        #[source]
        source: aya::BtfError,
    },
    /// aya could not create the maps or set the globals.
    #[error("cannot create the probes' maps")]
    Load(#[source] aya::EbpfError),
    /// The object is not the one that this agent was written for.
    #[error("cannot find the {kind} `{name}` in the probes' object")]
    Missing {
        /// Kind of the missing item.
        kind: &'static str,
        /// Name of the missing item.
        name: &'static str,
    },
    /// The kernel's verifier rejected it, or the kernel lacks memory.
    #[error("cannot load the program `{name}`")]
    Program {
        /// Name of the program.
        name: &'static str,
        /// The error of the kernel.
        #[source]
        source: aya::programs::ProgramError,
    },
    /// A map could not be mapped into memory.
    #[error("cannot map `{name}` into memory")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// The cgroup tree could not be opened.
    #[error("cannot open the cgroup tree at {}", path.display())]
    Tree {
        /// Where it is mounted.
        path: PathBuf,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// The kernel rejected the link.
    #[error("cannot attach the cgroup iterator")]
    Attach(#[source] io::Error),
    /// The kernel does not measure programs, or not ours.
    #[error("cannot read the cost of the programs")]
    Account(#[source] io::Error),
    /// The kernel rejected the program at its tracepoint.
    #[error("cannot attach the program `{name}`")]
    AttachProgram {
        /// Name of the program.
        name: &'static str,
        /// The error of the kernel.
        #[source]
        source: aya::programs::ProgramError,
    },
}

/// Whether this agent was built with probes.
pub fn built_in() -> bool {
    !OBJECT.is_empty()
}

/// Whether run-queue wait is measured: `--run-queue`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RunQueueChoice {
    /// Yes, if the kernel allows it.
    #[default]
    On,
    /// No; no program runs at task switches.
    Off,
    /// Yes, with room for only one set of cgroups per CPU, to test what happens to cgroups that do not fit.
    #[cfg(test)]
    #[value(skip)]
    Crowded,
}

/// The running eBPF programs.
#[derive(Debug)]
pub struct Probes {
    /// The cgroup walk.
    pub walk: CgroupWalk,
    /// Run-queue wait. `None` if it is switched off, or this kernel cannot attach the program.
    pub run_queue: Option<RunQueueProbe>,
    /// Removed cgroups. `None` if this kernel cannot attach the program.
    pub removed: Option<RemovedProbe>,
}

impl Probes {
    /// Loads the eBPF programs with room for `capacity` cgroups and attaches the walk to the tree mounted at `tree`.
    pub fn attach(btf_path: &Path, tree: &Path, capacity: u32, run_queue: RunQueueChoice) -> Result<Self, ProbeError> {
        let types = KernelTypes::open(btf_path).map_err(ProbeError::Offsets)?;
        let found = offsets::find(&types).map_err(ProbeError::Offsets)?;
        for why in &found.missing {
            tracing::info!(error = %why, "some values of cgroups are read from files");
        }
        let run_queue = run_queue_plan(&types, run_queue);
        let removed = removed_plan(&types);
        drop(types);
        // Parsed once (13 MiB while it lives) and lent to the loader, which would otherwise parse a copy of its own.
        let btf = Btf::parse_file(btf_path, aya::Endianness::default())
            .map_err(|source| ProbeError::Btf { path: btf_path.to_owned(), source })?;
        let (offsets, run_queue_offsets) =
            (Plain(found.offsets), Plain(run_queue.map(|plan| plan.offsets).unwrap_or_default()));
        let removed_offsets = Plain(removed.map(|plan| plan.offsets).unwrap_or_default());
        let [cpus, sets, tasks] = run_queue.map_or([1; 3], RunQueuePlan::map_entries);
        let mut probes = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global(abi::OFFSETS_GLOBAL, &offsets, true)
            .override_global(abi::CAPACITY_GLOBAL, &capacity, true)
            .override_global(abi::RUN_QUEUE_OFFSETS_GLOBAL, &run_queue_offsets, true)
            .override_global(abi::REMOVED_OFFSETS_GLOBAL, &removed_offsets, true)
            .map_max_entries(abi::REMOVED_MAP, removed::RING_BYTES)
            .map_max_entries(abi::RECORDS_MAP, capacity)
            .map_max_entries(abi::NAMES_MAP, capacity)
            .map_max_entries(abi::RUN_QUEUE_CPUS_MAP, cpus)
            .map_max_entries(abi::RUN_QUEUE_SETS_MAP, sets)
            .map_max_entries(abi::RUN_QUEUE_TASKS_MAP, tasks)
            .load(OBJECT)
            .map_err(ProbeError::Load)?;
        let walk = CgroupWalk::attach(&mut probes, &btf, tree, capacity, &found)?;
        let run_queue = run_queue.and_then(|plan| match RunQueueProbe::attach(&mut probes, &btf, plan) {
            Ok(probe) => Some(probe),
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(error, "run-queue wait is not measured");
                None
            }
        });
        let removed = removed.and_then(|_| match RemovedProbe::attach(&mut probes, &btf) {
            Ok(probe) => Some(probe),
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(error, "the usage of pods between their last sample and their end is not measured");
                None
            }
        });
        Ok(Self { walk, run_queue, removed })
    }
}

fn run_queue_plan(types: &KernelTypes, choice: RunQueueChoice) -> Option<RunQueuePlan> {
    if choice == RunQueueChoice::Off {
        return None;
    }
    let plan = aya::util::nr_cpus()
        .map_err(|(what, source)| format!("{what}: {source}"))
        .and_then(|cpus| RunQueuePlan::new(types, cpus as u32).map_err(|why| why.to_string()));
    #[cfg(test)]
    let plan = plan.map(|plan| if choice == RunQueueChoice::Crowded { plan.crowded() } else { plan });
    plan.inspect_err(|error| tracing::warn!(error, "run-queue wait is not measured")).ok()
}

fn removed_plan(types: &KernelTypes) -> Option<RemovedPlan> {
    let plan = aya::util::nr_cpus()
        .map_err(|(what, source)| format!("{what}: {source}"))
        .and_then(|cpus| RemovedPlan::new(types, cpus as u32).map_err(|why| why.to_string()));
    plan.inspect_err(|error| {
        tracing::warn!(error, "the usage of pods between their last sample and their end is not measured");
    })
    .ok()
}

/// Offsets, as bytes that replace the value of a global.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);

// SAFETY: `u32`s without padding.
unsafe impl Pod for Plain<CgroupOffsets> {}
// SAFETY: as above.
unsafe impl Pod for Plain<RunQueueOffsets> {}
// SAFETY: as above.
unsafe impl Pod for Plain<RemovedOffsets> {}
