//! Entries that arrive again and again in the same order: contiguous in memory and sorted by name.
use std::cmp::Ordering;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Row<T> {
    all: Vec<T>,
    /// The index of the entry that came after the last one the previous time.
    next: usize,
}

impl<T> Default for Row<T> {
    fn default() -> Self {
        Self { all: Vec::new(), next: 0 }
    }
}

impl<T> Row<T> {
    pub(super) fn all(&self) -> &[T] {
        &self.all
    }

    /// The entry of a name; `order` compares another entry with it.
    pub(super) fn get(&self, order: impl Fn(&T) -> Ordering) -> Option<&T> {
        Some(&self.all[self.all.binary_search_by(order).ok()?])
    }

    /// The same; creates the entry if there is none. `is` tests whether an entry is the one, which is faster than `order`.
    pub(super) fn get_or_put(
        &mut self,
        is: impl Fn(&T) -> bool,
        order: impl Fn(&T) -> Ordering,
        new: impl FnOnce(&[T]) -> T,
    ) -> &mut T {
        let likely = if self.next < self.all.len() { self.next } else { 0 };
        let at = if self.all.get(likely).is_some_and(is) {
            likely
        } else {
            self.all.binary_search_by(order).unwrap_or_else(|free| {
                let new = new(&self.all);
                self.all.insert(free, new);
                free
            })
        };
        self.next = at + 1;
        &mut self.all[at]
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&mut T) -> bool) {
        self.all.retain_mut(keep);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_is_there_once_and_in_order_in_whatever_order_they_come(names in proptest::collection::vec(0..20_u32, 0..60)) {
            let mut row = Row::default();
            let mut expected = BTreeSet::new();
            for name in names {
                expected.insert(name);
                let found = row.get_or_put(|other| *other == name, |other: &u32| other.cmp(&name), |_| name);
                prop_assert_eq!(*found, name);
                prop_assert!(row.all().iter().eq(&expected));
                if name == 7 {
                    row.retain(|other| *other < 10);
                    expected.retain(|other| *other < 10);
                }
                prop_assert_eq!(row.get(|other| other.cmp(&5)), expected.get(&5));
            }
        }
    }
}
