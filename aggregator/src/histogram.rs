//! The operator's three histograms of what AppWrappers request (docs/metrics.md A).
//!
//! They only grow: an AppWrapper is observed once, when it is first seen.
use crate::resource::Triple;

/// Bounds in millicores.
pub const CPU_BOUNDS: &[i128] = &[100, 200, 500, 1_000, 2_000, 5_000, 10_000];
/// Bounds in bytes: 128 MiB, doubling.
pub const MEMORY_BOUNDS: &[i128] = &doubling(128 << 20);
/// Bounds in devices: 1, doubling.
pub const GPU_BOUNDS: &[i128] = &doubling(1);

const fn doubling(first: i128) -> [i128; 10] {
    let mut bounds = [first; 10];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
}

/// One histogram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Upper bounds, in order.
    pub bounds: &'static [i128],
    /// Observations at most as large as each bound.
    pub cumulative: Vec<u64>,
    /// Observations in all.
    pub count: u64,
    /// Their sum.
    pub sum: i128,
}

impl Histogram {
    fn new(bounds: &'static [i128]) -> Self {
        Self { bounds, cumulative: vec![0; bounds.len()], count: 0, sum: 0 }
    }

    fn observe(&mut self, value: i128) {
        for (count, bound) in self.cumulative.iter_mut().zip(self.bounds) {
            *count += u64::from(value <= *bound);
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
    }
}

/// Requested cpu, memory, GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHistograms {
    /// In millicores.
    pub cpu: Histogram,
    /// In bytes.
    pub memory: Histogram,
    /// In devices.
    pub gpu: Histogram,
}

impl Default for RequestHistograms {
    fn default() -> Self {
        Self { cpu: Histogram::new(CPU_BOUNDS), memory: Histogram::new(MEMORY_BOUNDS), gpu: Histogram::new(GPU_BOUNDS) }
    }
}

impl RequestHistograms {
    pub(crate) fn observe(&mut self, demand: Triple) {
        self.cpu.observe(demand.cpu);
        self.memory.observe(demand.memory);
        self.gpu.observe(demand.gpu);
    }
}
