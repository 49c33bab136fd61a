//! Counts the steps of decoding and adding up, for tests that bound them by the length of an object. Time would also depend on the machine.
//! Outside tests nothing is counted.

/// Counts more steps: comparisons, moves, values that were read.
#[cfg(not(test))]
#[inline]
pub(crate) fn took(_steps: usize) {}

/// The same, for counts that take time to compute.
#[cfg(not(test))]
#[inline]
pub(crate) fn took_by(_steps: impl FnOnce() -> usize) {}

#[cfg(test)]
pub(crate) use counted::{of, took, took_by};

#[cfg(test)]
mod counted {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    pub(crate) fn took(steps: usize) {
        STEPS.set(STEPS.get() + steps);
    }

    pub(crate) fn took_by(steps: impl FnOnce() -> usize) {
        took(steps());
    }

    /// How many steps a function takes on this thread, and its result.
    pub(crate) fn of<T>(what: impl FnOnce() -> T) -> (usize, T) {
        let before = STEPS.get();
        let made = what();
        (STEPS.get() - before, made)
    }
}
