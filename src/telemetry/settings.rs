//! What the operator sets of telemetry, and what is wrong with it.
//!
//! The environment's `OTEL_*` variables are read here too, so that one place decides where anything is sent.

use super::logs;
use http::Uri;
use serde::{Deserialize, Serialize};

/// The `[telemetry]` table.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is logged, as filter directives: `info`, `info,switchboard::net=debug`.
    pub log: String,
    /// How a log line is written.
    pub log_format: LogFormat,
    /// Where traces and metrics go: the `http://HOST:PORT` of an OTLP collector that speaks gRPC.
    /// Unset: the `OTEL_EXPORTER_OTLP_*ENDPOINT` variables, and without those nowhere.
    pub otlp_endpoint: Option<String>,
    /// The share of messages that get a span, 0 to 1.
    pub sample_messages: f64,
    /// The share of reading control calls (List, Get) that get a span, 0 to 1. Changes always get one.
    pub sample_reads: f64,
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

impl Default for Settings {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            log_format: LogFormat::Auto,
            otlp_endpoint: None,
            sample_messages: 0.01,
            sample_reads: 0.05,
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
        let endpoints = Endpoints::resolve(self.otlp_endpoint.as_deref(), variable);
        let silent = self.log.trim().is_empty();
        let empty = silent.then(|| "it is empty; \"off\" is the word for no log at all".to_owned());
        [
            ("log", empty.or_else(|| logs::filter(&self.log).err())),
            ("otlp_endpoint", endpoints.err()),
            ("sample_messages", ratio(self.sample_messages)),
            ("sample_reads", ratio(self.sample_reads)),
        ]
        .into_iter()
        .filter_map(|(key, problem)| Some((key, problem?)))
        .collect()
    }
}

/// Where each signal goes; a signal without an endpoint is not sent.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Endpoints {
    pub(super) traces: Option<String>,
    pub(super) metrics: Option<String>,
}

impl Endpoints {
    /// The setting before the variable of the one signal before the variable of all.
    ///
    /// # Errors
    /// What is wrong with the first address that cannot be used, and where it came from.
    pub(super) fn resolve(
        setting: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let find = |signal: &str| {
            let named =
                |name: &str| Some((name.to_owned(), variable(name)?)).filter(|v| !v.1.is_empty());
            setting
                .map(|url| ("otlp_endpoint".to_owned(), url.to_owned()))
                .or_else(|| named(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")))
                .or_else(|| named("OTEL_EXPORTER_OTLP_ENDPOINT"))
                .map(|(origin, url)| match check_endpoint(&url) {
                    Ok(()) => Ok(url),
                    Err(problem) => Err(format!("{origin}: {problem}")),
                })
                .transpose()
        };
        Ok(Self {
            traces: find("TRACES")?,
            metrics: find("METRICS")?,
        })
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

fn check_endpoint(url: &str) -> Result<(), String> {
    let parsed = url.parse::<Uri>();
    let url = without_password(url);
    let uri = parsed.map_err(|error| format!("{url:?}: {error}"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(_)) => Ok(()),
        (Some("https"), _) => Err(format!(
            "{url:?}: https is not built in; send to a collector on this host"
        )),
        _ => Err(format!("{url:?} is not of the form http://HOST:PORT")),
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
        for url in ["https://me:hush@c:1", "http://me:hush@", "me:hush@c:1"] {
            let told = check_endpoint(url).unwrap_err();
            assert!(!told.contains("hush"), "{told}");
        }
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let settings = Settings {
            log: "switchboard=loud".to_owned(),
            otlp_endpoint: Some("collector:4317".to_owned()),
            sample_messages: 1.5,
            sample_reads: f64::NAN,
            ..Settings::default()
        };
        let keys: Vec<_> = settings.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            ["log", "otlp_endpoint", "sample_messages", "sample_reads"]
        );
    }

    #[test]
    fn the_nearest_endpoint_wins() {
        let variable = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://all:4317".to_owned()),
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some("http://traces:4317".to_owned()),
            _ => None,
        };
        let found = Endpoints::resolve(None, variable).unwrap();
        assert_eq!(found.traces.as_deref(), Some("http://traces:4317"));
        assert_eq!(found.metrics.as_deref(), Some("http://all:4317"));

        let set = Endpoints::resolve(Some("http://set:4317"), variable).unwrap();
        assert_eq!(set.traces, set.metrics);
        assert_eq!(set.traces.as_deref(), Some("http://set:4317"));

        assert_eq!(
            Endpoints::resolve(None, |_| None).unwrap(),
            Endpoints::default()
        );
        let empty = Endpoints::resolve(None, |_| Some(String::new())).unwrap();
        assert_eq!(empty, Endpoints::default());
    }

    #[test]
    fn a_bad_variable_is_named() {
        let problem = Endpoints::resolve(None, |_| Some("https://c:1".to_owned())).unwrap_err();
        assert!(
            problem.starts_with("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "),
            "{problem}"
        );
    }
}
