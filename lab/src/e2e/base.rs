//! Names that deploy/base uses in a cluster.

/// The namespace of the installation.
pub(super) const NAMESPACE: &str = "mcad-metrics";
