//! Tests of what is written if this machine's clock is wrong, against a fake API server that accepts everything and returns the time.
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use http::{HeaderValue, Request, Response, header::DATE};
use http_body_util::BodyExt as _;
use kube::client::Body;
use mcad_accounting::now::Now;
use serde_json::Value;
use tower::Layer as _;

use super::*;
use crate::clock::Clock;

const NOW_S: u64 = 1_800_000_000;
const AHEAD_S: u64 = 400 * 86_400;

/// The last object on the API server, and a candidate whose clock is ahead of it by a given time.
fn candidate(ahead_s: u64) -> (Candidate<impl Fn() -> Standing>, Arc<Mutex<Value>>) {
    let written = Arc::new(Mutex::new(Value::Null));
    let keeps = Arc::clone(&written);
    let service = tower::service_fn(move |request: Request<Body>| {
        let keeps = Arc::clone(&keeps);
        async move {
            let body = request.into_body().collect().await.expect("a body in memory").to_bytes();
            *keeps.lock().unwrap() = serde_json::from_slice(&body).unwrap();
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(NOW_S));
            let answer = Response::builder().header(DATE, HeaderValue::from_str(&date).unwrap());
            Ok::<_, Infallible>(answer.body(Body::from(body.to_vec())).unwrap())
        }
    });
    let wall = move || Now { unix_ms: (NOW_S + ahead_s) * 1000, ..Now::default() };
    let clock = ApiClock::new(Clock::from_fn(wall));
    let client = Client::new(clock.layer().layer(service), "metrics");
    let settings = Settings { identity: "me".to_owned(), duration: Duration::from_secs(30) };
    let name = Name { namespace: None, name: "lease".to_owned() };
    let leadership = Leadership::elected(settings.speaks());
    (Candidate::new(client, &name, settings, None, clock, leadership, || Standing::Ready), written)
}

fn free() -> Event {
    Event::Read(Some(Record { version: "1".to_owned(), ..Record::default() }))
}

#[tokio::test]
async fn a_replica_whose_clock_is_wrong_writes_the_api_servers_time() {
    for ahead_s in [0, AHEAD_S] {
        let (mut candidate, written) = candidate(ahead_s);
        for claim in [Claim::Create, Claim::Renew] {
            assert!(matches!(candidate.act(Action::Write(claim)).await, Event::Wrote { .. }));
        }
        assert_eq!(written.lock().unwrap()["spec"]["renewTime"], "2027-01-15T08:00:00.000000Z", "{ahead_s}");
    }
}

#[tokio::test]
async fn a_replica_whose_clock_is_wrong_waits_for_another_one_to_lead() {
    for (ahead_s, expected) in [(0, Action::Write(Claim::Acquire)), (AHEAD_S, Action::Wait(Duration::from_secs(3)))] {
        let (mut candidate, _) = candidate(ahead_s);
        // Any answer contains the time.
        candidate.act(Action::Write(Claim::Create)).await;
        assert_eq!(candidate.step(free()), expected, "{ahead_s}");
    }
}
