//! Kubernetes quantities: the text of an amount of a resource, read by Kubernetes' own rules.
//!
//! Owns the syntax and the exact value. Where and how an amount is rounded is the caller's rule.
//!
//! Source of the rules: k8s.io/apimachinery `pkg/api/resource/quantity.go`, `suffix.go` and `amount.go`.
use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

/// Kubernetes' finest precision: smaller amounts are rounded up to it.
const NANOS_PER_UNIT: i128 = 1_000_000_000;
/// Kubernetes caps larger binary amounts at this.
const MAX_NANOS: i128 = i64::MAX as i128 * NANOS_PER_UNIT;
/// The most digits that Kubernetes' integer path accepts (`maxInt64Factors`).
const INTEGER_DIGITS: i64 = 18;

/// An amount, exact to a nano. Never negative: the API server refuses negative amounts of resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nanos: i128,
    /// The result of Go's `AsInt64`. It depends on the spelling, not on the value: `4` has one, `4000m` has none.
    integer: Option<i64>,
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QuantityError {
    /// Not a number with an optional suffix.
    #[error("`{0}` is not a quantity")]
    Syntax(String),
    /// Not one of Kubernetes' suffixes.
    #[error("`{text}` has the unknown suffix `{suffix}`")]
    Suffix {
        /// The whole text.
        text: String,
        /// The part after the number.
        suffix: String,
    },
    /// The amount is below zero.
    #[error("`{0}` is negative")]
    Negative(String),
}

impl Quantity {
    /// Whole thousandths, rounded up (`MilliValue`).
    pub fn millis(self) -> i128 {
        self.up(NANOS_PER_UNIT / 1_000)
    }

    /// Whole units, rounded up (`Value`).
    pub fn units(self) -> i128 {
        self.up(NANOS_PER_UNIT)
    }

    /// Billionths, exact.
    pub fn nanos(self) -> i128 {
        self.up(1)
    }

    /// Go's `AsInt64`. `None` if the spelling has a fraction, a suffix below one, or more digits than the integer path accepts, even if the
    /// value is whole.
    pub fn as_int64(self) -> Option<i64> {
        self.integer
    }

    /// Whether the amount is 0.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    fn up(self, unit: i128) -> i128 {
        self.nanos / unit + i128::from(self.nanos % unit != 0)
    }
}

/// Sums are exact. A sum has no spelling, so `AsInt64` is `None`.
impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        self.nanos = self.nanos.saturating_add(other.nanos);
        self.integer = None;
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || QuantityError::Syntax(text.to_owned());
        let (negative, unsigned) = match text.as_bytes().first() {
            None => return Err(syntax()),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let digits_end = |from: &str| from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (whole, rest) = unsigned.split_at(digits_end(unsigned));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits_end(rest)),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(syntax());
        }
        let scale = Scale::parse(suffix).ok_or_else(|| {
            if suffix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'-') {
                QuantityError::Suffix { text: text.to_owned(), suffix: suffix.to_owned() }
            } else {
                syntax()
            }
        })?;
        let whole = whole.trim_start_matches('0');
        let nanos = scale.nanos(whole, fraction);
        if negative && nanos != 0 {
            return Err(QuantityError::Negative(text.to_owned()));
        }
        Ok(Self { nanos, integer: scale.integer(whole, fraction) })
    }
}

/// A suffix: a power of ten or of two.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "n" => Self::Ten(-9),
            "u" => Self::Ten(-6),
            "m" => Self::Ten(-3),
            "" => Self::Ten(0),
            "k" => Self::Ten(3),
            "M" => Self::Ten(6),
            "G" => Self::Ten(9),
            "T" => Self::Ten(12),
            "P" => Self::Ten(15),
            "E" => Self::Ten(18),
            "Ki" => Self::Two(10),
            "Mi" => Self::Two(20),
            "Gi" => Self::Two(30),
            "Ti" => Self::Two(40),
            "Pi" => Self::Two(50),
            "Ei" => Self::Two(60),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E'])?;
                Self::Ten(exponent.parse::<i64>().ok()?.clamp(-10_000, 10_000) as i32)
            }
        })
    }

    /// The value in nanos, rounded up and capped. `whole` has no leading zeros.
    fn nanos(self, whole: &str, fraction: &str) -> i128 {
        match self {
            Self::Ten(exponent) => decimal(whole, fraction, exponent + 9),
            Self::Two(exponent) => {
                // Overflow starts far above the cap. Fractions finer than 18 digits are rounded up.
                let scaled = decimal(whole, fraction, 18).saturating_mul(1 << exponent);
                (scaled / NANOS_PER_UNIT + i128::from(scaled % NANOS_PER_UNIT != 0)).min(MAX_NANOS)
            }
        }
    }

    /// Go decides by the number of digits, before it computes the value, whether it takes its integer path, the only one that `AsInt64`
    /// supports.
    fn integer(self, whole: &str, fraction: &str) -> Option<i64> {
        // After zeros are stripped, an empty whole part counts as the one digit `0`.
        let whole = if whole.is_empty() { "0" } else { whole };
        let digits = (whole.len() + fraction.len()) as i64;
        let value = || format!("{whole}{fraction}").parse::<i64>().ok();
        match self {
            Self::Ten(exponent) => {
                if digits > INTEGER_DIGITS {
                    return None;
                }
                let value = value()?;
                match exponent - fraction.len() as i32 {
                    -9.. if value == 0 => Some(0),
                    scale @ 0.. => value.checked_mul(10_i64.checked_pow(scale as u32)?),
                    _ => None,
                }
            }
            Self::Two(exponent) => {
                let room = 15 - digits - i64::from(exponent * 3 / 10) - 1;
                if !fraction.is_empty() || room < 0 {
                    return None;
                }
                value()?.checked_mul(1_i64 << exponent)
            }
        }
    }
}

/// `whole.fraction` × 10^`exponent`, rounded up to an integer; `i128::MAX` at most.
fn decimal(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let point = whole.len() as i64 + i64::from(exponent);
    let mut value: i128 = 0;
    let mut more = false;
    for (at, digit) in (0_i64..).zip(whole.bytes().chain(fraction.bytes())) {
        if at < point {
            value = value.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
        } else {
            more |= digit != b'0';
        }
    }
    // More than 40 zeros saturate every value except 0.
    let zeros = point - (whole.len() + fraction.len()) as i64;
    for _ in 0..zeros.clamp(0, 40) {
        value = value.saturating_mul(10);
    }
    value.saturating_add(i128::from(more))
}

/// A quantity as it is written in an object: a string, an integer or a float. Any other value is unreadable; only this value is lost, never
/// the object that contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelled(pub Result<Quantity, QuantityError>);

impl<'de> Deserialize<'de> for Spelled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpelledVisitor)
    }
}

struct SpelledVisitor;

impl<'de> Visitor<'de> for SpelledVisitor {
    type Value = Spelled;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes quantity")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Spelled, E> {
        Ok(Spelled(text.trim().parse()))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Spelled, E> {
        Ok(Spelled(number.to_string().parse()))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Spelled, E> {
        Ok(Spelled(number.to_string().parse()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Spelled, E> {
        Ok(Spelled(number.to_string().parse()))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Spelled, E> {
        Ok(Spelled(Err(QuantityError::Syntax(value.to_string()))))
    }

    /// Kubernetes reads null as 0.
    fn visit_unit<E: serde::de::Error>(self) -> Result<Spelled, E> {
        Ok(Spelled(Ok(Quantity { nanos: 0, integer: Some(0) })))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Spelled, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Spelled(Err(QuantityError::Syntax("[…]".into()))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Spelled, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Spelled(Err(QuantityError::Syntax("{…}".into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &[(&str, i128, i128, Option<i64>)]) {
        for &(text, millis, units, int64) in cases {
            let quantity: Quantity = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((quantity.millis(), quantity.units(), quantity.as_int64()), (millis, units, int64), "{text}");
        }
    }

    #[test]
    fn every_suffix_is_read_as_kubernetes_reads_it() {
        check(&[
            ("0", 0, 0, Some(0)),
            ("4", 4000, 4, Some(4)),
            ("+4", 4000, 4, Some(4)),
            ("1k", 1_000_000, 1_000, Some(1_000)),
            ("1M", 1_000_000_000, 1_000_000, Some(1_000_000)),
            ("1G", 1_000_000_000_000, 1_000_000_000, Some(1_000_000_000)),
            ("1T", 1_000_000_000_000_000, 1_000_000_000_000, Some(1_000_000_000_000)),
            ("1P", 1_000_000_000_000_000_000, 1_000_000_000_000_000, Some(1_000_000_000_000_000)),
            ("1E", 1_000_000_000_000_000_000_000, 1_000_000_000_000_000_000, Some(1_000_000_000_000_000_000)),
            ("1Ki", 1_024_000, 1 << 10, Some(1 << 10)),
            ("1Mi", 1_048_576_000, 1 << 20, Some(1 << 20)),
            ("1Gi", 1_073_741_824_000, 1 << 30, Some(1 << 30)),
            ("1Ti", 1_099_511_627_776_000, 1 << 40, Some(1 << 40)),
            ("100m", 100, 1, None),
            ("1500u", 2, 1, None),
            ("500000000n", 500, 1, None),
        ]);
    }

    #[test]
    fn exponents_are_powers_of_ten() {
        check(&[
            ("8e0", 8000, 8, Some(8)),
            ("1e3", 1_000_000, 1000, Some(1000)),
            ("1E3", 1_000_000, 1000, Some(1000)),
            ("1e+3", 1_000_000, 1000, Some(1000)),
            ("1e-3", 1, 1, None),
            ("3415000e3", 3_415_000_000_000, 3_415_000_000, Some(3_415_000_000)),
            ("1e-400", 1, 1, None),
        ]);
    }

    #[test]
    fn fractions_round_up_and_never_to_nothing() {
        check(&[
            ("0.1", 100, 1, None),
            (".5", 500, 1, None),
            ("5.", 5000, 5, Some(5)),
            ("1.0001", 1001, 2, None),
            ("0.0000000001", 1, 1, None),
            ("1.5Ki", 1_536_000, 1536, None),
            ("2528.0M", 2_528_000_000_000, 2_528_000_000, Some(2_528_000_000)),
        ]);
    }

    #[test]
    fn as_int64_fails_by_spelling_not_by_value() {
        check(&[
            ("4000m", 4000, 4, None),
            ("4.0", 4000, 4, None),
            ("0m", 0, 0, Some(0)),
            ("4.000k", 4_000_000, 4000, Some(4000)),
            ("1Pi", 1_125_899_906_842_624_000, 1 << 50, None),
            ("1000000000000000000", 1_000_000_000_000_000_000_000, 1_000_000_000_000_000_000, None),
        ]);
    }

    #[test]
    fn binary_amounts_are_capped_where_kubernetes_caps_them() {
        let cap = i128::from(i64::MAX);
        check(&[("9Ei", cap * 1000, cap, None), ("8000000Ei", cap * 1000, cap, None)]);
    }

    #[test]
    fn what_kubernetes_refuses_is_an_error() {
        for text in
            ["", "-", "+", "a", "1.1.1", "1 Gi", "1gi", "1KI", "1e", "1e1.5", "0x10", "1_000", "NaN", "inf", "1ki"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
        assert_eq!("-1".parse::<Quantity>(), Err(QuantityError::Negative("-1".into())));
        assert_eq!("-0".parse::<Quantity>().map(Quantity::units), Ok(0));
    }

    #[test]
    fn sums_are_exact_and_round_once() {
        let mut sum = Quantity::default();
        for _ in 0..3 {
            sum += "100000n".parse().unwrap();
        }
        assert_eq!(sum.millis(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn integers_are_themselves(value in 0_i64..1_000_000_000_000_000) {
            let quantity: Quantity = value.to_string().parse().unwrap();
            proptest::prop_assert_eq!(quantity.units(), i128::from(value));
            proptest::prop_assert_eq!(quantity.as_int64(), Some(value));
        }
    }
}
