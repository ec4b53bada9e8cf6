//! A message that was drawn: its processing is timed, and it may have a span.

use super::super::Labels;
use super::super::instruments::ERROR_TYPE;
use super::super::metrics::Recorded;
use super::super::trace::Trace;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Status};
use opentelemetry_sdk::trace::Span;
use std::sync::Arc;
use std::time::Instant;

/// A sampled message. Ended by [`finish`](Self::finish), or when dropped.
#[derive(Debug)]
pub struct Message(Box<Drawn>);

#[derive(Debug)]
struct Drawn {
    began: Instant,
    recorded: Arc<Recorded>,
    /// Why it was not served; empty when it was.
    refused: &'static str,
    span: Option<Span>,
}

impl Message {
    pub(super) fn new(labels: &Labels, span: Option<Span>) -> Self {
        Self(Box::new(Drawn {
            began: Instant::now(),
            recorded: labels.recorded.clone(),
            refused: "",
            span,
        }))
    }

    /// It was handed on; to so many recipients, when that means something.
    pub fn finish(mut self, recipients: Option<usize>) {
        let count = recipients.and_then(|count| i64::try_from(count).ok());
        if let (Some(span), Some(count)) = (&mut self.0.span, count) {
            span.set_attribute(KeyValue::new("switchboard.message.recipients", count));
        }
    }

    /// It was not served, for the reason that refusals are counted by.
    pub fn refused(mut self, reason: &'static str) {
        self.0.refused = reason;
        if let Some(span) = &mut self.0.span {
            span.set_attribute(KeyValue::new(ERROR_TYPE, reason));
            span.set_status(Status::error(""));
        }
    }

    #[cfg(test)]
    pub(super) fn is_traced(&self) -> bool {
        self.0.span.is_some()
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        let trace = self.span.as_ref().map(Trace::of).unwrap_or_default();
        self.recorded
            .message(self.refused, self.began.elapsed(), &trace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_timed_once_however_it_ends() {
        let labels = Labels::new("front".into(), "ack", "tcp", "ipv4");
        let message = || Message::new(&labels, None);
        drop(message());
        message().finish(Some(3));
        message().refused("too_many_unanswered");
        let told = |reason| labels.recorded.messages(reason);
        assert_eq!((told(""), told("too_many_unanswered")), (2, 1));
    }
}
