//! An object of the API server, held to its length: what it takes of memory to decode and to add up, in pieces and in bytes, grows
//! no faster than it.
#![no_main]
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libfuzzer_sys::fuzz_target;
use mcad_accounting::cluster::{Cluster, Event};
use mcad_accounting::object::{Kind, decode, needed};

/// What one byte of an object may take: a number of two digits is a value of 32 bytes, which lies in lists that double.
const BYTES_PER_BYTE: usize = 1024;
/// What any object may take.
const BASE: usize = 1 << 20;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

struct Counted;

// SAFETY: every call is the system allocator's, with the arguments as they came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
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
