//! Distinguishes pods of AppWrappers from other pods.

/// An amount for pods of AppWrappers, and one for all other pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByOwner<T> {
    /// Pods of AppWrappers.
    pub appwrapper: T,
    /// All other pods.
    pub other: T,
}

impl ByOwner<i128> {
    /// The sum over both.
    pub fn in_all(self) -> i128 {
        self.appwrapper.saturating_add(self.other)
    }
}
