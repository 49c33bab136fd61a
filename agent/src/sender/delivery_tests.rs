//! Delivery to a real TCP server that behaves as aggregators and networks do.

use std::io;
use std::sync::Mutex;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::super::posted::{posted, put};
use super::*;

/// What the server does with the next request.
#[derive(Clone, Copy)]
enum Act {
    /// Responds with this status line and body.
    Answer(&'static str, &'static str),
    /// Responds with 200, then closes the connection without announcing it.
    AnswerThenClose,
    /// Begins a response and resets the connection.
    ResetHalfWay,
    /// Responds with 200 and a body that does not end.
    EndlessAnswer,
    /// Never responds, and keeps the connection open.
    Hang,
}

const TAKEN: Act = Act::Answer("204 No Content", "");

/// No test waits for this to pass.
const LONG: Duration = Duration::from_mins(1);
/// A test waits for this to pass.
const SHORT: Duration = Duration::from_millis(50);

/// Runs the sender against the script and closes the channel after it. While the server acts on a request, the report
/// with the number beside the act is put into the channel.
///
/// Returns what the server read, as sequence numbers with `|` before each new connection, and the counters that are not
/// 0.
#[track_caller]
fn check(deadline: Duration, script: &[(Act, u64)], story: &str, counters: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let metrics = Arc::new(SelfMetrics::new().unwrap());
    let played = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (slot, reports) = watch::channel(None);
        put(&slot, 1);
        let backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        let sender = delivery(target, deadline, backoff, &metrics).run(reports);
        tokio::join!(sender, serve(listener, slot, script)).1
    });
    assert_eq!(played, story);
    assert_eq!(counts(&metrics), counters);
}

fn delivery(target: Target, deadline: Duration, backoff: Backoff, metrics: &Arc<SelfMetrics>) -> Delivery {
    Delivery::new(target, deadline, backoff, Arc::clone(metrics), mpsc::channel(1).0)
}

fn counts(metrics: &SelfMetrics) -> Vec<String> {
    let text = String::from_utf8(metrics.text().unwrap()).unwrap();
    let of_reports = text.lines().filter_map(|line| line.strip_prefix("mcad_agent_report"));
    of_reports.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
}

async fn serve(listener: TcpListener, slot: watch::Sender<Option<Outgoing>>, script: &[(Act, u64)]) -> String {
    let mut story = String::new();
    let mut kept = None;
    let mut hanging = Vec::new();
    for (act, next) in script {
        let (mut stream, sequence) = request(&listener, kept.take(), &mut story).await;
        story.push_str(&sequence.to_string());
        put(&slot, *next);
        match act {
            Act::Answer(status, body) => {
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                kept = Some(stream);
            }
            Act::AnswerThenClose => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
            Act::EndlessAnswer => {
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
                stream.write_all(&[&head[..], &[b'x'; 5000]].concat()).await.unwrap();
                kept = Some(stream);
            }
            Act::ResetHalfWay => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await.unwrap();
                stream.set_zero_linger().unwrap();
            }
            Act::Hang => hanging.push(stream),
        }
    }
    story
}

/// The next report, on the kept connection or a new one.
async fn request(listener: &TcpListener, kept: Option<TcpStream>, story: &mut String) -> (TcpStream, u64) {
    if let Some(mut stream) = kept
        && let Some(sequence) = read(&mut stream).await
    {
        return (stream, sequence);
    }
    let (mut stream, _) = listener.accept().await.unwrap();
    story.push('|');
    let sequence = read(&mut stream).await.unwrap();
    (stream, sequence)
}

async fn read(stream: &mut TcpStream) -> Option<u64> {
    let (head, sequence) = posted(stream).await?;
    assert!(head.starts_with("POST /v1/report HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    assert!(head.contains("host: 127.0.0.1:"), "{head}");
    Some(sequence)
}

#[test]
fn reports_go_over_one_kept_connection() {
    check(LONG, &[(TAKEN, 2), (TAKEN, 3), (TAKEN, 3)], "|123", &["s_sent_total 3"]);
}

#[test]
fn only_the_latest_report_is_sent_and_those_it_overtook_are_counted() {
    check(LONG, &[(TAKEN, 5), (TAKEN, 5)], "|15", &["s_replaced_total 3", "s_sent_total 2"]);
}

#[test]
fn a_report_that_the_aggregator_refuses_is_not_sent_again() {
    let refused = Act::Answer("400 Bad Request", "version 9 is unknown\n");
    let counters = ["_send_failures_total{reason=\"refused\"} 1", "s_sent_total 1"];
    check(LONG, &[(refused, 2), (TAKEN, 2)], "|12", &counters);
}

#[test]
fn a_report_that_an_overloaded_aggregator_did_not_take_is_sent_again_on_the_same_connection() {
    for status in ["503 Service Unavailable", "429 Too Many Requests", "408 Request Timeout", "301 Moved"] {
        let counters = ["_send_failures_total{reason=\"not_taken\"} 1", "s_sent_total 1"];
        check(LONG, &[(Act::Answer(status, "later"), 1), (TAKEN, 1)], "|11", &counters);
    }
}

#[test]
fn after_a_reset_half_way_the_latest_report_goes_over_a_new_connection() {
    let counters = ["_send_failures_total{reason=\"lost\"} 1", "s_replaced_total 2", "s_sent_total 1"];
    check(LONG, &[(Act::ResetHalfWay, 3), (TAKEN, 3)], "|1|3", &counters);
}

#[test]
fn a_kept_connection_that_the_aggregator_closed_meanwhile_is_no_failure() {
    check(LONG, &[(Act::AnswerThenClose, 2), (TAKEN, 2)], "|1|2", &["s_sent_total 2"]);
}

#[test]
fn an_aggregator_that_hangs_is_given_up_at_the_deadline() {
    let counters = ["_send_failures_total{reason=\"deadline\"} 1", "s_replaced_total 1", "s_sent_total 1"];
    check(SHORT, &[(Act::Hang, 2), (TAKEN, 2)], "|1|2", &counters);
}

#[test]
fn an_endless_answer_costs_its_connection_and_not_the_agent() {
    check(LONG, &[(Act::EndlessAnswer, 2), (TAKEN, 2)], "|1|2", &["s_sent_total 2"]);
}

#[tokio::test]
async fn with_nobody_there_the_sender_tries_once_more_at_the_end_and_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let metrics = Arc::new(SelfMetrics::new().unwrap());
    let (slot, reports) = watch::channel(None);
    put(&slot, 1);
    drop(slot);
    delivery(target, LONG, Backoff::new(LONG, LONG), &metrics).run(reports).await;
    assert_eq!(counts(&metrics), ["_send_failures_total{reason=\"connect\"} 2"]);
}

#[test]
fn an_outcome_is_logged_when_it_changes_with_the_aggregators_sentence() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    tracing::subscriber::with_default(subscriber, || {
        let refused = Act::Answer("400 Bad Request", "version 9\nis unknown\n");
        let script = [(refused, 2), (refused, 3), (refused, 4), (TAKEN, 5), (TAKEN, 5)];
        let counters = ["_send_failures_total{reason=\"refused\"} 3", "s_sent_total 2"];
        check(LONG, &script, "|12345", &counters);
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("rejected with 400 Bad Request: version 9 is unknown").count(), 1, "{log}");
    assert_eq!(log.matches("reports arrive").count(), 1, "{log}");
}
