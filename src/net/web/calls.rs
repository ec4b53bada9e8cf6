//! Each request with its caller among its extensions, and counted until its answer has left.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, Incoming, SizeHint};
use tower::ServiceExt;

use super::caller::{Caller, Underway};
use super::{Answering, Content};

/// A service for one connection.
#[derive(Clone)]
pub(super) struct Calls<S> {
    pub(super) service: S,
    pub(super) caller: Caller,
}

type Answer<B> = Result<http::Response<Leaving<B>>, std::convert::Infallible>;

impl<S> Calls<S> {
    pub(super) fn call<B>(
        &self,
        mut request: http::Request<Incoming>,
    ) -> impl Future<Output = Answer<B>> + Send + use<S, B>
    where
        S: Answering<B>,
        B: Content,
    {
        let underway = self.caller.begin();
        request.extensions_mut().insert(self.caller.clone());
        let answer = self.service.clone().oneshot(request);
        async move {
            let answer = answer.await?;
            let underway = underway.answered();
            Ok(answer.map(|body| Leaving {
                body,
                _underway: underway,
            }))
        }
    }
}

/// The body of an answer, which is under way until it is dropped.
pub(super) struct Leaving<B> {
    body: B,
    _underway: Underway,
}

impl<B: Content> Body for Leaving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
