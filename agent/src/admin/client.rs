//! Fetches the last reports of a running agent from its own port, for `status --from`.

use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AGE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use mcad_wire::report::Report;
use tokio::net::TcpStream;

/// For the whole request. The agent answers from memory within milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// Limit for two reports as JSON. One of a thousand pods is about a megabyte.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// `http://HOST:PORT` of an agent's own port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentUrl {
    authority: String,
}

impl FromStr for AgentUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "write http://HOST:PORT, with the address of the agent's --listen";
        let authority = text.strip_prefix("http://").ok_or(wrong)?.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or(wrong)?;
        let is_plain = !host.is_empty() && !host.contains(['/', '@']) && port.parse::<u16>().is_ok();
        is_plain.then(|| Self { authority: authority.to_owned() }).ok_or(wrong)
    }
}

/// What an agent returned.
#[derive(Clone, Debug, PartialEq)]
pub struct RecentReports {
    /// The report before the last one. `None` if there was only one yet.
    pub before: Option<Report>,
    /// The last report.
    pub last: Report,
    /// How long ago the last report was made, in whole seconds.
    pub age: Duration,
}

/// Why there is no usable response.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages describe them")]
pub enum FetchError {
    #[error("cannot connect to an agent at {authority}")]
    Connect { authority: String, source: std::io::Error },
    #[error("{authority} did not respond within {DEADLINE:?}")]
    Deadline { authority: String },
    #[error("the request to {authority} failed")]
    Lost { authority: String, source: hyper::Error },
    #[error("{authority} returned {status}: {sentence}")]
    Refused { authority: String, status: StatusCode, sentence: String },
    #[error("the response of {authority} is incomplete, or longer than {MAX_ANSWER_BYTES} bytes")]
    Body { authority: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the response of {authority} is not a report of an agent")]
    NoReport { authority: String, source: serde_json::Error },
    #[error("the response of {authority} has no report, or no Age header")]
    Empty { authority: String },
}

/// Fetches the reports of the agent at that address.
pub async fn fetch(url: &AgentUrl) -> Result<RecentReports, FetchError> {
    let authority = || url.authority.clone();
    let answered = tokio::time::timeout(DEADLINE, answer(url)).await;
    let (age, body) = answered.map_err(|_| FetchError::Deadline { authority: authority() })??;
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let reports: Result<Vec<Report>, _> = lines.map(serde_json::from_slice).collect();
    let mut reports = reports.map_err(|source| FetchError::NoReport { authority: authority(), source })?;
    let last = reports.pop();
    let (Some(last), Some(age)) = (last, age) else { return Err(FetchError::Empty { authority: authority() }) };
    Ok(RecentReports { before: reports.pop(), last, age })
}

/// Age and body of a successful response.
async fn answer(url: &AgentUrl) -> Result<(Option<Duration>, Bytes), FetchError> {
    let authority = || url.authority.clone();
    let stream = TcpStream::connect(&url.authority).await;
    let stream = stream.map_err(|source| FetchError::Connect { authority: authority(), source })?;
    let lost = |source| FetchError::Lost { authority: authority(), source };
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let request = Request::get("/reports").header(HOST, &url.authority).body(Empty::<Bytes>::new());
    // Only the host could be invalid here, and it has been resolved already.
    let Ok(request) = request else { return Err(FetchError::Empty { authority: authority() }) };
    let exchange = async {
        let answer = requests.send_request(request).await.map_err(lost)?;
        let status = answer.status();
        let age = answer.headers().get(AGE).and_then(|age| age.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|source| FetchError::Body { authority: authority(), source })?.to_bytes();
        if status == StatusCode::OK {
            return Ok((age, body));
        }
        // A message of the agent, or of another server that listens there.
        let sentence: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
        Err(FetchError::Refused { authority: authority(), status, sentence })
    };
    tokio::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        // The connection may end while the response is still to be read.
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(source) => Err(lost(source)),
        },
    }
}
