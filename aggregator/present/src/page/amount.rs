//! Values as the page shows them: with a link to their metric in docs/metrics.md, and the word *unknown* for what is not known.
use maud::{Markup, html};
use mcad_accounting::resource::Resource;

use crate::explain::amount::{Rounding, is_hostile, number, printable, unit, unit_of};

/// What is shown for a value that is not known. It never looks like 0.
pub(super) const UNKNOWN: &str = "unknown";

/// The address of the description of a metric.
pub(super) fn family(name: &str) -> String {
    format!("/docs/metrics#{name}")
}

/// A whole amount without its unit, with a link to its metric.
pub(super) fn value(resource: &Resource, amount: Option<i64>, name: &str) -> Markup {
    real_value(resource, amount.map(|amount| amount as f64), name)
}

/// The same for an amount that may have a fraction.
pub(super) fn real_value(resource: &Resource, amount: Option<f64>, name: &str) -> Markup {
    html! {
        @match amount {
            Some(amount) => a.f href=(family(name)) { (shown(resource, amount)) },
            None => a.f.unknown href=(family(name)) { (UNKNOWN) },
        }
    }
}

/// An amount with as many digits as people read: large amounts of CPU, memory and devices are rounded to a tenth.
pub(super) fn shown(resource: &Resource, amount: f64) -> String {
    let large = match resource {
        Resource::Cpu => amount.abs() >= 10_000.0,
        Resource::Memory => amount.abs() >= 10.0 * (1_u64 << 30) as f64,
        Resource::Gpu | Resource::Extended(_) => amount.abs() >= 100.0,
    };
    let scale = match resource {
        Resource::Cpu => 1000.0,
        Resource::Memory => (1_u64 << 30) as f64,
        Resource::Gpu | Resource::Extended(_) => 1.0,
    };
    let rounded = if large { (amount / scale * 10.0).round() / 10.0 * scale } else { amount };
    grouped(&number(resource, rounded, Rounding::Nearest))
}

/// A number with thin spaces between groups of three digits: `12345.6` as `12 345.6`.
pub(super) fn grouped(number: &str) -> String {
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    if whole.len() < 5 || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return number.to_owned();
    }
    let mut grouped = String::with_capacity(number.len() + 8);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// A whole number with such spaces.
pub(super) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

/// The name of a resource in a title.
pub(super) fn title(resource: &Resource) -> Markup {
    html! {
        @match resource {
            Resource::Cpu => "CPU",
            Resource::Memory => "Memory",
            Resource::Gpu => "GPUs",
            Resource::Extended(name) => (named(name)),
        }
    }
}

/// The unit behind a number as it is shown, where no title says which resource it is. It is text that is safe to show.
pub(super) fn agreeing_unit(resource: &Resource, shown: &str) -> String {
    if *resource == Resource::Memory { "GiB of memory".to_owned() } else { unit_of(resource, shown) }
}

/// The unit of its amounts. `None` if the title is the unit.
pub(super) fn counted_in(resource: &Resource) -> Option<&str> {
    match resource {
        Resource::Cpu | Resource::Memory => Some(unit(resource)),
        Resource::Gpu => Some("nvidia.com/gpu"),
        Resource::Extended(_) => None,
    }
}

/// A name from the cluster: as text, with a direction of its own, and with invisible characters spelled out.
pub(super) fn named(name: &str) -> Markup {
    html! {
        @if name.chars().any(is_hostile) { bdi.name { (printable(name)) } } @else { bdi.name { (name) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        let shown = ["999", "1234", "12345", "1234567.8", "<0.01"].map(grouped);
        assert_eq!(shown, ["999", "1234", "12\u{202f}345", "1\u{202f}234\u{202f}567.8", "<0.01"]);
    }

    #[test]
    fn no_more_digits_than_one_reads() {
        assert_eq!(shown(&Resource::Cpu, 63_933.0), "63.9");
        assert_eq!(shown(&Resource::Cpu, 1_933.0), "1.933");
        assert_eq!(shown(&Resource::Gpu, 31.25), "31.25");
    }

    #[test]
    fn a_name_is_text_whatever_is_in_it() {
        assert_eq!(
            named("<script>\"\u{202e}x").into_string(),
            "<bdi class=\"name\">&lt;script&gt;&quot;\\u{202e}x</bdi>"
        );
    }
}
