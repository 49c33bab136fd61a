//! Whether what a manifest submits would fit now: one block for each submission, and what else there is to know.
use std::fmt::Write as _;

use mcad_terminal::paint::Tone;

use super::grid::wrapped;
use super::{View, write_notes};
use crate::explain::amount::{count, printable};
use crate::explain::submission::{Fit, Submission};

/// The width of a label and the gap behind it.
const LABEL: usize = 10;

/// The answer to `fit` as text.
pub fn fit(answer: &Fit, view: View) -> String {
    let mut out = String::new();
    for (at, submission) in answer.submissions.iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        block(&mut out, submission, view);
    }
    if answer.submissions.len() > 1 {
        let all = answer.submissions.len() as u64;
        let fit = answer.submissions.iter().filter(|one| one.fits == Some(true)).count();
        let unknown = answer.submissions.iter().filter(|one| one.fits.is_none()).count();
        let unknown = if unknown == 0 { String::new() } else { format!("; whether {unknown} more do is not known") };
        let objects = count(all, "object", "objects");
        let line = format!("{fit} of {objects} in the file fit now, one after the other{unknown}.");
        out.push('\n');
        out.push_str(&view.paint.tone(Tone::Title, &line));
        out.push('\n');
    }
    write_notes(&mut out, &answer.notes, view);
    out
}

fn block(out: &mut String, submission: &Submission, view: View) {
    out.push_str(&view.paint.tone(Tone::Title, &title(submission)));
    out.push_str("\n\n");
    let rows = [
        ("Nodes", Some(&submission.nodes.why)),
        ("Quota", submission.quota.as_ref().map(|quota| &quota.why)),
        ("MCAD", submission.mcad_sum.as_ref().map(|sum| &sum.why)),
    ];
    for (label, text) in rows {
        let Some(text) = text else { continue };
        let width = view.width.map_or(usize::MAX, |width| width.saturating_sub(LABEL));
        let text = wrapped(&printable(text), width).join(&format!("\n{:LABEL$}", ""));
        // Writing to a String has no error.
        let _ = writeln!(out, "{label:<LABEL$}{text}");
    }
}

fn title(submission: &Submission) -> String {
    let Submission { kind, namespace, name, copies, copies_fit, fits, .. } = submission;
    let name = format!("{} {}/{}", printable(kind), printable(namespace), printable(name));
    match (copies, fits) {
        (1, Some(true)) => format!("{name} fits now."),
        (1, Some(false)) => format!("{name} does not fit now."),
        (1, None) => format!("Whether {name} fits now cannot be told."),
        (copies, Some(true)) => format!("All {copies} copies of {name} fit now."),
        (copies, Some(false)) => format!("{copies_fit} of {copies} copies of {name} fit now."),
        (copies, None) => format!("Whether {copies} copies of {name} fit now cannot be told."),
    }
}
