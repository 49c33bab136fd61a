//! Who is at the other end of a connection, as far as it is known: by which listener it came, from where and when, which place it has. Owns what that
//! means for its requests; what is answered to them is `routes`'.
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::time::Instant;

use super::places::{Busy, Place};
use super::routes::{self, text};
use super::scrape::{Chunks, Cut};
use super::{Shared, Side};

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) side: Side,
    pub(super) peer: IpAddr,
    pub(super) came: Instant,
    pub(super) place: Arc<Place>,
}

impl Visitor {
    pub(super) fn new(side: Side, peer: IpAddr, place: Place) -> Self {
        Self { side, peer, came: Instant::now(), place: Arc::new(place) }
    }

    /// Answers a request. A connection of scrapes and pages is not idle until its answer was handed over.
    pub(super) async fn answer(self, request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Kept> {
        let busy = (self.side == Side::Metrics).then(|| self.place.busy());
        let is_reserved = self.place.is_reserved();
        let answer = if is_reserved && !routes::is_probe(&request) {
            text(StatusCode::SERVICE_UNAVAILABLE, "as many are being answered as may be, but for /live and /ready")
        } else {
            routes::answer(request, &self, shared).await
        };
        let mut answer = answer.map(|body| Kept { body, _busy: busy });
        if is_reserved {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

/// An answer's body; its connection is busy until this is dropped.
#[derive(Debug)]
pub(super) struct Kept {
    body: Either<Full<Bytes>, Chunks>,
    _busy: Option<Busy>,
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
