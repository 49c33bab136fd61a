//! Requests a state transfer from another replica. Owns the request, its time-out and the size of the answer, not its content.
//!
//! The report port of the other replica answers, so it has the same protection as reports.
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::trust::peers::{Credentials, CredentialsError};

/// The path of the request, on the report port.
pub const PATH: &str = "/v1/seed";

/// The longest answer. A pod of an AppWrapper takes about 250 bytes, so 64 MiB hold a quarter of a million pods.
pub const MAX_BYTES: usize = 64 << 20;

/// Time-out from connecting to the end of the answer: 64 MiB at 50 Mbit/s.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The connection failed.
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// The peer does not use TLS, or its certificate is not trusted.
    #[error("the TLS handshake with {0} failed: it does not use TLS, or its certificate is not trusted; see --peer-ca")]
    Handshake(SocketAddr, #[source] io::Error),
    /// The connection broke.
    #[error("the connection to {0} was lost")]
    Lost(SocketAddr, #[source] hyper::Error),
    /// The peer answered with an error.
    #[error("{0} refused: {1}")]
    Refused(SocketAddr, StatusCode),
    /// The answer ended early or is too long.
    #[error("the response of {0} ended early or is longer than {MAX_BYTES} bytes")]
    Body(SocketAddr, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer took too long.
    #[error("no response from {0} in time")]
    Deadline(SocketAddr),
}

/// Fetches the state transfer of the replica at that address.
pub async fn fetch(peer: SocketAddr, credentials: &Credentials) -> Result<Bytes, FetchError> {
    tokio::time::timeout(LIMIT, connect(peer, credentials)).await.unwrap_or(Err(FetchError::Deadline(peer)))
}

async fn connect(peer: SocketAddr, credentials: &Credentials) -> Result<Bytes, FetchError> {
    let tls = credentials.tls()?;
    let token = credentials.token()?;
    let stream = TcpStream::connect(peer).await.map_err(|error| FetchError::Connect(peer, error))?;
    match tls {
        None => exchange(peer, stream, token).await,
        // The token is sent only after the other replica has proven its identity.
        Some((config, name)) => {
            let stream = TlsConnector::from(config).connect(name, stream).await;
            exchange(peer, stream.map_err(|error| FetchError::Handshake(peer, error))?, token).await
        }
    }
}

async fn exchange(
    peer: SocketAddr,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    token: Option<String>,
) -> Result<Bytes, FetchError> {
    let lost = |error| FetchError::Lost(peer, error);
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let ask = async move {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = Uri::from_static(PATH);
        if let Ok(host) = peer.to_string().parse() {
            request.headers_mut().insert(HOST, host);
        }
        if let Some(mut value) = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok()) {
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let answer = requests.send_request(request).await.map_err(lost)?;
        match answer.status() {
            StatusCode::OK => {}
            status => return Err(FetchError::Refused(peer, status)),
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| FetchError::Body(peer, error))
    };
    // The connection transfers the bytes; whichever of the two ends first ends the other.
    let mut connection = std::pin::pin!(connection);
    let mut ask = std::pin::pin!(ask);
    tokio::select! {
        answer = &mut ask => answer,
        ended = &mut connection => match ended {
            // All bytes were read, so the answer is complete.
            Ok(()) => ask.await,
            Err(error) => Err(lost(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// The result of `fetch` for an answer.
    async fn check(answer: Vec<u8>) -> Result<Bytes, FetchError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /v1/seed HTTP/1.1\r\n"));
            // The reader disconnects when it has read enough.
            let _ = stream.write_all(&answer).await;
        };
        let credentials = Credentials::default();
        tokio::join!(fetch(peer, &credentials), serve).0
    }

    fn answer(head: &str, body: usize) -> Vec<u8> {
        [format!("HTTP/1.1 {head}\r\ncontent-length: {body}\r\n\r\n").as_bytes(), &vec![b'x'; body]].concat()
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_its_limit() {
        assert_eq!(check(answer("200 OK", 5)).await.unwrap(), "xxxxx");
        assert_eq!(check(answer("200 OK", MAX_BYTES)).await.unwrap().len(), MAX_BYTES);
        assert!(matches!(check(answer("200 OK", MAX_BYTES + 1)).await, Err(FetchError::Body(..))));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_said_to_be_none() {
        assert!(matches!(check(answer("404 Not Found", 2)).await, Err(FetchError::Refused(_, StatusCode::NOT_FOUND))));
        let mut cut = answer("200 OK", 100);
        cut.truncate(cut.len() - 1);
        assert!(matches!(check(cut).await, Err(FetchError::Body(..) | FetchError::Lost(..))));
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(fetch(nobody, &Credentials::default()).await, Err(FetchError::Connect(..))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_hangs_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap();
        assert!(matches!(fetch(peer, &Credentials::default()).await, Err(FetchError::Deadline(_))));
    }
}
