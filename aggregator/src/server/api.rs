//! Requests for `/api/v1`. Owns the transport of the answers; [`mcad_present::api`] owns their content.
use std::sync::Arc;

use hyper::header::HeaderValue;
use hyper::{StatusCode, Uri};
use mcad_present::api::{Refused, Wanted};
use mcad_present::explain;
use serde::Serialize;

use super::Shared;
use super::answer::{Answer, text, too_many, whole};
use super::visitor::Visitor;
use crate::replica::Replica;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The body of an error.
#[derive(Serialize)]
struct Error {
    error: String,
}

pub(super) async fn answer(uri: &Uri, visitor: &Visitor, shared: &Shared) -> Answer {
    let wanted = match Wanted::parse(uri.path(), uri.query().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(refused) => return refusal(&refused),
    };
    let Some(turn) = shared.turns.turn(visitor.peer).await else { return too_many() };
    let replica = Arc::clone(&shared.replica);
    // A snapshot of a large cluster takes time, and other connections must not wait for it.
    let made = tokio::task::spawn_blocking(move || {
        let made = make(&wanted, &replica);
        drop(turn);
        made
    });
    made.await.unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be created");
        text(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be created")
    })
}

fn make(wanted: &Wanted, replica: &Replica) -> Answer {
    match wanted.answer(&replica.snapshot(), replica.now()) {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(refused) => refusal(&refused),
    }
}

fn refusal(refused: &Refused) -> Answer {
    let status = StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, &Error { error: refused.to_string() })
}

fn json(status: StatusCode, answer: &impl Serialize) -> Answer {
    match explain::json(answer) {
        Ok(body) => whole(status, JSON, format!("{body}\n")),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written")
        }
    }
}
