//! Tests of the server's limits: at each limit, and beyond it. The test pauses time: from then on it jumps to the next deadline, so that
//! durations are exact to the millisecond and the test does not wait.

use tokio::time::Instant;

use super::super::routes::DISCARDED_BYTES;
use super::place_tests::ask;
use super::trust_tests::{kept, tokens};
use super::*;
use crate::reviewer::{Reviewer, token};
use crate::trust::certificate::CertificateAuthority;

/// The bytes of a too large body that are read, so that its sender receives the answer; then no more.
#[tokio::test]
async fn of_a_body_that_is_too_large_so_much_is_read_and_no_more() {
    // Some more bytes may arrive with the last bytes that are read, so the other body is larger by more than that.
    for (bytes, goes_on) in [(DISCARDED_BYTES, true), (DISCARDED_BYTES + 4 * MAX_BODY_BYTES, false)] {
        let served = serve_guarded(PATIENT, Guard::default()).await;
        let mut stream = TcpStream::connect(served.reports).await.unwrap();
        let head = format!(
            "POST /v1/report HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {bytes}\r\n\r\n"
        );
        // If it is no longer read, writing may fail; only the answer counts.
        let _ = stream.write_all(&[head.as_bytes(), &vec![0; bytes]].concat()).await;
        let next = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let mut answers = Vec::new();
        let read = stream.read_to_end(&mut answers).await;
        let answers = String::from_utf8_lossy(&answers).into_owned();
        assert_eq!(answers.contains("HTTP/1.1 404 "), goes_on, "{bytes}: {answers} {next:?} {read:?}");
        if goes_on {
            assert!(answers.starts_with("HTTP/1.1 413 "), "{answers}");
        }
        served.end().await;
    }
}

/// A limit under test, far from all others.
const LIMIT: Duration = Duration::from_mins(10);
/// How long a connection does without, within the limit.
const WITHIN: Duration = Duration::from_secs(599);

/// A server with one time limit; all others are far away.
async fn timed(set: fn(&mut Limits, Duration), guard: Guard) -> Served {
    let never = LIMIT * 1000;
    let mut limits =
        Limits { handshake: never, first: never, proof: never, header: never, body: never, drain: never, ..PATIENT };
    set(&mut limits, LIMIT);
    serve_guarded(limits, guard).await
}

fn tls() -> Guard {
    let now_s = Clock::system().now().unix_ms / 1000;
    let certificates = Certificates::default();
    let shown = CertificateAuthority::make(now_s).unwrap().sign(&["aggregator.example".to_owned()], now_s, now_s + 600);
    certificates.renew(shown.unwrap()).unwrap();
    Guard { report_tls: Some(certificates), ..Guard::default() }
}

/// How a connection exceeds the limit.
struct Slow {
    set: fn(&mut Limits, Duration),
    guard: fn() -> Guard,
    /// Sent and answered before the limit starts.
    before: &'static str,
    /// Sent first, and sent too late.
    begun: &'static str,
    rest: &'static str,
    /// The beginning of the answer if the rest arrives in time, and if it does not.
    taken: &'static str,
    cut: &'static str,
    /// Why the connection was refused; empty if the report was refused.
    counted: Option<&'static str>,
}

const LIVE: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const NOT_HERE: &str = "HTTP/1.1 404 ";

const SLOW: [Slow; 4] = [
    Slow {
        set: |limits, limit| limits.handshake = limit,
        guard: tls,
        before: "",
        // The beginning of a ClientHello; what follows is not one.
        begun: "\x16\x03\x01\x02",
        rest: "\x01\x02",
        taken: "",
        cut: "",
        counted: Some("handshake_slow"),
    },
    Slow {
        set: |limits, limit| limits.first = limit,
        guard: Guard::default,
        before: "",
        begun: "GET / HTT",
        rest: "P/1.1\r\nhost: x\r\n\r\n",
        taken: NOT_HERE,
        cut: "",
        counted: Some("silent"),
    },
    Slow {
        set: |limits, limit| limits.header = limit,
        guard: Guard::default,
        before: LIVE,
        begun: "",
        rest: LIVE,
        taken: NOT_HERE,
        cut: "",
        counted: None,
    },
    Slow {
        set: |limits, limit| limits.body = limit,
        guard: Guard::default,
        before: "",
        begun: "POST /v1/report HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-protobuf\r\n\
                content-length: 2\r\n\r\n\x08",
        rest: "\x01",
        // Refused for the missing name, and no longer for the time.
        taken: "HTTP/1.1 400 ",
        cut: "HTTP/1.1 408 ",
        counted: None,
    },
];

impl Slow {
    async fn begin(&self) -> (Served, TcpStream) {
        let served = timed(self.set, (self.guard)()).await;
        let mut stream = TcpStream::connect(served.reports).await.unwrap();
        if !self.before.is_empty() {
            stream.write_all(self.before.as_bytes()).await.unwrap();
            assert!(read_some(&mut stream).await.starts_with(NOT_HERE));
        }
        stream.write_all(self.begun.as_bytes()).await.unwrap();
        (served, stream)
    }
}

async fn read_some(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test(start_paused = true)]
async fn who_takes_longer_than_may_be_is_cut_then_and_not_before() {
    for slow in &SLOW {
        let (served, mut stream) = slow.begin().await;
        let began = Instant::now();
        let answer = String::from_utf8(read_to_cut(&mut stream).await).unwrap();
        assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs(), "{:?}", slow.begun);
        assert!(answer.starts_with(slow.cut) && answer.is_empty() == slow.cut.is_empty(), "{:?}: {answer}", slow.begun);
        tokio::time::resume();
        if let Some(reason) = slow.counted {
            let line =
                format!("mcad_aggregator_connections_refused_total{{listener=\"reports\",reason=\"{reason}\"}} 1");
            served.counts(&line).await;
        }
        tokio::time::pause();
        served.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_as_long_as_may_be_is_served() {
    for slow in SLOW.iter().filter(|slow| !slow.taken.is_empty()) {
        let (served, mut stream) = slow.begin().await;
        tokio::time::sleep(WITHIN).await;
        // The remaining time is real and long.
        tokio::time::resume();
        stream.write_all(slow.rest.as_bytes()).await.unwrap();
        let answer = read_some(&mut stream).await;
        assert!(answer.starts_with(slow.taken), "{:?}: {answer}", slow.begun);
        tokio::time::pause();
        drop(stream);
        served.end().await;
    }
}

#[tokio::test]
async fn a_connection_without_a_good_token_is_closed_then_and_one_with_it_is_kept() {
    let reviewer = Reviewer::start().await;
    let bearer = format!("Bearer {}", token(1, at(3600).unix_ms / 1000));
    reviewer.know(&bearer[7..], "n");
    let served = timed(|limits, limit| limits.proof = limit, tokens(&reviewer)).await;
    let mut agent = TcpStream::connect(served.reports).await.unwrap();
    assert_eq!(ask(&mut agent, &kept(&bearer, &valid(1))).await, "HTTP/1.1 204 No Content");
    let began = Instant::now();
    let mut stranger = TcpStream::connect(served.reports).await.unwrap();
    assert_eq!(ask(&mut stranger, &kept("Bearer x", b"")).await, "HTTP/1.1 401 Unauthorized");
    tokio::time::pause();
    read_to_cut(&mut stranger).await;
    tokio::time::resume();
    assert!((LIMIT..2 * LIMIT).contains(&began.elapsed()), "{:?}", began.elapsed());
    let line = "mcad_aggregator_connections_refused_total{listener=\"reports\",reason=\"unproven\"} 1";
    served.counts(line).await;
    assert_eq!(ask(&mut agent, &kept(&bearer, &valid(2))).await, "HTTP/1.1 204 No Content");
    served.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_drain_lasts_as_long_as_it_may() {
    let served = timed(|limits, limit| limits.drain = limit, Guard::default()).await;
    let mut forever = TcpStream::connect(served.reports).await.unwrap();
    let request = String::from_utf8(post(100, b"")).unwrap();
    let asking = request.replacen("\r\n", "\r\nexpect: 100-continue\r\n", 1);
    forever.write_all(asking.as_bytes()).await.unwrap();
    // The server has requested the body and waits for it.
    assert!(read_some(&mut forever).await.starts_with("HTTP/1.1 100 "));
    let began = Instant::now();
    served.end().await;
    assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
}

/// The status line of the answer to a header of a given size.
async fn header_of(bytes: usize) -> String {
    let served = serve(PATIENT).await;
    let mut stream = TcpStream::connect(served.reports).await.unwrap();
    let (begin, end) = ("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: ", "\r\n\r\n");
    let long = "x".repeat(bytes - begin.len() - end.len());
    // The connection may be closed before everything is written.
    let _ = stream.write_all(format!("{begin}{long}{end}").as_bytes()).await;
    let answer = String::from_utf8_lossy(&read_to_cut(&mut stream).await).into_owned();
    served.end().await;
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_header_is_as_long_as_it_may_be() {
    assert_eq!(header_of(16 * 1024).await, "HTTP/1.1 404 Not Found");
    assert_eq!(header_of(16 * 1024 + 1).await, "HTTP/1.1 431 Request Header Fields Too Large");
}

#[test]
fn of_the_files_that_may_be_open_some_are_left_to_scrapes_and_the_api_server() {
    let room = |files| Limits::default().with_open_files(files).report_connections;
    assert_eq!([0, 256, 257, 1024, 16_640, 16_641, u64::MAX].map(room), [1, 1, 1, 768, 16_384, 16_384, 16_384]);
}
