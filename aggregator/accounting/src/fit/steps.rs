//! How much work the search for a placement may be. It is counted, not timed, so that equal input gives equal output on every
//! machine.

/// For one AppWrapper. A step takes some nanoseconds: this is some milliseconds of one core.
const OF_APPWRAPPER: u64 = 1_000_000;

/// For all AppWrappers of a snapshot: a tenth of a second.
const OF_SNAPSHOT: u64 = 10_000_000;

/// What is left of it.
#[derive(Debug)]
pub(super) struct Steps {
    of_appwrapper: u64,
    of_snapshot: u64,
}

/// It is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutShort;

impl Steps {
    pub(super) fn of_snapshot() -> Self {
        Self { of_appwrapper: 0, of_snapshot: OF_SNAPSHOT }
    }

    /// The next AppWrapper.
    pub(super) fn begin(&mut self) {
        self.of_appwrapper = OF_APPWRAPPER;
    }

    /// Goes so many steps.
    pub(super) fn go(&mut self, steps: usize) -> Result<(), CutShort> {
        let left = self.of_appwrapper.min(self.of_snapshot);
        let going = u64::try_from(steps).unwrap_or(u64::MAX).min(left);
        self.of_appwrapper -= going;
        self.of_snapshot -= going;
        if going < left { Ok(()) } else { Err(CutShort) }
    }
}
