//! What a listener should be: its name and everything that was asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lifecycle::Desired;
use crate::config::{self, Change, Scope, Values, scope_of};
use crate::net::{Address, Limits, PauseMode};
use crate::protocol::Protocol;

/// A listener's name: `[a-z][a-z0-9-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenerName(String);

impl ListenerName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ListenerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let fits = text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(plain);
        if fits {
            return Ok(Self(text.to_owned()));
        }
        let shown = shown(text);
        Err(format!(
            "`{shown}` is not a listener's name: a lower-case letter, then at most 62 of a-z, 0-9 and -"
        ))
    }
}

/// A name that a caller gave, as it may stand in an answer: short, and nothing but text.
pub fn shown(name: &str) -> String {
    crate::telemetry::escape(name).chars().take(120).collect()
}

impl TryFrom<String> for ListenerName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ListenerName> for String {
    fn from(name: ListenerName) -> Self {
        name.0
    }
}

/// What a listener should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Where it listens.
    pub bind: Address,
    /// Whether it serves.
    #[serde(default)]
    pub desired_state: Desired,
    /// How new peers are kept away while it is paused.
    #[serde(default)]
    pub pause_mode: PauseMode,
    /// When it stops being paused by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_time: Option<Moment>,
    /// For people.
    #[serde(default)]
    pub display_name: String,
    /// For filters.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it allows its peers.
    #[serde(default)]
    pub limits: Limits,
    /// What it speaks; its keys stand beside the others, chosen by the key `protocol`.
    #[serde(rename = "$protocol")]
    pub protocol: Protocol,
}

/// A moment by the wall clock, to the second; in files `2026-11-23T12:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(pub SystemTime);

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let moment = humantime::parse_rfc3339(&text).map(Self);
        moment.map_err(|_| format!("`{text}` is no time; `2026-11-23T12:00:00Z` is"))
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        humantime::format_rfc3339_millis(moment.0).to_string()
    }
}

/// A field of a spec that cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its path within the spec, as in files: `limits.max_sessions`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub description: String,
}

impl Spec {
    /// Everything in it that cannot be obeyed.
    pub fn check(&self) -> Vec<Violation> {
        let limits = self.limits.check(self.protocol.transport());
        let limits = limits
            .into_iter()
            .map(|(key, fault)| (format!("limits.{key}"), fault));
        let own = self.protocol.check(self.bind, &self.limits);
        let own = own.into_iter().map(|(key, fault)| (key.to_owned(), fault));
        limits
            .chain(own)
            .map(|(field, description)| Violation { field, description })
            .collect()
    }

    /// The same with every default filled in, as it is obeyed.
    pub fn resolved(&self) -> Self {
        Self {
            limits: self.limits.resolved(self.protocol.transport()),
            protocol: self.protocol.resolved(),
            ..self.clone()
        }
    }

    /// The least that a file has to say for it: what is as by default is left out.
    pub fn said(&self) -> Value {
        let plain = Self {
            bind: self.bind,
            desired_state: Desired::default(),
            pause_mode: PauseMode::default(),
            resume_time: None,
            display_name: String::new(),
            labels: BTreeMap::new(),
            limits: Limits::default(),
            protocol: self.protocol.plain(),
        };
        let mut said = config::to_value(self);
        leave_out(&mut said, &config::to_value(&plain));
        for key in ["bind", "protocol"] {
            said[key] = config::to_value(self)[key].clone();
        }
        said
    }

    /// What differs in `to`, as it is obeyed: unset and the default are the same.
    pub fn changes(&self, to: &Self) -> Vec<Change> {
        let values = |spec: &Self| Values::of(&config::to_value(&spec.resolved()));
        config::diff(&values(self), &values(to))
    }

    /// When a change of the field at `key` takes effect; `None` for what is no field of it. A changed kind of protocol
    /// is another listener, so it takes a new socket.
    pub fn scope(&self, key: &str) -> Option<Scope> {
        let limit = || Limits::scope(self.protocol.transport(), key.strip_prefix("limits.")?);
        scope_of(SCOPES, key)
            .or_else(limit)
            .or_else(|| self.protocol.scope(key))
    }
}

/// Takes out of a table what another says too.
fn leave_out(table: &mut Value, other: &Value) {
    let (Value::Object(entries), Value::Object(others)) = (table, other) else {
        return;
    };
    for (key, value) in &mut *entries {
        if let Some(other) = others.get(key).filter(|other| *other != value) {
            leave_out(value, other);
        }
    }
    entries.retain(|key, value| others.get(key) != Some(value));
}

/// When a change of the fields that every listener has takes effect; those of its limits and its protocol stand beside
/// the code that obeys them.
pub const SCOPES: &[(&str, Scope)] = &[
    ("bind", Scope::Rebind),
    ("desired_state", Scope::Live),
    ("display_name", Scope::Live),
    ("labels", Scope::Live),
    ("pause_mode", Scope::Live),
    ("resume_time", Scope::Live),
    ("protocol", Scope::Rebind),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "ack", "a-1", &"a".repeat(63)] {
            assert!(good.parse::<ListenerName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "1a",
            "-a",
            "A",
            "a_b",
            "a.b",
            "a b",
            &"a".repeat(64),
            "ä",
            "a\u{1b}[31m",
        ] {
            let error = bad.parse::<ListenerName>().unwrap_err();
            assert!(
                error.contains("not a listener's name") && !error.contains('\u{1b}'),
                "{bad}"
            );
        }
    }
}
