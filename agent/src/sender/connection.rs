//! One kept HTTP connection to the aggregator. It handles one exchange; the sender decides when to retry.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::Target;
use super::credentials::CredentialsError;
use super::target::Scheme;
use crate::self_metrics::SendFailure;

/// A response is one sentence; a longer one is not read.
const MAX_ANSWER_BYTES: usize = 1024;

/// Limit of the aggregator's Retry-After. An agent must not be silent for longer only because the response requests it.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(1);

/// Why a report was not delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("cannot connect to {target}")]
    Connect {
        target: Target,
        #[source]
        source: io::Error,
    },
    /// The certificate could not be verified, or the server does not support TLS 1.3.
    #[error("TLS with {target} failed")]
    Tls {
        target: Target,
        #[source]
        source: io::Error,
    },
    #[error("cannot use the credentials of the agent")]
    Credentials(#[source] CredentialsError),
    #[error("the connection was lost")]
    Lost(#[source] hyper::Error),
    #[error("no response in time")]
    Deadline,
    /// The report is invalid: the same report would be rejected again.
    #[error("rejected with {status}: {sentence}")]
    Refused { status: StatusCode, sentence: String },
    /// The aggregator failed or is overloaded: it may accept the same report later.
    #[error("not accepted, {status}: {sentence}")]
    NotTaken {
        status: StatusCode,
        sentence: String,
        /// The Retry-After of the response.
        retry_after: Duration,
    },
}

impl SendError {
    /// How long to wait at least; zero if the response does not say.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::NotTaken { retry_after, .. } => *retry_after,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn reason(&self) -> SendFailure {
        match self {
            Self::Connect { .. } => SendFailure::Connect,
            Self::Tls { .. } => SendFailure::Tls,
            Self::Credentials(_) => SendFailure::Credentials,
            Self::Lost(_) => SendFailure::Lost,
            Self::Deadline => SendFailure::Deadline,
            Self::Refused { .. } => SendFailure::Refused,
            Self::NotTaken { .. } => SendFailure::NotTaken,
        }
    }
}

/// An open connection.
pub(super) struct Connection {
    requests: SendRequest<Full<Bytes>>,
    /// Transfers the bytes. It ends with the connection, at the latest when this value is dropped.
    driver: JoinHandle<hyper::Result<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(super) async fn open(target: &Target) -> Result<Self, SendError> {
        let failed = |source| SendError::Connect { target: target.clone(), source };
        let addresses = target.addresses().await.map_err(failed)?;
        let stream = TcpStream::connect(&addresses[..]).await.map_err(failed)?;
        // A report is written in two pieces, head and body; the second must not wait until the first is acknowledged.
        stream.set_nodelay(true).map_err(failed)?;
        match target.scheme() {
            Scheme::Http => Self::over(stream).await,
            Scheme::Https(name) => {
                let config = target.credentials().tls().map_err(SendError::Credentials)?;
                let stream = TlsConnector::from(config).connect(name.clone(), stream).await;
                Self::over(stream.map_err(|source| SendError::Tls { target: target.clone(), source })?).await
            }
        }
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, SendError> {
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(SendError::Lost)?;
        Ok(Self { requests, driver: tokio::spawn(connection) })
    }

    /// Sends one report and reads the whole response, so that the connection can be used again.
    pub(super) async fn post(&mut self, target: &Target, report: Bytes) -> Result<(), SendError> {
        // Kubelet renews the token: the one that was read last time may have expired.
        let authorization = target.credentials().authorization().map_err(SendError::Credentials)?;
        self.requests.ready().await.map_err(SendError::Lost)?;
        let mut request = Request::new(Full::new(report));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = hyper::Uri::from_static("/v1/report");
        if let Ok(host) = target.authority().parse() {
            request.headers_mut().insert(HOST, host);
        }
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        request.headers_mut().insert(CONTENT_TYPE, protobuf);
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        let answer = self.requests.send_request(request).await.map_err(SendError::Lost)?;
        let status = answer.status();
        let retry_after = retry_after(answer.headers().get(RETRY_AFTER));
        let sentence = sentence(answer).await;
        match status {
            _ if status.is_success() => Ok(()),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(SendError::NotTaken { status, sentence, retry_after })
            }
            _ if status.is_client_error() => Err(SendError::Refused { status, sentence }),
            _ => Err(SendError::NotTaken { status, sentence, retry_after }),
        }
    }
}

/// Parses seconds. HTTP also allows a date, but a date would depend on this machine's clock, and the aggregator does
/// not send one.
fn retry_after(value: Option<&HeaderValue>) -> Duration {
    let seconds = value.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0)).min(LONGEST_RETRY_AFTER)
}

/// The body of a response as one line. Empty if it is too long or incomplete; the status is enough then.
async fn sentence(answer: Response<Incoming>) -> String {
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
    let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests;
