//! The operator's three histograms of what AppWrappers request (docs/metrics.md A).
//!
//! They only grow: an AppWrapper is observed once, when it is first seen.
use mcad_wire::seed;

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

    /// What another counted of the same. Of another number of bounds: nothing.
    fn told(bounds: &'static [i128], told: &seed::Histogram) -> Option<Self> {
        let sum = (i128::from(told.sum_high) << 64) | i128::from(told.sum_low);
        let told = Self { bounds, cumulative: told.cumulative.clone(), count: told.count, sum };
        (told.cumulative.len() == bounds.len()).then_some(told)
    }

    fn tell(&self) -> seed::Histogram {
        let (sum_low, sum_high) = (self.sum as u64, (self.sum >> 64) as i64);
        seed::Histogram { cumulative: self.cumulative.clone(), count: self.count, sum_low, sum_high }
    }

    /// Of two that each counted a part of the same, what at least one did.
    fn rise_to(&mut self, other: &Self) {
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

    /// What another counted. Absent where it counts otherwise than this version.
    pub(crate) fn told(told: &seed::Requests) -> Option<Self> {
        Some(Self {
            cpu: Histogram::told(CPU_BOUNDS, told.cpu.as_ref()?)?,
            memory: Histogram::told(MEMORY_BOUNDS, told.memory.as_ref()?)?,
            gpu: Histogram::told(GPU_BOUNDS, told.gpu.as_ref()?)?,
        })
    }

    pub(crate) fn tell(&self, counted: Vec<String>) -> seed::Requests {
        let (cpu, memory, gpu) = (Some(self.cpu.tell()), Some(self.memory.tell()), Some(self.gpu.tell()));
        seed::Requests { cpu, memory, gpu, counted }
    }

    pub(crate) fn rise_to(&mut self, other: &Self) {
        self.cpu.rise_to(&other.cpu);
        self.memory.rise_to(&other.memory);
        self.gpu.rise_to(&other.gpu);
    }
}
