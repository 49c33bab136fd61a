//! TLS connections to a real server: which servers the agent trusts, and what it sends to authenticate itself.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::Credentials;
use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server's certificate.
struct Shown<'a> {
    by: &'a Authority,
    name: &'a str,
    expired: bool,
    version: &'static SupportedProtocolVersion,
}

impl Shown<'_> {
    fn config(&self) -> ServerConfig {
        let mut params = CertificateParams::new(vec![self.name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(if self.expired { 2021 } else { 4000 }, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, self.by).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[self.version]).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap()
    }
}

/// Responds to every report with 204 and returns the heads of the requests when the client has closed the connection.
async fn serve(listener: &TcpListener, config: ServerConfig) -> Vec<String> {
    let (stream, _) = listener.accept().await.unwrap();
    let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return Vec::new() };
    let (mut heads, mut bytes) = (Vec::new(), Vec::new());
    loop {
        let mut chunk = [0; 4096];
        let Some(read) = stream.read(&mut chunk).await.ok().filter(|read| *read > 0) else { return heads };
        bytes.extend_from_slice(&chunk[..read]);
        if bytes.ends_with(b"\r\n\r\nreport") {
            heads.push(String::from_utf8(std::mem::take(&mut bytes)).unwrap());
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    }
}

struct Agent {
    folder: TempDir,
    target: Target,
    listener: TcpListener,
}

impl Agent {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: Target = format!("https://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let credentials = Credentials::new(Some(folder.path().join("ca.crt")), Some(folder.path().join("token")));
        // Not ::1, where nothing listens.
        let target = target.trusting(credentials).unwrap().at(listener.local_addr().unwrap());
        let agent = Self { folder, target, listener };
        agent.write("token", "one\n");
        agent
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(Path::join(self.folder.path(), file), text).unwrap();
    }

    /// Sends one report on a new connection. Returns the reason of the failure, or what the server read.
    async fn send(&self, shown: &Shown<'_>) -> Result<Vec<String>, &'static str> {
        let exchange = async {
            let mut connection = Connection::open(&self.target).await?;
            connection.post(&self.target, Bytes::from_static(b"report")).await
        };
        let (sent, heads) = tokio::join!(exchange, serve(&self.listener, shown.config()));
        sent.map(|()| heads).map_err(|error| error.reason().as_str())
    }
}

fn good(by: &Authority) -> Shown<'_> {
    Shown { by, name: "localhost", expired: false, version: &TLS13 }
}

#[tokio::test]
async fn a_report_goes_to_a_server_that_is_vouched_for_with_the_token() {
    let (agent, authority) = (Agent::new().await, authority());
    agent.write("ca.crt", &authority.pem());
    let heads = agent.send(&good(&authority)).await.unwrap();
    assert!(heads[0].contains("authorization: Bearer one\r\n"), "{heads:?}");
    assert!(heads[0].contains("host: localhost:"), "{heads:?}");
}

#[tokio::test]
async fn a_server_that_is_not_who_it_should_be_gets_nothing() {
    let (agent, authority, other) = (Agent::new().await, authority(), authority());
    agent.write("ca.crt", &authority.pem());
    for shown in [
        good(&other),
        Shown { name: "other.example", ..good(&authority) },
        Shown { expired: true, ..good(&authority) },
        Shown { version: &TLS12, ..good(&authority) },
    ] {
        assert_eq!(agent.send(&shown).await, Err("tls"), "{}", shown.name);
    }
}

#[tokio::test]
async fn a_bundle_that_changes_counts_from_the_next_connection_on() {
    let (agent, old, new) = (Agent::new().await, authority(), authority());
    agent.write("ca.crt", &old.pem());
    assert_eq!(agent.send(&good(&new)).await, Err("tls"));
    agent.write("ca.crt", &format!("{}{}", old.pem(), new.pem()));
    agent.send(&good(&new)).await.unwrap();
    agent.send(&good(&old)).await.unwrap();
    agent.write("ca.crt", &new.pem());
    assert_eq!(agent.send(&good(&old)).await, Err("tls"));
}

#[tokio::test]
async fn a_token_that_kubelet_renewed_goes_with_the_next_report_on_the_same_connection() {
    let (agent, authority) = (Agent::new().await, authority());
    agent.write("ca.crt", &authority.pem());
    let exchange = async {
        let mut connection = Connection::open(&agent.target).await.unwrap();
        for token in ["two", "three"] {
            agent.write("token", token);
            connection.post(&agent.target, Bytes::from_static(b"report")).await.unwrap();
        }
    };
    let ((), heads) = tokio::join!(exchange, serve(&agent.listener, good(&authority).config()));
    let tokens: Vec<_> = heads.iter().filter_map(|head| head.split("Bearer ").nth(1)?.split('\r').next()).collect();
    assert_eq!(tokens, ["two", "three"]);
}

#[tokio::test]
async fn without_its_files_nothing_is_sent() {
    let (agent, authority) = (Agent::new().await, authority());
    let open = || async { Connection::open(&agent.target).await.err().map(|error| error.reason().as_str()) };
    assert_eq!(open().await, Some("credentials"), "no bundle");
    agent.write("ca.crt", "no certificate");
    assert_eq!(open().await, Some("credentials"));
    agent.write("ca.crt", &authority.pem());
    for token in ["", "two\nlines"] {
        agent.write("token", token);
        // Accepts the connections that those attempts left behind.
        while tokio::time::timeout(std::time::Duration::ZERO, agent.listener.accept()).await.is_ok() {}
        assert_eq!(agent.send(&good(&authority)).await, Err("credentials"), "{token:?}");
    }
}

#[test]
fn an_aggregator_may_ask_for_seconds_up_to_a_minute() {
    let check = |value: &'static str, seconds| {
        assert_eq!(retry_after(Some(&HeaderValue::from_static(value))), Duration::from_secs(seconds), "{value}");
    };
    check("0", 0);
    check(" 7 ", 7);
    check("60", 60);
    check("61", 60);
    check("99999999999999999999", 0);
    check("-1", 0);
    check("Wed, 21 Oct 2026 07:28:00 GMT", 0);
    assert_eq!(retry_after(None), Duration::ZERO);
}
