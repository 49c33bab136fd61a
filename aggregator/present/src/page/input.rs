//! What is said of a dump that the page is made from, above all that is made of it.
use maud::{Markup, html};
use mcad_accounting::input::Input;
use mcad_accounting::merge::Snapshot;

use super::amount::{count, named};

/// So many of the things that are wrong stand on the page.
const NAMED: usize = 20;

/// Absent where the page is not made from a dump.
pub(super) fn input(snapshot: &Snapshot) -> Markup {
    let Some(input) = &snapshot.input else { return html! {} };
    html! {
        @if !input.complete { (wrong(input)) }
        p.quiet #input {
            "A dump " (named(&input.as_of))
            @if let Some(version) = &input.server_version { ", of Kubernetes " (named(version)) }
            ". Ages are told against that time."
            @for note in input.notes.iter().take(NAMED) { " Note: " (named(note)) "." }
        }
    }
}

fn wrong(input: &Input) -> Markup {
    let all = input.complaints().count();
    html! {
        div.warn #input-wrong {
            strong { "The dump is not whole, so what is below may not be the cluster." }
            ul { @for complaint in input.complaints().take(NAMED) { li { (named(&complaint)) } } }
            @if all > NAMED { p { (count((all - NAMED) as u64)) " more are in the log." } }
        }
    }
}
