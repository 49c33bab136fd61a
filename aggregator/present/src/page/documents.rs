//! The documents that values link to. The program serves them itself, so that they can be read without access to another server.
use maud::{Markup, PreEscaped, html};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd};

/// The documents by name: what the metrics are, how they are computed, and what to do about alerts.
const DOCUMENTS: [(&str, &str); 6] = [
    ("metrics", include_str!("../../../../docs/metrics.md")),
    ("figures", include_str!("../../../../docs/figures.md")),
    ("accounting", include_str!("../../../../docs/accounting.md")),
    ("alerts", include_str!("../../../../docs/alerts.md")),
    ("troubleshooting", include_str!("../../../../docs/troubleshooting.md")),
    ("operations", include_str!("../../../../docs/operations.md")),
];

/// A document as HTML. `None` if there is no such document.
pub(super) fn document(name: &str) -> Option<Markup> {
    let (_, text) = DOCUMENTS.iter().find(|(known, _)| *known == name)?;
    let mut options = Options::empty();
    options.insert(Options::ENABLE_TABLES);
    let mut events = Vec::new();
    // The id of a row or a heading is known only once its text has been read.
    let mut open: Option<usize> = None;
    let mut inside_link = Vec::new();
    for event in Parser::new_ext(text, options) {
        match &event {
            Event::Start(Tag::TableRow | Tag::Heading { .. }) => open = Some(events.len()),
            Event::End(TagEnd::Heading(level)) => {
                if let Some(at) = open.take() {
                    let slug = slug(&plain(&events[at..]));
                    events[at] = Event::Html(format!("<{level} id=\"{slug}\">").into());
                }
            }
            Event::Code(code) => {
                // The first cell of a row names a family.
                if let Some(at) = open.filter(|at| is_row(&events[*at])) {
                    if is_name(code) {
                        events[at] = Event::Html(format!("<tr id=\"{code}\">").into());
                    }
                    open = None;
                }
            }
            _ => {}
        }
        events.push(match event {
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                let leads = served(&dest_url);
                inside_link.push(leads.is_some());
                // A link to a file that is not served, or to another server, becomes plain text.
                leads.map_or_else(
                    || Event::Html("<span>".into()),
                    |dest_url| Event::Start(Tag::Link { link_type, dest_url, title, id }),
                )
            }
            Event::End(TagEnd::Link) => {
                if inside_link.pop() == Some(false) {
                    Event::Html("</span>".into())
                } else {
                    Event::End(TagEnd::Link)
                }
            }
            // The documents are our own. Their only HTML is comments.
            Event::Html(_) | Event::InlineHtml(_) => Event::Html("".into()),
            event => event,
        });
    }
    let mut out = String::new();
    pulldown_cmark::html::push_html(&mut out, events.into_iter());
    let out =
        out.replace("<table>", "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Table\"><table>");
    let out = out.replace("</table>", "</table></div>").replace("<pre>", "<pre tabindex=\"0\">");
    Some(html! { article.document { (PreEscaped(out)) } })
}

/// The names of all documents.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    DOCUMENTS.iter().map(|(name, _)| *name)
}

fn is_row(event: &Event<'_>) -> bool {
    matches!(event, Event::Start(Tag::TableRow))
}

fn is_name(code: &str) -> bool {
    !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn plain(events: &[Event<'_>]) -> String {
    let text = events.iter().filter_map(|event| match event {
        Event::Text(text) | Event::Code(text) => Some(text.as_ref()),
        _ => None,
    });
    text.collect()
}

/// The anchor of a heading, as GitHub makes it.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The address here of a link in a document. `None` if its target is not served.
fn served(link: &str) -> Option<CowStr<'static>> {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let anchor = anchor.map(|anchor| format!("#{anchor}")).unwrap_or_default();
    if file.is_empty() {
        return Some(anchor.into());
    }
    let name = file.strip_prefix("docs/").unwrap_or(file).strip_suffix(".md")?;
    names().any(|known| known == name).then(|| format!("/docs/{name}{anchor}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_a_place_that_figures_link_to() {
        let html = document("metrics").unwrap().into_string();
        for family in crate::metrics::all() {
            assert!(html.contains(&format!("<tr id=\"{}\">", family.name)), "{} has no place", family.name);
        }
    }

    #[test]
    fn links_lead_to_what_is_served_or_nowhere() {
        let link = |link| served(link).map(CowStr::into_string);
        assert_eq!(link("accounting.md#3-x").as_deref(), Some("/docs/accounting#3-x"));
        assert_eq!(link("#the-aggregator-itself").as_deref(), Some("#the-aggregator-itself"));
        assert_eq!([link("decisions/0007.md"), link("https://example.org"), link("../README.md")], [None, None, None]);
        for name in names() {
            let html = document(name).unwrap().into_string();
            assert!(!html.contains("href=\"http") && !html.contains("src="), "{name} leads off this origin");
        }
    }

    #[test]
    fn a_heading_is_found_by_its_words() {
        assert_eq!(slug("The aggregator, itself: `x_y`"), "the-aggregator-itself-x_y");
        let html = document("metrics").unwrap().into_string();
        assert!(html.contains("<h2 id=\"the-aggregator-itself\">"), "{html}");
    }
}
