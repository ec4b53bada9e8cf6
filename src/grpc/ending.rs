//! How a call ends: its span and its duration are told when the last of its answer has gone, which for a stream is long
//! after the first. A seat at the desk is taken for a day, and no span lives so long: one of a stream that has no age at
//! which it ends is told when that begins, and what is done at a seat has spans of its own.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::call::word;
use crate::telemetry::{Call, Telemetry, Trace};

/// The streams that last for as long as their callers want.
const AGELESS: [&str; 5] = [
    "switchboard.v1.ChatService/AttachDesk",
    "switchboard.v1.MetricService/StreamMetricSnapshots",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// A call that has begun. Dropped before it is told of, its caller went away.
pub(super) struct Ending {
    telemetry: Telemetry,
    method: &'static str,
    began: Instant,
    trace: Trace,
    span: Option<Call>,
    is_told: bool,
}

impl Ending {
    pub(super) fn new(telemetry: Telemetry, method: &'static str, span: Call) -> Self {
        Self {
            telemetry,
            method,
            began: Instant::now(),
            trace: span.trace(),
            span: Some(span),
            is_told: false,
        }
    }

    /// Ends with the answer: at once if that is a status, else when its body ends.
    pub(super) fn of(mut self, answer: http::Response<Body>) -> http::Response<Body> {
        if let Some(status) = Status::from_header_map(answer.headers()) {
            self.tell(status.code());
            return answer;
        }
        if AGELESS.contains(&self.method) {
            self.end_span(Code::Ok);
        }
        answer.map(|body| Body::new(Followed { body, ending: self }))
    }

    fn tell(&mut self, code: Code) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let took = self.began.elapsed();
        self.telemetry
            .call_ended(self.method, word(code), took, &self.trace);
        self.end_span(code);
    }

    fn end_span(&mut self, code: Code) {
        if let Some(span) = self.span.take() {
            span.finish(word(code));
        }
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

#[cfg(test)]
mod tests {
    use super::super::call::known;
    use super::*;

    #[test]
    fn the_streams_without_an_age_are_streams_that_are_served() {
        for method in AGELESS {
            assert_eq!(known(method), (method, true));
        }
    }
}
