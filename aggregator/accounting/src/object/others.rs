//! Amounts of resources that have no ladder: `ephemeral-storage`, hugepages, volumes and all other names. They matter only for whether pods
//! fit on nodes.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::object::quantities::Quantities;

/// Whole units by name, sorted by name, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Others(Box<[(Arc<str>, i128)]>);

impl Others {
    /// The amount of one resource; 0 if it is absent.
    pub fn get(&self, name: &str) -> i128 {
        self.declared(name).unwrap_or(0)
    }

    /// The same; `None` if it is not named.
    pub fn declared(&self, name: &str) -> Option<i128> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok().map(|at| self.0[at].1)
    }

    /// The named resources, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, i128)> {
        self.0.iter().map(|(name, amount)| (name, *amount))
    }

    /// Whether no resource is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Rounds quantities up to whole units.
    pub(crate) fn from_quantities(list: &Quantities) -> Self {
        list.others().map(|(name, quantity)| (name.clone(), quantity.units())).collect()
    }

    /// Subtracts `taken`; the result may be negative.
    #[must_use]
    pub fn less(&self, taken: &OthersSum) -> Self {
        Self(self.iter().map(|(name, amount)| (name.clone(), amount.saturating_sub(taken.get(name)))).collect())
    }

    /// Replaces every name by the one that `share` returns, so that equal names are one allocation.
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

/// A sum of amounts that come and go. It names a resource for as long as one of its amounts names it.
///
/// Users who create pods choose the names, so adding or removing one name must not move all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OthersSum(BTreeMap<Arc<str>, Summed>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summed {
    amount: i128,
    /// How many amounts name it.
    named: u32,
}

impl OthersSum {
    /// The amount of one resource.
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

    /// Subtracts an amount that was added before.
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
