//! The note about the dump that the page is made from. It is above everything else.
use maud::{Markup, html};
use mcad_accounting::input::Input;
use mcad_accounting::snapshot::Snapshot;

use super::amount::{count, named};

/// The page shows so many errors of a dump.
const NAMED: usize = 20;

/// The note. Empty if the page is not made from a dump.
pub(super) fn input(snapshot: &Snapshot) -> Markup {
    let Some(input) = &snapshot.input else { return html! {} };
    html! {
        @if !input.complete { (wrong(input)) }
        p.quiet #input {
            "This page shows a dump, " (named(&input.as_of))
            @if let Some(version) = &input.server_version { ", of Kubernetes " (named(version)) }
            ". Ages are relative to that time."
            @for note in input.notes.iter().take(NAMED) { " Note: " (named(note)) "." }
        }
    }
}

fn wrong(input: &Input) -> Markup {
    let all = input.complaints().count();
    html! {
        div.warn #input-wrong {
            strong { "The dump is incomplete, so this page may not show the whole cluster." }
            ul { @for complaint in input.complaints().take(NAMED) { li { (named(&complaint)) } } }
            @if all > NAMED { p { (count((all - NAMED) as u64)) " more are in the log." } }
        }
    }
}
