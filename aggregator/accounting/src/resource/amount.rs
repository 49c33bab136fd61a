//! An amount of quota: a whole number of base units, or unlimited.
//!
//! Base units are millicores, bytes and devices. All arithmetic saturates, and unlimited stays unlimited, as in Kueue.
//!
//! Source: kubernetes-sigs/kueue `pkg/resources/amount.go`.
use super::Resource;
use super::quantity::Quantity;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// More than any number: what does not fit into 63 bits.
    pub const UNLIMITED: Self = Self(i64::MAX);

    /// An amount in base units. What is larger than an amount can be is unlimited.
    pub fn of(units: i128) -> Self {
        let least = i128::from(i64::MIN);
        Self(i64::try_from(units.max(least)).unwrap_or(i64::MAX))
    }

    /// The amount that a quota or a limit of that resource spells.
    pub fn of_quantity(resource: &Resource, quantity: Quantity) -> Self {
        match resource {
            // Kueue compares with the largest whole number of cores.
            Resource::Cpu if quantity.millis() >= i128::from(i64::MAX / 1000) * 1000 => Self::UNLIMITED,
            Resource::Cpu => Self::of(quantity.millis()),
            _ => Self::of(quantity.units()),
        }
    }

    /// Whether it is unlimited.
    pub fn is_unlimited(self) -> bool {
        self == Self::UNLIMITED
    }

    /// In base units. `None` if it is unlimited.
    pub fn units(self) -> Option<i128> {
        (!self.is_unlimited()).then_some(self.0.into())
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        if self.is_unlimited() || other.is_unlimited() { Self::UNLIMITED } else { Self(self.0.saturating_add(other.0)) }
    }

    /// The difference. Unlimited less unlimited is nothing; an amount less unlimited is the least amount.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        match (self.is_unlimited(), other.is_unlimited()) {
            (true, true) => Self::ZERO,
            (true, false) => Self::UNLIMITED,
            (false, true) => Self(i64::MIN),
            (false, false) => Self(self.0.saturating_sub(other.0)),
        }
    }

    /// 0 if it is less than that.
    #[must_use]
    pub fn or_zero(self) -> Self {
        self.max(Self::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_63_bits_is_unlimited_and_stays_so() {
        let of = |resource: &str, text: &str| Amount::of_quantity(&Resource::any(resource), text.parse().unwrap());
        assert_eq!(of("cpu", "1500m"), Amount::of(1500));
        assert_eq!(of("memory", "1Ki"), Amount::of(1024));
        for (resource, text) in
            [("memory", "9Ei"), ("nvidia.com/gpu", "9223372036854775807"), ("cpu", "9223372036854775")]
        {
            assert_eq!(of(resource, text), Amount::UNLIMITED, "{text}");
        }
        let (one, all) = (Amount::of(1), Amount::UNLIMITED);
        assert_eq!((one.plus(all), all.plus(one), all.minus(one)), (all, all, all));
        assert_eq!((all.minus(all), one.minus(all).or_zero()), (Amount::ZERO, Amount::ZERO));
        assert!(all > one && all.units().is_none());
    }
}
