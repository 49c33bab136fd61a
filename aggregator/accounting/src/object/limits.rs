//! How much one object may contain, and what happens to an object that contains more.
//!
//! Every user who may create an AppWrapper or a Pod controls its content, up to the 1.5 MiB that the API server accepts. These bounds keep
//! the work and the series that one object causes proportional to its length. They are far above what real objects contain.
//!
//! An AppWrapper that exceeds a bound is left out as a whole: a wrong demand or fit is worse than none. A Node or a Pod that exceeds a
//! bound is kept, because the node, and its CPU, memory and GPUs must stay in the sums; only the surplus is left out.
use std::fmt;

/// Resources that one object may name besides cpu, memory, `nvidia.com/gpu`, `pods` and `ephemeral-storage`. A node with every MIG profile,
/// huge page size and volume limit names about 40.
pub(crate) const RESOURCES: usize = 128;
/// Components, items, pod sets or pod groups of one AppWrapper. Some clients write one item for each pod of a job.
pub(crate) const POD_SETS: usize = 2048;
/// Containers of one pod template.
pub(crate) const CONTAINERS: usize = 1024;
/// Conditions on nodes that one pod template may have: selectors, terms and requirements of its affinity, and tolerations.
pub(crate) const CONDITIONS: usize = 1024;
/// Values in the requirements of one pod template. Lists of nodes to avoid contain hundreds.
pub(crate) const VALUES: usize = 8192;
/// Bytes of text in all conditions of one AppWrapper, including those that a queue added to its pod sets.
pub(crate) const CONDITION_BYTES: usize = 4 << 20;
/// Host ports of one pod.
pub(crate) const HOST_PORTS: usize = 256;
/// Labels of one Node.
pub(crate) const LABELS: usize = 2048;
/// Taints of one Node.
pub(crate) const TAINTS: usize = 256;
/// Devices of one ResourceSlice. The API server accepts 128.
pub(crate) const DEVICES: usize = 1024;
/// Attributes, capacities, taints and counters of all devices of one ResourceSlice. A partitioned GPU has about 300.
pub(crate) const DEVICE_FACTS: usize = 1 << 16;
/// Conditions and values of all node selectors of one ResourceSlice.
pub(crate) const DEVICE_CONDITIONS: usize = 8192;
/// Requests, alternatives, selectors, tolerations and constraints of one claim. The API server accepts 32 requests.
pub(crate) const CLAIM_PARTS: usize = 4096;
/// Devices that one claim holds, and consumers for which it is reserved. The API server accepts 32 and 256.
pub(crate) const CLAIM_RESULTS: usize = 1024;
/// Claims of one pod.
pub(crate) const POD_CLAIMS: usize = 256;
/// Quotas, flavors and covered resources of one ClusterQueue or Cohort. The API server takes some hundreds.
pub(crate) const QUOTAS: usize = 4096;
/// Owners of one Workload.
pub(crate) const OWNERS: usize = 64;
/// Bytes of a text that becomes a label value: the name of a resource may have 317, all others fewer.
pub(crate) const TEXT_BYTES: usize = 317;

/// The bound that an object exceeds. The order is that of [`Excess::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Excess {
    /// It names too many resources.
    Resources,
    /// It has too many components or pod sets.
    PodSets,
    /// One of its pods has too many containers.
    Containers,
    /// It has too many conditions on nodes, or conditions that are too long.
    Conditions,
    /// One of its pods has too many host ports.
    HostPorts,
    /// It has too many labels or taints.
    Labels,
    /// A name, a state or another text is too long.
    Text,
    /// It has too many devices, or requests devices in too many ways.
    Devices,
}

impl Excess {
    /// All bounds.
    pub const ALL: [Self; 8] = [
        Self::Resources,
        Self::PodSets,
        Self::Containers,
        Self::Conditions,
        Self::HostPorts,
        Self::Labels,
        Self::Text,
        Self::Devices,
    ];

    /// The value of the label `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Resources => "resources",
            Self::PodSets => "pod_sets",
            Self::Containers => "containers",
            Self::Conditions => "conditions",
            Self::HostPorts => "host_ports",
            Self::Labels => "labels",
            Self::Text => "text",
            Self::Devices => "devices",
        }
    }
}

/// What is wrong, to follow "it has".
impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resources => {
                write!(f, "more than {RESOURCES} extended or other resources")
            }
            Self::PodSets => write!(f, "more than {POD_SETS} components or pod sets"),
            Self::Containers => write!(f, "a pod template with more than {CONTAINERS} containers"),
            Self::Conditions => write!(
                f,
                "more than {CONDITIONS} selectors, affinity requirements and tolerations in a pod template, or more than \
                 {VALUES} values in them"
            ),
            Self::HostPorts => write!(f, "a pod with more than {HOST_PORTS} host ports"),
            Self::Labels => write!(f, "more than {LABELS} labels or {TAINTS} taints"),
            Self::Text => write!(f, "a name, state or kind with more than {TEXT_BYTES} bytes"),
            Self::Devices => write!(
                f,
                "more than {DEVICES} devices in a slice, {CLAIM_PARTS} parts in a claim, {CLAIM_RESULTS} results in a \
                 claim, or {POD_CLAIMS} claims in a pod"
            ),
        }
    }
}

/// The excess, if `count` is above `bound`.
pub(crate) fn over(count: usize, bound: usize, excess: Excess) -> Option<Excess> {
    (count > bound).then_some(excess)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_excess_has_a_reason_of_its_own() {
        let reasons: std::collections::BTreeSet<_> = Excess::ALL.iter().map(|excess| excess.reason()).collect();
        assert_eq!(reasons.len(), Excess::ALL.len());
        assert!(Excess::ALL.is_sorted());
    }
}
