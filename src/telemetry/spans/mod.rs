//! Spans: a short one for a session's set-up, and one each for a command, a sampled message and a control call.
//!
//! No span lives as long as a session. Such a span would be exported only when the peer leaves, would collect what the
//! peer does without bound, and back-ends refuse old ones. The parts of a session are traces of their own, linked to its
//! set-up. Without an exporter no span is made; ids are still given, so that logs and the audit trail can be joined.
//! No attribute ever holds the text of a command or of a message.

mod call;
mod command;
mod message;

pub(super) use call::is_server_fault;
pub use call::{Call, Concerns};
pub use command::{Command, CommandEnd, Outcome};
pub use message::Message;

use super::Labels;
use super::instruments::{RPC_METHOD, RPC_SYSTEM, listener_attributes};
use super::sampling::{Sampling, random};
use super::trace::{Trace, remote_parent};
use opentelemetry::trace::{Link, SpanBuilder, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use std::time::{Duration, SystemTime};

/// Makes spans, or only ids when there is no tracer.
pub(super) struct Spans {
    pub(super) tracer: Option<SdkTracer>,
    pub(super) sampling: Sampling,
    pub(super) node: String,
}

impl Spans {
    pub(super) fn session_setup(&self, labels: &Labels, session_id: u128, took: Duration) -> Trace {
        let sampled = |_: &&SdkTracer| self.sampling.sessions.hit();
        let Some(tracer) = self.tracer.as_ref().filter(sampled) else {
            return Trace::unsampled(session_id);
        };
        let mut attributes = listener_attributes(labels).to_vec();
        let session = format!("{}-{}", self.node, ulid(session_id));
        attributes.push(KeyValue::new("switchboard.session.id", session));
        let builder = SpanBuilder::from_name(format!("session setup {}", labels.listener))
            .with_kind(SpanKind::Server)
            .with_start_time(SystemTime::now() - took)
            .with_attributes(attributes);
        Trace::of(&root(tracer, builder))
    }

    pub(super) fn command(&self, labels: &Labels, parent: &Trace) -> Command {
        let sampled = |_: &&SdkTracer| self.sampling.commands.hit();
        let Some(tracer) = self.tracer.as_ref().filter(sampled) else {
            return Command::unsampled();
        };
        let span = root(tracer, linked("shell command", labels, parent));
        Command::new(span, tracer.clone())
    }

    pub(super) fn message(&self, labels: &Labels, parent: &Trace) -> Option<Message> {
        let (name, share) = match labels.transport {
            "udp" => ("datagram", self.sampling.datagrams),
            _ => ("message", self.sampling.messages),
        };
        let draw = random();
        if !share.holds(draw) && !self.sampling.timed.holds(draw) {
            return None;
        }
        let tracer = self.tracer.as_ref().filter(|_| share.holds(draw));
        let span = tracer.map(|tracer| root(tracer, linked(name, labels, parent)));
        Some(Message::new(labels, span))
    }

    pub(super) fn call(
        &self,
        method: &str,
        (traceparent, tracestate): (Option<&str>, Option<&str>),
        mutation: bool,
    ) -> Call {
        let traceparent = traceparent.filter(|_| self.sampling.continues);
        let parent = traceparent.and_then(|header| remote_parent(header, tracestate));
        let share = if mutation {
            self.sampling.changes
        } else {
            self.sampling.reads
        };
        let sampled = |_: &&SdkTracer| match &parent {
            Some(parent) if self.sampling.heeds_callers => parent.is_sampled(),
            _ => share.hit(),
        };
        let Some(tracer) = self.tracer.as_ref().filter(sampled) else {
            return Call::unsampled(parent.as_ref().map_or_else(Trace::random, Trace::from));
        };
        let builder = SpanBuilder::from_name(method.to_owned())
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new(RPC_SYSTEM, "grpc"),
                KeyValue::new(RPC_METHOD, method.to_owned()),
            ]);
        let above = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(parent)
        });
        Call::new(tracer.build_with_context(builder, &above))
    }
}

/// A span of a trace of its own, whatever context the calling thread is in.
fn root(tracer: &SdkTracer, builder: SpanBuilder) -> Span {
    tracer.build_with_context(builder, &Context::new())
}

fn linked(name: &'static str, labels: &Labels, parent: &Trace) -> SpanBuilder {
    SpanBuilder::from_name(name)
        .with_kind(SpanKind::Server)
        .with_attributes(listener_attributes(labels))
        .with_links(parent.link().map(Link::with_context).into_iter().collect())
}

/// Crockford's base 32 in lower case, as session ids are shown everywhere.
fn ulid(id: u128) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    (0..26)
        .rev()
        .map(|place| char::from(DIGITS[(id >> (5 * place)) as usize & 31]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::export::Queue;
    use super::super::instruments::ERROR_TYPE;
    use super::super::instruments::RPC_STATUS;
    use super::super::sampling::Share;
    use super::super::tracer;
    use super::call::MOST_LINKS;
    use super::*;
    use opentelemetry::trace::{SpanId, Status};
    use opentelemetry_sdk::trace::SpanData;
    use std::sync::Arc;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn spans(messages: f64, reads: f64) -> (Spans, Queue) {
        let queue = Queue::new(4096, 4096, Arc::default());
        let spans = Spans {
            tracer: Some(tracer(queue.clone())),
            sampling: Sampling {
                messages: Share::new(messages),
                reads: Share::new(reads),
                timed: Share::new(0.0),
                ..Sampling::all(1.0)
            },
            node: "local".to_owned(),
        };
        (spans, queue)
    }

    fn silent() -> Spans {
        Spans {
            tracer: None,
            ..spans(1.0, 1.0).0
        }
    }

    fn labels() -> Labels {
        Labels::new("front".into(), "shell", "tcp", "ipv4")
    }

    fn attribute(span: &SpanData, key: &str) -> Option<String> {
        let found = span.attributes.iter().find(|pair| pair.key.as_str() == key);
        found.map(|pair| pair.value.to_string())
    }

    #[test]
    fn a_session_has_a_short_root_span() {
        let (spans, queue) = spans(0.0, 0.0);
        let setup = spans.session_setup(&labels(), 31, Duration::from_millis(2));
        let span = queue.take().remove(0);
        assert_eq!(span.name, "session setup front");
        assert_eq!(span.parent_span_id, SpanId::INVALID);
        assert_eq!(span.span_context.trace_id().to_string(), setup.to_string());
        let lasted = span.end_time.duration_since(span.start_time).unwrap();
        assert!(lasted >= Duration::from_millis(2) && lasted < Duration::from_secs(1));
        let session = attribute(&span, "switchboard.session.id").unwrap();
        assert_eq!(session, "local-0000000000000000000000000z");
    }

    #[test]
    fn a_command_has_its_own_trace_linked_to_the_session() {
        let (spans, queue) = spans(0.0, 0.0);
        let setup = spans.session_setup(&labels(), 31, Duration::ZERO);
        let mut command = spans.command(&labels(), &setup);
        command.spawned("/usr/bin/uname");
        let trace = command.trace();
        assert_ne!(trace.to_string(), setup.to_string());
        command.finish(&CommandEnd {
            outcome: Outcome::Exited(3),
            output_bytes: 12,
            truncated: false,
        });

        let ended = queue.take();
        let [setup, process, command] = &ended[..] else {
            panic!("{ended:?}");
        };
        assert_eq!(command.name, "shell command");
        assert_eq!(command.span_kind, SpanKind::Server);
        assert_eq!(command.parent_span_id, SpanId::INVALID);
        assert_eq!(
            command.span_context.trace_id().to_string(),
            trace.to_string()
        );
        assert_eq!(command.links.links[0].span_context, setup.span_context);
        assert_eq!(
            attribute(command, "process.exit.code").as_deref(),
            Some("3")
        );
        assert_eq!(command.status, Status::error(""));

        assert_eq!(process.name, "uname");
        assert_eq!(process.span_kind, SpanKind::Client);
        assert_eq!(process.parent_span_id, command.span_context.span_id());
        assert!(!process.parent_span_is_remote);
        let name = attribute(process, "process.executable.name");
        assert_eq!(name.as_deref(), Some("uname"));
    }

    #[test]
    fn messages_are_sampled_and_count_their_recipients() {
        let (all, queue) = spans(1.0, 0.0);
        let setup = all.session_setup(&labels(), 1, Duration::ZERO);
        all.message(&labels(), &setup).unwrap().finish(Some(3));
        let ended = queue.take();
        assert_eq!(
            attribute(&ended[1], "switchboard.message.recipients").as_deref(),
            Some("3")
        );
        assert_eq!(ended[1].links.links.len(), 1);

        let (some, queue) = spans(0.1, 0.0);
        for _ in 0..1_000 {
            drop(some.message(&labels(), &setup));
        }
        assert!((40..200).contains(&queue.take().len()));
        let (none, _queue) = spans(0.0, 0.0);
        assert!(none.message(&labels(), &setup).is_none());
    }

    #[test]
    fn a_callers_trace_is_continued() {
        let (spans, queue) = spans(0.0, 0.0);
        let call = spans.call("s.S/Get", (Some(PARENT), Some("v=1")), false);
        assert_eq!(call.trace().to_string(), "0af7651916cd43dd8448eb211c80319c");
        call.finish("OK");
        let span = queue.take().remove(0);
        assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
        assert!(span.parent_span_is_remote);
        assert_eq!(span.name, "s.S/Get");
        assert_eq!(attribute(&span, RPC_STATUS).as_deref(), Some("OK"));
        assert_eq!(span.status, Status::Unset);

        let unsampled = PARENT.replace("-01", "-00");
        let call = spans.call("s.S/Set", (Some(&unsampled), None), true);
        assert_eq!(call.trace().to_string(), "0af7651916cd43dd8448eb211c80319c");
        call.finish("OK");
        assert!(queue.take().is_empty());
    }

    #[test]
    fn changes_are_traced_and_reads_are_sampled() {
        let (spans, queue) = spans(0.0, 0.0);
        spans
            .call("s.S/Get", (Some("nonsense"), None), false)
            .finish("OK");
        assert!(queue.take().is_empty());
        spans.call("s.S/Set", (None, None), true).finish("INTERNAL");
        let span = queue.take().remove(0);
        assert_eq!(span.status, Status::error(""));
        assert_eq!(attribute(&span, ERROR_TYPE).as_deref(), Some("INTERNAL"));
        spans
            .call("s.S/Set", (None, None), true)
            .finish("NOT_FOUND");
        assert_eq!(queue.take()[0].status, Status::Unset);
    }

    #[test]
    fn a_call_is_linked_to_the_sessions_that_it_is_about() {
        let (spans, queue) = spans(0.0, 0.0);
        let setups: Vec<_> = (0..200)
            .map(|id| spans.session_setup(&labels(), id, Duration::ZERO))
            .collect();
        queue.take();
        let call = spans.call("s.S/CloseSession", (None, None), true);
        let concerns = call.concerns();
        concerns.add(&setups[0]);
        concerns.add(&setups[0]);
        concerns.add(&Trace::unsampled(7));
        call.finish("OK");
        let links = queue.take().remove(0).links.links;
        let linked: Vec<_> = links.iter().map(|l| Trace::from(&l.span_context)).collect();
        assert_eq!(linked, [setups[0]]);

        let call = spans.call("s.S/CloseSessions", (None, None), true);
        setups.iter().for_each(|setup| call.concerns().add(setup));
        call.finish("OK");
        assert_eq!(queue.take().remove(0).links.len(), MOST_LINKS);
        let unsampled = spans.call("s.S/GetSession", (None, None), false);
        unsampled.concerns().add(&setups[0]);
    }

    #[test]
    fn each_kind_has_its_share() {
        let (mut all, queue) = spans(1.0, 0.0);
        all.sampling.datagrams = Share::new(0.0);
        let udp = Labels {
            transport: "udp",
            ..labels()
        };
        assert!(all.message(&udp, &Trace::default()).is_none());
        all.message(&labels(), &Trace::default())
            .unwrap()
            .refused("busy");
        let refused = queue.take().remove(0);
        assert_eq!(attribute(&refused, ERROR_TYPE).as_deref(), Some("busy"));
        all.sampling = Sampling::all(0.0);
        let setup = all.session_setup(&labels(), 7, Duration::ZERO);
        assert!(!setup.is_sampled());
        let command = all.command(&labels(), &setup);
        assert_ne!(command.trace(), Trace::default());
        drop(command);
        all.call("s.S/Set", (None, None), true).finish("OK");
        assert!(queue.take().is_empty());
        all.call("s.S/Get", (Some(PARENT), None), false)
            .finish("OK");
        assert_eq!(queue.take().len(), 1);
        all.sampling.heeds_callers = false;
        all.call("s.S/Get", (Some(PARENT), None), false)
            .finish("OK");
        all.sampling.continues = false;
        let call = all.call("s.S/Get", (Some(PARENT), None), false);
        assert_ne!(call.trace(), Trace::default());
        assert!(!PARENT.contains(&call.trace().to_string()));
        assert!(queue.take().is_empty());
    }

    #[test]
    fn what_is_given_up_still_ends() {
        let (spans, queue) = spans(1.0, 1.0);
        let mut command = spans.command(&labels(), &Trace::default());
        command.spawned("sleep");
        drop(command);
        drop(spans.call("s.S/Get", (None, None), false));
        let ended = queue.take();
        let names: Vec<_> = ended.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["sleep", "shell command", "s.S/Get"]);
        assert!(ended[1].links.links.is_empty());
    }

    #[test]
    fn without_an_exporter_there_are_ids_and_no_spans() {
        let spans = silent();
        let setup = spans.session_setup(&labels(), 0xabcd, Duration::ZERO);
        assert_eq!(setup.to_string(), format!("{:032x}", 0xabcd));
        assert!(!setup.is_sampled());
        let (one, two) = (
            spans.command(&labels(), &setup),
            spans.command(&labels(), &setup),
        );
        assert_ne!(one.trace(), two.trace());
        assert!(!spans.message(&labels(), &setup).unwrap().is_traced());
        let call = spans.call("s.S/Get", (Some(PARENT), None), false);
        assert_eq!(call.trace().to_string(), "0af7651916cd43dd8448eb211c80319c");
        let call = || spans.call("s.S/Set", (None, None), true).trace();
        let (one, two) = (call(), call());
        assert!(one != Trace::default() && one != two && !one.is_sampled());
    }

    #[test]
    fn futures_stay_small() {
        assert!(size_of::<Command>() <= 48);
        assert!(size_of::<Call>() <= 48);
        assert!(size_of::<Option<Message>>() <= 8);
    }
}
