//! The three histograms of AppWrapper requests that the operator exports (docs/metrics.md A).
//!
//! They only grow: an AppWrapper is observed once, when it is first seen.
use mcad_wire::state_transfer;

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
    /// For each bound, the number of observations that are at most as large.
    pub cumulative: Vec<u64>,
    /// The number of observations.
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

    /// The same histogram as another replica counted it. `None` if it has a different number of bounds.
    fn from_wire(bounds: &'static [i128], received: &state_transfer::Histogram) -> Option<Self> {
        let sum = (i128::from(received.sum_high) << 64) | i128::from(received.sum_low);
        let received = Self { bounds, cumulative: received.cumulative.clone(), count: received.count, sum };
        (received.cumulative.len() == bounds.len()).then_some(received)
    }

    fn to_wire(&self) -> state_transfer::Histogram {
        let (sum_low, sum_high) = (self.sum as u64, (self.sum >> 64) as i64);
        state_transfer::Histogram { cumulative: self.cumulative.clone(), count: self.count, sum_low, sum_high }
    }

    /// Merges two histograms that each counted a part of the same AppWrappers: each value becomes the larger of the
    /// two.
    fn raise_to(&mut self, other: &Self) {
        for (count, other) in self.cumulative.iter_mut().zip(&other.cumulative) {
            *count = (*count).max(*other);
        }
        self.count = self.count.max(other.count);
        self.sum = self.sum.max(other.sum);
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

    /// The histograms that another replica counted. `None` if that replica uses other bounds than this version.
    pub(crate) fn from_wire(received: &state_transfer::Requests) -> Option<Self> {
        Some(Self {
            cpu: Histogram::from_wire(CPU_BOUNDS, received.cpu.as_ref()?)?,
            memory: Histogram::from_wire(MEMORY_BOUNDS, received.memory.as_ref()?)?,
            gpu: Histogram::from_wire(GPU_BOUNDS, received.gpu.as_ref()?)?,
        })
    }

    pub(crate) fn to_wire(&self, counted: Vec<String>) -> state_transfer::Requests {
        let (cpu, memory, gpu) = (Some(self.cpu.to_wire()), Some(self.memory.to_wire()), Some(self.gpu.to_wire()));
        state_transfer::Requests { cpu, memory, gpu, counted }
    }

    pub(crate) fn raise_to(&mut self, other: &Self) {
        self.cpu.raise_to(&other.cpu);
        self.memory.raise_to(&other.memory);
        self.gpu.raise_to(&other.gpu);
    }
}
