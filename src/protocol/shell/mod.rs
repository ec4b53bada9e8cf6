//! The framed shell: one message is one command, one frame is its answer.
//!
//! ```text
//! message ─▶ policy::plan ─▶ exec::run ─▶ frame::encode ─▶ one flow of writes
//!              │ refused        │ timed out, cut, …
//!              └────────────────┴──▶ a whole frame with the reason
//! ```

mod cage;
mod doubts;
mod exec;
mod frame;
mod handler;
mod launched;
mod launcher;
mod output;
mod policy;
mod running;
mod sandbox;
mod trail;
mod transcode;
mod turns;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Built, Fault, Ground, Shared};
use crate::cage::{Isolation, Offer};
use crate::config::{Scope, duration, size};
use crate::net::{Address, Framing, Handler, Limits};

pub use cage::Cage;
pub use launcher::Launcher;
pub use sandbox::Sandbox;
use trail::Trail;
pub(super) use turns::Turns;

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
    /// Runs commands also while they cannot be entered in the audit trail.
    pub audit_best_effort: bool,
    /// Serves in clear text on an address that is not loopback.
    pub allow_cleartext: bool,
    /// How long a command may wait for its turn. Default 5 s.
    #[serde(with = "duration::option")]
    pub queue_timeout: Option<Duration>,
    /// What a command is held in.
    pub sandbox: Box<Sandbox>,
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
    /// When a change of each key takes effect.
    pub const SCOPES: &[(&str, Scope)] = &[
        ("policy", Scope::NewSessions),
        ("programs", Scope::NewSessions),
        ("command_timeout", Scope::NewSessions),
        ("max_output_bytes", Scope::NewSessions),
        ("linger", Scope::NewSessions),
        ("filename", Scope::NewSessions),
        ("output_encoding", Scope::NewSessions),
        ("framing", Scope::NewSessions),
        ("raw_quiet", Scope::NewSessions),
        ("wait_for_background", Scope::NewSessions),
        ("audit_best_effort", Scope::NewSessions),
        // Only asked for when the settings are checked.
        ("allow_cleartext", Scope::Live),
        ("queue_timeout", Scope::NewSessions),
        // A session keeps the cage that it began with: what makes another takes another launcher.
        ("sandbox.run_as", Scope::NewSessions),
        ("sandbox.working_directory", Scope::NewSessions),
        ("sandbox.environment", Scope::NewSessions),
        ("sandbox.readable", Scope::NewSessions),
        ("sandbox.writable", Scope::NewSessions),
        ("sandbox.network", Scope::NewSessions),
        ("sandbox.max_memory_bytes", Scope::NewSessions),
        ("sandbox.max_processes", Scope::NewSessions),
        ("sandbox.max_open_files", Scope::NewSessions),
        ("sandbox.max_cpu_time", Scope::NewSessions),
        // All sessions wait for the same turns.
        ("sandbox.max_concurrent_commands", Scope::Live),
        ("sandbox.min_isolation", Scope::NewSessions),
        ("sandbox.isolation", Scope::NewSessions),
    ];

    /// The same with every default written out.
    pub(super) fn resolved(&self) -> Self {
        let mut resolved = self.clone();
        or(&mut resolved.command_timeout, Duration::from_secs(30));
        or(&mut resolved.max_output_bytes, 64 << 20);
        // The header's length is a signed 32-bit number for old clients.
        resolved.max_output_bytes = resolved.max_output_bytes.min(i32::MAX as u64);
        resolved.linger.get_or_insert(LINGER);
        or(&mut resolved.filename, "cls.avi".into());
        resolved.queue_timeout.get_or_insert(QUEUE_TIMEOUT);
        resolved.sandbox = Box::new(self.sandbox.resolved());
        resolved
    }

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
            let named = Path::new(program).file_name().is_some() && !program.contains('\0');
            if !named || (program.contains('/') && !program.starts_with('/')) {
                let shown = program.escape_debug();
                let rule = format!("`{shown}` is neither an absolute path nor a program's name");
                faults.push(("programs", rule));
            }
        }
        faults.extend(self.sandbox.check());
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

/// What this host offers a shell's commands when nothing is asked for.
///
/// # Errors
/// Why that cannot be told.
pub async fn host_offer() -> Result<Offer, String> {
    let (profile, _) = Sandbox::default().profile("");
    // Whatever it is, it is no less than was asked for.
    match Launcher::new(profile, Isolation::None).prepare().await {
        Cage::Ready(offer) | Cage::Unfit { offer, .. } => Ok(offer),
        broken => Err(broken.to_string()),
    }
}

const LINGER: Duration = Duration::from_millis(100);
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Puts `default` in the place of nothing.
fn or<T: Default + PartialEq>(asked: &mut T, default: T) {
    if *asked == T::default() {
        *asked = default;
    }
}

/// What all sessions of a listener share, whichever settings they began with.
#[derive(Clone)]
pub(super) struct Commands {
    turns: Arc<Turns>,
    /// Runs the commands of new sessions; those of older sessions may have another.
    pub(super) launcher: Arc<Launcher>,
}

/// Makes it ready to run. Sessions of the settings before wait for the same turns.
pub(super) fn build(settings: &Settings, ground: &Ground, before: Option<&Built>) -> Built {
    let commands = before.and_then(Built::commands);
    let launcher = commands.map(|commands| commands.launcher.clone());
    make(settings, ground, commands, launcher)
}

/// The same with a launcher that is yet to be started.
pub(super) fn rested(settings: &Settings, ground: &Ground, before: &Built) -> Built {
    make(settings, ground, before.commands(), None)
}

fn make(
    settings: &Settings,
    ground: &Ground,
    before: Option<&Commands>,
    launcher: Option<Arc<Launcher>>,
) -> Built {
    let settings = settings.resolved();
    let turns = before
        .map(|before| before.turns.clone())
        .unwrap_or_default();
    turns.set_most(settings.sandbox.max_concurrent_commands as usize);
    let (profile, minimum) = settings.sandbox.profile(&ground.listener);
    let launcher = launcher
        .filter(|launcher| launcher.serves(&profile, minimum))
        .unwrap_or_else(|| Arc::new(Launcher::new(profile, minimum)));
    let commands = Commands { turns, launcher };
    let trail = Trail::new(ground, settings.audit_best_effort);
    let shell = handler::Shell::new(settings, commands.clone(), trail);
    Built {
        handler: Handler::Stream(Arc::new(shell)),
        desk: None,
        shared: Shared::Commands(commands),
    }
}
