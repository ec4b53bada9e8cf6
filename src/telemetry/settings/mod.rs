//! What the operator sets of telemetry, and what is wrong with it.
//!
//! The environment's `OTEL_*` variables are read here too, so that one place decides where anything is sent.

mod environment;
mod plan;
mod route;

pub(super) use plan::Plan;
pub(super) use route::{Route, Signal};

use super::logs;
use serde::{Deserialize, Serialize};

/// The `[telemetry]` table.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is logged, as filter directives: `info`, `info,switchboard::net=debug`.
    pub log: String,
    /// How a log line is written.
    pub log_format: LogFormat,
    /// Where traces and metrics go: the `http://HOST:PORT` of an OTLP collector.
    /// Unset: the `OTEL_EXPORTER_OTLP_*ENDPOINT` variables, and without those nowhere.
    pub otlp_endpoint: Option<String>,
    /// What is spoken there. Unset: the `OTEL_EXPORTER_OTLP_*PROTOCOL` variables, and without those gRPC.
    pub otlp_protocol: Option<Protocol>,
    /// The share of sessions whose set-up gets a span, 0 to 1.
    pub sample_sessions: f64,
    /// The share of commands that get a span, 0 to 1.
    pub sample_commands: f64,
    /// The share of messages over TCP that get a span, 0 to 1.
    pub sample_messages: f64,
    /// The share of datagrams that get a span, 0 to 1.
    pub sample_datagrams: f64,
    /// The share of reading control calls (List, Get) that get a span, 0 to 1. Changes always get one.
    pub sample_reads: f64,
    /// The share of TCP sessions whose round-trip time is measured, at their end, 0 to 1.
    pub sample_tcp_rtt: f64,
}

/// How a log line is written.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal and in systemd's journal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a collector is spoken to in.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC; port 4317 by convention.
    #[serde(rename = "grpc")]
    Grpc,
    /// The same messages, posted over HTTP/1.1; port 4318 by convention.
    #[serde(rename = "http/protobuf")]
    Http,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            log_format: LogFormat::Auto,
            otlp_endpoint: None,
            otlp_protocol: None,
            sample_sessions: 1.0,
            sample_commands: 1.0,
            sample_messages: 0.01,
            sample_datagrams: 0.0,
            sample_reads: 0.05,
            sample_tcp_rtt: 0.0,
        }
    }
}

impl Settings {
    /// Every problem as (key, what is wrong); empty when [`start`](super::Telemetry::start) can obey.
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let ratio = |ratio: f64| {
            (!(0.0..=1.0).contains(&ratio)).then(|| format!("{ratio} is not between 0 and 1"))
        };
        let variable = |name: &str| std::env::var(name).ok();
        let plan = Plan::of(self, &variable);
        let silent = self.log.trim().is_empty();
        let empty = silent.then(|| "it is empty; \"off\" is the word for no log at all".to_owned());
        [
            ("log", empty.or_else(|| logs::filter(&self.log).err())),
            ("otlp_endpoint", plan.err()),
            ("sample_sessions", ratio(self.sample_sessions)),
            ("sample_commands", ratio(self.sample_commands)),
            ("sample_messages", ratio(self.sample_messages)),
            ("sample_datagrams", ratio(self.sample_datagrams)),
            ("sample_reads", ratio(self.sample_reads)),
            ("sample_tcp_rtt", ratio(self.sample_tcp_rtt)),
        ]
        .into_iter()
        .filter_map(|(key, problem)| Some((key, problem?)))
        .collect()
    }
}

/// What stands for a secret.
pub const REDACTED: &str = "(redacted)";

/// `http://(redacted)@host` of `http://user:password@host`, however odd the password is.
pub fn without_password(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + "://".len());
    match url[start..].rfind('@') {
        Some(end) => format!("{}{REDACTED}{}", &url[..start], &url[start + end..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problem() {
        assert_eq!(Settings::default().check(), []);
        assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
        let json = toml::from_str::<Settings>("log_format = \"json\"").unwrap();
        assert_eq!(json.log_format, LogFormat::Json);
        assert!(toml::from_str::<Settings>("colour = true").is_err());
        let http = toml::from_str::<Settings>("otlp_protocol = \"http/protobuf\"").unwrap();
        assert_eq!(http.otlp_protocol, Some(Protocol::Http));
        let json = toml::from_str::<Settings>("otlp_protocol = \"http/json\"").unwrap_err();
        assert!(
            json.message().contains("`grpc` or `http/protobuf`"),
            "{json}"
        );
    }

    #[test]
    fn a_password_is_never_told() {
        for (url, shown) in [
            ("http://me:hush@c:1/x", "http://(redacted)@c:1/x"),
            ("http://me:hu/sh@c:1", "http://(redacted)@c:1"),
            ("http://me:hu@sh@c", "http://(redacted)@c"),
            ("me:hush@c:1", "(redacted)@c:1"),
            ("http://c:1/x", "http://c:1/x"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let settings = Settings {
            log: "switchboard=loud".to_owned(),
            otlp_endpoint: Some("collector:4317".to_owned()),
            sample_messages: 1.5,
            sample_datagrams: -0.1,
            sample_reads: f64::NAN,
            ..Settings::default()
        };
        let keys: Vec<_> = settings.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "log",
                "otlp_endpoint",
                "sample_messages",
                "sample_datagrams",
                "sample_reads"
            ]
        );
    }
}
