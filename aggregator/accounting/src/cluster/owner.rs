//! Distinguishes pods of AppWrappers from other pods.
use crate::object::AppWrapperName;

/// An amount for pods of AppWrappers, and one for all other pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByOwner<T> {
    /// Pods of AppWrappers.
    pub appwrapper: T,
    /// All other pods.
    pub other: T,
}

impl<T> ByOwner<T> {
    /// The amount for pods of this owner.
    pub fn of_mut(&mut self, owner: Option<&AppWrapperName>) -> &mut T {
        if owner.is_some() { &mut self.appwrapper } else { &mut self.other }
    }
}

impl ByOwner<i128> {
    /// The sum over both.
    pub fn in_all(self) -> i128 {
        self.appwrapper.saturating_add(self.other)
    }
}
