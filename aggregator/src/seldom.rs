//! Rate limit for repeated warnings: the first is logged immediately, then one a minute, with the number of those suppressed in
//! between. Reads no clock.
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mcad_accounting::now::Now;
use mcad_accounting::table::Table;

/// The time between two logged warnings.
const EVERY: Duration = Duration::from_mins(1);

/// Warnings of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seldom {
    said: Option<Duration>,
    unsaid: u64,
}

/// Warnings of a bounded number of kinds.
#[derive(Debug)]
pub(crate) struct Repeated<K>(Mutex<Table<K, Seldom>>);

impl Seldom {
    /// Records one more warning. If the result is not `None`, log it with the number of suppressed warnings since the last one.
    pub(crate) fn again(&mut self, now: Now) -> Option<u64> {
        let now = now.since_start;
        if self.said.is_some_and(|said| now < said + EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl<K> Default for Repeated<K> {
    fn default() -> Self {
        Self(Mutex::new(Table::default()))
    }
}

impl<K: Eq + Hash> Repeated<K> {
    /// Records [one more warning](Seldom::again) of this kind.
    pub(crate) fn again(&self, kind: K, now: Now) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default().again(now)
    }
}

#[cfg(test)]
mod tests {
    use mcad_testkit::reports::at;

    use super::*;

    #[test]
    fn the_first_of_a_kind_is_said_and_then_one_a_minute_with_how_many_there_were() {
        let warned = Repeated::default();
        assert_eq!(warned.again("a", at(5)), Some(0));
        assert_eq!((0..999).filter_map(|_| warned.again("a", at(64))).count(), 0);
        assert_eq!(warned.again("b", at(64)), Some(0));
        assert_eq!(warned.again("a", at(65)), Some(999));
        assert_eq!(warned.again("a", at(65)), None);
        assert_eq!(warned.again("a", at(1000)), Some(1));
    }
}
