//! A control call's span, and the sessions that it is linked to.

use super::super::Trace;
use super::super::instruments::{ERROR_TYPE, RPC_STATUS};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanContext, Status};
use opentelemetry_sdk::trace::Span;
use std::sync::{Arc, Mutex, PoisonError};

/// Sessions that a call's span is linked to at most; what the SDK keeps.
pub(super) const MOST_LINKS: usize = 128;

/// The sessions that a control call is about, which its span is linked to. Cloned freely; of a call without a span it
/// keeps nothing.
#[derive(Debug, Clone, Default)]
pub struct Concerns(Option<Arc<Mutex<Vec<SpanContext>>>>);

impl Concerns {
    /// The call is about the session that was set up there. Of many the first are kept.
    pub fn add(&self, session: &Trace) {
        let (Some(kept), Some(link)) = (&self.0, session.link()) else {
            return;
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST_LINKS && !kept.contains(&link) {
            kept.push(link);
        }
    }

    /// The same, of one that is only looked for when there is a span.
    pub fn add_found(&self, find: impl FnOnce() -> Option<Trace>) {
        if self.0.is_some()
            && let Some(session) = find()
        {
            self.add(&session);
        }
    }

    fn take(&self) -> Vec<SpanContext> {
        let kept = self.0.as_ref().map(|kept| kept.lock());
        kept.map(|kept| std::mem::take(&mut *kept.unwrap_or_else(PoisonError::into_inner)))
            .unwrap_or_default()
    }
}

/// A control call that runs. Dropped unfinished, its span ends without a code.
#[derive(Debug)]
pub struct Call {
    trace: Trace,
    live: Option<Box<(Span, Concerns)>>,
}

impl Call {
    /// In its caller's trace, or one of its own, of which nothing is exported here.
    pub(super) fn unsampled(trace: Trace) -> Self {
        Self { trace, live: None }
    }

    pub(super) fn new(span: Span) -> Self {
        Self {
            trace: Trace::of(&span),
            live: Some(Box::new((span, Concerns(Some(Arc::default()))))),
        }
    }

    /// The caller's trace when it sent one, otherwise its own.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// Where to say which sessions it is about.
    pub fn concerns(&self) -> Concerns {
        let live = self.live.as_ref();
        live.map(|live| live.1.clone()).unwrap_or_default()
    }

    /// Ends its span with the gRPC status code's name, such as `OK` or `NOT_FOUND`.
    pub fn finish(self, code: &'static str) {
        let Some((mut span, concerns)) = self.live.map(|live| *live) else {
            return;
        };
        for session in concerns.take() {
            span.add_link(session, Vec::new());
        }
        span.set_attribute(KeyValue::new(RPC_STATUS, code));
        if is_server_fault(code) {
            span.set_attribute(KeyValue::new(ERROR_TYPE, code));
            span.set_status(Status::error(""));
        }
    }
}

/// The codes that the conventions hold a server responsible for; the rest are the caller's.
pub(in super::super) fn is_server_fault(code: &str) -> bool {
    matches!(
        code,
        "UNKNOWN"
            | "DEADLINE_EXCEEDED"
            | "UNIMPLEMENTED"
            | "INTERNAL"
            | "UNAVAILABLE"
            | "DATA_LOSS"
    )
}
