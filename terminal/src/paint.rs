//! Colours: whether there are any, and which tone has which. Of the terminal's own sixteen, so that they suit its theme.
use std::ffi::OsStr;
use std::io::IsTerminal;

/// Whether what is shown may carry escape sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Nothing but text.
    Plain,
    /// Colours, and bars that would be noise to a program.
    Colours,
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A title.
    Title,
    /// Like any other.
    Normal,
    /// Said beside.
    Quiet,
    /// Good to have.
    Good,
    /// Withheld on purpose.
    Held,
    /// Broken.
    Bad,
}

impl Paint {
    /// Colours only where a person looks, and does not mind (`NO_COLOR`, `TERM=dumb`).
    pub fn of(output: &impl IsTerminal) -> Self {
        let set = |name| std::env::var_os(name);
        Self::chosen(output.is_terminal(), set("NO_COLOR").as_deref(), set("TERM").as_deref())
    }

    fn chosen(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Self {
        let unwanted = no_color.is_some_and(|set| !set.is_empty()) || term.is_some_and(|term| term == "dumb");
        if is_terminal && !unwanted { Self::Colours } else { Self::Plain }
    }

    /// The text in its tone.
    pub fn tone(self, tone: Tone, text: &str) -> String {
        let code = match (self, tone) {
            (Self::Plain, _) | (_, Tone::Normal) => return text.to_owned(),
            (Self::Colours, Tone::Title) => "1",
            (Self::Colours, Tone::Quiet) => "2",
            (Self::Colours, Tone::Good) => "32",
            (Self::Colours, Tone::Held) => "33",
            (Self::Colours, Tone::Bad) => "31",
        };
        if text.is_empty() { String::new() } else { format!("\x1b[{code}m{text}\x1b[0m") }
    }
}

/// The first so many characters of a line that people see, its colours whole: escape sequences are of no width.
pub fn cut(line: &str, columns: usize) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut seen = 0;
    let mut in_sequence = false;
    for c in line.chars() {
        in_sequence |= c == '\x1b';
        if in_sequence {
            kept.push(c);
            in_sequence = c != 'm';
        } else if seen < columns {
            kept.push(c);
            seen += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_who_looks_and_does_not_mind() {
        let check = |is_terminal, no_color: Option<&str>, term: Option<&str>, expected| {
            assert_eq!(Paint::chosen(is_terminal, no_color.map(OsStr::new), term.map(OsStr::new)), expected);
        };
        check(true, None, Some("xterm"), Paint::Colours);
        check(true, Some(""), None, Paint::Colours);
        check(false, None, Some("xterm"), Paint::Plain);
        check(true, Some("1"), Some("xterm"), Paint::Plain);
        check(true, None, Some("dumb"), Paint::Plain);
    }

    #[test]
    fn a_line_is_cut_by_what_is_seen_and_its_colours_end() {
        let line = format!("ab{}ef", Paint::Colours.tone(Tone::Bad, "cd"));
        assert_eq!(cut(&line, 3), "ab\x1b[31mc\x1b[0m");
        assert_eq!(cut(&line, 6), line);
        assert_eq!(cut("ümlaut", 2), "üm");
    }
}
