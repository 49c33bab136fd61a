//! What pods do with the GPUs that they hold: busy, or idle by cause (docs/accounting.md §13).
use mcad_wire::parts::Part;

use crate::object::AppWrapperName;

/// What a holder does with a device, or why the device idles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// What the agent says.
    Part(Part),
    /// No process yet: the container that holds the device has not started.
    Starting,
    /// No process yet: not all pods of the AppWrapper were bound.
    Gang,
}

/// How many uses there are.
const COUNT: usize = Part::ALL.len() + 2;

impl Use {
    /// The device is busy.
    pub const BUSY: Self = Self::Part(Part::Busy);

    /// All uses: busy, then the causes of idle time.
    pub fn all() -> impl Iterator<Item = Self> {
        Part::ALL.into_iter().map(Self::Part).chain([Self::Starting, Self::Gang])
    }

    /// The causes of idle time.
    pub fn causes() -> impl Iterator<Item = Self> {
        Self::all().filter(|of| *of != Self::BUSY)
    }

    /// The value of the labels `use` and `cause`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Part(part) => part.as_str(),
            Self::Starting => "starting",
            Self::Gang => "gang",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Part(part) => part as usize,
            Self::Starting => Part::ALL.len(),
            Self::Gang => Part::ALL.len() + 1,
        }
    }
}

/// An amount for each use: time in ns, or devices in billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses([u64; COUNT]);

impl Uses {
    /// The amount of one use.
    pub const fn of(&self, of: Use) -> u64 {
        self.0[of.index()]
    }

    /// Adds to one use.
    pub const fn add(&mut self, of: Use, amount: u64) {
        let sum = &mut self.0[of.index()];
        *sum = sum.saturating_add(amount);
    }

    /// Adds all of these.
    pub fn add_all(&mut self, more: &Self) {
        for (sum, more) in self.0.iter_mut().zip(more.0) {
            *sum = sum.saturating_add(more);
        }
    }

    /// Moves as much as there is, at most this amount, from one use to another. Returns how much was moved.
    pub fn shift(&mut self, from: Use, to: Use, at_most: u64) -> u64 {
        let moved = self.of(from).min(at_most);
        self.0[from.index()] -= moved;
        self.add(to, moved);
        moved
    }

    /// All amounts added up.
    pub fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, amount| sum.saturating_add(*amount))
    }

    /// The amounts of the causes of idle time.
    pub fn idle(&self) -> impl Iterator<Item = (Use, u64)> + '_ {
        Use::causes().map(|cause| (cause, self.of(cause)))
    }

    /// The idle amounts added up.
    pub fn idle_sum(&self) -> u64 {
        self.idle().fold(0, |sum, (_, amount)| sum.saturating_add(amount))
    }

    /// The cause of the most idle time, and its amount. `None` if there is no idle time.
    pub fn largest_cause(&self) -> Option<(Use, u64)> {
        // Of equals, the first.
        self.idle().filter(|(_, amount)| *amount > 0).reduce(|most, next| if next.1 > most.1 { next } else { most })
    }

    /// The same proportions of another sum, which is not 0 exactly if this one is not. What rounding loses goes to the largest amount.
    #[must_use]
    pub fn scaled_to(&self, sum: u64) -> Self {
        let all = u128::from(self.sum());
        if all == 0 {
            return Self::default();
        }
        // No more than `sum`, so it fits.
        let mut scaled = Self(self.0.map(|amount| (u128::from(amount) * u128::from(sum) / all) as u64));
        let lost = sum - scaled.sum();
        if let Some(most) = (0..COUNT).rev().max_by_key(|at| self.0[*at]) {
            scaled.0[most] += lost;
        }
        scaled
    }

    /// From the parts of a report. Parts that this version does not know become unknown.
    pub fn from_report(parts: &[u64]) -> Self {
        Self::of_known(parts, Part::ALL.len())
    }

    /// By position, without zeros at the end.
    pub fn to_wire(&self) -> Vec<u64> {
        let used = self.0.iter().rposition(|amount| *amount > 0).map_or(0, |last| last + 1);
        self.0[..used].to_vec()
    }

    /// From amounts by position. Amounts at positions that this version does not know become unknown.
    pub fn from_wire(amounts: &[u64]) -> Self {
        Self::of_known(amounts, COUNT)
    }

    fn of_known(amounts: &[u64], known: usize) -> Self {
        let mut uses = Self::default();
        let (known, unknown) = amounts.split_at(amounts.len().min(known));
        uses.0[..known.len()].copy_from_slice(known);
        for amount in unknown {
            uses.add(Use::Part(Part::Unknown), *amount);
        }
        uses
    }
}

/// What one node's pods do with the devices that they hold: parts of devices, in billionths, by AppWrapper.
pub type HeldOnNode = [(Option<AppWrapperName>, Uses)];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_and_positions_are_those_of_the_report_and_two_more() {
        let labels: Vec<_> = Use::all().map(Use::label).collect();
        assert_eq!(labels[0], "busy");
        assert_eq!(labels[labels.len() - 2..], ["starting", "gang"]);
        assert_eq!(Use::all().map(Use::index).collect::<Vec<_>>(), (0..COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_later_version_adds_is_unknown() {
        let mut amounts = vec![1; COUNT];
        amounts.extend([5, 7]);
        let uses = Uses::from_wire(&amounts);
        assert_eq!((uses.of(Use::Part(Part::Unknown)), uses.of(Use::Gang)), (13, 1));
        let of_agent = Uses::from_report(&amounts);
        assert_eq!((of_agent.of(Use::Part(Part::Unknown)), of_agent.of(Use::Gang)), (15, 0));
    }

    #[test]
    fn the_largest_cause_is_the_first_of_equals_and_never_busy() {
        let mut uses = Uses::default();
        assert_eq!(uses.largest_cause(), None);
        uses.add(Use::BUSY, 9);
        assert_eq!(uses.largest_cause(), None);
        uses.add(Use::Part(Part::Io), 3);
        uses.add(Use::Gang, 3);
        assert_eq!(uses.largest_cause(), Some((Use::Part(Part::Io), 3)));
    }

    proptest! {
        #[test]
        fn proportions_add_up(amounts in prop::array::uniform14(0..1_u64 << 50), sum in 0..1_u64 << 40) {
            let uses = Uses(amounts);
            let scaled = uses.scaled_to(sum);
            prop_assert_eq!(scaled.sum(), if uses.sum() == 0 { 0 } else { sum });
            prop_assert!(Use::all().all(|of| uses.of(of) > 0 || scaled.of(of) == 0));
            prop_assert_eq!(Uses::from_wire(&uses.to_wire()), uses);
        }
    }
}
