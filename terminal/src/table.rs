//! Tables: aligns columns and applies tones. It does not know what is shown.
use std::fmt::Write as _;

use crate::paint::{Paint, Tone};

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The label. A row that is a part of the row above is indented.
    pub label: String,
    /// The amount.
    pub amount: String,
    /// A note.
    pub note: String,
    /// The tone of label and amount.
    pub tone: Tone,
}

/// Writes the rows: labels aligned to the left, amounts to the right.
pub fn write(out: &mut String, rows: &[Row], paint: Paint) {
    let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (labels, amounts) = (width(|row| &row.label), width(|row| &row.amount));
    for Row { label, amount, note, tone } in rows {
        let amount = if amounts == 0 { String::new() } else { format!("  {amount:>amounts$}") };
        let text = paint.tone(*tone, &format!("{label:<labels$}{amount}"));
        let beside = if *tone == Tone::Quiet { Tone::Quiet } else { Tone::Normal };
        let note = if note.is_empty() { String::new() } else { format!("  {}", paint.tone(beside, note)) };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {text}{note}");
    }
}
