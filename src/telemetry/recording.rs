//! What each floor reports as it happens: distributions and spans.
//!
//! A recorded series is never forgotten by the SDK, unlike an observed one, so listener names are admitted up to a
//! budget and share `_OTHER` beyond it; every other attribute is from a closed set.

use super::instruments::{
    CLOSE_REASON, COMMAND_EXIT, COMMAND_TRUNCATED, DRAIN_OUTCOME, ERROR_TYPE, LISTENER, RPC_METHOD,
    RPC_STATUS, RPC_SYSTEM,
};
use super::spans::is_server_fault;
use super::{Call, Command, CommandEnd, Labels, Message, Outcome, Telemetry, Trace};
use opentelemetry::{KeyValue, StringValue};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Names that get series of their own: times 14 close reasons this stays under the SDK's 2,000 series an instrument.
const MAX_NAMES: usize = 128;
const OTHER: &str = "_OTHER";

/// Listener names that have recorded series.
#[derive(Default)]
pub(super) struct Names(RwLock<HashSet<Arc<str>>>);

impl Names {
    fn attribute(&self, labels: &Labels) -> KeyValue {
        let value = if self.admits(&labels.listener) {
            StringValue::from(labels.listener.clone())
        } else {
            StringValue::from(OTHER)
        };
        KeyValue::new(LISTENER, value)
    }

    fn admits(&self, name: &Arc<str>) -> bool {
        {
            let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if names.contains(name) || names.len() >= MAX_NAMES {
                return names.contains(name);
            }
        }
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        names.contains(name) || (names.len() < MAX_NAMES && names.insert(name.clone()))
    }
}

impl Telemetry {
    /// A session ended, for the reason named in one word of a closed set (`idle`), after `open_for`.
    pub fn session_ended(&self, labels: &Labels, reason: &'static str, open_for: Duration) {
        let attributes = [
            self.0.names.attribute(labels),
            KeyValue::new(CLOSE_REASON, reason),
        ];
        let histograms = &self.0.metrics.histograms;
        histograms
            .session_duration
            .record(open_for.as_secs_f64(), &attributes);
    }

    /// A command ended or was refused.
    pub fn command_ended(&self, labels: &Labels, end: &CommandEnd, took: Duration) {
        let name = self.0.names.attribute(labels);
        let mut attributes = vec![
            name.clone(),
            KeyValue::new(COMMAND_EXIT, exit_class(end.outcome)),
        ];
        if let Some(error) = end.outcome.error() {
            attributes.push(KeyValue::new(ERROR_TYPE, error));
        }
        let histograms = &self.0.metrics.histograms;
        histograms
            .command_duration
            .record(took.as_secs_f64(), &attributes);
        let attributes = [name, KeyValue::new(COMMAND_TRUNCATED, end.truncated)];
        histograms
            .command_output
            .record(end.output_bytes as f64, &attributes);
    }

    /// A drain ended: `completed`, `deadline` or `cancelled`.
    pub fn drain_ended(&self, labels: &Labels, outcome: &'static str, took: Duration) {
        let attributes = [
            self.0.names.attribute(labels),
            KeyValue::new(DRAIN_OUTCOME, outcome),
        ];
        let histograms = &self.0.metrics.histograms;
        histograms
            .drain_duration
            .record(took.as_secs_f64(), &attributes);
    }

    /// An operator has answered in a conversation for the first time, `took` after the message came.
    pub fn first_response(&self, labels: &Labels, took: Duration) {
        let attributes = [self.0.names.attribute(labels)];
        let histograms = &self.0.metrics.histograms;
        histograms
            .first_response
            .record(took.as_secs_f64(), &attributes);
    }

    /// A control call ended. `method` is `package.Service/Method` of one that exists, `_OTHER` for what a caller made
    /// up, which must not become a series; `code` is the gRPC status code's name.
    pub fn call_ended(&self, method: &str, code: &'static str, took: Duration) {
        let mut attributes = vec![
            KeyValue::new(RPC_SYSTEM, "grpc"),
            KeyValue::new(RPC_METHOD, method.to_owned()),
            KeyValue::new(RPC_STATUS, code),
        ];
        if is_server_fault(code) {
            attributes.push(KeyValue::new(ERROR_TYPE, code));
        }
        let histograms = &self.0.metrics.histograms;
        histograms
            .call_duration
            .record(took.as_secs_f64(), &attributes);
    }

    /// A session is ready, `took` after it was accepted: a root span that ends at once. Without an exporter the trace's
    /// id is the session's.
    pub fn session_setup(&self, labels: &Labels, session_id: u128, took: Duration) -> Trace {
        let attributes = [self.0.names.attribute(labels)];
        let histograms = &self.0.metrics.histograms;
        histograms
            .session_setup
            .record(took.as_secs_f64(), &attributes);
        self.0.spans.session_setup(labels, session_id, took)
    }

    /// A command begins: a root span with a trace of its own, linked to its session's set-up.
    pub fn command(&self, labels: &Labels, parent: &Trace) -> Command {
        self.0.spans.command(labels, parent)
    }

    /// A message was received: a span for the sampled few, linked to its session's set-up.
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
    use super::*;

    fn labels(name: &str) -> Labels {
        Labels {
            listener: name.into(),
            protocol: "shell",
            transport: "tcp",
            network: "ipv4",
        }
    }

    #[test]
    fn recorded_names_are_bounded() {
        let telemetry = Telemetry::quiet();
        for n in 0..10 * MAX_NAMES {
            let labels = labels(&format!("listener-{n}"));
            telemetry.session_ended(&labels, "idle", Duration::from_secs(1));
        }
        let all = telemetry.snapshot();
        let counts = all
            .iter()
            .filter(|s| s.metric == "switchboard.session.duration.count");
        assert_eq!(counts.clone().count(), MAX_NAMES + 1);
        assert_eq!(
            counts.map(|s| s.value).sum::<f64>(),
            10.0 * MAX_NAMES as f64
        );
    }

    #[test]
    fn a_callers_mistake_is_no_error_of_ours() {
        let telemetry = Telemetry::quiet();
        telemetry.call_ended("_OTHER", "UNIMPLEMENTED", Duration::ZERO);
        telemetry.call_ended("switchboard.v1.S/Get", "NOT_FOUND", Duration::ZERO);
        let text = telemetry.prometheus().unwrap();
        assert!(text.contains("error_type=\"UNIMPLEMENTED\",rpc_method=\"_OTHER\""));
        assert!(!text.contains("error_type=\"NOT_FOUND\""));
    }

    #[test]
    fn a_command_is_counted_by_the_class_of_its_end() {
        let telemetry = Telemetry::quiet();
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
            telemetry.command_ended(&labels("shell"), &end, Duration::from_millis(3));
        }
        let text = telemetry.prometheus().unwrap();
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
