//! Colours: whether to use them, and the colour of each tone. They are the terminal's own sixteen, so that they fit its
//! theme.
use std::ffi::OsStr;
use std::io::IsTerminal;

/// Whether the output may contain escape sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Only text.
    Plain,
    /// Colours, and bars, which would be noise for a program.
    Colours,
}

/// The meaning of a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A title.
    Title,
    /// Normal text.
    Normal,
    /// Additional text.
    Quiet,
    /// A good state.
    Good,
    /// Withheld on purpose.
    Held,
    /// A broken state.
    Bad,
}

impl Paint {
    /// Colours only on a terminal, and only if the user does not disable them (`NO_COLOR`, `TERM=dumb`).
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

/// The first visible characters of a line, up to this number, with complete escape sequences, which have no width.
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
