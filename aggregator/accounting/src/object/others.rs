//! Amounts of resources that have no ladder: `ephemeral-storage`, hugepages, volumes and whatever else objects name. They count
//! for fit on nodes alone.
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OthersSum(Vec<Summed>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Summed {
    name: Arc<str>,
    amount: i128,
    /// How many amounts name it.
    named: u32,
}

impl OthersSum {
    /// How much of one.
    pub fn get(&self, name: &str) -> i128 {
        self.at(name).map_or(0, |at| self.0[at].amount)
    }

    /// Adds an amount.
    pub fn put(&mut self, amounts: &Others) {
        for (name, amount) in amounts.iter() {
            let at = self.at(name).unwrap_or_else(|at| {
                self.0.insert(at, Summed { name: name.clone(), amount: 0, named: 0 });
                at
            });
            self.0[at].amount = self.0[at].amount.saturating_add(amount);
            self.0[at].named += 1;
        }
    }

    /// Takes away an amount that was put in.
    pub fn take(&mut self, amounts: &Others) {
        for (name, amount) in amounts.iter() {
            let Ok(at) = self.at(name) else { continue };
            self.0[at].amount = self.0[at].amount.saturating_sub(amount);
            self.0[at].named = self.0[at].named.saturating_sub(1);
            if self.0[at].named == 0 {
                self.0.remove(at);
            }
        }
    }

    fn at(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|known| (*known.name).cmp(name))
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
