//! The framed shell: one message is one command, one frame is its answer.
//!
//! ```text
//! message ─▶ policy::plan ─▶ exec::run ─▶ frame::encode ─▶ one flow of writes
//!              │ refused        │ timed out, cut, …
//!              └────────────────┴──▶ a whole frame with the reason
//! ```

mod exec;
mod frame;
mod handler;
mod policy;
mod transcode;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Fault;
use crate::config::{duration, size};
use crate::net::{Address, Framing, Handler, Limits};

/// What a shell listener is told. Zero and empty mean the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which commands are run.
    pub policy: Policy,
    /// Absolute paths, or names that are looked up in [`PATH`]; with `policy = "programs"`.
    pub programs: Vec<String>,
    /// How long a command may run. Default 30 s.
    #[serde(with = "duration")]
    pub command_timeout: Duration,
    /// Output past which a command is ended. Default 64 MiB.
    #[serde(with = "size")]
    pub max_output_bytes: u64,
    /// How long output of background children is waited for. Default 100 ms.
    #[serde(with = "duration::option")]
    pub linger: Option<Duration>,
    /// The `filename` of the header. Default `cls.avi`.
    pub filename: String,
    /// The encoding that UTF-8 output is sent in; empty sends it as it came.
    pub output_encoding: String,
    /// How messages are cut.
    pub framing: Framing,
    /// With raw framing: how long the line must be quiet before what has come is one command.
    #[serde(with = "duration")]
    pub raw_quiet: Duration,
    /// Waits for background children to close their output, instead of ending them.
    pub wait_for_background: bool,
    /// Serves in clear text on an address that is not loopback.
    pub allow_cleartext: bool,
    /// How long a command may wait for its turn. Default 5 s.
    #[serde(with = "duration::option")]
    pub queue_timeout: Option<Duration>,
    /// What a command is held in.
    pub sandbox: Sandbox,
}

/// What a command is held in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// Where commands start. Default `/`.
    pub working_directory: PathBuf,
    /// Only these variables, and `PATH`, reach a command.
    pub environment: BTreeMap<String, String>,
    /// Commands at once. Default 4 a core.
    pub max_concurrent_commands: u32,
}

/// Which commands are run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The programs named in `programs`, without a shell.
    #[default]
    Programs,
    /// Any command line, through `/bin/sh -c`.
    Any,
}

/// Where programs are looked up, and the `PATH` of every command.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Old clients read the header with one `recv`, and the file system ends names there.
const MAX_FILENAME: usize = 255;

impl Settings {
    /// What cannot be obeyed.
    pub(super) fn check(&self, bind: Address, limits: &Limits) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.filename.len() > MAX_FILENAME || self.filename.contains(char::is_control) {
            let rule =
                format!("a file name has at most {MAX_FILENAME} bytes and no control characters");
            faults.push(("filename", rule));
        }
        if let Err(fault) = transcode::encoding(&self.output_encoding) {
            faults.push(("output_encoding", fault));
        }
        if self.policy == Policy::Any && !self.programs.is_empty() {
            let rule =
                "programs are only asked for with policy \"programs\"; \"any\" runs everything";
            faults.push(("programs", rule.into()));
        }
        for program in &self.programs {
            if program.is_empty() || (program.contains('/') && !program.starts_with('/')) {
                let rule = format!("`{program}` is neither an absolute path nor a program's name");
                faults.push(("programs", rule));
            }
        }
        if !bind.is_loopback() {
            if !self.allow_cleartext {
                let rule = format!(
                    "a shell on {bind} would be open to the network in clear text; bind it to loopback, \
                     or set allow_cleartext and limits.allow_cidrs"
                );
                faults.push(("bind", rule));
            }
            if limits.allow_cidrs.is_empty() {
                let rule = format!("a shell on {bind} needs the networks that may come in");
                faults.push(("limits.allow_cidrs", rule));
            }
        }
        faults
    }
}

/// Makes it ready to run.
pub(super) fn handler(settings: &Settings) -> Handler {
    Handler::Stream(Arc::new(handler::Shell::new(settings)))
}
