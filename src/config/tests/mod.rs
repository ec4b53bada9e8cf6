//! What the configuration promises, on settings of the shape that the product's have.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod changes;
mod keys;
mod layers;
mod places;
mod problems;
mod strict;
mod tagged;
mod values;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{Loaded, Problems, Sources, duration, load, size};

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    pub(super) node: Node,
    pub(super) grpc: Grpc,
    pub(super) grace: Grace,
    pub(super) listeners: BTreeMap<String, Listener>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) weight: f64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Grpc {
    pub(super) address: SocketAddr,
    pub(super) allow_shell: bool,
    pub(super) ports: Vec<u16>,
    pub(super) comment: Option<String>,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:50051".parse().unwrap(),
            allow_shell: false,
            ports: Vec::new(),
            comment: None,
        }
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Grace {
    #[serde(with = "duration")]
    pub(super) stop: Duration,
    #[serde(with = "duration::option")]
    pub(super) cut: Option<Duration>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Listener {
    pub(super) bind: String,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(rename = "$protocol")]
    pub(super) protocol: Protocol,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    pub(super) max_sessions: u32,
    #[serde(with = "size")]
    pub(super) max_message_bytes: u32,
    pub(super) rate: f64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    Ack,
    Uppercase(Uppercase),
    Shell {
        policy: Policy,
        #[serde(default)]
        programs: Vec<String>,
    },
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Uppercase {
    pub(super) encoding: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Policy {
    Any,
    Programs,
}

/// Files in a directory of their own.
pub(super) struct Place(TempDir);

impl Place {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let place = Self(TempDir::new().unwrap());
        for (name, text) in files {
            place.write(name, text.as_bytes());
        }
        place
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn sources(&self, names: &[&str]) -> Sources {
        Sources {
            files: names.iter().map(|name| self.path(name)).collect(),
            ..Sources::default()
        }
    }

    /// What is wrong, one line each, with the directory cut from the paths.
    pub(super) fn complaints(&self, sources: &Sources) -> Vec<String> {
        let problems = load::<Settings>(sources).expect_err("something is wrong");
        let directory = format!("{}/", self.0.path().display());
        let text = problems.to_string().replace(&directory, "");
        text.lines().map(str::to_owned).collect()
    }
}

pub(super) fn read(toml: &str) -> Result<Loaded<Settings>, Problems> {
    let place = Place::new(&[("a.toml", toml)]);
    load(&place.sources(&["a.toml"]))
}

pub(super) fn complaints(toml: &str) -> Vec<String> {
    let place = Place::new(&[("a.toml", toml)]);
    place.complaints(&place.sources(&["a.toml"]))
}

pub(super) fn outside(environment: &[(&str, &str)], sets: &[&str]) -> Sources {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Sources {
        environment: environment.iter().map(owned).collect(),
        sets: sets.iter().map(|&set| set.to_owned()).collect(),
        ..Sources::default()
    }
}
