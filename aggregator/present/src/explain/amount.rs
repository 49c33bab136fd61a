//! Amounts in the units that people read: cores, GiB, GPUs.
pub use mcad_terminal::words::{count, is_hostile, list, printable, printable_lines, span};

use mcad_accounting::resource::Resource;
use mcad_terminal::words::GIB;

/// How an amount is rounded if it has too many digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest value.
    Nearest,
    /// Up, for needs: never less than the amount.
    Up,
    /// Down, for what exists: never more than the amount.
    Down,
}

/// The unit of a resource's amounts, in the plural.
pub fn unit(resource: &Resource) -> &str {
    match resource {
        Resource::Cpu => "cores",
        Resource::Memory => "GiB",
        Resource::Gpu => "GPUs",
        Resource::Extended(name) => name,
    }
}

/// The number for an amount in millicores, bytes or devices, without its unit.
pub fn number(resource: &Resource, amount: f64, rounding: Rounding) -> String {
    // Thousandths of a core are exact; two digits are enough for the rest.
    let (amount, digits) = match resource {
        Resource::Cpu => (amount / 1000.0, 3),
        Resource::Memory => (amount / GIB, 2),
        Resource::Extended(name) if is_in_bytes(name) => (amount / GIB, 2),
        Resource::Gpu | Resource::Extended(_) => (amount, 2),
    };
    let scale = 10_f64.powi(digits);
    let scaled = amount * scale;
    // The division leaves a rounding error behind the last digit, which must not change the result.
    let rounded = match rounding {
        Rounding::Nearest => scaled.round(),
        Rounding::Up => (scaled - 1e-6).ceil(),
        Rounding::Down => (scaled + 1e-6).floor(),
    };
    if rounded == 0.0 && amount != 0.0 {
        return format!("<{}", 1.0 / scale);
    }
    // Rounding 0 up gives the negative 0.
    format!("{}", rounded / scale + 0.0)
}

/// The unit behind a number as it is shown, as text that is safe to show: `core` behind `1`, else `cores`, also without a number.
pub fn unit_of(resource: &Resource, shown: &str) -> String {
    match resource {
        Resource::Cpu => agreeing(shown, "core", "cores").to_owned(),
        Resource::Gpu => agreeing(shown, "GPU", "GPUs").to_owned(),
        Resource::Extended(name) if is_in_bytes(name) => format!("GiB of {}", printable(name)),
        Resource::Memory | Resource::Extended(_) => printable(unit(resource)),
    }
}

/// The word that agrees with a number as it is shown: `one` with `1`, `many` with everything else. An amount that is rounded to 1 is 1 to
/// the reader, and one core is 1000 millicores.
pub fn agreeing<'a>(shown: &str, one: &'a str, many: &'a str) -> &'a str {
    if shown == "1" { one } else { many }
}

/// The number with its unit: `16 GPUs`, `1 core`, `0.5 GiB`.
pub fn words(resource: &Resource, amount: i128, rounding: Rounding) -> String {
    let number = number(resource, amount as f64, rounding);
    let unit = unit_of(resource, &number);
    format!("{number} {unit}")
}

/// Resources without a ladder that are amounts of memory.
fn is_in_bytes(name: &str) -> bool {
    name == "ephemeral-storage" || name.starts_with("hugepages-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resource: &Resource, amount: i128, expected: &str) {
        assert_eq!(words(resource, amount, Rounding::Nearest), expected);
    }

    #[test]
    fn amounts_are_cores_gib_and_devices() {
        check(&Resource::Cpu, 63_930, "63.93 cores");
        check(&Resource::Cpu, 1_000, "1 core");
        check(&Resource::Memory, 3 << 29, "1.5 GiB");
        check(&Resource::Gpu, 1, "1 GPU");
        check(&Resource::Gpu, 0, "0 GPUs");
        check(&Resource::Extended("hugepages-2Mi".into()), 3 << 29, "1.5 GiB of hugepages-2Mi");
        check(&Resource::Extended("nvidia.com/mig-1g.10gb".into()), 2, "2 nvidia.com/mig-1g.10gb");
    }

    #[test]
    fn the_unit_agrees_with_the_number_as_it_is_shown() {
        let shown = |amount| number(&Resource::Gpu, amount, Rounding::Nearest);
        assert_eq!([1.004, 1.006, 0.5].map(|n| unit_of(&Resource::Gpu, &shown(n))), ["GPU", "GPUs", "GPUs"]);
        assert_eq!(unit_of(&Resource::Cpu, &number(&Resource::Cpu, 1000.0, Rounding::Nearest)), "core");
        assert_eq!(agreeing("1", "is", "are"), "is");
        assert_eq!(["0", "<0.01", "1.5", "11"].map(|n| agreeing(n, "is", "are")), ["are"; 4]);
    }

    #[test]
    fn little_is_not_nothing() {
        check(&Resource::Memory, 1, "<0.01 GiB");
        check(&Resource::Memory, 0, "0 GiB");
        assert_eq!(words(&Resource::Gpu, 0, Rounding::Up), "0 GPUs");
    }

    #[test]
    fn a_need_is_rounded_up_and_what_is_there_down() {
        let bytes = (3 << 30) + (1 << 20);
        assert_eq!(words(&Resource::Memory, bytes, Rounding::Up), "3.01 GiB");
        assert_eq!(words(&Resource::Memory, bytes, Rounding::Down), "3 GiB");
        for whole in [1, 7, 1_001, 64_100, 999_999] {
            let same =
                [Rounding::Up, Rounding::Down, Rounding::Nearest].map(|r| number(&Resource::Cpu, whole.into(), r));
            assert!(same.iter().all(|shown| *shown == same[0]), "{same:?}");
        }
    }
}
