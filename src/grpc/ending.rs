//! How a call ends: its span and its duration are told when the last of its answer has gone, which for a stream is long
//! after the first.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::call::word;
use crate::telemetry::{Call, Telemetry};

/// A call that has begun. Dropped before it is told of, its caller went away.
pub(super) struct Ending {
    telemetry: Telemetry,
    method: &'static str,
    began: Instant,
    span: Option<Call>,
}

impl Ending {
    pub(super) fn new(telemetry: Telemetry, method: &'static str, span: Call) -> Self {
        Self {
            telemetry,
            method,
            began: Instant::now(),
            span: Some(span),
        }
    }

    /// Ends with the answer: at once if that is a status, else when its body ends.
    pub(super) fn of(mut self, answer: http::Response<Body>) -> http::Response<Body> {
        if let Some(status) = Status::from_header_map(answer.headers()) {
            self.tell(status.code());
            return answer;
        }
        answer.map(|body| Body::new(Followed { body, ending: self }))
    }

    fn tell(&mut self, code: Code) {
        let Some(span) = self.span.take() else {
            return;
        };
        let code = word(code);
        let took = self.began.elapsed();
        let trace = span.trace();
        self.telemetry.call_ended(self.method, code, took, &trace);
        span.finish(code);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tell(Code::Cancelled);
    }
}

/// A body whose trailers, or end, are its call's.
struct Followed {
    body: Body,
    ending: Ending,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let status = frame.trailers_ref().and_then(Status::from_header_map);
                if let Some(status) = status {
                    self.ending.tell(status.code());
                }
            }
            Poll::Ready(Some(Err(status))) => self.ending.tell(status.code()),
            Poll::Ready(None) => self.ending.tell(Code::Ok),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
