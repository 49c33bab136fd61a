//! Reads kernel structures through pointers that the verifier tracks.

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// A pointer to a kernel structure of which only offsets are known.
#[derive(Clone, Copy)]
pub(crate) struct Kernel(*const u8);

impl Kernel {
    /// `None` for a null pointer: the verifier requires this test before the first load.
    #[inline(always)]
    pub(crate) fn new(pointer: *const u8) -> Option<Self> {
        if pointer.is_null() { None } else { Some(Self(pointer)) }
    }

    /// A structure at a computed kernel address. It can only be read with [`Self::copy`].
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self(address as *const u8)
    }

    /// The member at `offset`.
    ///
    /// # Safety
    ///
    /// A member of the type `T` must be at that offset. The kernel's verifier also proves this when it loads the
    /// program, with its own BTF, and a fault at run time (the structure is gone) reads as 0.
    #[inline(always)]
    pub(crate) unsafe fn member<T: Copy>(self, offset: u32) -> T {
        // SAFETY: guaranteed by the caller, and proven by the verifier.
        unsafe { core::ptr::read_volatile(self.0.add(offset as usize).cast::<T>()) }
    }

    /// The structure that the pointer at `offset` points to.
    ///
    /// # Safety
    ///
    /// As [`Self::member`].
    #[inline(always)]
    pub(crate) unsafe fn follow(self, offset: u32) -> Option<Self> {
        // SAFETY: guaranteed by the caller.
        Self::new(unsafe { self.member(offset) })
    }

    /// A copy of the member at `offset`, if the verifier can't track it: after a state that its controller embeds in a
    /// larger structure, which is not part of the types.
    #[inline(always)]
    pub(crate) fn copy<T: Copy>(self, offset: u32) -> Option<T> {
        // SAFETY: the helper accepts any address, and returns an error if nothing can be read there.
        unsafe { bpf_probe_read_kernel(self.0.wrapping_add(offset as usize).cast::<T>()) }.ok()
    }

    /// The structure that the pointer at `offset` points to, if the verifier can't track it.
    #[inline(always)]
    pub(crate) fn copy_pointer(self, offset: u32) -> Option<Self> {
        Self::new(self.copy::<u64>(offset)? as *const u8)
    }

    /// The structure in which this one is the member at `offset`.
    #[inline(always)]
    pub(crate) fn container(self, offset: u32) -> Self {
        Self(self.0.wrapping_sub(offset as usize))
    }

    /// The address of the structure.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }
}
