//! Whether what a manifest submits would fit now: one block for each submission, and what else there is to know.
use mcad_terminal::paint::Tone;

use super::{View, write_labelled, write_notes};
use crate::explain::amount::printable;
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
        let all = answer.submissions.len();
        let fit = answer.submissions.iter().filter(|one| one.fits == Some(true)).count();
        let unknown = answer.submissions.iter().filter(|one| one.fits.is_none()).count();
        let unknown = match unknown {
            0 => String::new(),
            1 => "; whether 1 more does is not known".to_owned(),
            more => format!("; whether {more} more do is not known"),
        };
        let fits = if fit == 1 { "fits" } else { "fit" };
        let line = format!("{fit} of {all} objects in the file {fits} now, one after the other{unknown}.");
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
        if let Some(text) = text {
            write_labelled(out, (label, LABEL), text, view);
        }
    }
}

fn title(submission: &Submission) -> String {
    let Submission { kind, namespace, name, copies, copies_fit, copies_fit_at_least, fits, .. } = submission;
    let name = format!("{} {}/{}", printable(kind), printable(namespace), printable(name));
    match (copies, fits) {
        (1, Some(true)) => format!("{name} fits now."),
        (1, Some(false)) => format!("{name} does not fit now."),
        (1, None) => format!("Whether {name} fits now cannot be told."),
        (copies, Some(true)) => format!("All {copies} copies of {name} fit now."),
        (copies, Some(false)) => match (copies_fit, copies_fit_at_least) {
            (Some(1), _) => format!("1 of {copies} copies of {name} fits now."),
            (Some(fit), _) => format!("{fit} of {copies} copies of {name} fit now."),
            (None, Some(least)) => format!("At least {least}, but not all, of {copies} copies of {name} fit now."),
            (None, None) => format!("Not all of {copies} copies of {name} fit now."),
        },
        (copies, None) => {
            let least = copies_fit_at_least.map_or_else(String::new, |least| {
                let copies = if least == 1 { "does" } else { "do" };
                format!("; at least {least} {copies}")
            });
            format!("Whether {copies} copies of {name} fit now cannot be told{least}.")
        }
    }
}
