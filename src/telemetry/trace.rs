//! Trace ids: what joins a session, its log lines, its audit rows and its spans.
//!
//! A small value of its own instead of the SDK's span context, because every session keeps one.

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, Span};
use std::fmt;

/// A place in a trace. Shown as the trace id, 32 hexadecimal digits; all zero when there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trace {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    sampled: bool,
}

impl Trace {
    /// The trace and the span that is being made.
    pub(super) fn of(span: &Span) -> Self {
        Self::from(span.span_context())
    }

    /// An id without a span.
    pub(super) fn unsampled(trace_id: u128) -> Self {
        Self {
            trace_id: trace_id.to_be_bytes(),
            ..Self::default()
        }
    }

    /// A fresh id without a span.
    pub(super) fn random() -> Self {
        Self {
            trace_id: RandomIdGenerator::default().new_trace_id().to_bytes(),
            ..Self::default()
        }
    }

    /// Whether a span of this trace is exported.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// The trace's id and the span's.
    pub(super) fn ids(&self) -> ([u8; 16], [u8; 8]) {
        (self.trace_id, self.span_id)
    }

    /// What another span's link to this one holds; none when no span was made.
    pub(super) fn link(&self) -> Option<SpanContext> {
        self.sampled.then(|| {
            SpanContext::new(
                TraceId::from_bytes(self.trace_id),
                SpanId::from_bytes(self.span_id),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            )
        })
    }
}

impl From<&SpanContext> for Trace {
    fn from(context: &SpanContext) -> Self {
        Self {
            trace_id: context.trace_id().to_bytes(),
            span_id: context.span_id().to_bytes(),
            sampled: context.is_sampled(),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.trace_id))
    }
}

/// The caller's span from the W3C headers, or none when they are not well formed.
pub(super) fn remote_parent(traceparent: &str, tracestate: Option<&str>) -> Option<SpanContext> {
    let headers = Headers {
        traceparent: traceparent.trim(),
        tracestate,
    };
    if !is_traceparent(headers.traceparent) {
        return None;
    }
    let context = TraceContextPropagator::new().extract(&headers);
    let span = context.span();
    let parent = span.span_context();
    parent.is_valid().then(|| parent.clone())
}

/// The shape `00-{32 hex}-{16 hex}-{2 hex}`, or longer in a later version. The SDK's parser takes shorter fields and signs.
fn is_traceparent(text: &str) -> bool {
    text.len() >= 55
        && text
            .bytes()
            .take(55)
            .enumerate()
            .all(|(at, byte)| match at {
                2 | 35 | 52 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            })
        && (text.len() == 55 || (!text.starts_with("00") && text.as_bytes()[55] == b'-'))
}

struct Headers<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_good_header_is_read() {
        let parent = remote_parent(GOOD, Some("vendor=1")).unwrap();
        let trace = Trace::from(&parent);
        assert_eq!(trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(trace.is_sampled());
        assert_eq!(parent.trace_state().get("vendor"), Some("1"));
        let unsampled = GOOD.replace("-01", "-00");
        assert!(!remote_parent(&unsampled, None).unwrap().is_sampled());
        assert!(remote_parent(&format!("01{}-more", &GOOD[2..]), None).is_some());
    }

    #[test]
    fn bad_headers_are_ignored() {
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        for bad in [
            "",
            "00-1-1-01",
            zero,
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            &GOOD.replace("-b7ad6b7169203331-", "-+7ad6b7169203331-"),
        ] {
            assert!(remote_parent(bad, None).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_trace_is_small_and_shows_its_id() {
        assert!(size_of::<Trace>() <= 32);
        assert_eq!(Trace::default().to_string(), "0".repeat(32));
        assert_eq!(
            Trace::unsampled(0xabc).to_string(),
            format!("{}abc", "0".repeat(29))
        );
        assert_ne!(Trace::random(), Trace::random());
        assert_eq!(Trace::random().link(), None);
    }

    proptest! {
        #[test]
        fn any_header_is_survived(parent in ".{0,80}", state in ".{0,80}") {
            let _ = remote_parent(&parent, Some(&state));
        }
    }
}
