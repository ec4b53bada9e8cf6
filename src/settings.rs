//! The whole file's shape: every part's own `Settings`, put together, with what can only be checked
//! across parts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{self, Origins, Problem, Problems, Reason, Sources, duration};
use crate::protocol::Protocol;
use crate::supervisor::{ListenerName, Spec};
use crate::{grpc, http, net, protocol, telemetry};

/// Everything that the service is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which process this is.
    pub node: Node,
    /// The control plane.
    pub grpc: grpc::Settings,
    /// Metrics and probes.
    pub http: http::Settings,
    /// What outlives a restart.
    pub store: Store,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// Logs, traces and metrics.
    pub telemetry: telemetry::Settings,
    /// The listeners by name. When no layer names one, the five of [`default_listeners`] run.
    pub listeners: BTreeMap<ListenerName, Spec>,
}

/// Which process this is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// The first part of every session's name.
    pub name: String,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: "local".into(),
        }
    }
}

/// What outlives a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The file; `:memory:` keeps nothing. Not obeyed yet: nothing is kept anywhere.
    pub path: PathBuf,
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long sessions may take to finish what they owe.
    #[serde(with = "duration")]
    pub grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(30),
        }
    }
}

/// What the names of our variables begin with.
const VARIABLES: &[u8] = b"SWITCHBOARD__";

/// Where a system's configuration stands.
pub const SYSTEM: &str = "/etc/switchboard";

impl Settings {
    /// Reads every layer: the system's files, those of `--config`, the environment, `--set`.
    ///
    /// # Errors
    /// Every problem of every layer, and every value that cannot be obeyed.
    pub fn load(files: &[PathBuf], sets: &[String]) -> Result<(Self, Origins), Problems> {
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            let ours = name.as_encoded_bytes().starts_with(VARIABLES);
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => environment.push((name, value)),
                // Others' variables may be what they like.
                (name, _) if ours => {
                    let name = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
                    return Err(Problem {
                        key: telemetry::escape(&name).into_owned(),
                        reason: Reason::Unreadable,
                        message: "this variable is not UTF-8".into(),
                        origin: None,
                        suggestion: None,
                    }
                    .into());
                }
                _ => {}
            }
        }
        Self::from_sources(&Sources {
            system: Some(SYSTEM.into()),
            files: files.to_vec(),
            environment,
            sets: sets.to_vec(),
        })
    }

    /// The same from the given places.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_sources(sources: &Sources) -> Result<(Self, Origins), Problems> {
        let config::Loaded { mut value, origins } = config::load::<Self>(sources)?;
        if value.listeners.is_empty() {
            value.listeners = default_listeners();
        }
        let problems: Vec<Problem> = value
            .faults()
            .into_iter()
            .map(|(key, message)| Problem {
                // A key that is not set has the place of the table that lacks it, if any.
                origin: origins.get(&key).map(|setting| (*setting.origin).clone()),
                key,
                reason: Reason::Invalid,
                message,
                suggestion: None,
            })
            .collect();
        if problems.is_empty() {
            Ok((value, origins))
        } else {
            Err(Problems::new(problems))
        }
    }

    /// Every value that cannot be obeyed: its key and what is wrong.
    fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut part = |prefix: &str, found: Vec<(&'static str, String)>| {
            faults.extend(
                found
                    .into_iter()
                    .map(|(key, fault)| (format!("{prefix}.{key}"), fault)),
            );
        };
        part("node", self.node.check());
        part("grpc", self.grpc.check());
        part("http", self.http.check());
        part("telemetry", self.telemetry.check());
        for (name, spec) in &self.listeners {
            let wrong = spec.check().into_iter();
            faults.extend(wrong.map(|v| (format!("listeners.{name}.{}", v.field), v.description)));
        }
        faults
    }

    /// Tells configurations apart.
    pub fn revision(&self) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        format!("{self:?}").hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

impl Node {
    fn check(&self) -> Vec<(&'static str, String)> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=63).contains(&self.name.len()) && self.name.chars().all(plain) {
            return Vec::new();
        }
        vec![(
            "name",
            "a node's name has 1 to 63 characters of a-z, 0-9 and -".into(),
        )]
    }
}

/// The listeners that run when no layer names one; `deploy/switchboard.toml` says the same.
pub fn default_listeners() -> BTreeMap<ListenerName, Spec> {
    let programs = ["echo", "date", "ls", "uname", "uptime", "id"]
        .map(String::from)
        .to_vec();
    let udp = protocol::chat::Settings {
        transport: net::Transport::Udp,
        ..protocol::chat::Settings::default()
    };
    let shell = protocol::shell::Settings {
        programs,
        ..protocol::shell::Settings::default()
    };
    let listeners = [
        (
            "ack",
            8080,
            Protocol::Ack(protocol::ack::Settings::default()),
        ),
        (
            "uppercase",
            8080,
            Protocol::Uppercase(protocol::uppercase::Settings::default()),
        ),
        (
            "chat",
            8081,
            Protocol::Chat(protocol::chat::Settings::default()),
        ),
        ("qq", 8081, Protocol::Chat(udp)),
        ("shell", 8090, Protocol::Shell(shell)),
    ];
    let listeners = listeners.into_iter().filter_map(|(name, port, protocol)| {
        let spec = Spec {
            bind: net::Address(([127, 0, 0, 1], port).into()),
            display_name: String::new(),
            labels: BTreeMap::new(),
            limits: net::Limits::default(),
            protocol,
        };
        // Every name above is one.
        Some((name.parse().ok()?, spec))
    });
    listeners.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Result<(Settings, Origins), String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.toml");
        std::fs::write(&file, text).unwrap();
        let sources = Sources {
            files: vec![file],
            ..Sources::default()
        };
        Settings::from_sources(&sources).map_err(|problems| problems.to_string())
    }

    #[test]
    fn the_shipped_file_says_what_is_so_without_it() {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/switchboard.toml");
        let (from_file, _) = sources(&std::fs::read_to_string(shipped).unwrap()).unwrap();
        let (built_in, _) = sources("").unwrap();
        assert_eq!(built_in.listeners.len(), 5);
        assert_eq!(from_file, built_in);
    }

    #[test]
    fn one_named_listener_replaces_the_five() {
        let (settings, _) =
            sources("[listeners.mine]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"").unwrap();
        assert_eq!(settings.listeners.len(), 1);
    }

    #[test]
    fn every_value_that_cannot_be_obeyed_is_named_with_its_place() {
        let problems = sources(
            "[node]\nname = \"Not Plain\"\n[grpc]\naddress = \"0.0.0.0:50051\"\n[http]\naddress = \"[::]:9464\"\n\
             [listeners.open]\nprotocol = \"shell\"\nbind = \"0.0.0.0:8090\"\n\
             [listeners.wide]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n[listeners.wide.limits]\nallow_cidrs = [\"10.1.0.0/8\"]\n",
        )
        .unwrap_err();
        for expected in [
            "test.toml:2:",
            "node.name",
            "test.toml:4:",
            "grpc.address",
            "http.address",
            "listeners.open.bind",
            "listeners.open.limits.allow_cidrs",
            "listeners.wide.limits.allow_cidrs",
            "10.0.0.0/8 is meant",
        ] {
            assert!(problems.contains(expected), "{expected} in:\n{problems}");
        }
        assert_eq!(problems.lines().count(), 6, "{problems}");
    }

    #[test]
    fn a_shell_off_loopback_takes_both_its_words() {
        let shell = |more: &str| {
            sources(&format!(
                "[listeners.s]\nprotocol = \"shell\"\nbind = \"0.0.0.0:0\"\n{more}"
            ))
        };
        let networks = "[listeners.s.limits]\nallow_cidrs = [\"10.0.0.0/8\"]";
        assert!(shell(networks).is_err());
        assert!(shell("allow_cleartext = true").is_err());
        assert!(shell(&format!("allow_cleartext = true\n{networks}")).is_ok());
    }
}
