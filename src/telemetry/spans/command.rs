//! A command's spans: its own, and below it that of the process which ran it.

use super::super::Trace;
use super::super::instruments::{COMMAND_TRUNCATED, ERROR_TYPE};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It ran to its end, with this exit code.
    Exited(i32),
    /// A signal of this number ended it.
    Signaled(i32),
    /// It was refused, could not be started or was ended by the service: one word of a closed set, such as `timed_out`.
    Failed(&'static str),
}

/// What is told of a command that ended; never its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandEnd {
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes that it wrote, both streams together.
    pub output_bytes: u64,
    /// Whether its output was cut.
    pub truncated: bool,
}

impl Outcome {
    /// The word for `error.type`, when this is one.
    pub(in super::super) fn error(self) -> Option<&'static str> {
        match self {
            Self::Exited(0) => None,
            Self::Exited(_) => Some("exit_code"),
            Self::Signaled(_) => Some("signal"),
            Self::Failed(reason) => Some(reason),
        }
    }
}

/// A command that runs. Dropped unfinished, its span ends without an outcome.
#[derive(Debug)]
pub struct Command {
    trace: Trace,
    live: Option<Box<LiveCommand>>,
}

#[derive(Debug)]
struct LiveCommand {
    // First, so that it is dropped, and thereby ended, before its parent.
    process: Option<Span>,
    span: Span,
    tracer: SdkTracer,
}

impl Command {
    /// A trace of its own, of which nothing is exported.
    pub(super) fn unsampled() -> Self {
        Self {
            trace: Trace::random(),
            live: None,
        }
    }

    pub(super) fn new(span: Span, tracer: SdkTracer) -> Self {
        Self {
            trace: Trace::of(&span),
            live: Some(Box::new(LiveCommand {
                process: None,
                span,
                tracer,
            })),
        }
    }

    /// Its own trace.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// A process is started for it: `program`, of which only the base name is kept. Its number is nobody's business: it
    /// is one of another namespace.
    pub fn spawned(&mut self, program: &str) {
        let Some(live) = &mut self.live else {
            return;
        };
        let name = program.rsplit('/').next().unwrap_or(program).to_owned();
        let builder = SpanBuilder::from_name(name.clone())
            .with_kind(SpanKind::Client)
            .with_attributes([KeyValue::new("process.executable.name", name)]);
        let above = Context::new().with_remote_span_context(live.span.span_context().clone());
        live.process = Some(live.tracer.build_with_context(builder, &above));
    }

    /// Ends its spans with what became of it.
    pub fn finish(self, end: &CommandEnd) {
        let Some(mut live) = self.live else {
            return;
        };
        if let Some(process) = &mut live.process {
            describe(process, end.outcome);
        }
        describe(&mut live.span, end.outcome);
        let bytes = i64::try_from(end.output_bytes).unwrap_or(i64::MAX);
        live.span
            .set_attribute(KeyValue::new("switchboard.command.output", bytes));
        let truncated = KeyValue::new(COMMAND_TRUNCATED, end.truncated);
        live.span.set_attribute(truncated);
    }
}

/// The outcome, by the conventions for command line programs.
fn describe(span: &mut Span, outcome: Outcome) {
    match outcome {
        Outcome::Exited(code) => {
            span.set_attribute(KeyValue::new("process.exit.code", i64::from(code)));
        }
        Outcome::Signaled(signal) => {
            span.set_attribute(KeyValue::new(
                "switchboard.command.signal",
                i64::from(signal),
            ));
        }
        Outcome::Failed(_) => {}
    }
    if let Some(error) = outcome.error() {
        span.set_attribute(KeyValue::new(ERROR_TYPE, error));
        span.set_status(Status::error(""));
    }
}
