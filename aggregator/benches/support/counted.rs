//! An allocator that counts allocated bytes, so that the memory of one step is known exactly: memory that an earlier step freed stays
//! resident and hides what a later step allocates.
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static HELD: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

/// Correct for one thread only: the benchmarks have one, and a load and a store cost less than an atomic addition.
pub(crate) struct Counted;

// SAFETY: every call is passed to the system allocator with unchanged arguments.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size() as u64);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        gave(layout.size() as u64);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size as u64);
        gave(layout.size() as u64);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn took(bytes: u64) {
    let held = HELD.load(Relaxed).wrapping_add(bytes);
    HELD.store(held, Relaxed);
    if held > PEAK.load(Relaxed) {
        PEAK.store(held, Relaxed);
    }
}

fn gave(bytes: u64) {
    HELD.store(HELD.load(Relaxed).wrapping_sub(bytes), Relaxed);
}

/// Bytes that are allocated now.
pub(crate) fn held_bytes() -> u64 {
    HELD.load(Relaxed)
}

/// The result of a step, and the most memory that it allocated in addition to what there was.
pub(crate) fn peak_of<T>(step: impl FnOnce() -> T) -> (u64, T) {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let made = step();
    (PEAK.load(Relaxed).saturating_sub(before), made)
}
