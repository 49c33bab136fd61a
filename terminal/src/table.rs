//! Tables: what stands in columns, and what is marked how. Knows nothing of what it shows.
use std::fmt::Write as _;

use crate::paint::{Paint, Tone};

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
        let amount = if amounts == 0 { String::new() } else { format!("  {amount:>amounts$}") };
        let figure = paint.tone(*tone, &format!("{label:<labels$}{amount}"));
        let beside = if *tone == Tone::Quiet { Tone::Quiet } else { Tone::Normal };
        let note = if note.is_empty() { String::new() } else { format!("  {}", paint.tone(beside, note)) };
        // Writing to a String has no error.
        let _ = writeln!(out, "  {figure}{note}");
    }
}
