//! What draining nodes would take from AppWrappers: a sentence, and one block for each AppWrapper that would lose pods.
use std::fmt::Write as _;

use mcad_terminal::paint::Tone;

use super::grid::wrapped;
use super::{View, write_notes};
use crate::explain::amount::{count, list, printable};
use crate::explain::drain::{WhatIf, amounts, pods};

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
            let width = view.width.map_or(usize::MAX, |width| width.saturating_sub(LABEL));
            let text = wrapped(&printable(text), width).join(&format!("\n{:LABEL$}", ""));
            let _ = writeln!(out, "{label:<LABEL$}{text}");
        }
    }
    write_notes(&mut out, &notes(answer), view);
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

fn notes(answer: &WhatIf) -> Vec<String> {
    let mut notes = Vec::new();
    if answer.appwrappers.len() > 1 {
        notes.push(
            "Each AppWrapper is judged as if only its pods needed a node; the first sentence is about all of them."
                .to_owned(),
        );
    }
    if answer.other_pods > 0 {
        let (belong, request) = if answer.other_pods == 1 { ("belongs", "requests") } else { ("belong", "request") };
        let others = count(answer.other_pods, "pod that is there", "pods that are there");
        notes.push(format!(
            "{others} {belong} to no AppWrapper and {request} {}: whether they fit elsewhere is not computed. Pods of DaemonSets are \
             among them and are not moved.",
            amounts(&answer.other_requested)
        ));
    }
    notes
}
