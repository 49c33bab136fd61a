//! The parts of answers: a body, complete or in chunks, and the texts of errors.
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::places::Busy;
use super::scrape::{Chunks, Cut};

/// An answer.
pub(super) type Answer = Response<Either<Full<Bytes>, Chunks>>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The answer to a peer with too many requests at once.
pub(super) fn too_many() -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, "too many requests from this address at once");
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

pub(super) fn text(status: StatusCode, sentence: &str) -> Answer {
    whole(status, TEXT, format!("{sentence}\n"))
}

pub(super) fn whole(status: StatusCode, content_type: HeaderValue, body: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// The body of an answer; the connection counts as busy until this is dropped.
#[derive(Debug)]
pub(super) struct Kept {
    body: Either<Full<Bytes>, Chunks>,
    _busy: Option<Busy>,
}

impl Kept {
    pub(super) fn new(body: Either<Full<Bytes>, Chunks>, busy: Option<Busy>) -> Self {
        Self { body, _busy: busy }
    }
}

impl Body for Kept {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.body {
            Either::Left(whole) => Pin::new(whole).poll_frame(cx).map_err(|never| match never {}),
            Either::Right(chunks) => Pin::new(chunks).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Either::Left(whole) => whole.is_end_stream(),
            Either::Right(chunks) => chunks.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Either::Left(whole) => whole.size_hint(),
            Either::Right(chunks) => chunks.size_hint(),
        }
    }
}
