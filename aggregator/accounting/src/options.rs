//! By what rules figures are made and which are shown. Owns the choices and their defaults; the flags that set them are `args`'.
pub mod accelerator;
pub mod selector;
pub mod tolerated;
use std::collections::BTreeSet;

use crate::options::accelerator::Accelerator;
use crate::options::selector::Selector;
use crate::options::tolerated::Tolerated;

/// What the figures are made by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which of MCAD's own figures are shown.
    pub operator_metrics: OperatorMetrics,
    /// Whether GPUs are shown one by one.
    pub gpu_metrics: GpuMetrics,
    /// Whether pods are shown one by one.
    pub pod_metrics: PodMetrics,
    /// Which nodes should have an agent.
    pub agent_nodes: Selector,
    /// Taints that keep no pod off.
    pub tolerated: Tolerated,
    /// Extended resources that are accelerators beside the well-known ones.
    pub accelerators: BTreeSet<Accelerator>,
    /// Cpu that has to be left on a node beside each GPU, in millicores.
    pub slot_millicores_per_gpu: u64,
    /// Memory that has to be left on a node beside each GPU.
    pub slot_bytes_per_gpu: u64,
    /// Series that the AppWrappers of one namespace may have together.
    pub max_series_per_namespace: usize,
}

/// Which of MCAD's own figures are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorMetrics {
    /// Those of MCAD v1.34 to v1.40.
    V1,
    /// Those of MCAD v2.
    V2,
    /// None.
    None,
}

/// Whether GPUs are shown one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuMetrics {
    /// They are.
    On,
    /// They are not: there are too many.
    Off,
}

/// Whether pods are shown one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodMetrics {
    /// They are.
    On,
    /// They are not: there are too many.
    Off,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            operator_metrics: OperatorMetrics::V1,
            gpu_metrics: GpuMetrics::On,
            pod_metrics: PodMetrics::Off,
            agent_nodes: Selector::default(),
            tolerated: Tolerated::default(),
            accelerators: BTreeSet::new(),
            slot_millicores_per_gpu: 1_000,
            slot_bytes_per_gpu: 4 << 30,
            max_series_per_namespace: 20_000,
        }
    }
}

impl Options {
    /// Whether the extended resource of that name is an accelerator.
    pub fn is_accelerator(&self, name: &str) -> bool {
        accelerator::is_well_known(name) || self.accelerators.contains(name)
    }
}
