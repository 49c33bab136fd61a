//! Tests of authentication over real sockets: TLS with valid, invalid, outdated and slow peers; tokens of other nodes; more connections
//! than allowed.

use mcad_accounting::nodes::AT_ONCE;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::place_tests::{ask, from};
use super::*;
use crate::reviewer::{AGENT, Reviewer, token};
use crate::trust::certificate::CertificateAuthority;
use crate::trust::identity;

/// Real certificates are checked against the real time.
fn now_s() -> u64 {
    Clock::system().now().unix_ms / 1000
}

fn renew(certificates: &Certificates, authority: &CertificateAuthority) {
    let shown = authority.sign(&["aggregator.example".to_owned()], now_s(), now_s() + 600).unwrap();
    certificates.renew(shown).unwrap();
}

fn tls_guard() -> (Guard, Certificates, CertificateAuthority) {
    let (certificates, authority) = (Certificates::default(), CertificateAuthority::make(now_s()).unwrap());
    renew(&certificates, &authority);
    let guard = Guard { report_tls: Some(certificates.clone()), ..Guard::default() };
    (guard, certificates, authority)
}

async fn connect(
    address: SocketAddr,
    authority: &CertificateAuthority,
    name: &'static str,
    version: &'static SupportedProtocolVersion,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(config).connect(ServerName::try_from(name).unwrap(), stream).await
}

const NAME: &str = "aggregator.example";

/// Sends a report on a persistent connection and reads the status line.
async fn send(stream: &mut TlsStream<TcpStream>, body: &[u8]) -> String {
    let request = String::from_utf8_lossy(&post(body.len(), b"")).replace("connection: close\r\n", "");
    stream.write_all(&[request.as_bytes(), body].concat()).await.unwrap();
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned()
}

fn closed(reason: &str, times: u32) -> String {
    format!("mcad_aggregator_connections_refused_total{{listener=\"reports\",reason=\"{reason}\"}} {times}")
}

#[tokio::test]
async fn reports_come_by_tls_1_3_and_nothing_else() {
    let (guard, _, authority) = tls_guard();
    let served = serve_guarded(PATIENT, guard).await;
    let mut stream = connect(served.reports, &authority, NAME, &TLS13).await.unwrap();
    assert_eq!(send(&mut stream, &valid(1)).await, "HTTP/1.1 204 No Content");
    assert!(connect(served.reports, &authority, NAME, &TLS12).await.is_err());
    let mut plain = TcpStream::connect(served.reports).await.unwrap();
    plain.write_all(&post(0, b"")).await.unwrap();
    assert!(!read_to_cut(&mut plain).await.starts_with(b"HTTP"));
    served.counts(&closed("handshake", 2)).await;
    served.counts("mcad_aggregator_reports_received_total 1").await;
    drop(stream);
    served.end().await;
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_authority_or_expects_another_name_sends_nothing() {
    let (guard, _, authority) = tls_guard();
    let served = serve_guarded(PATIENT, guard).await;
    let other = CertificateAuthority::make(now_s()).unwrap();
    assert!(connect(served.reports, &other, NAME, &TLS13).await.is_err());
    assert!(connect(served.reports, &authority, "other.example", &TLS13).await.is_err());
    served.counts(&closed("handshake", 2)).await;
    served.end().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_under_traffic_and_open_connections_go_on() {
    let (guard, certificates, old) = tls_guard();
    let served = serve_guarded(PATIENT, guard).await;
    let mut kept = connect(served.reports, &old, NAME, &TLS13).await.unwrap();
    assert_eq!(send(&mut kept, &valid(1)).await, "HTTP/1.1 204 No Content");
    let new = CertificateAuthority::make(now_s()).unwrap();
    renew(&certificates, &new);
    assert_eq!(send(&mut kept, &valid(2)).await, "HTTP/1.1 204 No Content");
    assert!(connect(served.reports, &old, NAME, &TLS13).await.is_err());
    let mut fresh = connect(served.reports, &new, NAME, &TLS13).await.unwrap();
    assert_eq!(send(&mut fresh, &valid(3)).await, "HTTP/1.1 204 No Content");
    let not_after_s = certificates.not_after_s().unwrap();
    let family = "mcad_aggregator_certificate_not_after_timestamp_seconds";
    served.counts(&format!("{family}{{listener=\"reports\"}} {not_after_s}")).await;
    drop((kept, fresh));
    served.end().await;
}

#[tokio::test]
async fn without_a_certificate_nobody_is_served_and_reports_are_not_taken_in_plain() {
    let guard = Guard { report_tls: Some(Certificates::default()), ..Guard::default() };
    let served = serve_guarded(PATIENT, guard).await;
    let mut plain = TcpStream::connect(served.reports).await.unwrap();
    assert_eq!(read_to_cut(&mut plain).await, b"");
    served.counts(&closed("no_certificate", 1)).await;
    served.end().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut() {
    let (guard, ..) = tls_guard();
    let served = serve_guarded(Limits { handshake: SOON, ..PATIENT }, guard).await;
    let mut stream = TcpStream::connect(served.reports).await.unwrap();
    // The beginning of a ClientHello.
    stream.write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
    assert_eq!(read_to_cut(&mut stream).await, b"");
    served.counts(&closed("handshake_slow", 1)).await;
    served.end().await;
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_cut_and_one_that_did_is_kept() {
    let served = serve(Limits { first: SOON, ..PATIENT }).await;
    let mut kept = TcpStream::connect(served.reports).await.unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    kept.readable().await.unwrap();
    let mut answer = [0; 1024];
    let read = kept.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 404 "));
    let mut silent = TcpStream::connect(served.reports).await.unwrap();
    // A request that arrives byte by byte is also too slow.
    silent.write_all(b"POST /v1/rep").await.unwrap();
    assert_eq!(read_to_cut(&mut silent).await, b"");
    served.counts(&closed("silent", 1)).await;
    kept.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read_to_cut(&mut kept).await.starts_with(b"HTTP/1.1 404 "));
    served.end().await;
}

#[tokio::test]
async fn a_header_that_is_too_long_is_cut_and_counted() {
    let served = serve(PATIENT).await;
    let mut stream = TcpStream::connect(served.reports).await.unwrap();
    let long = "x".repeat(20_000);
    // The connection may be closed before everything is written.
    let _ = stream.write_all(format!("POST /v1/report HTTP/1.1\r\nhost: {long}").as_bytes()).await;
    read_to_cut(&mut stream).await;
    served.counts(&closed("header", 1)).await;
    served.end().await;
}

#[tokio::test]
async fn scrapes_come_by_tls_where_a_certificate_is_given() {
    let (guard, certificates, authority) = tls_guard();
    drop(guard);
    let guard = Guard { metrics_tls: Some(certificates), ..Guard::default() };
    let served = serve_guarded(PATIENT, guard).await;
    let mut stream = connect(served.metrics, &authority, NAME, &TLS13).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    assert!(String::from_utf8_lossy(&answer).contains("mcad_build_info"));
    served.end().await;
}

/// The head of a report whose body never arrives.
fn unfinished(length: usize, more: &str) -> String {
    format!(
        "POST /v1/report HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\nexpect: 100-continue\r\n{more}\
         content-length: {length}\r\n\r\n"
    )
}

/// Begins a request with a body from this loopback address. The server requests the body once it has room.
async fn begin(last: u8, served: &Served, length: usize, more: &str) -> TcpStream {
    let mut stream = from(last, served.reports).await;
    stream.write_all(unfinished(length, more).as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&answer[..read]));
    stream
}

#[tokio::test]
async fn bodies_take_as_much_memory_together_as_they_may_and_one_more_is_told_to_come_back() {
    let served = serve(Limits { bodies_kib: 1024, ..PATIENT }).await;
    // All KiB but one.
    let first = begin(2, &served, 768 * 1024, "").await;
    let second = begin(3, &served, 255 * 1024, "").await;
    let fits = valid(1);
    assert!(fits.len() <= 1024);
    assert!(served.post(&fits).await.0.starts_with("HTTP/1.1 204 "));
    let large = vec![0; 1025];
    let (head, body) = served.post(&large).await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 1\r\n"), "{head}");
    assert!(body.starts_with("busy: "), "{body}");
    drop((first, second));
    served.counts("mcad_aggregator_connections{listener=\"reports\"} 0").await;
    served.end().await;
}

#[tokio::test]
async fn one_peer_leaves_room_for_the_bodies_of_others() {
    let served = serve(Limits { bodies_kib: 1024, ..PATIENT }).await;
    let greedy = begin(2, &served, 768 * 1024, "").await;
    let mut again = from(2, served.reports).await;
    let body = vec![0; 100];
    again.write_all(&post(body.len(), &body)).await.unwrap();
    assert!(read_to_cut(&mut again).await.starts_with(b"HTTP/1.1 503 "));
    assert!(served.post(&valid(1)).await.0.starts_with("HTTP/1.1 204 "));
    drop(greedy);
    served.end().await;
}

#[tokio::test]
async fn where_no_length_is_said_there_is_room_for_any() {
    // One peer may use three quarters.
    let served = serve(Limits { bodies_kib: 2048, ..PATIENT }).await;
    let chunked =
        b"POST /v1/report HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-protobuf\r\n\
        transfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let (head, _) = exchange(served.reports, chunked).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "an empty report, and not a full house: {head}");
    served.end().await;
}

#[tokio::test]
async fn the_holder_of_one_agents_token_has_one_body_on_its_way_and_others_are_taken() {
    let reviewer = Reviewer::start().await;
    let served = guarded(&reviewer).await;
    let bearer = |number| format!("Bearer {}", token(number, at(3600).unix_ms / 1000));
    reviewer.know(&bearer(1)[7..], "m");
    reviewer.know(&bearer(2)[7..], "n");
    let greedy = begin(2, &served, MAX_BODY_BYTES, &format!("authorization: {}\r\n", bearer(1))).await;
    for last in 3..9 {
        let mut again = from(last, served.reports).await;
        again.write_all(&with_token(&bearer(1), &valid(1))).await.unwrap();
        assert!(read_to_cut(&mut again).await.starts_with(b"HTTP/1.1 503 "));
    }
    assert!(exchange(served.reports, &with_token(&bearer(2), &valid(1))).await.0.starts_with("HTTP/1.1 204 "));
    drop(greedy);
    served.end().await;
}

#[tokio::test]
async fn of_one_node_so_many_connections_stay_and_the_oldest_gives_way() {
    let reviewer = Reviewer::start().await;
    let served = guarded(&reviewer).await;
    let bearer = format!("Bearer {}", token(1, at(3600).unix_ms / 1000));
    reviewer.know(&bearer[7..], "n");
    let mut all = Vec::new();
    for sequence in 1..=3 {
        let mut stream = TcpStream::connect(served.reports).await.unwrap();
        assert_eq!(ask(&mut stream, &kept(&bearer, &valid(sequence))).await, "HTTP/1.1 204 No Content");
        all.push(stream);
    }
    assert_eq!(read_to_cut(&mut all[0]).await, b"");
    for stream in &mut all[1..] {
        assert_eq!(ask(stream, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await, "HTTP/1.1 404 Not Found");
    }
    drop(all);
    served.end().await;
}

#[tokio::test]
async fn what_would_have_to_be_unpacked_is_refused_as_it_is() {
    let served = serve(PATIENT).await;
    // 1 KiB that would decompress to a MiB of zeros.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &vec![0; 1 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let request = String::from_utf8_lossy(&post(bomb.len(), b"")).replacen("\r\n", "\r\ncontent-encoding: gzip\r\n", 1);
    served.check_refused(&[request.as_bytes(), &bomb].concat(), "415", "content_encoding").await;
    served.end().await;
}

#[tokio::test]
async fn a_node_that_reports_more_often_than_an_agent_does_is_told_to_wait() {
    let served = serve(PATIENT).await;
    for sequence in 1..=u64::from(AT_ONCE) {
        assert!(served.post(&valid(sequence)).await.0.starts_with("HTTP/1.1 204 "), "{sequence}");
    }
    let more = valid(1000);
    served.check_refused(&post(more.len(), &more), "429", "too_often").await;
    served.seconds.store(1, Ordering::SeqCst);
    assert!(served.post(&more).await.0.starts_with("HTTP/1.1 204 "));
    served.end().await;
}

/// A server that authenticates senders of reports.
async fn guarded(reviewer: &Reviewer) -> Served {
    serve_guarded(PATIENT, tokens(reviewer)).await
}

pub(super) fn tokens(reviewer: &Reviewer) -> Guard {
    let clock = Clock::from_fn(|| at(0));
    let limits = identity::Limits::default();
    let tokens = Some(Tokens::new(reviewer.client(), AGENT.to_owned(), clock, limits));
    Guard { tokens, ..Guard::default() }
}

fn with_token(token: &str, body: &[u8]) -> Vec<u8> {
    let head =
        String::from_utf8_lossy(&post(body.len(), b"")).replacen("\r\n", &format!("\r\nauthorization: {token}\r\n"), 1);
    [head.as_bytes(), body].concat()
}

/// The same on a connection that stays open.
pub(super) fn kept(token: &str, body: &[u8]) -> Vec<u8> {
    let request = with_token(token, body);
    let head = String::from_utf8_lossy(&request[..request.len() - body.len()]).replace("connection: close\r\n", "");
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_report_is_taken_of_the_node_that_the_token_is_of_and_of_no_other() {
    let reviewer = Reviewer::start().await;
    let served = guarded(&reviewer).await;
    let bearer = |number| format!("Bearer {}", token(number, at(3600).unix_ms / 1000));
    reviewer.know(&bearer(1)[7..], "n");
    reviewer.know(&bearer(2)[7..], "m");
    let (head, _) = exchange(served.reports, &with_token(&bearer(1), &valid(1))).await;
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    // The agent of another node, and somebody who stole its token, claim to be n.
    served.check_refused(&with_token(&bearer(2), &valid(2)), "403", "token_other_node").await;
    served.check_refused(&post(valid(2).len(), &valid(2)), "401", "no_token").await;
    let exposition = served.exposition().await;
    assert!(
        exposition.contains("mcad_aggregator_reports_received_total 1\n"),
        "the metrics of n are unchanged: {exposition}"
    );
    served.end().await;
}

#[tokio::test]
async fn the_past_is_told_only_where_everybody_may_send_reports() {
    let ask = |served: &Served| {
        let request = b"GET /v1/seed HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let reports = served.reports;
        async move { String::from_utf8(exchange(reports, request).await.1).unwrap() }
    };
    let reviewer = Reviewer::start().await;
    let served = guarded(&reviewer).await;
    assert_eq!(ask(&served).await.trim(), "not found: send reports with POST /v1/report");
    served.end().await;
    let served = serve_guarded(PATIENT, Guard::default()).await;
    assert_eq!(ask(&served).await.trim(), "this replica watches no cluster");
    served.end().await;
}

#[tokio::test]
async fn while_the_api_server_is_away_known_agents_go_on_and_new_ones_come_back() {
    let reviewer = Reviewer::start().await;
    let served = guarded(&reviewer).await;
    let bearer = |number| format!("Bearer {}", token(number, at(3600).unix_ms / 1000));
    reviewer.know(&bearer(1)[7..], "n");
    assert!(exchange(served.reports, &with_token(&bearer(1), &valid(1))).await.0.starts_with("HTTP/1.1 204 "));
    reviewer.fail(true);
    assert!(exchange(served.reports, &with_token(&bearer(1), &valid(2))).await.0.starts_with("HTTP/1.1 204 "));
    let (head, body) = exchange(served.reports, &with_token(&bearer(2), &valid(3))).await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 1\r\n"), "{head}");
    assert!(body.starts_with(b"token_review_unavailable: "));
    for line in ["{result=\"accepted\"} 1", "{result=\"failed\"} 1", "{result=\"refused\"} 0"] {
        served.counts(&format!("mcad_aggregator_token_reviews_total{line}")).await;
    }
    served.end().await;
}

#[tokio::test]
async fn a_large_body_of_somebody_who_is_not_believed_is_answered_and_not_kept() {
    let reviewer = Reviewer::start().await;
    let served = guarded(&reviewer).await;
    let large = vec![0; 4 * MAX_BODY_BYTES];
    served.check_refused(&with_token("Bearer garbage", &large), "401", "token_garbage").await;
    served.end().await;
}
