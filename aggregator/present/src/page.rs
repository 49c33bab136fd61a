//! The pages for people, at `/`, `/node/NAME` and `/docs/NAME`: where the GPUs are, from the same snapshot as `/metrics`.
//!
//! Owns HTML and how figures are written for eyes. Pure: from a snapshot, the last hour and what was asked for, to text. All of it
//! works without a script; with one, the parts marked `data-live` are renewed as the server sends them. Nothing is loaded from
//! anywhere else, and what comes from outside is text, never markup.
pub mod wanted;

mod amount;
mod bars;
mod documents;
mod lines;

mod input;

mod front;
mod node;
mod nodes;

use maud::{DOCTYPE, Markup, html};
use mcad_accounting::merge::{Role, Snapshot};
use mcad_accounting::now::Now;

use self::wanted::Wanted;
use crate::explain::Unanswered;
use crate::history::History;

pub use self::nodes::PER_PAGE;

/// The page's style, at [`STYLE_PATH`].
pub const STYLE: &str = include_str!("page/page.css");
/// The page's script, at [`SCRIPT_PATH`].
pub const SCRIPT: &str = include_str!("page/page.js");
/// Where the style is.
pub const STYLE_PATH: &str = "/page.css";
/// Where the script is.
pub const SCRIPT_PATH: &str = "/page.js";
/// Below it is, for each page, the stream of what it says anew.
pub const EVENTS: &str = "/events";

/// Whatever a name brings, nothing loads but our own style, script and events.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What pages are made of: all of one instant.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The cluster.
    pub snapshot: &'a Snapshot,
    /// What it was before.
    pub history: &'a History,
}

/// Why there is no page; Display is what one reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// There is no such node, or none is known.
    #[error(transparent)]
    Node(#[from] Unanswered),
    /// There is no such document.
    #[error("no document is called {0}")]
    Document(String),
}

/// The page that is asked for, looked at `now`.
pub fn render(wanted: &Wanted, shown: &Shown<'_>, now: Now) -> Result<String, Missing> {
    Ok(whole(shown, &content(wanted, shown, now)?, now).into_string())
}

/// What the stream of that page says: the same, without what stands around it.
pub fn renew(wanted: &Wanted, shown: &Shown<'_>, now: Now) -> Result<String, Missing> {
    let content = content(wanted, shown, now)?;
    Ok(html! { (standing(shown.snapshot)) (age(shown, now)) (content) }.into_string())
}

/// The page that says why there is none.
pub fn missing(missing: &Missing, shown: &Shown<'_>, now: Now) -> String {
    let sentence = crate::explain::amount::printable(&missing.to_string());
    whole(shown, &html! { p { a href="/" { "← the cluster" } } section.truth { p.sentence { (sentence) "." } } }, now)
        .into_string()
}

fn content(wanted: &Wanted, shown: &Shown<'_>, now: Now) -> Result<Markup, Missing> {
    match wanted {
        Wanted::Cluster(query) => Ok(front::front(shown, query, now)),
        Wanted::Node(name) => Ok(node::node(shown, name)?),
        Wanted::Document(name) => documents::document(name).ok_or_else(|| Missing::Document(name.clone())),
    }
}

fn whole(shown: &Shown<'_>, content: &Markup, now: Now) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "mcad-metrics" }
                // A browser that is told of none asks for one at a path that we do not have.
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(STYLE_PATH);
                script src=(SCRIPT_PATH) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the figures" }
                header {
                    h1 { a href="/" { "mcad-metrics" } }
                    (age(shown, now))
                    nav aria-label="Elsewhere" {
                        a href="/metrics" { "metrics" } " "
                        a href="/api/v1/cluster" { "JSON" } " "
                        a href="/docs/metrics" { "what figures mean" } " "
                        a href="/docs/figures" { "how they are made" }
                    }
                }
                (bars::patterns())
                main #main tabindex="-1" {
                    (standing(shown.snapshot))
                    (input::input(shown.snapshot))
                    (content)
                }
                footer {
                    p.quiet {
                        "mcad-metrics " (env!("CARGO_PKG_VERSION")) ". Documents: "
                        @for name in documents::names() { a href=(format!("/docs/{name}")) { (name) } " " }
                    }
                }
            }
        }
    }
}

/// How old all of it is: written at the server, counted on by the script.
fn age(shown: &Shown<'_>, now: Now) -> Markup {
    let age = now.since(shown.snapshot.made).as_secs();
    html! {
        p.age #age data-live {
            "snapshot " a.f href=(amount::family("mcad_snapshot_age_seconds")) { span #age-s data-age=(age) { (age) } " s" } " old"
            span #connection hidden {}
        }
    }
}

/// Which replica this is, where it is not the one that speaks.
fn standing(snapshot: &Snapshot) -> Markup {
    html! {
        div #standing data-live {
            @if snapshot.role == Role::Standby {
                p.warn {
                    strong { "This replica is not the leader. " }
                    "Another one holds the Lease, and its " a href="/metrics" { "/metrics" } " has the cluster's families; this one's has only "
                    a href=(amount::family("mcad_aggregator_leader")) { "mcad_aggregator_leader 0" }
                    " and its own health. It is warm: agents report to it as well, so what is shown here is what it would say, and may differ from the leader's by a report."
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
