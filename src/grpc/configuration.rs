//! What the control plane asks of whoever owns the configuration. It is a trait because the owner stands above: it puts
//! the whole file's shape together, and the settings of this folder are part of that.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tonic::async_trait;

use crate::config::{Format, Origin, Problems, Scope, Shadow, to_value};
use crate::net::PauseMode;
use crate::store::Answer;
use crate::supervisor::{Asked, Desired, Drain, Error, ListenerName, Moment, Spec, View};
use crate::telemetry::{Concerns, Trace};

/// Changes what should be, and tells it. Every change is made by one owner, one after the other, wholly or not at all,
/// whether or not its caller still waits.
#[async_trait]
pub trait Configuration: Send + Sync {
    /// Defines a listener.
    async fn create(&self, creation: Creation, caller: Caller) -> Result<Changed, Error>;
    /// Changes fields of one.
    async fn update(&self, update: Update, caller: Caller) -> Result<Changed, Error>;
    /// Has one serve, or not. One that is to stop has stopped when it resolves; a drain has begun.
    async fn set_desired(&self, wish: Wish, caller: Caller) -> Result<View, Error>;
    /// Forgets one. Resolves once its sessions have gone.
    async fn delete(&self, deletion: Deletion, caller: Caller) -> Result<(), Error>;
    /// Tells what is in force from what is not, in any process. Waits for nobody.
    fn revision(&self) -> String;
    /// What is in force, key by key.
    async fn effective(&self) -> Result<Effective, Error>;
    /// What would be refused of the files on disk, or of a document in their place, and what would not have its whole
    /// effect.
    async fn validate(
        &self,
        document: Option<(String, Format)>,
    ) -> Result<(Option<Problems>, Vec<Warning>), Error>;
    /// What differs between two sides.
    async fn diff(&self, from: Side, to: Side) -> Result<Vec<Changing>, Error>;
    /// Reads the files again and makes it so.
    async fn reload(&self, options: ReloadOptions) -> Result<Reloaded, Error>;
    /// What is in force as one document.
    async fn export(&self, format: Format, include_runtime_state: bool) -> Result<String, Error>;
}

/// Whether a change outlives the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Persistence {
    /// As what it changes: durable, unless that is ephemeral.
    #[default]
    Unspecified,
    /// Until the process ends, over all layers.
    Ephemeral,
    /// On disk before the call is answered.
    Durable,
}

/// Who asks, for the record.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Where from.
    pub actor: String,
    /// The method, such as `StopListener`.
    pub method: &'static str,
    /// What the caller says about it.
    pub reason: String,
    /// Where the call is traced, with a span or without one.
    pub trace: Trace,
    /// Where to say which sessions the call is about.
    pub concerns: Concerns,
    /// What is kept with the change, so that a call which gave itself an id makes it once.
    pub done: Option<Answer>,
}

/// A listener to be made.
#[derive(Debug, Clone)]
pub struct Creation {
    /// Its name.
    pub name: ListenerName,
    /// What it should be.
    pub spec: Spec,
    /// Whether it outlives the process.
    pub persistence: Persistence,
    /// Only check, with a trial bind.
    pub validate_only: bool,
}

/// Fields of a listener to be changed.
#[derive(Debug, Clone)]
pub struct Update {
    /// Whose.
    pub name: String,
    /// Each field's path within the listener, as in files, and its value; null for the default.
    pub fields: Vec<(Vec<String>, Value)>,
    /// Only if the listener still has this etag; empty for any.
    pub etag: String,
    /// Whether the change outlives the process.
    pub persistence: Persistence,
    /// Only check, with a trial bind.
    pub validate_only: bool,
}

/// What somebody wants of a listener.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Which.
    pub name: String,
    /// To serve, or not, and how.
    pub verb: Verb,
    /// Only if the listener still has this etag; empty for any.
    pub etag: String,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// To serve.
    Start,
    /// Not to serve.
    Stop {
        /// How long its sessions may take to leave; unset for the process's own.
        grace: Option<Duration>,
    },
    /// To let nobody new in.
    Pause {
        /// How they are kept away.
        mode: PauseMode,
        /// When that ends by itself.
        until: Option<Moment>,
    },
    /// To take a pause or a drain back.
    Resume,
    /// To have its sessions leave.
    Drain {
        /// How; a deadline that is unset is the process's grace, or as long as the pace.
        deadline: Option<Duration>,
        /// As [`Drain::pace_over`].
        pace_over: Option<Duration>,
        /// As [`Drain::idle_first`].
        idle_first: bool,
        /// How new peers are kept away.
        mode: PauseMode,
        /// To be paused then, and not stopped.
        pauses: bool,
    },
}

impl Verb {
    /// The keys of a listener that mean something while it is paused only.
    pub const OF_A_PAUSE: [&'static str; 2] = ["pause_mode", "resume_time"];

    /// What the listener's keys say from then on; null for none.
    pub fn keys(&self) -> Vec<(&'static str, Value)> {
        let (desired, mode, until) = match *self {
            Self::Start | Self::Resume => (Desired::Active, None, None),
            Self::Stop { .. } | Self::Drain { pauses: false, .. } => (Desired::Stopped, None, None),
            Self::Pause { mode, until } => (Desired::Paused, Some(mode), until),
            Self::Drain { mode, .. } => (Desired::Paused, Some(mode), None),
        };
        let until = until.map_or(Value::Null, |until| to_value(&until));
        let [of_mode, of_time] = Self::OF_A_PAUSE;
        vec![
            ("desired_state", to_value(&desired)),
            (of_mode, to_value(&mode.unwrap_or_default())),
            (of_time, until),
        ]
    }

    /// The same as the supervisor has it.
    pub fn asked(&self, grace: Duration) -> Asked {
        match *self {
            Self::Start => Asked::Start,
            Self::Stop { .. } => Asked::Stop,
            Self::Pause { .. } => Asked::Pause,
            Self::Resume => Asked::Resume,
            Self::Drain {
                deadline,
                pace_over,
                idle_first,
                mode,
                ..
            } => Asked::Drain(Drain {
                deadline: deadline.unwrap_or_else(|| grace.max(pace_over.unwrap_or_default())),
                pace_over,
                idle_first,
                mode,
            }),
        }
    }
}

/// A listener to be forgotten.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// Which.
    pub name: String,
    /// Only if the listener still has this etag; empty for any.
    pub etag: String,
    /// Also when it serves: its sessions are cut.
    pub force: bool,
    /// Only check.
    pub validate_only: bool,
}

/// A listener after a change.
#[derive(Debug, Clone)]
pub struct Changed {
    /// As it is now, or would be.
    pub view: View,
    /// The keys that changed, within the listener and as in files, and when each takes effect.
    pub effects: Vec<(String, Scope)>,
    /// What does not have its whole effect.
    pub warnings: Vec<Warning>,
}

/// Something that was taken and does not have the whole effect that one may expect.
#[derive(Debug, Clone, PartialEq)]
pub struct Warning {
    /// The key that it is about.
    pub key: String,
    /// A word for scripts.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What hides the value, if something does.
    pub pinned_by: Option<Arc<Origin>>,
}

/// Everything in force.
#[derive(Debug, Clone)]
pub struct Effective {
    /// In the order of the keys.
    pub settings: Vec<SettingRow>,
    /// The same for the same configuration.
    pub revision: String,
}

/// One value in force; secrets are redacted.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingRow {
    /// Its key.
    pub key: String,
    /// As a file would say it.
    pub value: Value,
    /// What set it.
    pub origin: Arc<Origin>,
    /// What that hides, nearest first.
    pub shadows: Vec<Shadow>,
    /// When a change of it takes effect.
    pub scope: Scope,
    /// A restart would give another.
    pub drifted: bool,
}

/// What can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What is in force.
    Running,
    /// What the files on disk say.
    Files,
    /// What would be in force after a restart.
    AfterRestart,
}

/// One key that differs; secrets are redacted.
#[derive(Debug, Clone, PartialEq)]
pub struct Changing {
    /// The key.
    pub key: String,
    /// Before, if there is something.
    pub from: Option<Value>,
    /// After, if there is something.
    pub to: Option<Value>,
    /// When it takes effect.
    pub scope: Scope,
    /// Sessions that the change ends.
    pub sessions: usize,
}

/// How to reload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReloadOptions {
    /// Only say what would change.
    pub validate_only: bool,
    /// Refuse if a session would end.
    pub keep_sessions: bool,
}

/// What a reload changed.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// As [`Effective::revision`], afterwards.
    pub revision: String,
    /// In the order of the keys.
    pub changes: Vec<Changing>,
    /// What does not have its whole effect.
    pub warnings: Vec<Warning>,
}
