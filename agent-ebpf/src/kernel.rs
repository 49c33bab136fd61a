//! Reading kernel structures through pointers that the verifier tracks.

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// A pointer to a kernel structure whose layout is known by offsets only.
#[derive(Clone, Copy)]
pub(crate) struct Kernel(*const u8);

impl Kernel {
    /// None for a null pointer: the verifier asks for this test before the first load.
    #[inline(always)]
    pub(crate) fn new(pointer: *const u8) -> Option<Self> {
        if pointer.is_null() { None } else { Some(Self(pointer)) }
    }

    /// What is at a kernel address that was worked out. To be read by [`Self::copy`] alone.
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self(address as *const u8)
    }

    /// The member at `offset`.
    ///
    /// # Safety
    /// A member of the type `T` must be at that offset. The kernel's verifier proves it anew at load, against its own BTF,
    /// and a fault at run time (the structure is gone) reads as 0.
    #[inline(always)]
    pub(crate) unsafe fn member<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the caller's promise, and the verifier's proof.
        unsafe { core::ptr::read_volatile(self.0.add(offset as usize).cast::<T>()) }
    }

    /// The structure that the pointer at `offset` leads to.
    ///
    /// # Safety
    /// As [`Self::member`].
    #[inline(always)]
    pub(crate) unsafe fn follow(self, offset: u32) -> Option<Self> {
        // SAFETY: the caller's promise.
        Self::new(unsafe { self.member(offset) })
    }

    /// A copy of the member at `offset` that the verifier can't follow: below a state that its controller embeds in a bigger
    /// structure, which types don't tell.
    #[inline(always)]
    pub(crate) fn copy<T: Copy>(self, offset: u32) -> Option<T> {
        // SAFETY: the helper takes any address, and answers with an error where nothing can be read.
        unsafe { bpf_probe_read_kernel(self.0.wrapping_add(offset as usize).cast::<T>()) }.ok()
    }

    /// The structure that the pointer at `offset` leads to, where the verifier can't follow either.
    #[inline(always)]
    pub(crate) fn copy_pointer(self, offset: u32) -> Option<Self> {
        Self::new(self.copy::<u64>(offset)? as *const u8)
    }

    /// The structure that has this one as member at `offset`.
    #[inline(always)]
    pub(crate) fn container(self, offset: u32) -> Self {
        Self(self.0.wrapping_sub(offset as usize))
    }

    /// Where it is.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }
}
