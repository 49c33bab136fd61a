//! What draining nodes would take from AppWrappers: a sentence, and one block for each AppWrapper that would lose pods.
use std::fmt::Write as _;

use mcad_terminal::paint::Tone;

use super::grid::wrapped;
use super::{View, write_labelled, write_notes};
use crate::explain::amount::{count, list, printable};
use crate::explain::drain::{WhatIf, amounts};
use crate::explain::submission::pods;

/// The width of a label and the gap behind it.
const LABEL: usize = 11;

/// The answer to `whatif --drain` as text.
pub fn drain(answer: &WhatIf, view: View) -> String {
    let mut out = String::new();
    let nodes: Vec<_> = answer.drained.iter().map(|node| printable(node)).collect();
    let lost: u64 = answer.appwrappers.iter().map(|one| one.pods).sum();
    let title = format!("If {} were drained, {}.", list(&nodes), consequence(answer, lost));
    for line in wrapped(&title, view.width.unwrap_or(usize::MAX)) {
        out.push_str(&view.paint.tone(Tone::Title, &line));
        out.push('\n');
    }
    for one in &answer.appwrappers {
        let name = format!("{}/{}", printable(&one.namespace), printable(&one.name));
        let lost = if one.pods == one.pods_bound {
            if one.pods == 1 { "its only pod".to_owned() } else { format!("all its {}", pods(one.pods)) }
        } else {
            format!("{} of its {}", one.pods, pods(one.pods_bound))
        };
        // Writing to a String has no error.
        let _ = write!(out, "\nAppWrapper {name} would lose {lost}.\n\n");
        for (label, text) in [("Holds", &amounts(&one.holds)), ("Elsewhere", &one.why)] {
            write_labelled(&mut out, (label, LABEL), text, view);
        }
    }
    write_notes(&mut out, &answer.notes, view);
    out
}

fn consequence(answer: &WhatIf, lost: u64) -> String {
    let losers = answer.appwrappers.len() as u64;
    if losers == 0 {
        return "no AppWrapper would lose a pod".to_owned();
    }
    let them = if lost == 1 { "it" } else { "all of them" };
    let fits = match answer.fits {
        Some(true) => format!("the other nodes have places for {them}"),
        Some(false) => format!("the other nodes do not have places for {them}"),
        None => format!("whether the other nodes have places for {them} cannot be told"),
    };
    format!("{} would lose {}, and {fits}", count(losers, "AppWrapper", "AppWrappers"), pods(lost))
}
