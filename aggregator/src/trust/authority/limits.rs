//! Tests of the limits of one check: at each limit, and beyond it. The API server is a map of objects; time is paused and jumps to
//! the next deadline.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use mcad_testkit::reports::at;
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;

/// The objects of a fake API server, and how it answers.
#[derive(Default)]
struct Kept {
    /// By path.
    objects: HashMap<String, Value>,
    /// The number of writes that are refused with a conflict.
    conflicts: usize,
    /// Before the first answer.
    delay: Duration,
    asked: usize,
}

fn keeper(kept: Kept) -> (Keeper, Certificates, Arc<Mutex<Kept>>) {
    let kept = Arc::new(Mutex::new(kept));
    let asked = Arc::clone(&kept);
    let service = tower::service_fn(move |request: Request<Body>| answer(Arc::clone(&asked), request));
    let places = Places { namespace: "metrics".into(), secret: "authority".into(), config_map: "bundle".into() };
    let (clock, certificates) = (ApiClock::new(Clock::from_fn(|| at(0))), Certificates::default());
    let client = Client::new(service, "metrics");
    (Keeper::new(client, places, vec!["reports.svc".into()], clock, certificates.clone()), certificates, kept)
}

async fn answer(kept: Arc<Mutex<Kept>>, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body in memory").to_bytes();
    let delay = {
        let mut kept = kept.lock().unwrap();
        kept.asked += 1;
        if kept.asked == 1 { kept.delay } else { Duration::ZERO }
    };
    tokio::time::sleep(delay).await;
    let mut kept = kept.lock().unwrap();
    let path = head.uri.path().to_owned();
    let status = |code: StatusCode, reason: &str| {
        let code_number = code.as_u16();
        (code, json!({"kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code_number}))
    };
    let (code, answer) = if head.method == Method::GET {
        let known = kept.objects.get(&path).map(|known| (StatusCode::OK, known.clone()));
        known.unwrap_or_else(|| status(StatusCode::NOT_FOUND, "NotFound"))
    } else if kept.conflicts > 0 {
        kept.conflicts -= 1;
        status(StatusCode::CONFLICT, "Conflict")
    } else {
        let object: Value = serde_json::from_slice(&body).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let path = if head.method == Method::POST { format!("{path}/{name}") } else { path };
        kept.objects.insert(path, object.clone());
        (StatusCode::OK, object)
    };
    Ok(Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap())
}

/// Steps of a check without existing objects: found, publish, note, and then nothing is due.
const STEPS: usize = 4;

#[tokio::test]
async fn a_look_goes_on_for_as_many_steps_as_it_may() {
    let look = |conflicts| async move {
        let (mut keeper, certificates, kept) = keeper(Kept { conflicts, ..Kept::default() });
        let looked = keeper.look().await;
        assert_eq!(kept.lock().unwrap().conflicts, 0, "all writes that were to be refused came");
        (looked, certificates.not_after_s().is_some())
    };
    assert!(matches!(look(MAX_STEPS - STEPS).await, (Ok(()), true)));
    let (looked, is_shown) = look(MAX_STEPS - STEPS + 1).await;
    let refused = looked.unwrap_err().to_string();
    assert_eq!(refused, "Secret authority and ConfigMap bundle change faster than they can be read");
    assert!(!is_shown, "a certificate is shown whose authority nobody was told of");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_waited_for_as_long_as_it_may_be_and_asked_for_again_after_that() {
    let after = |delay, time| async move {
        let (keeper, certificates, kept) = keeper(Kept { delay, ..Kept::default() });
        assert!(tokio::time::timeout(time, keeper.keep()).await.is_err(), "it ends");
        let asked = kept.lock().unwrap().asked;
        (certificates.not_after_s().is_some(), asked)
    };
    let tick = Duration::from_millis(1);
    let before = |limit: Duration| limit.checked_sub(tick).unwrap();
    let (beyond, again) = (DEADLINE + tick, DEADLINE + AGAIN);
    let (is_shown, _) = after(before(DEADLINE), beyond).await;
    assert!(is_shown, "an answer in time");
    assert_eq!(after(beyond, before(again)).await, (false, 1), "an answer too late");
    let (is_shown, asked) = after(beyond, again + tick).await;
    assert!(is_shown && asked > 1, "it was not asked again: {asked}");
}
