//! How much work the search for a placement may be. It is counted, not timed, so that equal input gives equal output on every
//! machine.

/// For one AppWrapper. A step takes some nanoseconds: this is some milliseconds of one core.
const OF_APPWRAPPER: u64 = 1_000_000;

/// For all AppWrappers of a snapshot: a tenth of a second.
const OF_SNAPSHOT: u64 = 10_000_000;

/// Looks at nodes that best fit may take for one AppWrapper in any case: a thousand groups on ten thousand nodes.
const USUAL: u64 = 20_000_000;

/// Looks at nodes for all AppWrappers of a snapshot that need more: some ten seconds. Whoever may create AppWrappers must not be able to
/// keep others from their verdicts.
const OF_UNUSUAL: u64 = 2_000_000_000;

/// What is left of it.
#[derive(Debug)]
pub(super) struct Steps {
    of_appwrapper: u64,
    of_snapshot: u64,
    usual: u64,
    of_unusual: u64,
}

/// It is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutShort;

impl Steps {
    pub(super) fn of_snapshot() -> Self {
        Self { of_appwrapper: 0, of_snapshot: OF_SNAPSHOT, usual: USUAL, of_unusual: OF_UNUSUAL }
    }

    /// The same with these limits on best fit.
    #[cfg(test)]
    pub(super) fn with_looks(usual: u64, of_unusual: u64) -> Self {
        Self { usual, of_unusual, ..Self::of_snapshot() }
    }

    /// Whether best fit may look at nodes so often for one AppWrapper.
    pub(super) fn affords(&mut self, looks: u64) -> bool {
        if looks <= self.usual {
            return true;
        }
        let left = self.of_unusual.checked_sub(looks);
        self.of_unusual = left.unwrap_or(self.of_unusual);
        left.is_some()
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
