//! Tests of the sender's limits: at each limit, and beyond it. The clock is paused and jumps to the next deadline, so
//! durations are exact and the tests are fast.

use std::future::pending;

use hyper::body::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::connection::{Connection, SendError};
use super::credentials::MAX_BYTES;
use super::posted::{posted, put};
use super::*;

/// A deadline under test.
const LIMIT: Duration = Duration::from_mins(10);
/// How long a response within it takes.
const WITHIN: Duration = Duration::from_secs(599);

async fn listener() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, target)
}

/// How much of the body remains, for a response of 400 with a body of this length.
async fn sentence_of(bytes: usize) -> usize {
    let (listener, target) = listener().await;
    let answers = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        posted(&mut stream).await.unwrap();
        let head = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {bytes}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &vec![b'x'; bytes]].concat()).await.unwrap();
        stream
    };
    let exchange = async {
        let mut connection = Connection::open(&target).await.unwrap();
        connection.post(&target, Bytes::from_static(b"\x28\x01")).await
    };
    match tokio::join!(exchange, answers).0 {
        Err(SendError::Refused { sentence, .. }) => sentence.len(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_sentence_is_as_long_as_it_may_be_and_a_longer_one_is_none() {
    assert_eq!(sentence_of(1024).await, 1024);
    assert_eq!(sentence_of(1025).await, 0);
}

#[test]
fn files_are_as_long_as_they_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let credentials = Credentials::new(None, Some(path.clone()));
    let token = |length: u64| {
        std::fs::write(&path, vec![b'x'; length as usize]).unwrap();
        credentials.authorization().map(drop)
    };
    token(MAX_BYTES).unwrap();
    let refusal = token(MAX_BYTES + 1).unwrap_err();
    assert!(matches!(refusal, CredentialsError::TooLong(_)), "{refusal}");
}

/// A sender to that target, which is given reports with these numbers.
fn sender(target: Target, metrics: &Arc<SelfMetrics>) -> (watch::Sender<Option<Outgoing>>, impl Future<Output = ()>) {
    let (slot, reports) = watch::channel(None);
    put(&slot, 1);
    let backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
    (slot, Sender::new(target, look_up, LIMIT, backoff, 0.0, Arc::clone(metrics)).run(reports))
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_waited_for_until_the_deadline_and_no_longer() {
    let (listener, target) = listener().await;
    let metrics = Arc::new(SelfMetrics::new().unwrap());
    let (slot, sender) = sender(target, &metrics);
    let aggregator = async {
        let next = async || {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_eq!(posted(&mut stream).await.unwrap().1, 1);
            (stream, Instant::now())
        };
        let (_hangs, asked) = next().await;
        let (mut late, asked_again): (TcpStream, _) = next().await;
        assert_eq!(asked_again.duration_since(asked).as_secs(), LIMIT.as_secs());
        tokio::time::sleep(WITHIN).await;
        // The rest of the waiting is in real time, which is long enough.
        tokio::time::resume();
        late.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        drop(slot);
        // Until the agent has read the response.
        let _ = posted(&mut late).await;
    };
    tokio::join!(sender, aggregator);
    let text = String::from_utf8(metrics.text().unwrap()).unwrap();
    for line in ["_failures_total{reason=\"deadline\"} 1", "mcad_agent_reports_sent_total 1"] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_up_is_waited_for_until_its_deadline_and_no_longer() {
    let metrics = Arc::new(SelfMetrics::new().unwrap());
    let (_slot, reports) = watch::channel(None);
    let never = |_, _| pending();
    let backoff = Backoff::new(LIMIT, LIMIT);
    let sender = Sender::new(Target::named("aggregator.example:1"), never, LIMIT, backoff, 0.0, Arc::clone(&metrics));
    let running = tokio::spawn(sender.run(reports));
    let failed = || String::from_utf8(metrics.text().unwrap()).unwrap().contains("look_up_failures_total 1\n");
    let began = Instant::now();
    while !failed() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!failed() || began.elapsed() >= LOOK_UP_DEADLINE, "{:?}", began.elapsed());
        assert!(began.elapsed() <= LOOK_UP_DEADLINE + Duration::from_secs(1), "it is waited for still");
    }
    running.abort();
}
