//! Formats numbers in text, and makes text from outside safe for a terminal.
use std::fmt::Write as _;

/// Bytes in a GiB.
pub const GIB: f64 = (1_u64 << 30) as f64;

/// `a`, `a and b`, `a, b and c`.
pub fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A number with `one` or `many` after it.
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

/// Text from outside, with every character escaped that a terminal would interpret or hide.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile(c) {
            // Writing to a String cannot fail.
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

/// Control characters (those of C1 are escape sequences, too), characters that change the writing direction, and
/// invisible characters.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

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
