//! What pods of an AppWrapper use, as far as one node or several have measured it.
use super::Usage;

/// Sums over pods, each beside how many pods it is of: where it is not of all of them, the AppWrapper's is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    nanocores: Sum,
    bytes: Sum,
    nanodevices: Sum,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    amount: u64,
    pods: u64,
}

impl Share {
    /// Adds one pod.
    pub(super) fn put(&mut self, usage: Usage) {
        let one = |figure: Option<u64>| figure.map_or_else(Sum::default, |amount| Sum { amount, pods: 1 });
        self.add(&Self {
            nanocores: one(usage.nanocores),
            bytes: one(usage.bytes),
            nanodevices: one(usage.nanodevices),
        });
    }

    /// Adds the pods of another node.
    pub fn add(&mut self, other: &Self) {
        self.nanocores.add(other.nanocores);
        self.bytes.add(other.bytes);
        self.nanodevices.add(other.nanodevices);
    }

    /// What the AppWrapper uses that has so many bound, unfinished pods.
    pub fn of_all(&self, pods: u64) -> Usage {
        let of = |sum: Sum| (sum.pods == pods && pods > 0).then_some(sum.amount);
        Usage { nanocores: of(self.nanocores), bytes: of(self.bytes), nanodevices: of(self.nanodevices) }
    }
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.amount = self.amount.saturating_add(other.amount);
        self.pods += other.pods;
    }
}
