//! What deploy/base is called in a cluster.

/// The namespace that everything is in.
pub(super) const NAMESPACE: &str = "mcad-metrics";
