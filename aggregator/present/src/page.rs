//! The pages for people, at `/`, `/node/NAME` and `/docs/NAME`, made from the same snapshot as `/metrics`.
//!
//! Owns the HTML and how values are formatted. Pure: a snapshot, the last hour and a request in, text out. The pages work without
//! scripts. With scripts, the server's updates replace the parts marked `data-live`, and the search is applied as somebody types.
//! Nothing is loaded from other servers, and names from the cluster are text, never markup.
pub mod condition;
pub mod query;

mod amount;
mod bars;
mod documents;
mod held;
mod lines;

mod input;
mod troubles;

mod appwrappers;
mod search;

mod pools;
mod quota_bar;

mod cohorts;
mod queues;

mod node;
mod nodes;

mod front;

use maud::{DOCTYPE, Markup, html};
use mcad_accounting::now::Now;
use mcad_accounting::snapshot::{Role, Snapshot};

use self::query::PageQuery;
use crate::explain::Unanswered;
use crate::history::History;

pub use self::nodes::{FEW, PER_PAGE};

/// The style sheet, at [`STYLE_PATH`].
pub const STYLE: &str = include_str!("page/page.css");
/// The script, at [`SCRIPT_PATH`].
pub const SCRIPT: &str = include_str!("page/page.js");
/// The path of the style sheet.
pub const STYLE_PATH: &str = "/page.css";
/// The path of the script.
pub const SCRIPT_PATH: &str = "/page.js";
/// The prefix of event streams: followed by the path of a page, it is the stream of updates of that page.
pub const EVENTS: &str = "/events";

/// The Content-Security-Policy: whatever a name contains, only our own style sheet, script and requests of the script are allowed.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What pages are made from, all of one instant.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The cluster.
    pub snapshot: &'a Snapshot,
    /// Its last hour.
    pub history: &'a History,
}

/// Why there is no page. Display is the sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// There is no such node, or nodes are not known.
    #[error(transparent)]
    Node(#[from] Unanswered),
    /// There is no such document.
    #[error("no document named {0}")]
    Document(String),
}

/// The page that a browser requested, at the time `now`.
pub fn render(query: &PageQuery, shown: &Shown<'_>, now: Now) -> Result<String, Missing> {
    Ok(whole(shown, &content(query, shown, now)?, now).into_string())
}

/// An update of that page: its content, without header and footer. If what it shows no longer exists, it says so.
pub fn renew(query: &PageQuery, shown: &Shown<'_>, now: Now) -> String {
    let content = content(query, shown, now).unwrap_or_else(|missing| instead(&missing));
    html! { (standing(shown.snapshot)) (age(shown, now)) (content) }.into_string()
}

/// The page that is served if there is no such page.
pub fn missing(missing: &Missing, shown: &Shown<'_>, now: Now) -> String {
    whole(shown, &instead(missing), now).into_string()
}

fn instead(missing: &Missing) -> Markup {
    node::no_node(&crate::explain::amount::printable(&missing.to_string()))
}

fn content(query: &PageQuery, shown: &Shown<'_>, now: Now) -> Result<Markup, Missing> {
    match query {
        PageQuery::Cluster(query) => Ok(front::front(shown, query, now)),
        PageQuery::Node(name) => Ok(node::node(shown, name)?),
        PageQuery::Document(name) => documents::document(name).ok_or_else(|| Missing::Document(name.clone())),
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
                // Without this line, browsers request an icon at a path that does not exist.
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(STYLE_PATH);
                script src=(SCRIPT_PATH) defer {}
            }
            body {
                a.skip href="#main" { "Skip to content" }
                header {
                    h1 { a href="/" { "mcad-metrics" } }
                    (age(shown, now))
                    nav aria-label="Site" {
                        a href="/metrics" { "metrics" } " "
                        a href="/api/v1/cluster" { "JSON" } " "
                        a href="/docs/metrics" { "what the metrics mean" } " "
                        a href="/docs/figures" { "how values are made" }
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

/// The age of the snapshot. The server writes it, and the script keeps counting.
fn age(shown: &Shown<'_>, now: Now) -> Markup {
    let age = now.since(shown.snapshot.made).as_secs();
    html! {
        p.age #age data-live {
            "snapshot " a.f href=(amount::family("mcad_snapshot_age_seconds")) { span #age-s data-age=(age) { (age) } " s" } " old"
            span #connection hidden {}
        }
    }
}

/// The note of a replica that is not the leader.
fn standing(snapshot: &Snapshot) -> Markup {
    html! {
        div #standing data-live {
            @if snapshot.role == Role::Standby {
                p.warn {
                    strong { "This replica is not the leader. " }
                    "Another replica holds the Lease and exports the metrics of the cluster. The " a href="/metrics" { "/metrics" } " of this replica has only "
                    a href=(amount::family("mcad_aggregator_leader")) { "mcad_aggregator_leader 0" }
                    " and self-metrics. Agents report to every replica, so the values on this page are current. They can differ from those of the leader by one report."
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
