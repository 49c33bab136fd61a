//! How long totals of what has ended are kept, and of how many: for an aggregator that was unavailable.

use std::collections::BTreeMap;

/// How long.
pub const KEPT_NS: u64 = 3600 * 1_000_000_000;

/// Drops what was seen the longest ago, until at most so many are left.
pub fn drop_oldest<K: Ord + Clone, V>(totals: &mut BTreeMap<K, V>, at_most: usize, seen_ns: impl Fn(&V) -> u64) {
    let surplus = totals.len().saturating_sub(at_most);
    if surplus == 0 {
        return;
    }
    let mut by_age: Vec<(u64, K)> = totals.iter().map(|(key, total)| (seen_ns(total), key.clone())).collect();
    by_age.select_nth_unstable(surplus - 1);
    for (_, key) in &by_age[..surplus] {
        totals.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_may_be_stay_and_the_oldest_go_first() {
        let mut totals: BTreeMap<u64, u64> = (0..10).map(|key| (key, 100 - key)).collect();
        drop_oldest(&mut totals, 10, |seen| *seen);
        assert_eq!(totals.len(), 10);
        drop_oldest(&mut totals, 3, |seen| *seen);
        assert_eq!(totals.into_keys().collect::<Vec<_>>(), [0, 1, 2]);
    }
}
