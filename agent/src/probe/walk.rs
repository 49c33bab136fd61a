//! The cgroup iterator: one walk of the kernel over the cgroup tree, and the records that it writes.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::atomic::{Ordering, fence},
};

use aya::{Btf, Ebpf, programs::Iter};
use mcad_wire::abi::{self, CgroupName, CgroupRecord, WalkState};
use thiserror::Error;

use super::{
    ProbeError,
    mapped::Mapped,
    syscalls::{create_iterator, create_link},
};
use crate::offsets::{Flush, Found};

/// Why a walk has no result.
#[derive(Debug, Error)]
pub enum WalkError {
    /// The iterator could not be opened.
    #[error("cannot open the cgroup iterator")]
    Open(#[source] io::Error),
    /// The kernel returned an error when the iterator was read.
    #[error("cannot walk the cgroups")]
    Walk(#[source] io::Error),
    /// The walk ended before the last cgroup.
    #[error("walk {session} ended before the last cgroup")]
    Unfinished {
        /// The kernel's number of the walk.
        session: u64,
    },
}

/// The attached cgroup iterator: each walk overwrites the mapped records.
#[derive(Debug)]
pub struct CgroupWalk {
    link: OwnedFd,
    records: Mapped<CgroupRecord>,
    names: Mapped<CgroupName>,
    state: Mapped<WalkState>,
    groups: u32,
    flush: Flush,
}

impl CgroupWalk {
    /// Attaches the loaded program to the tree mounted at `tree`. Its maps have room for `capacity` cgroups.
    pub(super) fn attach(
        probes: &mut Ebpf,
        btf: &Btf,
        tree: &Path,
        capacity: u32,
        found: &Found,
    ) -> Result<Self, ProbeError> {
        let in_program = |source| ProbeError::Program { name: abi::WALK_PROGRAM, source };
        let missing = ProbeError::Missing { kind: "iterator program", name: abi::WALK_PROGRAM };
        let program: Option<&mut Iter> =
            probes.program_mut(abi::WALK_PROGRAM).and_then(|program| program.try_into().ok());
        let program = program.ok_or(missing)?;
        program.load("cgroup", btf).map_err(in_program)?;
        let tree_dir = File::open(tree).map_err(|source| ProbeError::Tree { path: tree.to_owned(), source })?;
        let link =
            create_link(program.fd().map_err(in_program)?.as_fd(), tree_dir.as_fd()).map_err(ProbeError::Attach)?;
        Ok(Self {
            link,
            records: Mapped::of(probes, abi::RECORDS_MAP, capacity)?,
            names: Mapped::of(probes, abi::NAMES_MAP, capacity)?,
            state: Mapped::of(probes, abi::WALK_MAP, 1)?,
            groups: found.offsets.groups,
            flush: found.flush,
        })
    }

    /// The groups of values ([`mcad_wire::abi::group`]) that a walk can read on this kernel.
    pub fn groups(&self) -> u32 {
        self.groups
    }

    /// What has to be read before a walk to bring its totals up to date.
    pub fn flush(&self) -> Flush {
        self.flush
    }

    /// Walks the tree once. The walk is a single `read`, during which the tree does not change.
    pub fn walk(&mut self) -> Result<Walked<'_>, WalkError> {
        let mut iterator = File::from(create_iterator(self.link.as_fd()).map_err(WalkError::Open)?);
        // The program writes no output, so this reads 0 bytes.
        iterator.read(&mut [0; 8]).map_err(WalkError::Walk)?;
        // The kernel wrote the maps before `read` returned; the compiler must not read them earlier.
        fence(Ordering::Acquire);
        let state = self.state.get(0);
        if state.finished_session != state.session {
            return Err(WalkError::Unfinished { session: state.session });
        }
        Ok(Walked { walk: self, state })
    }
}

/// One finished walk. It borrows the maps, so no later walk can overwrite it.
#[derive(Debug)]
pub struct Walked<'a> {
    walk: &'a CgroupWalk,
    state: WalkState,
}

impl Walked<'_> {
    /// Number of cgroups that did not fit into the maps.
    pub fn dropped(&self) -> u32 {
        self.state.dropped
    }

    /// The groups of values ([`mcad_wire::abi::group`]) that a walk can read on this kernel.
    pub fn groups(&self) -> u32 {
        self.walk.groups
    }

    /// The records, parents before children, each with its index for [`Self::name`].
    pub fn records(&self) -> impl Iterator<Item = (usize, &CgroupRecord)> {
        let written = (self.state.written as usize).min(self.walk.records.len());
        // SAFETY: only a walk writes records, and a walk needs the `CgroupWalk` that is borrowed here.
        (0..written).map(|index| (index, unsafe { self.walk.records.entry(index) }))
    }

    /// The name at an index, if it is that of the cgroup `id`.
    pub fn name(&self, index: usize, id: u64) -> Option<String> {
        // SAFETY: as in `records`.
        let name = unsafe { self.walk.names.entry(index) };
        let end = name.bytes.iter().position(|byte| *byte == 0)?;
        // Cgroup names are bytes. Bytes that are not UTF-8 are replaced; ids identify the cgroups.
        (name.id == id).then(|| String::from_utf8_lossy(&name.bytes[..end]).into_owned())
    }
}
