//! Counts the work of decoding and adding up, for tests that hold it to the length of an object: time would tell of the
//! machine as well. Outside tests it is nothing.

/// So many more steps were taken: comparisons, moves, values that were read.
#[cfg(not(test))]
#[inline]
pub(crate) fn took(_steps: usize) {}

/// The same where to count them takes time.
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

    /// How many steps something takes on this thread, and what it gives.
    pub(crate) fn of<T>(what: impl FnOnce() -> T) -> (usize, T) {
        let before = STEPS.get();
        let made = what();
        (STEPS.get() - before, made)
    }
}
