//! How much one object may bring, and what becomes of an object that brings more.
//!
//! Whoever may create an AppWrapper or a Pod writes it, up to the 1.5 MiB that the API server takes. These bounds keep the
//! work and the series that one object causes proportional to its length. They are far above what real objects have.
//!
//! An AppWrapper over a bound is left out whole: a demand or a fit that is wrong is worse than none. A Node or a Pod over a
//! bound stays, because its node and its cpu, memory and GPUs must stay in the sums; only the surplus is left out.
use std::fmt;

/// Resources that one object may name beside cpu, memory, `nvidia.com/gpu`, `pods` and `ephemeral-storage`. A node with
/// every MIG profile, huge page size and volume limit names about 40.
pub(crate) const RESOURCES: usize = 128;
/// Components, items, pod sets or groups of pods of one AppWrapper. Some clients write one item for each pod of a job.
pub(crate) const POD_SETS: usize = 2048;
/// Containers of one pod template.
pub(crate) const CONTAINERS: usize = 1024;
/// Conditions on nodes that one pod template may have: selectors, terms and requirements of its affinity, tolerations.
pub(crate) const CONDITIONS: usize = 1024;
/// Values in the requirements of one pod template. Lists of nodes to keep off name hundreds.
pub(crate) const VALUES: usize = 8192;
/// Bytes of text in all conditions of one AppWrapper, those that a queue added to each pod set included.
pub(crate) const CONDITION_BYTES: usize = 4 << 20;
/// Host ports of one pod.
pub(crate) const HOST_PORTS: usize = 256;
/// Labels of one Node.
pub(crate) const LABELS: usize = 2048;
/// Taints of one Node.
pub(crate) const TAINTS: usize = 256;
/// Bytes of one text that becomes a label: the name of a resource may have 317, all others fewer.
pub(crate) const TEXT_BYTES: usize = 317;

/// Which bound an object is over. In the order of [`Excess::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Excess {
    /// It names too many resources.
    Resources,
    /// It has too many components or pod sets.
    PodSets,
    /// One of its pods has too many containers.
    Containers,
    /// It has too many conditions on nodes, or too long ones.
    Conditions,
    /// One of its pods takes too many ports of its node.
    HostPorts,
    /// It has too many labels or taints.
    Labels,
    /// A name, a state or another text is too long.
    Text,
}

impl Excess {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Resources, Self::PodSets, Self::Containers, Self::Conditions, Self::HostPorts, Self::Labels, Self::Text];

    /// The label `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Resources => "resources",
            Self::PodSets => "pod_sets",
            Self::Containers => "containers",
            Self::Conditions => "conditions",
            Self::HostPorts => "host_ports",
            Self::Labels => "labels",
            Self::Text => "text",
        }
    }
}

/// What is wrong, after "it has".
impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resources => write!(f, "more than {RESOURCES} extended or other resources"),
            Self::PodSets => write!(f, "more than {POD_SETS} components or pod sets"),
            Self::Containers => write!(f, "a pod template of more than {CONTAINERS} containers"),
            Self::Conditions => write!(
                f,
                "more than {CONDITIONS} selectors, affinity requirements and tolerations in a pod template, or more than \
                 {VALUES} values in them"
            ),
            Self::HostPorts => write!(f, "a pod of more than {HOST_PORTS} host ports"),
            Self::Labels => write!(f, "more than {LABELS} labels or {TAINTS} taints"),
            Self::Text => write!(f, "a name, state or kind of more than {TEXT_BYTES} bytes"),
        }
    }
}

/// The excess, where so many are too many.
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
