//! Loads the kernel half and attaches it: the only file, with `source/bpf`, that knows aya.
//!
//! What is left when loading is done are file descriptors and mapped memory; aya's own state is dropped.

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

/// The kernel half, put here by the build script; empty in a build without an eBPF toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes.o"));

/// Cgroups that one walk can hold. A node of 250 pods has about 1,000; 4 MiB of map memory are spent on being sure.
pub const MAX_CGROUPS: u32 = 8192;

/// Why the kernel half is not running.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The kernel's BTF is missing something.
    #[error("find the kernel's structures")]
    Offsets(#[source] TypesError),
    /// aya could not read it.
    #[error("read the kernel's BTF at {}", path.display())]
    Btf {
        /// Which file.
        path: PathBuf,
        /// What aya found wrong.
        #[source]
        source: aya::BtfError,
    },
    /// aya could not make the maps or place the globals.
    #[error("load the probes' maps")]
    Load(#[source] aya::EbpfError),
    /// The object is not the one that this agent was written for.
    #[error("find the {kind} `{name}` in the probes' object")]
    Missing {
        /// What was looked for.
        kind: &'static str,
        /// By which name.
        name: &'static str,
    },
    /// The kernel's verifier refused it, or the kernel has no room.
    #[error("load the program `{name}`")]
    Program {
        /// Which.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: aya::programs::ProgramError,
    },
    /// A map of the kernel's could not be mapped.
    #[error("map the kernel's map `{name}` into memory")]
    Map {
        /// Which.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The cgroup tree could not be opened.
    #[error("open the cgroup tree at {}", path.display())]
    Tree {
        /// Where it is mounted.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the link.
    #[error("attach the cgroup iterator")]
    Attach(#[source] io::Error),
    /// The kernel keeps no account of programs, or not of ours.
    #[error("read what programs cost")]
    Account(#[source] io::Error),
    /// The kernel refused the program at its tracepoint.
    #[error("attach the program `{name}`")]
    AttachProgram {
        /// Which.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: aya::programs::ProgramError,
    },
}

/// Whether this agent was built with probes.
pub fn built_in() -> bool {
    !OBJECT.is_empty()
}

/// Whether waits for a processor are added up: `--run-queue`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RunQueueChoice {
    /// Where the kernel allows it.
    #[default]
    On,
    /// No program at the switch of tasks.
    Off,
    /// They are, and there is room for one set of cgroups on each processor: to see what becomes of those that find no place.
    #[cfg(test)]
    #[value(skip)]
    Crowded,
}

/// What of the kernel half runs.
#[derive(Debug)]
pub struct Probes {
    /// The walk over the cgroups.
    pub walk: CgroupWalk,
    /// Waits for a processor; None where they were not asked for, or this kernel has no place for the program.
    pub run_queue: Option<RunQueueProbe>,
    /// Cgroups that were removed; None where this kernel has no place for the program.
    pub removed: Option<RemovedProbe>,
}

impl Probes {
    /// Loads the kernel half with room for `capacity` cgroups and attaches its walk to the tree mounted at `tree`.
    pub fn attach(btf_path: &Path, tree: &Path, capacity: u32, run_queue: RunQueueChoice) -> Result<Self, ProbeError> {
        let types = KernelTypes::open(btf_path).map_err(ProbeError::Offsets)?;
        let found = offsets::find(&types).map_err(ProbeError::Offsets)?;
        for why in &found.missing {
            tracing::info!(error = %why, "some figures of cgroups are read from files");
        }
        let run_queue = run_queue_plan(&types, run_queue);
        let removed = removed_plan(&types);
        drop(types);
        // Parsed once (13 MiB while it lasts) and lent to the loader, which would otherwise parse a copy of its own.
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
                tracing::warn!(error, "waits for a processor are not measured");
                None
            }
        });
        let removed = removed.and_then(|_| match RemovedProbe::attach(&mut probes, &btf) {
            Ok(probe) => Some(probe),
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(error, "what pods use between the last sample and their end is not measured");
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
    plan.inspect_err(|error| tracing::warn!(error, "waits for a processor are not measured")).ok()
}

fn removed_plan(types: &KernelTypes) -> Option<RemovedPlan> {
    let plan = aya::util::nr_cpus()
        .map_err(|(what, source)| format!("{what}: {source}"))
        .and_then(|cpus| RemovedPlan::new(types, cpus as u32).map_err(|why| why.to_string()));
    plan.inspect_err(|error| {
        tracing::warn!(error, "what pods use between the last sample and their end is not measured");
    })
    .ok()
}

/// Offsets, as bytes that replace a global's.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);

// SAFETY: `u32`s without padding.
unsafe impl Pod for Plain<CgroupOffsets> {}
// SAFETY: as above.
unsafe impl Pod for Plain<RunQueueOffsets> {}
// SAFETY: as above.
unsafe impl Pod for Plain<RemovedOffsets> {}
