//! The agent's own port: `/metrics` (its cost and failures) and `/live`. Figures of the node are the aggregator's to show.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::self_metrics::SelfMetrics;

/// One Prometheus, one kubelet and a person or two; more connections wait in the listener.
const MAX_CONNECTIONS: usize = 16;

/// How long a client may take over the head of a request, also of the next one on a kept connection: longer than the
/// usual scrape interval, so that Prometheus keeps its connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);

/// Serves until dropped.
pub async fn run(listener: TcpListener, metrics: Arc<SelfMetrics>, interval: Duration) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly. At once it would fail again.
                tracing::warn!(%error, "no connection can be accepted on the agent's own port");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let metrics = Arc::clone(&metrics);
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let answer = answer(&request, &metrics, interval);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the agent's own port broke");
            }
        });
    }
}

fn answer<B>(request: &Request<B>, metrics: &SelfMetrics, interval: Duration) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/metrics" => match metrics.text() {
            Ok(metrics) => text(StatusCode::OK, metrics),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        "/live" => live(metrics.since_tick(), interval),
        _ => text(StatusCode::NOT_FOUND, "here are /metrics and /live\n"),
    }
}

/// Alive is who sampled within the last three intervals. At least 30 s are granted, since an agent that a busy node
/// delays is not helped by being killed.
fn live(since_tick: Duration, interval: Duration) -> Response<Full<Bytes>> {
    let patience = (interval * 3).max(Duration::from_secs(30));
    if since_tick > patience {
        let sentence = format!("no sample for {} s: a source hangs\n", since_tick.as_secs());
        return text(StatusCode::SERVICE_UNAVAILABLE, sentence);
    }
    text(StatusCode::OK, "ok\n")
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn prometheus_and_kubelet_get_their_answers_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(SelfMetrics::new().unwrap());
        let ask = async |request: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("{request} HTTP/1.1\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let asked = async {
            let answer = ask("GET /metrics").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
            assert!(answer.contains("\nmcad_agent_ticks_total 0\n"), "{answer}");
            assert!(ask("GET /live").await.ends_with("\r\n\r\nok\n"));
            assert!(ask("GET /").await.starts_with("HTTP/1.1 404 "));
            assert!(ask("POST /metrics").await.starts_with("HTTP/1.1 405 "));
        };
        tokio::select! {
            () = asked => {}
            _ = run(listener, metrics, Duration::from_secs(10)) => {}
        }
    }

    #[tokio::test]
    async fn an_agent_whose_source_hangs_is_not_live() {
        let check = async |since_s, interval_s, expected: &str| {
            let answer = live(Duration::from_secs(since_s), Duration::from_secs(interval_s));
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, expected);
        };
        check(30, 10, "ok\n").await;
        check(31, 10, "no sample for 31 s: a source hangs\n").await;
        check(31, 1, "no sample for 31 s: a source hangs\n").await;
        check(31, 11, "ok\n").await;
    }
}
