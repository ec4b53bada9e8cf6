//! The whole file's shape: every part's own `Settings`, put together, with what can only be checked
//! across parts.
//!
//! [`Settings::load`] reads what a process is started with; [`configure`] lays the changes that were made at run time
//! over it, and never lets one of those keep the process from starting.

mod configure;
mod cross;
mod defaults;
mod scope;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use configure::{Aside, Configured, configure, widens_shell};
pub use defaults::default_listeners;
pub use scope::{is_secret, listener_of, redacted};

use crate::config::{Layers, Problem, Problems, Reason, Sources, duration, size};
use crate::supervisor::{ListenerName, Spec};
use crate::{grpc, http, telemetry};

/// Everything that the service is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The file; `:memory:` keeps nothing. Empty for the place where such files belong.
    pub path: PathBuf,
    /// How long the record of who changed what, and of who ran what, is kept.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// How long the file may grow before the oldest of that record goes.
    #[serde(with = "size")]
    pub max_bytes: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            retention: Duration::from_secs(90 * 86_400),
            max_bytes: 1 << 30,
        }
    }
}

impl Store {
    /// Where the file is: as it was named; else `$XDG_STATE_HOME/switchboard/switchboard.db` or, of root,
    /// `/var/lib/switchboard/switchboard.db`.
    pub fn place(&self) -> PathBuf {
        if !self.path.as_os_str().is_empty() {
            return self.path.clone();
        }
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let home = || absolute("HOME").map(|home| home.join(".local/state"));
        let folder = if rustix::process::geteuid().is_root() {
            absolute("XDG_STATE_HOME").unwrap_or_else(|| "/var/lib".into())
        } else {
            absolute("XDG_STATE_HOME")
                .or_else(home)
                .unwrap_or_else(|| "/var/lib".into())
        };
        folder.join("switchboard/switchboard.db")
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.retention < Duration::from_secs(3_600) {
            faults.push((
                "retention",
                "it is at least an hour, such as \"90d\"".into(),
            ));
        }
        if self.max_bytes < 1 << 20 {
            faults.push(("max_bytes", "it is at least 1MiB".into()));
        }
        faults
    }
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

/// The places that a process reads: the system's files, those of `--config`, its environment, `--set`.
///
/// # Errors
/// A variable of ours that is not text.
pub fn sources(files: &[PathBuf], sets: &[String]) -> Result<Sources, Problems> {
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        let ours = name.as_encoded_bytes().starts_with(VARIABLES);
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => environment.push((name, value)),
            // Others' variables may be what they like.
            (name, _) if ours => {
                let name = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
                let key = telemetry::escape(&name).into_owned();
                let message = "this variable is not UTF-8".to_owned();
                return Err(Problem::new(Reason::Unreadable, key, message, None).into());
            }
            _ => {}
        }
    }
    Ok(Sources {
        system: Some(SYSTEM.into()),
        files: files.to_vec(),
        environment,
        sets: sets.to_vec(),
        ..Sources::default()
    })
}

impl Settings {
    /// What a process is started with, without what was changed at run time.
    ///
    /// # Errors
    /// Every problem of every layer, and every value that cannot be obeyed.
    pub fn load(sources: &Sources) -> Result<Configured, Problems> {
        configure(&Layers::read(sources), &[], &[])
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
        part("store", self.store.check());
        part("telemetry", self.telemetry.check());
        for (name, spec) in &self.listeners {
            let wrong = spec.check().into_iter();
            faults.extend(wrong.map(|v| (format!("listeners.{name}.{}", v.field), v.description)));
        }
        faults
    }

    /// The same with every default filled in, as it is obeyed.
    pub fn resolved(&self) -> Self {
        let listeners = self.listeners.iter();
        let resolve = |(name, spec): (&ListenerName, &Spec)| (name.clone(), spec.resolved());
        let mut resolved = self.clone();
        resolved.store.path = self.store.place();
        resolved.listeners = listeners.map(resolve).collect();
        resolved
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

#[cfg(test)]
mod tests;
