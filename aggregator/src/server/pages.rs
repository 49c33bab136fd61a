//! Requests for pages. Owns their status codes and headers. [`mcad_present::page`] owns their content, and the board what they are made from.
use std::sync::Arc;

use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue};
use hyper::{StatusCode, Uri};
use mcad_present::page::query::PageQuery;
use mcad_present::page::{self, EVENTS, SCRIPT, SCRIPT_PATH, STYLE, STYLE_PATH};

use super::Shared;
use super::answer::{Answer, text, too_many, whole};
use super::board;
use super::visitor::Visitor;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const CSS: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
const JAVASCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");

/// Whether a page, its style sheet, its script or its stream is at that path.
pub(super) fn is_at(path: &str) -> bool {
    matches!(path, STYLE_PATH | SCRIPT_PATH)
        || PageQuery::parse(path.strip_prefix(EVENTS).unwrap_or(path), "").is_some()
}

pub(super) async fn answer(uri: &Uri, visitor: &Visitor, shared: &Arc<Shared>) -> Answer {
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    match path {
        STYLE_PATH => return whole(StatusCode::OK, CSS, STYLE.to_owned()),
        SCRIPT_PATH => return whole(StatusCode::OK, JAVASCRIPT, SCRIPT.to_owned()),
        _ => {}
    }
    let (path, streams) = path.strip_prefix(EVENTS).map_or((path, false), |path| (path, true));
    match PageQuery::parse(path, query) {
        None | Some(Ok(PageQuery::Document(_))) if streams => text(StatusCode::NOT_FOUND, "this path has no updates"),
        None => text(StatusCode::NOT_FOUND, "no page is at this path"),
        Some(Err(refused)) => text(StatusCode::BAD_REQUEST, &refused.to_string()),
        Some(Ok(query)) if streams => board::stream(query, shared),
        Some(Ok(query)) => page(query, visitor, shared).await,
    }
}

async fn page(query: PageQuery, visitor: &Visitor, shared: &Arc<Shared>) -> Answer {
    let Some(turn) = shared.turns.turn(visitor.peer).await else { return too_many() };
    let looking = Arc::clone(shared);
    // A snapshot of a large cluster takes time. Other connections do not wait for it.
    let made = tokio::task::spawn_blocking(move || {
        let posted = looking.board.look(&looking.replica);
        let (shown, now) = (posted.shown(), looking.replica.now());
        let answer = match page::render(&query, &shown, now) {
            Ok(html) => html_answer(StatusCode::OK, html),
            Err(missing) => html_answer(StatusCode::NOT_FOUND, page::missing(&missing, &shown, now)),
        };
        drop(turn);
        answer
    });
    made.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a page could not be rendered");
        text(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be rendered")
    })
}

fn html_answer(status: StatusCode, html: String) -> Answer {
    let mut answer = whole(status, HTML, html);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    // A cached page would show a wrong age.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    answer
}
