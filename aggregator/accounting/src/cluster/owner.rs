//! Whose pods something is about: an AppWrapper's or others'.

/// An amount for pods of AppWrappers, and for all other pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByOwner<T> {
    /// Pods of AppWrappers.
    pub appwrapper: T,
    /// All other pods.
    pub other: T,
}
