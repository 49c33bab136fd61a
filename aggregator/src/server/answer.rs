//! What answers are made of: a body, whole or in chunks, and the sentences that stand for an error.
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::places::Busy;
use super::scrape::{Chunks, Cut};

/// What an answer consists of.
pub(super) type Answer = Response<Either<Full<Bytes>, Chunks>>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// To one who asks for more at once than one may.
pub(super) fn too_many() -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, "as many answers are being made for this address as may be");
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

/// An answer's body; its connection is busy until this is dropped.
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
