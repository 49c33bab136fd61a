//! A fake API server: lists of nodes, pods and AppWrappers in pages, watches without events, and TokenReviews that accept every token that
//! this benchmark issues. On a separate thread.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mcad_aggregator::trust::verdict::AUDIENCE;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::objects::{appwrapper, pod};
use crate::report::{NODES_EACH, PODS};
use crate::support::objects::{node_json, node_name};

const APPWRAPPERS: &str = "/apis/workload.codeflare.dev/v1beta2/appwrappers";

/// The agents' ServiceAccount.
pub(crate) const ACCOUNT: &str = "system:serviceaccount:metrics:mcad-agent";

/// Starts a server for a cluster with this many nodes; it ends with the process.
pub(crate) fn start(nodes: usize) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let service =
                    service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, nodes).await) });
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A client that leaves is no failure of what is measured.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
    });
    address
}

/// The token of a node's agent, with the length of kubelet's tokens.
pub(crate) fn token(node: usize) -> String {
    let claims = format!(r#"{{"aud":["{AUDIENCE}"],"exp":4102444800,"jti":"{node:0>700}"}}"#);
    format!("e30.{}.{node:0>300}", BASE64_URL_SAFE_NO_PAD.encode(claims))
}

type Answer = Response<Either<Full<Bytes>, Silence>>;

/// A watch without events.
struct Silence;

impl Body for Silence {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

async fn answer(request: Request<Incoming>, nodes: usize) -> Answer {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let asked = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let number = |key: &str| asked(key).and_then(|value| value.parse().ok());
    let is_watch = asked("watch").is_some();
    let (from, limit): (usize, usize) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
    match request.uri().path() {
        "/apis/workload.codeflare.dev/v1beta2" => whole(StatusCode::OK, served().to_string()),
        "/api/v1/nodes" | "/api/v1/pods" | APPWRAPPERS if is_watch => Response::new(Either::Right(Silence)),
        "/api/v1/nodes" => whole(StatusCode::OK, list("NodeList", from, limit, nodes, |at| node_json(at, &[]))),
        "/api/v1/pods" => whole(StatusCode::OK, list("PodList", from, limit, nodes * PODS, pod)),
        APPWRAPPERS => {
            let all = nodes.div_ceil(NODES_EACH);
            whole(StatusCode::OK, list("AppWrapperList", from, limit, all, appwrapper))
        }
        "/apis/authentication.k8s.io/v1/tokenreviews" => {
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            whole(StatusCode::CREATED, review(&body).to_string())
        }
        _ => whole(StatusCode::NOT_FOUND, "404 page not found".to_owned()),
    }
}

fn whole(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from(text))));
    *answer.status_mut() = status;
    answer
}

fn list(kind: &str, from: usize, limit: usize, all: usize, item: impl Fn(usize) -> Value) -> String {
    let to = from.saturating_add(limit).min(all);
    let rest = if to < all { to.to_string() } else { String::new() };
    let items: Vec<_> = (from..to).map(|at| item(at).to_string()).collect();
    format!(
        r#"{{"kind":"{kind}","apiVersion":"v1","metadata":{{"resourceVersion":"1","continue":"{rest}"}},"items":[{}]}}"#,
        items.join(",")
    )
}

fn served() -> Value {
    let resource = json!({"name": "appwrappers", "singularName": "appwrapper", "namespaced": true, "kind": "AppWrapper", "verbs": []});
    json!({"kind": "APIResourceList", "groupVersion": "workload.codeflare.dev/v1beta2", "resources": [resource]})
}

/// Like an API server of version 1.30 or later, which returns the node that a token was issued for.
fn review(body: &[u8]) -> Value {
    let review: Value = serde_json::from_slice(body).unwrap_or_default();
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let node = token.rsplit('.').next().and_then(|node| node.parse::<usize>().ok());
    let status = match node {
        Some(node) => json!({"authenticated": true, "audiences": [AUDIENCE], "user": {"username": ACCOUNT,
            "extra": {"authentication.kubernetes.io/node-name": [node_name(node)]}}}),
        None => json!({"authenticated": false}),
    };
    json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": {}, "status": status})
}
