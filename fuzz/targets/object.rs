//! An API object: the memory for decoding and accounting, in allocations and in bytes, must not grow faster than the
//! length of the object.
#![no_main]
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libfuzzer_sys::fuzz_target;
use mcad_accounting::cluster::{Cluster, Event};
use mcad_accounting::object::{Kind, decode, needed};

/// Memory per byte of an object: a number with two digits becomes a value of 32 bytes, in lists whose capacity doubles.
const BYTES_PER_BYTE: usize = 1024;
/// Memory that any object may use.
const BASE: usize = 1 << 20;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

struct Counted;

// SAFETY: every call is passed to the system allocator with the same arguments.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller complies with the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller complies with the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fuzz_target!(|text: &[u8]| {
    for kind in Kind::ALL {
        let before = TAKEN.load(Relaxed);
        let Ok(value) = needed(kind, &mut serde_json::Deserializer::from_slice(text)) else { continue };
        let Ok(object) = decode(kind, value) else { continue };
        let mut cluster = Cluster::default();
        cluster.apply(Event::Apply(object.clone()));
        cluster.apply(Event::Delete(object));
        let taken = TAKEN.load(Relaxed) - before;
        assert!(taken <= BASE + BYTES_PER_BYTE * text.len(), "{taken} bytes for {} of {kind:?}", text.len());
    }
});
