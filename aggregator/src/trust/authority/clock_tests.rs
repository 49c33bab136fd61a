//! Tests of a clock that is wrong for a while, against a fake API server: a map of objects that returns the time.
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::DATE};
use http_body_util::BodyExt as _;
use kube::client::Body;
use mcad_accounting::now::Now;
use serde_json::{Value, json};
use tower::Layer as _;

use super::*;
use crate::clock::Clock;

const NOW_S: u64 = 1_800_000_000;
const DAY_S: u64 = 86_400;
/// Longer than a CA is valid.
const AHEAD_S: u64 = 400 * DAY_S;

/// A fake API server: its objects by path, and whether it returns its time, which is always the same.
#[derive(Clone, Default)]
struct Server {
    objects: Arc<Mutex<HashMap<String, Value>>>,
    says_no_time: bool,
}

impl Server {
    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body in memory").to_bytes();
        let mut objects = self.objects.lock().unwrap();
        let path = head.uri.path().to_owned();
        let (code, answer) = if head.method == Method::GET {
            let missing = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
            let known = objects.get(&path).map(|known| (StatusCode::OK, known.clone()));
            known.unwrap_or((StatusCode::NOT_FOUND, missing))
        } else {
            let object: Value = serde_json::from_slice(&body).unwrap();
            let name = object["metadata"]["name"].as_str().unwrap();
            let path = if head.method == Method::POST { format!("{path}/{name}") } else { path };
            objects.insert(path, object.clone());
            (StatusCode::OK, object)
        };
        let mut answer = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap();
        if !self.says_no_time {
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(NOW_S));
            answer.headers_mut().insert(DATE, HeaderValue::from_str(&date).unwrap());
        }
        Ok(answer)
    }

    fn written(&self) -> HashMap<String, Value> {
        self.objects.lock().unwrap().clone()
    }

    fn bundle(&self) -> Vec<certificate::Read> {
        let text = self.written()["/api/v1/namespaces/metrics/configmaps/bundle"]["data"]["ca.crt"].clone();
        certificate::read_bundle(text.as_str().unwrap()).into_iter().map(|(read, _)| read).collect()
    }
}

/// A replica, and how far its clock is ahead.
struct Ahead {
    keeper: Keeper,
    certificates: Certificates,
    by_s: Arc<AtomicU64>,
}

fn ahead(server: &Server, by_s: u64) -> Ahead {
    let ahead_s = Arc::new(AtomicU64::new(by_s));
    let hand = Arc::clone(&ahead_s);
    let wall = move || Now { unix_ms: (NOW_S + hand.load(Ordering::SeqCst)) * 1000, ..Now::default() };
    let clock = ApiClock::new(Clock::from_fn(wall));
    let serving = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| serving.clone().answer(request));
    let client = Client::new(clock.layer().layer(service), "metrics");
    let places = Places { namespace: "metrics".into(), secret: "authority".into(), config_map: "bundle".into() };
    let certificates = Certificates::default();
    let keeper = Keeper::new(client, places, vec!["reports.svc".into()], clock, certificates.clone());
    Ahead { keeper, certificates, by_s: ahead_s }
}

#[tokio::test]
async fn a_clock_that_is_ahead_changes_nothing_and_all_goes_on_when_it_is_right_again() {
    let server = Server::default();
    let mut replica = ahead(&server, 0);
    replica.keeper.look().await.unwrap();
    let (written, shown) = (server.written(), replica.certificates.not_after_s());
    assert_eq!(shown, Some(NOW_S + rotation::LEAF_S));

    replica.by_s.store(AHEAD_S, Ordering::SeqCst);
    for _ in 0..15 {
        let refusal = replica.keeper.look().await.unwrap_err();
        assert!(matches!(refusal, AuthorityError::Clock { own_s, api_s } if own_s - api_s == AHEAD_S), "{refusal}");
    }
    assert_eq!((server.written(), replica.certificates.not_after_s()), (written.clone(), shown));

    replica.by_s.store(0, Ordering::SeqCst);
    replica.keeper.look().await.unwrap();
    assert_eq!((server.written(), replica.certificates.not_after_s()), (written, shown));
}

#[tokio::test]
async fn a_replica_that_starts_with_a_wrong_clock_shows_what_is_valid_now_and_makes_no_authority() {
    let server = Server::default();
    let mut wrong = ahead(&server, AHEAD_S);
    assert!(matches!(wrong.keeper.look().await, Err(AuthorityError::Clock { .. })));
    assert_eq!((server.written().len(), wrong.certificates.not_after_s()), (0, None));

    ahead(&server, 0).keeper.look().await.unwrap();
    assert!(matches!(wrong.keeper.look().await, Err(AuthorityError::Clock { .. })));
    // As long as its CA: it is valid by both clocks as far as possible.
    assert_eq!(wrong.certificates.not_after_s(), Some(NOW_S + rotation::AUTHORITY_S));
    wrong.by_s.store(0, Ordering::SeqCst);
    wrong.keeper.look().await.unwrap();
    assert_eq!(wrong.certificates.not_after_s(), Some(NOW_S + rotation::LEAF_S));
}

#[tokio::test]
async fn what_a_wrong_clock_has_broken_where_nobody_said_the_time_is_mended() {
    let blind = Server { says_no_time: true, ..Server::default() };
    ahead(&blind, AHEAD_S).keeper.look().await.unwrap();
    let [future] = blind.bundle()[..] else { panic!("one authority") };
    assert!(future.not_before_s > NOW_S);

    let server = Server { says_no_time: false, ..blind };
    let mut replica = ahead(&server, 0);
    replica.keeper.look().await.unwrap();
    assert_eq!(replica.certificates.not_after_s(), Some(NOW_S + rotation::LEAF_S));
    let bundle = server.bundle();
    assert_eq!(bundle.len(), 2, "who shows what the other one signed is still believed when its time has come");
    assert!(bundle.contains(&future) && bundle.iter().any(|read| read.not_before_s < NOW_S), "{bundle:?}");
}
