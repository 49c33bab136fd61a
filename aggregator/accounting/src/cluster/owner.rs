//! Distinguishes pods of AppWrappers from other pods.

/// An amount for pods of AppWrappers, and one for all other pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByOwner<T> {
    /// Pods of AppWrappers.
    pub appwrapper: T,
    /// All other pods.
    pub other: T,
}
