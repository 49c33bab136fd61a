//! Requests and their answers. Owns paths, status codes and headers, not the content of reports and scrapes.
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use mcad_accounting::node_name::NodeName;
use mcad_present::api::ROOT;
use prost::Message as _;

use super::answer::{Answer, Kept, text, too_many};
use super::scrape::{self, Chunks, Encoding, Patience};
use super::visitor::Visitor;
use super::{Phase, Shared, Side, api, pages};
use crate::peer;
use crate::receive::{MAX_BODY_BYTES, Refusal};
use crate::trust::verdict::Distrust;

const PROTOBUF: &str = "application/x-protobuf";
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// How much of a body that is too large is still read, so that its sender receives the answer instead of a reset.
pub(super) const DISCARDED_BYTES: usize = 8 * MAX_BODY_BYTES;

/// Answers a request. A connection for scrapes and pages is busy until its answer was sent.
pub(super) async fn serve(visitor: &Visitor, request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Kept> {
    let busy = (visitor.side == Side::Metrics).then(|| visitor.place.busy());
    let is_reserved = visitor.place.is_reserved();
    let answer = if is_reserved && !is_probe(&request) {
        text(StatusCode::SERVICE_UNAVAILABLE, "too many connections: only /live and /ready are answered here")
    } else {
        answer(request, visitor, shared).await
    };
    let mut answer = answer.map(|body| Kept::new(body, busy));
    if is_reserved {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Whether it is a probe of kubelet.
fn is_probe(request: &Request<Incoming>) -> bool {
    matches!(request.uri().path(), "/live" | "/ready")
}

async fn answer(request: Request<Incoming>, visitor: &Visitor, shared: &Arc<Shared>) -> Answer {
    let wanted = match (visitor.side, request.uri().path()) {
        (Side::Metrics, "/metrics" | "/live" | "/ready") => Method::GET,
        (Side::Metrics, path) if path.starts_with(ROOT) || pages::is_at(path) => Method::GET,
        (Side::Reports, "/v1/report") => Method::POST,
        // Only for other replicas.
        (Side::Reports, peer::PATH) if shared.guard.allows_state_transfer() => Method::GET,
        (Side::Metrics, _) => {
            return text(
                StatusCode::NOT_FOUND,
                "not found: the paths are /metrics, /, /api/v1/cluster, /live and /ready",
            );
        }
        (Side::Reports, _) => return text(StatusCode::NOT_FOUND, "not found: send reports with POST /v1/report"),
    };
    if *request.method() != wanted {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, &format!("method not allowed: use {wanted}"));
        if let Ok(allowed) = HeaderValue::from_str(wanted.as_str()) {
            answer.headers_mut().insert(ALLOW, allowed);
        }
        return answer;
    }
    match request.uri().path() {
        "/metrics" => metrics(request.headers(), visitor, shared).await,
        "/v1/report" => report(request, visitor, shared).await,
        peer::PATH => match peer(request.headers(), visitor, shared).await {
            Ok(()) => state_transfer(shared).await,
            Err(refusal) => refused(&refusal),
        },
        "/live" => text(StatusCode::OK, "live"),
        "/ready" => match *shared.phase.borrow() {
            Phase::Serving if shared.replica.is_ready() => text(StatusCode::OK, "ready"),
            Phase::Serving => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not ready: the cluster is not known yet, or the API server cannot be reached",
            ),
            Phase::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
        },
        path if path.starts_with(ROOT) => api::answer(request.uri(), visitor, shared).await,
        _ => pages::answer(request.uri(), visitor, shared).await,
    }
}

async fn metrics(headers: &HeaderMap, visitor: &Visitor, shared: &Shared) -> Answer {
    let encoding = encoding(headers);
    shared.note_certificates();
    let Some(turn) = shared.turns.turn(visitor.peer).await else { return too_many() };
    let patience = Patience { in_turn: shared.limits.in_turn, stall: shared.limits.stall };
    let chunks = scrape::begin(Arc::clone(&shared.replica), encoding, patience, turn);
    let mut answer = Response::new(Either::Right(chunks));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, EXPOSITION);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if encoding == Encoding::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

/// Checks that a request for a state transfer comes from another replica.
async fn peer(headers: &HeaderMap, visitor: &Visitor, shared: &Shared) -> Result<(), Refusal> {
    if let Some(peers) = &shared.guard.peers {
        peers.bearer(token(headers), visitor.peer, |asked| shared.replica.self_metrics().token_reviewed(asked)).await?;
    }
    visitor.place.proven(None);
    Ok(())
}

/// Answers another replica's request for a state transfer.
async fn state_transfer(shared: &Shared) -> Answer {
    // Not the turn of scrapes: a client that delays scrapes must not delay a replica that starts.
    let Ok(turn) = Arc::clone(&shared.transfer_turn).acquire_owned().await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
    };
    let replica = Arc::clone(&shared.replica);
    // For a large cluster this takes time.
    let made = tokio::task::spawn_blocking(move || replica.state_transfer().map(|state| state.encode_to_vec()));
    match made.await {
        Ok(Some(bytes)) if bytes.len() > peer::MAX_BYTES => {
            tracing::error!(bytes = bytes.len(), limit = peer::MAX_BYTES, "the state transfer is too long to be sent");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the state transfer is longer than another replica would read")
        }
        Ok(Some(bytes)) => {
            let mut answer = Response::new(Either::Right(Chunks::whole(bytes, turn)));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
            answer
        }
        Ok(None) => text(StatusCode::NOT_FOUND, "this replica watches no cluster"),
        // After a panic, which was printed.
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the state transfer could not be created"),
    }
}

async fn report(request: Request<Incoming>, visitor: &Visitor, shared: &Shared) -> Answer {
    let (sender, body) = match sender(request.headers(), visitor, shared).await {
        Ok(sender) => {
            let body = read(request, sender.as_ref(), visitor, shared).await;
            (sender, body)
        }
        Err(refusal) => {
            // A sender that is not trusted gets no memory, but can read the reason.
            discard(request.into_body(), shared.limits.body).await;
            (None, Err(refusal))
        }
    };
    let body = body.as_deref().map_err(Refusal::clone);
    match shared.replica.take(sender.as_ref(), body) {
        // Also for a duplicate or stale report: sending it again would not help.
        Ok(_) => {
            let mut answer = Response::new(Either::Left(Full::default()));
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        }
        Err(refusal) => refused(&refusal),
    }
}

/// The node whose agent sends this. `None` if senders are not authenticated.
async fn sender(headers: &HeaderMap, visitor: &Visitor, shared: &Shared) -> Result<Option<NodeName>, Refusal> {
    let Some(tokens) = &shared.guard.tokens else {
        visitor.place.proven(None);
        return Ok(None);
    };
    let bearer = tokens
        .bearer(token(headers), visitor.peer, |asked| shared.replica.self_metrics().token_reviewed(asked))
        .await?;
    let node = shared.replica.node_of(bearer)?;
    visitor.place.proven(Some(&node));
    shared.replica.admit_one_more(&node)?;
    Ok(Some(node))
}

fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
}

fn refused(refusal: &Refusal) -> Answer {
    let status = status(refusal);
    let mut answer = text(status, &format!("{}: {refusal}", refusal.reason()));
    let headers = answer.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            // The average wait of an agent after two failures; agents randomise their attempts themselves.
            drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1")));
        }
        _ => {}
    }
    answer
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Oversized | Refusal::DecodedOversized => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
        Refusal::ContentType(_) | Refusal::ContentEncoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Refusal::TooManyNodes(_) | Refusal::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
        Refusal::UnknownNode(_) => StatusCode::NOT_FOUND,
        Refusal::NotReady | Refusal::Busy | Refusal::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Untrusted(distrust) => match distrust {
            Distrust::NoToken | Distrust::Garbage | Distrust::Audience | Distrust::Expired | Distrust::Rejected => {
                StatusCode::UNAUTHORIZED
            }
            Distrust::ServiceAccount(_) | Distrust::Unbound | Distrust::OtherNode { .. } => StatusCode::FORBIDDEN,
            Distrust::PodUnknown(_) | Distrust::Unavailable | Distrust::Busy => StatusCode::SERVICE_UNAVAILABLE,
        },
        _ => StatusCode::BAD_REQUEST,
    }
}

async fn read(
    request: Request<Incoming>,
    sender: Option<&NodeName>,
    visitor: &Visitor,
    shared: &Shared,
) -> Result<Bytes, Refusal> {
    let shown = |value: &[u8]| String::from_utf8_lossy(value).chars().take(100).collect();
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if content_type != PROTOBUF.as_bytes() {
        return Err(Refusal::ContentType(shown(content_type)));
    }
    if let Some(encoding) = request.headers().get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(Refusal::ContentEncoding(shown(encoding.as_bytes())));
    }
    let body = request.into_body();
    // Without a length, the body may have any length.
    let length = body.size_hint().exact().unwrap_or(u64::MAX).min(MAX_BODY_BYTES as u64);
    let kib = u32::try_from(length.div_ceil(1024)).unwrap_or(u32::MAX);
    let Some(_room) = shared.bodies.begin(sender, visitor.peer, kib) else {
        discard(body, shared.limits.body).await;
        return Err(Refusal::Busy);
    };
    let limit = shared.limits.body;
    tokio::time::timeout(limit, collect(body, MAX_BODY_BYTES)).await.map_err(|_| Refusal::TooSlow(limit))?
}

/// Reads and discards a body, within the time limit of a body.
async fn discard(body: Incoming, limit: Duration) {
    // The answer is the same whatever the result.
    let _ = tokio::time::timeout(limit, collect(body, 0)).await;
}

/// Keeps at most `kept` bytes of a body and reads some more, so that its sender receives the answer.
async fn collect(mut body: Incoming, kept: usize) -> Result<Bytes, Refusal> {
    // The announced length, for which room is reserved.
    let said = body.size_hint().exact().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut all = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        // The body ends before its announced length, or its chunks are invalid.
        let frame = frame.map_err(|_| Refusal::Truncated)?;
        let Some(data) = frame.data_ref() else { continue };
        if length == 0 && said > 0 && data.len() == said && said <= kept {
            // Most reports arrive in one frame and are not copied.
            return frame.into_data().map_err(|_| Refusal::Truncated);
        }
        length += data.len();
        if length > DISCARDED_BYTES {
            break;
        }
        if length <= kept {
            all.reserve(said.min(kept).saturating_sub(all.len()));
            all.extend_from_slice(data);
        }
    }
    if length > kept { Err(Refusal::Oversized) } else { Ok(all.into()) }
}

/// gzip if it is named, by itself or by `*`, and not with a weight of 0.
fn encoding(headers: &HeaderMap) -> Encoding {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut weights = (None, None);
    for coding in values.flat_map(|value| value.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f32>().ok());
        let wanted = weight.is_some_and(|weight| weight > 0.0);
        if name.eq_ignore_ascii_case("gzip") {
            weights.0 = Some(wanted);
        } else if name == "*" {
            weights.1 = Some(wanted);
        }
    }
    if weights.0.or(weights.1) == Some(true) { Encoding::Gzip } else { Encoding::Plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accepted: &[&'static str], expected: Encoding) {
        let mut headers = HeaderMap::new();
        for value in accepted {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
        }
        assert_eq!(encoding(&headers), expected, "{accepted:?}");
    }

    #[test]
    fn gzip_is_used_when_it_is_asked_for() {
        check(&[], Encoding::Plain);
        check(&["gzip"], Encoding::Gzip);
        check(&["deflate, GZIP;q=0.5"], Encoding::Gzip);
        check(&["deflate", "gzip"], Encoding::Gzip);
        check(&["gzip; q=0"], Encoding::Plain);
        check(&["gzip;q=x"], Encoding::Plain);
        check(&["*"], Encoding::Gzip);
        check(&["*, gzip;q=0"], Encoding::Plain);
        check(&["br"], Encoding::Plain);
    }
}
