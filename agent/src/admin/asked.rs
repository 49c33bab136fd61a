//! The last reports of an agent that runs, asked of its own port: for `status --from`.

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

/// For the whole question. The agent answers from memory, in milliseconds; a person would not wait longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Two reports as JSON. One of a thousand pods is about a megabyte.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// `http://HOST:PORT` of an agent's own port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentUrl {
    authority: String,
}

impl FromStr for AgentUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "write http://HOST:PORT, of the agent's --listen";
        let authority = text.strip_prefix("http://").ok_or(wrong)?.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or(wrong)?;
        let is_plain = !host.is_empty() && !host.contains(['/', '@']) && port.parse::<u16>().is_ok();
        is_plain.then(|| Self { authority: authority.to_owned() }).ok_or(wrong)
    }
}

/// What an agent answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The report before the last one. Absent: there was only one yet.
    pub before: Option<Report>,
    /// The last report.
    pub last: Report,
    /// For how long it has been the last one, in whole seconds.
    pub age: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says it")]
pub enum AskError {
    #[error("no agent can be reached at {authority}")]
    Connect { authority: String, source: std::io::Error },
    #[error("{authority} did not answer within {DEADLINE:?}")]
    Deadline { authority: String },
    #[error("the question to {authority} broke off")]
    Lost { authority: String, source: hyper::Error },
    #[error("{authority} answers {status}: {sentence}")]
    Refused { authority: String, status: StatusCode, sentence: String },
    #[error("the answer of {authority} broke off, or is longer than {MAX_ANSWER_BYTES} bytes")]
    Body { authority: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{authority} answers what is no report of an agent")]
    NoReport { authority: String, source: serde_json::Error },
    #[error("{authority} answers without a report, or without its age")]
    Empty { authority: String },
}

/// Asks the agent at that address.
pub async fn ask(url: &AgentUrl) -> Result<Asked, AskError> {
    let authority = || url.authority.clone();
    let answered = tokio::time::timeout(DEADLINE, answer(url)).await;
    let (age, body) = answered.map_err(|_| AskError::Deadline { authority: authority() })??;
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let reports: Result<Vec<Report>, _> = lines.map(serde_json::from_slice).collect();
    let mut reports = reports.map_err(|source| AskError::NoReport { authority: authority(), source })?;
    let last = reports.pop();
    let (Some(last), Some(age)) = (last, age) else { return Err(AskError::Empty { authority: authority() }) };
    Ok(Asked { before: reports.pop(), last, age })
}

/// Age and body of a good answer.
async fn answer(url: &AgentUrl) -> Result<(Option<Duration>, Bytes), AskError> {
    let authority = || url.authority.clone();
    let stream = TcpStream::connect(&url.authority).await;
    let stream = stream.map_err(|source| AskError::Connect { authority: authority(), source })?;
    let lost = |source| AskError::Lost { authority: authority(), source };
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let request = Request::get("/reports").header(HOST, &url.authority).body(Empty::<Bytes>::new());
    // What could be wrong with it is the host alone, which was looked up by now.
    let Ok(request) = request else { return Err(AskError::Empty { authority: authority() }) };
    let exchange = async {
        let answer = requests.send_request(request).await.map_err(lost)?;
        let status = answer.status();
        let age = answer.headers().get(AGE).and_then(|age| age.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|source| AskError::Body { authority: authority(), source })?.to_bytes();
        if status == StatusCode::OK {
            return Ok((age, body));
        }
        // A sentence of ours, or of whatever else listens there.
        let sentence: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
        Err(AskError::Refused { authority: authority(), status, sentence })
    };
    tokio::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        // The connection may end with the answer still to be read.
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(source) => Err(lost(source)),
        },
    }
}
