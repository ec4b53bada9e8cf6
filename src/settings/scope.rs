//! When a change of the file takes effect, key by key, and which values are nobody's to see.

use serde_json::Value;

use super::Settings;
use crate::config::{Problem, Problems, Reason, Scope, parse_key};
use crate::telemetry::{self, REDACTED, without_password};

/// Of everything but the listeners, whose fields say so themselves.
const SCOPES: &[(&str, Scope)] = &[
    ("grpc.address", Scope::Restart),
    ("grpc.allow_shell", Scope::Live),
    ("grpc.socket", Scope::Restart),
    ("http.address", Scope::Restart),
    ("http.allow_network", Scope::Restart),
    ("node.name", Scope::Restart),
    ("shutdown.grace", Scope::Live),
    ("store.max_bytes", Scope::Restart),
    ("store.path", Scope::Restart),
    ("store.retention", Scope::Restart),
    ("telemetry.log", Scope::Live),
    ("telemetry.log_format", Scope::Restart),
    ("telemetry.otlp_endpoint", Scope::Restart),
    ("telemetry.otlp_protocol", Scope::Restart),
    ("telemetry.sample_commands", Scope::Restart),
    ("telemetry.sample_datagrams", Scope::Restart),
    ("telemetry.sample_messages", Scope::Restart),
    ("telemetry.sample_reads", Scope::Restart),
    ("telemetry.sample_sessions", Scope::Restart),
    ("telemetry.sample_tcp_rtt", Scope::Restart),
];

/// The name of the listener that a key is about.
pub fn listener_of(key: &str) -> Option<&str> {
    let rest = key.strip_prefix("listeners.")?;
    Some(rest.split(['.', '[']).next().unwrap_or(rest))
}

impl Settings {
    /// When a change of this key takes effect. A listener that comes or goes does so at once.
    pub fn scope(&self, key: &str) -> Scope {
        let listed = SCOPES.iter().find(|(name, _)| *name == key);
        listed.map_or_else(|| self.listener_scope(key), |(_, scope)| *scope)
    }

    fn listener_scope(&self, key: &str) -> Scope {
        let own = key.strip_prefix("listeners.").and_then(|rest| {
            let (name, field) = rest.split_once('.')?;
            let (_, spec) = self.listeners.iter().find(|(n, _)| n.as_str() == name)?;
            spec.scope(field)
        });
        own.unwrap_or(Scope::Live)
    }

    /// Takes over from `running` what only a restart changes.
    pub fn keep_what_a_restart_changes(&mut self, running: &Self) {
        let running = running.clone();
        self.node = running.node;
        self.grpc.address = running.grpc.address;
        self.grpc.socket = running.grpc.socket;
        self.http = running.http;
        self.store = running.store;
        self.telemetry = telemetry::Settings {
            log: std::mem::take(&mut self.telemetry.log),
            ..running.telemetry
        };
    }
}

/// Whether a value may hold what its owner would not have shown: the environment of commands.
pub fn is_secret(key: &str) -> bool {
    let path = parse_key(key).unwrap_or_default();
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    matches!(path[..], ["listeners", _, "sandbox", "environment", _, ..])
}

/// The same problems, without the secrets that their messages quote.
pub(super) fn discreet(problems: Problems) -> Problems {
    let discreet = |problem: Problem| match problem.reason {
        Reason::WrongType if is_secret(&problem.key) => Problem {
            message: "expected text; put it in quotes".to_owned(),
            ..problem
        },
        _ => problem,
    };
    Problems::new(problems.into_iter().map(discreet).collect())
}

/// A value as it may be shown: secrets, and the password of an address, are not. A whole table is gone through.
pub fn redacted(key: &str, value: &Value) -> Value {
    match value {
        Value::Object(table) => table
            .iter()
            .map(|(name, value)| {
                let key = format!("{key}.{}", crate::config::key(&[name]));
                (name.clone(), redacted(key.trim_start_matches('.'), value))
            })
            .collect(),
        Value::String(_) if is_secret(key) => REDACTED.into(),
        Value::String(text) if key == "telemetry.otlp_endpoint" => without_password(text).into(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Values, diff, to_value};
    use serde_json::json;

    /// Settings in which nothing is as it is by default, but for the listeners.
    fn other() -> Settings {
        let text = json!({
            "node": { "name": "other" },
            "grpc": { "address": "127.0.0.1:1", "socket": "/x", "allow_shell": true },
            "http": { "address": "127.0.0.1:2", "allow_network": true },
            "store": { "path": "/x", "retention": "1d", "max_bytes": 1 << 22 },
            "shutdown": { "grace": "1s" },
            "telemetry": {
                "log": "debug", "log_format": "json", "otlp_endpoint": "http://127.0.0.1:3",
                "otlp_protocol": "http/protobuf", "sample_sessions": 0.5, "sample_commands": 0.5,
                "sample_messages": 0.5, "sample_datagrams": 0.5, "sample_reads": 0.25, "sample_tcp_rtt": 0.5,
            },
        });
        let sources = crate::config::Sources {
            document: Some((text.to_string(), crate::config::Format::Json)),
            ..Default::default()
        };
        crate::config::load::<Settings>(&sources).unwrap().value
    }

    fn values(settings: &Settings) -> Values {
        Values::of(&to_value(settings))
    }

    #[test]
    fn every_key_says_when_a_change_of_it_takes_effect() {
        let changed: Vec<_> = diff(&values(&Settings::default()), &values(&other()))
            .into_iter()
            .map(|change| change.key)
            .filter(|key| key != "listeners")
            .collect();
        let listed: Vec<_> = SCOPES.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(changed, listed);
    }

    #[test]
    fn what_only_a_restart_changes_stays_as_it_runs() {
        let (running, mut reloaded) = (Settings::default(), other());
        reloaded.keep_what_a_restart_changes(&running);
        for change in diff(&values(&running), &values(&reloaded)) {
            assert_eq!(running.scope(&change.key), Scope::Live, "{}", change.key);
        }
        let kept = diff(&values(&reloaded), &values(&other()));
        assert!(
            kept.iter().all(|c| running.scope(&c.key) == Scope::Restart),
            "{kept:?}"
        );
        assert!(!kept.is_empty());
    }

    #[test]
    fn secrets_are_not_shown() {
        let key = "listeners.s.sandbox.environment.TOKEN";
        assert_eq!(redacted(key, &json!("hush")), json!("(redacted)"));
        assert_eq!(
            redacted(
                "listeners.s.sandbox",
                &json!({ "environment": { "a.b": "hush" }, "run_as": "x" })
            ),
            json!({ "environment": { "a.b": "(redacted)" }, "run_as": "x" })
        );
        let shown = redacted(
            "telemetry.otlp_endpoint",
            &json!("http://me:hush@collector:4317/x"),
        );
        assert_eq!(shown, json!("http://(redacted)@collector:4317/x"));
        let plain = json!("http://collector:4317");
        assert_eq!(redacted("telemetry.otlp_endpoint", &plain), plain);
    }
}
