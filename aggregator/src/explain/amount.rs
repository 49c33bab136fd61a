//! Amounts and names as people read them: cores, GiB, GPUs; and no name that plays tricks on a terminal.
use std::fmt::Write as _;

use crate::resource::Resource;

const GIB: f64 = (1_u64 << 30) as f64;

/// How an amount is rounded where it can't be shown whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To what is nearest.
    Nearest,
    /// What is needed: never less than it is.
    Up,
    /// What is there: never more than it is.
    Down,
}

/// What the amounts of a resource are counted in.
pub fn unit(resource: &Resource) -> &str {
    match resource {
        Resource::Cpu => "cores",
        Resource::Memory => "GiB",
        Resource::Gpu => "GPUs",
        Resource::Extended(name) => name,
    }
}

/// Millicores, bytes or devices, as the number alone.
pub fn number(resource: &Resource, amount: f64, rounding: Rounding) -> String {
    // Thousandths of a core are exact; of the rest two digits are what one reads.
    let (amount, digits) = match resource {
        Resource::Cpu => (amount / 1000.0, 3),
        Resource::Memory => (amount / GIB, 2),
        Resource::Gpu | Resource::Extended(_) => (amount, 2),
    };
    let scale = 10_f64.powi(digits);
    let scaled = amount * scale;
    // A division has left a trace behind the last digit: only what is more than that counts.
    let rounded = match rounding {
        Rounding::Nearest => scaled.round(),
        Rounding::Up => (scaled - 1e-6).ceil(),
        Rounding::Down => (scaled + 1e-6).floor(),
    };
    if rounded == 0.0 && amount != 0.0 {
        return format!("<{}", 1.0 / scale);
    }
    format!("{}", rounded / scale)
}

/// The same with its unit: `16 GPUs`, `1 core`, `0.5 GiB`.
pub fn words(resource: &Resource, amount: i128, rounding: Rounding) -> String {
    let number = number(resource, amount as f64, rounding);
    let unit = match (resource, number.as_str()) {
        (Resource::Cpu, "1") => "core",
        (Resource::Gpu, "1") => "GPU",
        _ => unit(resource),
    };
    format!("{number} {}", printable(unit))
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `one` or `many`, after their number.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A time span in its two largest units.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Text from outside with every character spelled out that a terminal would obey or hide.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile(c) {
            // Writing to a String has no error.
            let _ = write!(safe, "{}", c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// The same for text of several lines.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Controls (those of C1 are escape sequences, too), what turns the direction of writing, and what can't be seen.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
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
        check(&Resource::Extended("nvidia.com/mig-1g.10gb".into()), 2, "2 nvidia.com/mig-1g.10gb");
    }

    #[test]
    fn little_is_not_nothing() {
        check(&Resource::Memory, 1, "<0.01 GiB");
        check(&Resource::Memory, 0, "0 GiB");
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

    #[test]
    fn a_span_is_shown_in_its_two_largest_units() {
        let shown = [0.4, 59.9, 61.0, 3_600.0, 7_500.0, 90_000.0].map(span);
        assert_eq!(shown, ["0 s", "59 s", "1 min", "1 h 0 min", "2 h 5 min", "1 d 1 h"]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out() {
        assert_eq!(printable("a\u{1b}[31m\u{9b}2J\r\u{202e}b"), "a\\u{1b}[31m\\u{9b}2J\\u{d}\\u{202e}b");
        assert_eq!(printable("gpu-17 ümlaut"), "gpu-17 ümlaut");
        assert_eq!(printable_lines("a\nb\u{7}"), "a\nb\\u{7}");
    }
}
