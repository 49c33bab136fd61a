//! Loads the kernel half and attaches it: the only file, with `source/bpf`, that knows aya.
//!
//! What is left when loading is done are file descriptors and mapped memory; aya's own state is dropped.

use std::{
    fs::File,
    io::{self, Read},
    mem::size_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{Ordering, fence},
};

use aya::{Btf, Ebpf, EbpfLoader, Pod, maps::Map, programs::Iter};
use mcad_wire::abi::{self, CgroupName, CgroupOffsets, CgroupRecord, WalkState};
use memmap2::{MmapOptions, MmapRaw};
use thiserror::Error;

use crate::{
    kernel_types::{KernelTypes, TypesError},
    offsets::{self, Flush},
};

/// The kernel half, put here by the build script; empty in a build without an eBPF toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes.o"));

/// Cgroups that one walk can hold. A node of 110 pods has under 1,000; 5 MiB of map memory are spent on being sure.
pub const MAX_CGROUPS: u32 = 16_384;

/// `enum bpf_cmd`, `enum bpf_attach_type` and `enum bpf_cgroup_iter_order` of `include/uapi/linux/bpf.h`. aya 0.14 attaches
/// iterators without the link information that the cgroup iterator demands.
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
const BPF_TRACE_ITER: u32 = 28;
const BPF_CGROUP_ITER_DESCENDANTS_PRE: u32 = 2;

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
}

/// Why a walk has no result.
#[derive(Debug, Error)]
pub enum WalkError {
    /// The iterator could not be opened.
    #[error("open the cgroup iterator")]
    Open(#[source] io::Error),
    /// The kernel ended the read with an error.
    #[error("walk the cgroups")]
    Walk(#[source] io::Error),
    /// It came back before the last cgroup.
    #[error("the walk of session {session} ended before the last cgroup")]
    Unfinished {
        /// The kernel's number of the walk.
        session: u64,
    },
}

/// Whether this agent was built with probes.
pub fn built_in() -> bool {
    !OBJECT.is_empty()
}

/// The attached cgroup iterator: each walk fills the mapped records anew.
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
    /// Loads the kernel half with room for `capacity` cgroups and attaches its walk to the tree mounted at `tree`.
    pub fn attach(btf_path: &Path, tree: &Path, capacity: u32) -> Result<Self, ProbeError> {
        let found = KernelTypes::open(btf_path).and_then(|types| offsets::find(&types)).map_err(ProbeError::Offsets)?;
        for why in &found.missing {
            tracing::info!(error = %why, "some figures of cgroups are read from files");
        }
        let offsets = Offsets(found.offsets);
        // Parsed once (13 MiB while it lasts) and lent to the loader, which would otherwise parse a copy of its own.
        let btf = Btf::parse_file(btf_path, aya::Endianness::default())
            .map_err(|source| ProbeError::Btf { path: btf_path.to_owned(), source })?;
        let mut probes = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global(abi::OFFSETS_GLOBAL, &offsets, true)
            .override_global(abi::CAPACITY_GLOBAL, &capacity, true)
            .map_max_entries(abi::RECORDS_MAP, capacity)
            .map_max_entries(abi::NAMES_MAP, capacity)
            .load(OBJECT)
            .map_err(ProbeError::Load)?;
        let program = walk_program(&mut probes)?;
        let in_program = |source| ProbeError::Program { name: abi::WALK_PROGRAM, source };
        program.load("cgroup", &btf).map_err(in_program)?;
        drop(btf);
        let tree_dir = File::open(tree).map_err(|source| ProbeError::Tree { path: tree.to_owned(), source })?;
        let link = create_link(walk_program(&mut probes)?.fd().map_err(in_program)?.as_fd(), tree_dir.as_fd())
            .map_err(ProbeError::Attach)?;
        Ok(Self {
            link,
            records: Mapped::of(&probes, abi::RECORDS_MAP, capacity)?,
            names: Mapped::of(&probes, abi::NAMES_MAP, capacity)?,
            state: Mapped::of(&probes, abi::WALK_MAP, 1)?,
            groups: found.offsets.groups,
            flush: found.flush,
        })
    }

    /// The groups of figures ([`mcad_wire::abi::group`]) that a walk can read on this kernel.
    pub fn groups(&self) -> u32 {
        self.groups
    }

    /// What has to be read before a walk, so that its totals are fresh.
    pub fn flush(&self) -> Flush {
        self.flush
    }

    /// Walks the tree once. The walk runs inside one `read`, with the tree standing still.
    pub fn walk(&mut self) -> Result<Walked<'_>, WalkError> {
        let mut iterator = File::from(create_iterator(self.link.as_fd()).map_err(WalkError::Open)?);
        // The program writes no output, so this reads 0 bytes.
        iterator.read(&mut [0; 8]).map_err(WalkError::Walk)?;
        // The kernel wrote the maps before `read` returned; the compiler must not look earlier.
        fence(Ordering::Acquire);
        let state = self.state.get(0);
        if state.finished_session != state.session {
            return Err(WalkError::Unfinished { session: state.session });
        }
        Ok(Walked { walk: self, state })
    }
}

/// One finished walk. It borrows the maps, so no later walk can write over it.
#[derive(Debug)]
pub struct Walked<'a> {
    walk: &'a CgroupWalk,
    state: WalkState,
}

impl Walked<'_> {
    /// Cgroups that found no room.
    pub fn dropped(&self) -> u32 {
        self.state.dropped
    }

    /// The records, parents before children, each with its place for [`Self::name`].
    pub fn records(&self) -> impl Iterator<Item = (usize, CgroupRecord)> + '_ {
        let written = (self.state.written as usize).min(self.walk.records.len());
        (0..written).map(|index| (index, self.walk.records.get(index)))
    }

    /// The name at a place, if it is that of the cgroup `id`.
    pub fn name(&self, index: usize, id: u64) -> Option<String> {
        let name = self.walk.names.get(index);
        let end = name.bytes.iter().position(|byte| *byte == 0)?;
        // Cgroup names are bytes; what is not UTF-8 is shown with replacement marks, and ids tell the cgroups apart.
        (name.id == id).then(|| String::from_utf8_lossy(&name.bytes[..end]).into_owned())
    }
}

fn walk_program(probes: &mut Ebpf) -> Result<&mut Iter, ProbeError> {
    let missing = ProbeError::Missing { kind: "iterator program", name: abi::WALK_PROGRAM };
    probes.program_mut(abi::WALK_PROGRAM).and_then(|program| program.try_into().ok()).ok_or(missing)
}

/// The offsets, as bytes that replace a global's.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Offsets(CgroupOffsets);

// SAFETY: `u32`s without padding.
unsafe impl Pod for Offsets {}

/// An array map of the kernel's, seen through memory.
#[derive(Debug)]
struct Mapped<T> {
    memory: MmapRaw,
    entries: usize,
    entry: std::marker::PhantomData<T>,
}

impl<T: Copy> Mapped<T> {
    fn of(probes: &Ebpf, name: &'static str, entries: u32) -> Result<Self, ProbeError> {
        let missing = ProbeError::Missing { kind: "array map", name };
        let Some(Map::Array(map)) = probes.map(name) else { return Err(missing) };
        let entries = entries as usize;
        // The kernel keeps entries of a mappable array at multiples of 8 bytes, which all our types are.
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let memory = MmapOptions::new()
            .len(entries * size_of::<T>())
            .map_raw_read_only(map.fd().as_fd().as_raw_fd())
            .map_err(|source| ProbeError::Map { name, source })?;
        Ok(Self { memory, entries, entry: std::marker::PhantomData })
    }

    fn len(&self) -> usize {
        self.entries
    }

    /// A copy of the entry, which must be in range.
    fn get(&self, index: usize) -> T {
        assert!(index < self.entries, "entry {index} of {}", self.entries);
        // SAFETY: in range of the mapping, aligned to the page plus a multiple of 8, and every bit pattern is a T (abi.rs).
        // Volatile: the kernel writes this memory, though never while a walk's result is borrowed.
        unsafe { self.memory.as_ptr().cast::<T>().add(index).read_volatile() }
    }
}

/// `struct` for `BPF_LINK_CREATE` within `union bpf_attr`.
#[repr(C)]
struct LinkCreate {
    prog_fd: i32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    /// To a multiple of 8; the kernel wants it 0.
    padding: u32,
}

/// `cgroup` within `union bpf_iter_link_info`.
#[repr(C)]
struct CgroupLinkInfo {
    order: u32,
    cgroup_fd: i32,
    cgroup_id: u64,
}

/// `struct` for `BPF_ITER_CREATE` within `union bpf_attr`.
#[repr(C)]
struct IterCreate {
    link_fd: i32,
    flags: u32,
}

fn create_link(program: BorrowedFd<'_>, tree: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let info = CgroupLinkInfo { order: BPF_CGROUP_ITER_DESCENDANTS_PRE, cgroup_fd: tree.as_raw_fd(), cgroup_id: 0 };
    bpf(
        BPF_LINK_CREATE,
        &LinkCreate {
            prog_fd: program.as_raw_fd(),
            target_fd: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            iter_info: (&raw const info) as u64,
            iter_info_len: size_of::<CgroupLinkInfo>() as u32,
            padding: 0,
        },
    )
}

fn create_iterator(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    bpf(BPF_ITER_CREATE, &IterCreate { link_fd: link.as_raw_fd(), flags: 0 })
}

/// A `bpf` command that answers with a new file descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes, which are there and initialised, and what they point to, which the
    // callers keep alive.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel just made and nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(answer as i32) })
}
