//! What each floor reports as it happens: distributions and spans.
//!
//! What a listener's peers do is recorded with its [`Labels`] and goes with them; control calls are the process's. A value
//! that a sampled trace tells more about is remembered as an exemplar.

use super::super::instruments::Instrument;
use super::super::spans::is_server_fault;
use super::super::{Call, Command, CommandEnd, Labels, Message, Outcome, Telemetry, Trace};
use super::distribution::{Family, Values};
use std::time::{Duration, SystemTime};

/// What is recorded of one listener.
#[derive(Debug)]
pub(in super::super) struct Recorded {
    /// Since when its counters and distributions count.
    pub(super) since: SystemTime,
    session_duration: Family,
    session_setup: Family,
    message_duration: Family,
    round_trip: Family,
    command_duration: Family,
    command_output: Family,
    drain_duration: Family,
    first_response: Family,
}

impl Default for Recorded {
    fn default() -> Self {
        Self {
            since: SystemTime::now(),
            session_duration: Family::new(Instrument::SessionDuration),
            session_setup: Family::new(Instrument::SessionSetup),
            message_duration: Family::new(Instrument::MessageDuration),
            round_trip: Family::new(Instrument::RoundTrip),
            command_duration: Family::new(Instrument::CommandDuration),
            command_output: Family::new(Instrument::CommandOutput),
            drain_duration: Family::new(Instrument::DrainDuration),
            first_response: Family::new(Instrument::FirstResponse),
        }
    }
}

impl Recorded {
    /// A message was processed or, for this reason, refused.
    pub(in super::super) fn message(&self, refused: &'static str, took: Duration, trace: &Trace) {
        let duration = &self.message_duration;
        duration.record(values(refused, None), took.as_secs_f64(), trace);
    }

    /// How many messages were refused for this reason, or processed.
    #[cfg(test)]
    pub(in super::super) fn messages(&self, refused: &str) -> u64 {
        let of = self.message_duration.read();
        let counts = of.filter(|(values, _)| values[0] == refused);
        counts.map(|(_, read)| read.count()).sum()
    }

    /// Every family, recorded or not.
    pub(super) fn families(&self) -> [&Family; 8] {
        [
            &self.session_duration,
            &self.session_setup,
            &self.message_duration,
            &self.round_trip,
            &self.command_duration,
            &self.command_output,
            &self.drain_duration,
            &self.first_response,
        ]
    }
}

/// Of an instrument that has two attributes.
fn values(first: &'static str, second: Option<&'static str>) -> Values {
    [first, second.unwrap_or_default(), "", ""]
}

impl Telemetry {
    /// A session ended, for the reason named in one word of a closed set (`idle`), after `open_for`; `trace` is its
    /// set-up's.
    pub fn session_ended(
        &self,
        labels: &Labels,
        reason: &'static str,
        open_for: Duration,
        trace: &Trace,
    ) {
        let values = values(reason, is_failure(reason).then_some(reason));
        let duration = &labels.recorded.session_duration;
        duration.record(values, open_for.as_secs_f64(), trace);
    }

    /// Whether the round-trip time of a session that ends is to be measured.
    pub fn samples_round_trip(&self) -> bool {
        self.0.spans.sampling.round_trips.hit()
    }

    /// It was; `trace` is the session's set-up's.
    pub fn round_trip(&self, labels: &Labels, rtt: Duration, trace: &Trace) {
        let round_trip = &labels.recorded.round_trip;
        round_trip.record(Values::default(), rtt.as_secs_f64(), trace);
    }

    /// A command ended or was refused.
    pub fn command_ended(&self, labels: &Labels, end: &CommandEnd, took: Duration, trace: &Trace) {
        let exit = values(exit_class(end.outcome), end.outcome.error());
        let duration = &labels.recorded.command_duration;
        duration.record(exit, took.as_secs_f64(), trace);
        let truncated = if end.truncated { "true" } else { "false" };
        let output = &labels.recorded.command_output;
        output.record(values(truncated, None), end.output_bytes as f64, trace);
    }

    /// A drain ended: `completed`, `deadline` or `cancelled`.
    pub fn drain_ended(&self, labels: &Labels, outcome: &'static str, took: Duration) {
        let duration = &labels.recorded.drain_duration;
        let values = values(outcome, None);
        duration.record(values, took.as_secs_f64(), &Trace::default());
    }

    /// An operator has answered in a conversation for the first time, `took` after the message came; `trace` is the
    /// session's set-up's.
    pub fn first_response(&self, labels: &Labels, took: Duration, trace: &Trace) {
        let response = &labels.recorded.first_response;
        response.record(Values::default(), took.as_secs_f64(), trace);
    }

    /// A control call ended. `method` is `package.Service/Method` of one that exists, `_OTHER` for what a caller made
    /// up, which must not become a series; `code` is the gRPC status code's name.
    pub fn call_ended(
        &self,
        method: &'static str,
        code: &'static str,
        took: Duration,
        trace: &Trace,
    ) {
        let fault = if is_server_fault(code) { code } else { "" };
        let values = ["grpc", method, code, fault];
        let calls = &self.0.metrics.calls;
        calls.record(values, took.as_secs_f64(), trace);
    }

    /// A session is ready, `took` after it was accepted: a root span that ends at once. Without an exporter the trace's
    /// id is the session's.
    pub fn session_setup(&self, labels: &Labels, session_id: u128, took: Duration) -> Trace {
        let trace = self.0.spans.session_setup(labels, session_id, took);
        let setup = &labels.recorded.session_setup;
        setup.record(Values::default(), took.as_secs_f64(), &trace);
        trace
    }

    /// A command begins: a root span with a trace of its own, linked to its session's set-up.
    pub fn command(&self, labels: &Labels, parent: &Trace) -> Command {
        self.0.spans.command(labels, parent)
    }

    /// A message was received: for the sampled few it is timed until this is dropped, and may have a span, linked to its
    /// session's set-up.
    pub fn message(&self, labels: &Labels, parent: &Trace) -> Option<Message> {
        self.0.spans.message(labels, parent)
    }

    /// A control call begins. With a well-formed W3C `traceparent` its span continues the caller's trace, if the caller
    /// samples that; without one a `mutation` always gets a span and a read its share.
    pub fn call(
        &self,
        method: &str,
        traceparent: Option<&str>,
        tracestate: Option<&str>,
        mutation: bool,
    ) -> Call {
        self.0
            .spans
            .call(method, (traceparent, tracestate), mutation)
    }
}

/// Whether a session that ended for this reason did not end as its peer, or an operator, wanted.
fn is_failure(reason: &str) -> bool {
    !matches!(
        reason,
        "client_closed" | "idle" | "max_age" | "kicked" | "drained" | "completed"
    )
}

/// Exit codes in few classes; those that a shell gives a meaning (126 not executable, 127 not found) stay apart.
fn exit_class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Exited(0) => "0",
        Outcome::Exited(1) => "1",
        Outcome::Exited(126) => "126",
        Outcome::Exited(127) => "127",
        Outcome::Signaled(_) => "signal",
        Outcome::Exited(_) | Outcome::Failed(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Exposition, Sink, Source};
    use super::*;
    use std::sync::Arc;

    fn labels(name: &str) -> Labels {
        Labels::new(name.into(), "shell", "tcp", "ipv4")
    }

    /// One listener.
    struct One(Labels);

    impl Source for One {
        fn collect(&self, sink: &mut dyn Sink) {
            sink.recorded(&self.0);
        }
    }

    #[test]
    fn what_is_recorded_of_a_listener_is_its_own_and_goes_with_it() {
        let telemetry = Telemetry::quiet();
        let (first, other) = (labels("front"), labels("front"));
        telemetry.session_ended(&first, "idle", Duration::from_secs(1), &Trace::default());
        let counted = |labels: &Labels| {
            let families = labels.recorded.families();
            let counts = families.iter().flat_map(|family| family.read());
            counts.map(|(_, read)| read.count()).sum::<u64>()
        };
        assert_eq!(counted(&first.clone()), 1);
        assert_eq!(counted(&other), 0);
    }

    #[test]
    fn a_callers_mistake_is_no_error_of_ours() {
        let telemetry = Telemetry::quiet();
        telemetry.call_ended("_OTHER", "UNIMPLEMENTED", Duration::ZERO, &Trace::default());
        telemetry.call_ended(
            "switchboard.v1.S/Get",
            "NOT_FOUND",
            Duration::ZERO,
            &Trace::default(),
        );
        let text = telemetry.exposition(Exposition::Prometheus);
        assert!(text.contains("error_type=\"UNIMPLEMENTED\",rpc_method=\"_OTHER\""));
        assert!(!text.contains("error_type=\"NOT_FOUND\""));
    }

    #[test]
    fn a_command_is_counted_by_the_class_of_its_end() {
        let telemetry = Telemetry::quiet();
        let shell = Arc::new(One(labels("shell")));
        let source: Arc<dyn Source> = shell.clone();
        telemetry.observe(Arc::downgrade(&source));
        let ends = [
            Outcome::Exited(0),
            Outcome::Exited(42),
            Outcome::Signaled(9),
            Outcome::Failed("timed_out"),
        ];
        for outcome in ends {
            let end = CommandEnd {
                outcome,
                output_bytes: 100,
                truncated: false,
            };
            let took = Duration::from_millis(3);
            telemetry.command_ended(&shell.0, &end, took, &Trace::default());
        }
        let text = telemetry.exposition(Exposition::Prometheus);
        for part in [
            "count{switchboard_command_exit_code=\"0\"",
            "count{error_type=\"exit_code\",switchboard_command_exit_code=\"other\"",
            "count{error_type=\"signal\",switchboard_command_exit_code=\"signal\"",
            "count{error_type=\"timed_out\",switchboard_command_exit_code=\"other\"",
            "switchboard_command_output_bytes_sum{switchboard_command_truncated=\"false\",switchboard_listener_name=\"shell\"} 400",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
}
