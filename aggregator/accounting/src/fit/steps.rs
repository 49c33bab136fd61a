//! Limits the work of the search for a placement. Work is counted in steps, not in time, so that equal input gives
//! equal output on every machine.

/// Steps for one AppWrapper. A step takes some nanoseconds, so this is some milliseconds of one core.
const OF_APPWRAPPER: u64 = 1_000_000;

/// Steps for each AppWrapper whose pods use claims, whatever others take. Examining all of ten thousand nodes with
/// eight devices takes some 300,000 steps.
const USUAL_OF_CLAIMS: u64 = 2_000_000;
/// Additional steps for one such AppWrapper, and for all of them.
const OF_CLAIMS: u64 = 20_000_000;
const OF_ALL_CLAIMS: u64 = 400_000_000;

/// Steps for all AppWrappers of a snapshot: a tenth of a second.
const OF_SNAPSHOT: u64 = 10_000_000;

/// How many nodes best fit can examine for any AppWrapper: a thousand groups on ten thousand nodes.
const USUAL: u64 = 20_000_000;

/// How many nodes best fit can examine for all AppWrappers of a snapshot that need more: some ten seconds. A user who
/// can create AppWrappers must not be able to keep others from getting a verdict.
const OF_UNUSUAL: u64 = 2_000_000_000;

/// The remaining steps.
#[derive(Debug)]
pub(super) struct Steps {
    each: u64,
    each_usual: u64,
    /// The remaining steps that other AppWrappers cannot use up.
    of_usual: u64,
    of_appwrapper: u64,
    of_snapshot: u64,
    usual: u64,
    of_unusual: u64,
}

/// The steps are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutShort;

impl Steps {
    pub(super) fn of_snapshot() -> Self {
        Self {
            each: OF_APPWRAPPER,
            each_usual: 0,
            of_usual: 0,
            of_appwrapper: 0,
            of_snapshot: OF_SNAPSHOT,
            usual: USUAL,
            of_unusual: OF_UNUSUAL,
        }
    }

    /// The steps for AppWrappers with claims.
    pub(super) fn of_claims() -> Self {
        Self { each: OF_CLAIMS, each_usual: USUAL_OF_CLAIMS, of_snapshot: OF_ALL_CLAIMS, ..Self::of_snapshot() }
    }

    /// The same with these limits on best fit.
    #[cfg(test)]
    pub(super) fn with_looks(usual: u64, of_unusual: u64) -> Self {
        Self { usual, of_unusual, ..Self::of_snapshot() }
    }

    /// Whether best fit can examine this many nodes for one AppWrapper.
    pub(super) fn affords(&mut self, looks: u64) -> bool {
        if looks <= self.usual {
            return true;
        }
        let left = self.of_unusual.checked_sub(looks);
        self.of_unusual = left.unwrap_or(self.of_unusual);
        left.is_some()
    }

    /// Starts the next AppWrapper.
    pub(super) fn begin(&mut self) {
        (self.of_appwrapper, self.of_usual) = (self.each, self.each_usual);
    }

    /// Uses up this many steps.
    pub(super) fn go(&mut self, steps: usize) -> Result<(), CutShort> {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        if steps < self.of_usual {
            self.of_usual -= steps;
            return Ok(());
        }
        let left = self.of_appwrapper.min(self.of_snapshot);
        let going = steps.min(left);
        self.of_appwrapper -= going;
        self.of_snapshot -= going;
        if going < left { Ok(()) } else { Err(CutShort) }
    }
}
