//! What the pods of an AppWrapper use, as far as one or several nodes have measured it.
use super::Usage;

/// Sums over pods, each with the number of pods in it. If a sum does not include all pods of the AppWrapper, the AppWrapper's value is
/// unknown.
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
    /// Adds the values of one pod.
    pub(super) fn put(&mut self, usage: Usage) {
        let one = |value: Option<u64>| value.map_or_else(Sum::default, |amount| Sum { amount, pods: 1 });
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

    /// What an AppWrapper with this many bound, unfinished pods uses.
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
