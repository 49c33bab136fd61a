//! The remaining values of a pool's counters, which overlapping devices consume.
use std::collections::HashMap;

use crate::cluster::devices::Pool;
use crate::object::slice::Listed;

/// The remaining values of the counters of one pool.
#[derive(Debug)]
pub(crate) struct Left<'a> {
    pool: &'a Pool,
    /// Consumed amounts in billionths, by counter set and counter.
    consumed: HashMap<(&'a str, &'a str), i128>,
}

impl<'a> Left<'a> {
    /// The full counters of the pool.
    pub(crate) fn of(pool: &'a Pool) -> Self {
        Self { pool, consumed: HashMap::new() }
    }

    /// Whether these are the counters of that pool.
    pub(crate) fn is_of(&self, pool: &Pool) -> bool {
        self.pool.name == pool.name
    }

    /// Whether enough is left for a device.
    pub(crate) fn has(&self, listed: Listed<'_>) -> bool {
        listed.described().consumes.iter().all(|(set, consumed)| {
            let Some(counters) = self.pool.counter_set(set) else { return false };
            consumed.iter().all(|(name, amount)| {
                let there = counters.iter().find(|(known, _)| known == name).map_or(0, |(_, amount)| amount.nanos());
                let taken = self.consumed.get(&(&**set, &**name)).copied().unwrap_or(0);
                taken.saturating_add(amount.nanos()) <= there
            })
        })
    }

    /// What is left of one counter, in billionths.
    pub(crate) fn of_counter(&self, set: &str, name: &str) -> i128 {
        let counters = self.pool.counter_set(set).into_iter().flatten();
        let there = counters.into_iter().find(|(known, _)| **known == *name).map_or(0, |(_, amount)| amount.nanos());
        there.saturating_sub(self.consumed.get(&(set, name)).copied().unwrap_or(0))
    }

    /// Subtracts what an allocated device consumes.
    pub(crate) fn take(&mut self, listed: Listed<'a>) {
        self.note(listed, i128::saturating_add);
    }

    /// Adds back what a device consumes that is no longer allocated.
    pub(crate) fn give_back(&mut self, listed: Listed<'a>) {
        self.note(listed, i128::saturating_sub);
    }

    fn note(&mut self, listed: Listed<'a>, change: impl Fn(i128, i128) -> i128) {
        for (set, consumed) in &listed.described().consumes {
            for (name, amount) in consumed {
                let taken = self.consumed.entry((set, name)).or_default();
                *taken = change(*taken, amount.nanos());
            }
        }
    }
}
