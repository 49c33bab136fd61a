//! Amounts of resources that have no ladder: `ephemeral-storage`, hugepages, volumes and whatever else objects name. They count
//! for fit on nodes alone.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::object::quantities::Quantities;

/// Whole units by name, in order of name, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Others(Box<[(Arc<str>, i128)]>);

impl Others {
    /// How much of one; one that is not there is 0.
    pub fn get(&self, name: &str) -> i128 {
        self.declared(name).unwrap_or(0)
    }

    /// The same; absent: not named.
    pub fn declared(&self, name: &str) -> Option<i128> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok().map(|at| self.0[at].1)
    }

    /// Those that are named, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, i128)> {
        self.0.iter().map(|(name, amount)| (name, *amount))
    }

    /// None is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Rounded up.
    pub(crate) fn from_quantities(list: &Quantities) -> Self {
        list.others().map(|(name, quantity)| (name.clone(), quantity.units())).collect()
    }

    /// Less what is taken from them, however much that is.
    #[must_use]
    pub fn less(&self, taken: &OthersSum) -> Self {
        Self(self.iter().map(|(name, amount)| (name.clone(), amount.saturating_sub(taken.get(name)))).collect())
    }

    /// Replaces every name by the one `share` answers, so that equal names are one allocation.
    pub(crate) fn share_names(&mut self, mut share: impl FnMut(&Arc<str>) -> Arc<str>) {
        for (name, _) in &mut self.0 {
            *name = share(name);
        }
    }
}

impl FromIterator<(Arc<str>, i128)> for Others {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, i128)>>(amounts: I) -> Self {
        let mut amounts: Vec<_> = amounts.into_iter().collect();
        amounts.sort_unstable();
        Self(amounts.into())
    }
}

/// A sum of amounts that come and go. A resource is named in it for as long as one of them names it.
///
/// Its names are whatever those who make pods write, so that one that comes or goes must not move all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OthersSum(BTreeMap<Arc<str>, Summed>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summed {
    amount: i128,
    /// How many amounts name it.
    named: u32,
}

impl OthersSum {
    /// How much of one.
    pub fn get(&self, name: &str) -> i128 {
        self.0.get(name).map_or(0, |sum| sum.amount)
    }

    /// Adds an amount.
    pub fn put(&mut self, amounts: &Others) {
        for (name, amount) in amounts.iter() {
            match self.0.get_mut(name) {
                Some(sum) => *sum = Summed { amount: sum.amount.saturating_add(amount), named: sum.named + 1 },
                None => drop(self.0.insert(name.clone(), Summed { amount, named: 1 })),
            }
        }
    }

    /// Takes away an amount that was put in.
    pub fn take(&mut self, amounts: &Others) {
        for (name, amount) in amounts.iter() {
            let Some(sum) = self.0.get_mut(name) else { continue };
            *sum = Summed { amount: sum.amount.saturating_sub(amount), named: sum.named.saturating_sub(1) };
            if sum.named == 0 {
                self.0.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_went_leaves_no_trace_in_a_sum() {
        let of = |amounts: &[(&str, i128)]| {
            amounts.iter().map(|(name, amount)| (Arc::from(*name), *amount)).collect::<Others>()
        };
        let mut sum = OthersSum::default();
        sum.put(&of(&[("hugepages-2Mi", 4), ("ephemeral-storage", 0)]));
        sum.put(&of(&[("ephemeral-storage", 7)]));
        assert_eq!((sum.get("ephemeral-storage"), sum.get("hugepages-2Mi"), sum.get("none")), (7, 4, 0));
        assert_eq!(of(&[("ephemeral-storage", 5)]).less(&sum), of(&[("ephemeral-storage", -2)]));
        sum.take(&of(&[("hugepages-2Mi", 4), ("ephemeral-storage", 0)]));
        sum.take(&of(&[("ephemeral-storage", 7)]));
        assert_eq!(sum, OthersSum::default());
    }
}
