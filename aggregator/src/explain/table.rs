//! Tables and colours for a terminal: what stands in columns, and what is marked how. Knows nothing of what it shows.
use std::fmt::Write as _;

/// Whether what is shown may carry escape sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Nothing but text.
    Plain,
    /// Colours of the terminal's own sixteen.
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

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is; what is a part of the row above is indented.
    pub label: String,
    /// How much.
    pub amount: String,
    /// What else there is to say.
    pub note: String,
    /// What label and amount are.
    pub tone: Tone,
}

/// Lines under one another: labels to the left, amounts to the right.
pub fn write(out: &mut String, rows: &[Row], paint: Paint) {
    let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (labels, amounts) = (width(|row| &row.label), width(|row| &row.amount));
    for Row { label, amount, note, tone } in rows {
        let figure = paint.tone(*tone, &format!("{label:<labels$}  {amount:>amounts$}"));
        let beside = if *tone == Tone::Quiet { Tone::Quiet } else { Tone::Normal };
        let note = if note.is_empty() { String::new() } else { format!("  {}", paint.tone(beside, note)) };
        // Writing to a String has no error.
        let _ = writeln!(out, "  {figure}{note}");
    }
}
