//! Array maps of the kernel, mapped into memory: reading them takes no system call.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use aya::{Ebpf, maps::Map};
use memmap2::{MmapOptions, MmapRaw};

use super::ProbeError;

/// An array map of the kernel, mapped into memory.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    memory: MmapRaw,
    entries: usize,
    entry: std::marker::PhantomData<T>,
}

impl<T: Copy> Mapped<T> {
    pub(super) fn of(probes: &Ebpf, name: &'static str, entries: u32) -> Result<Self, ProbeError> {
        Self::map(probes, name, entries, MmapOptions::map_raw_read_only)
    }

    /// Like [`Self::of`], but also writable.
    pub(super) fn writable(probes: &Ebpf, name: &'static str, entries: u32) -> Result<Self, ProbeError> {
        Self::map(probes, name, entries, MmapOptions::map_raw)
    }

    fn map(
        probes: &Ebpf,
        name: &'static str,
        entries: u32,
        map_memory: fn(&MmapOptions, RawFd) -> io::Result<MmapRaw>,
    ) -> Result<Self, ProbeError> {
        let missing = ProbeError::Missing { kind: "array map", name };
        let Some(Map::Array(map)) = probes.map(name) else { return Err(missing) };
        let entries = entries as usize;
        // The kernel places the entries of a mappable array at multiples of 8 bytes, and the size of all our types is
        // one.
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let memory = map_memory(MmapOptions::new().len(entries * size_of::<T>()), map.fd().as_fd().as_raw_fd())
            .map_err(|source| ProbeError::Map { name, source })?;
        Ok(Self { memory, entries, entry: std::marker::PhantomData })
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// A copy of the entry, which must be in range.
    pub(super) fn get(&self, index: usize) -> T {
        assert!(index < self.entries, "entry {index} of {}", self.entries);
        // SAFETY: in range of the mapping, aligned to the page plus a multiple of 8, and every bit pattern is a valid T
        // (abi.rs). Volatile, because the kernel writes this memory.
        unsafe { self.memory.as_ptr().cast::<T>().add(index).read_volatile() }
    }

    /// A reference to the entry, which must be in range.
    ///
    /// # Safety
    ///
    /// Nothing may write the entry while it is borrowed.
    pub(super) unsafe fn entry(&self, index: usize) -> &T {
        assert!(index < self.entries, "entry {index} of {}", self.entries);
        // SAFETY: as in `get`, and the caller guarantees that nothing writes it.
        unsafe { &*self.memory.as_ptr().cast::<T>().add(index) }
    }

    /// A pointer to the entry, which must be in range, for writing if the map is writable.
    pub(super) fn pointer(&self, index: usize) -> *mut T {
        assert!(index < self.entries, "entry {index} of {}", self.entries);
        self.memory.as_mut_ptr().cast::<T>().wrapping_add(index)
    }
}
