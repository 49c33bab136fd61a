//! The rules that metrics are computed by, and which metrics are exported. Owns the choices and their defaults; the flags that set them are
//! in `args`.
pub mod accelerator;
pub mod driver_resource;
pub mod pool_label;
pub mod selector;
pub mod tolerated;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::options::accelerator::Accelerator;
use crate::options::driver_resource::DeviceResources;
use crate::options::pool_label::PoolLabel;
use crate::options::selector::Selector;
use crate::options::tolerated::Tolerated;

/// The rules that metrics are computed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which of MCAD's own metrics are exported.
    pub operator_metrics: OperatorMetrics,
    /// Whether each GPU is exported by itself.
    pub gpu_metrics: GpuMetrics,
    /// Whether each pod is exported by itself.
    pub pod_metrics: PodMetrics,
    /// Which nodes should run an agent.
    pub agent_nodes: Selector,
    /// Taints that count as tolerated by every pod.
    pub tolerated: Tolerated,
    /// Extended resources that are accelerators in addition to the well-known ones.
    pub accelerators: BTreeSet<Accelerator>,
    /// The resource that each Dynamic Resource Allocation driver's devices count as.
    pub device_resources: DeviceResources,
    /// CPU that must be free on a node beside each GPU, in millicores.
    pub slot_millicores_per_gpu: u64,
    /// Memory that must be free on a node beside each GPU, in bytes.
    pub slot_bytes_per_gpu: u64,
    /// Whether metrics of Kueue's queues are exported.
    pub queue_metrics: QueueMetrics,
    /// The ClusterQueue whose lending limit makes up for broken hardware.
    pub slack_queue: Option<Arc<str>>,
    /// The node label whose value names the node's pool. `None`: [`pool_label::DEFAULT`], and pools have metrics only if there are any.
    pub pool_label: Option<PoolLabel>,
    /// The share of a GPU's memory that may be in use by no process before it counts as unclaimed, in percent.
    pub unclaimed_memory_percent: u8,
    /// The most series that the AppWrappers of one namespace may have together.
    pub max_series_per_namespace: usize,
}

/// Whether metrics of Kueue's queues are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueMetrics {
    /// Exported, if Kueue is installed.
    On,
    /// Not exported.
    Off,
}

/// Which of MCAD's own metrics are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorMetrics {
    /// Those of MCAD v1.34 to v1.40.
    V1,
    /// Those of MCAD v2.
    V2,
    /// None.
    None,
}

/// Whether each GPU is exported by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuMetrics {
    /// Each GPU is exported.
    On,
    /// GPUs are not exported one by one: there are too many.
    Off,
}

/// Whether each pod is exported by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodMetrics {
    /// Each pod is exported.
    On,
    /// Pods are not exported one by one: there are too many.
    #[default]
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
            device_resources: DeviceResources::default(),
            slot_millicores_per_gpu: 1_000,
            slot_bytes_per_gpu: 4 << 30,
            queue_metrics: QueueMetrics::On,
            slack_queue: None,
            pool_label: None,
            unclaimed_memory_percent: 1,
            max_series_per_namespace: 20_000,
        }
    }
}

impl Options {
    /// The options without Kubernetes: there is no MCAD, and GPUs are not exported one by one.
    pub fn without_kubernetes() -> Self {
        Self { operator_metrics: OperatorMetrics::None, gpu_metrics: GpuMetrics::Off, ..Self::default() }
    }

    /// The node label whose value names the node's pool.
    pub fn pool_label(&self) -> &str {
        self.pool_label.as_ref().map_or(pool_label::DEFAULT, PoolLabel::key)
    }

    /// Whether the extended resource of that name is an accelerator.
    pub fn is_accelerator(&self, name: &str) -> bool {
        accelerator::is_well_known(name) || self.accelerators.contains(name)
    }
}
