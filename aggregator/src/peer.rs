//! Asks another replica for what it knows of the past. Owns the request, its time-out and the size of its answer; what is
//! in it is known elsewhere.
//!
//! The other's report port answers, so whatever protects that port protects this.
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

/// The path of the question, on the report port.
pub const PATH: &str = "/v1/seed";

/// The longest answer. A pod of an AppWrapper takes some 250 bytes, so 64 MiB tell of a quarter of a million of them.
pub const MAX_BYTES: usize = 64 << 20;

/// From connecting to the end of the answer: 64 MiB at 50 Mbit/s.
const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nothing can be proven, or verified.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No connection.
    #[error("connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// It is somebody else, or speaks no TLS.
    #[error("{0} does not prove to be a replica; see --peer-ca")]
    Handshake(SocketAddr, #[source] io::Error),
    /// The connection broke.
    #[error("the connection to {0} was lost")]
    Lost(SocketAddr, #[source] hyper::Error),
    /// It answered with an error.
    #[error("{0} refused: {1}")]
    Refused(SocketAddr, StatusCode),
    /// The answer broke off or is too long.
    #[error("the answer of {0} broke off, or is longer than {MAX_BYTES} bytes")]
    Body(SocketAddr, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no answer of {0} in time")]
    Deadline(SocketAddr),
}

/// What the replica at that address knows.
pub async fn fetch(peer: SocketAddr, credentials: &Credentials) -> Result<Bytes, FetchError> {
    tokio::time::timeout(LIMIT, connect(peer, credentials)).await.unwrap_or(Err(FetchError::Deadline(peer)))
}

async fn connect(peer: SocketAddr, credentials: &Credentials) -> Result<Bytes, FetchError> {
    let tls = credentials.tls()?;
    let token = credentials.token()?;
    let stream = TcpStream::connect(peer).await.map_err(|error| FetchError::Connect(peer, error))?;
    match tls {
        None => exchange(peer, stream, token).await,
        // The token is sent only after the other one has proven who it is.
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
    // The connection moves the bytes; it ends with the question, whichever is first.
    let mut connection = std::pin::pin!(connection);
    let mut ask = std::pin::pin!(ask);
    tokio::select! {
        answer = &mut ask => answer,
        ended = &mut connection => match ended {
            // All was read; the answer is there.
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

    /// What `fetch` makes of an answer.
    async fn check(answer: Vec<u8>) -> Result<Bytes, FetchError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /v1/seed HTTP/1.1\r\n"));
            // A reader that has had enough leaves.
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
