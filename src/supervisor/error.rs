//! Why the supervisor refuses: one enum for every caller. The gRPC status table and the exit codes
//! are made from it and from nothing else.

use std::fmt;
use std::sync::Arc;

use super::lifecycle::{Denied, State};
use super::spec::{ListenerName, Violation, shown};
use crate::config::{Origin, Problems};
use crate::net::{BindError, TooManyTaps};
use crate::store::WriteError;

/// A refusal. Its text may be read by any caller.
#[derive(Debug)]
pub enum Error {
    /// No listener of this name.
    NoListener(String),
    /// No session of this name, open or lately closed.
    NoSession(String),
    /// The session of this name has closed.
    SessionClosed(String),
    /// There are as many taps as there may be.
    TooManyTaps(TooManyTaps),
    /// The name is taken.
    Exists(String),
    /// Fields that cannot be obeyed; all of them.
    Invalid(Vec<Violation>),
    /// The address cannot be had.
    Bind(BindError),
    /// The listener's state does not allow it.
    Denied {
        /// Whose.
        listener: String,
        /// The state that it is in.
        state: State,
        /// What is in the way.
        denied: Denied,
        /// Sessions that are open.
        sessions: usize,
    },
    /// It has changed since the caller looked.
    Etag {
        /// What the caller had.
        given: String,
        /// What is.
        current: String,
    },
    /// The right to run commands is not given to callers.
    ShellForbidden,
    /// A higher layer sets the key: the change would be hidden, now or after a restart.
    Pinned {
        /// The key.
        key: String,
        /// What sets it.
        origin: Arc<Origin>,
    },
    /// A change that is to be kept, of a listener that is not.
    Ephemeral(String),
    /// A change that is to be kept, and a store that keeps nothing.
    StoreInMemory,
    /// There are as many listeners as there may be.
    TooMany(usize),
    /// There are as many bans as there may be.
    TooManyBans(usize),
    /// The store did not take the change, so it was not made.
    NotKept(WriteError),
    /// The files are wrong; all that is.
    Configuration(Problems),
    /// A reload that must not end sessions would.
    WouldClose {
        /// How many.
        sessions: usize,
        /// Whose.
        listeners: Vec<ListenerName>,
    },
    /// The process is shutting down.
    Stopping,
    /// The listener has no desk.
    NoDesk(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoListener(name) => write!(f, "there is no listener `{}`", shown(name)),
            Self::NoSession(name) => {
                write!(
                    f,
                    "there is no session `{}`, and none of this name closed lately",
                    shown(name)
                )
            }
            Self::SessionClosed(name) => write!(f, "session `{}` has closed", shown(name)),
            Self::TooManyTaps(too_many) => too_many.fmt(f),
            Self::Exists(name) => write!(f, "there is a listener `{name}` already"),
            Self::Invalid(violations) => {
                let all: Vec<_> = violations
                    .iter()
                    .map(|v| format!("{}: {}", v.field, v.description))
                    .collect();
                f.write_str(&all.join("; "))
            }
            Self::Bind(error) => error.fmt(f),
            Self::Denied {
                listener,
                state,
                denied,
                ..
            } => {
                write!(f, "listener `{listener}` is {}: {denied}", state.word())
            }
            Self::Etag { given, current } => {
                write!(
                    f,
                    "the listener has changed: its etag is {current}, not {}; look again",
                    shown(given)
                )
            }
            Self::ShellForbidden => f.write_str(
                "shell listeners are made in configuration files only, since they run commands; \
                 `[grpc] allow_shell = true` allows it here",
            ),
            Self::Stopping => f.write_str("the service is shutting down"),
            Self::NoDesk(name) => {
                write!(
                    f,
                    "listener `{name}` has no desk; only chat listeners with mode \"desk\" do"
                )
            }
            change => change.fmt_change(f),
        }
    }
}

impl Error {
    /// What is in the way of a change.
    fn fmt_change(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned { key, origin } => {
                let layer = origin.layer.word();
                write!(
                    f,
                    "{key} is set by a higher layer ({layer}: {origin}), which would hide the change; change it there, or \
                     ask for an ephemeral change"
                )
            }
            Self::Ephemeral(name) => write!(
                f,
                "listener `{name}` is ephemeral, so no change of it can be kept; make it anew as a durable one"
            ),
            Self::StoreInMemory => {
                f.write_str("the store is in memory and keeps nothing; set store.path to a file")
            }
            Self::TooMany(most) => write!(
                f,
                "there are {most} listeners, and no more are made by calls; delete some first"
            ),
            Self::TooManyBans(most) => {
                write!(
                    f,
                    "there are {most} bans, and no more are taken; lift some first, or ban wider networks"
                )
            }
            Self::NotKept(error) => write!(f, "nothing was changed: {error}"),
            Self::Configuration(problems) => write!(f, "nothing was changed: {problems}"),
            Self::WouldClose {
                sessions,
                listeners,
            } => {
                let names: Vec<_> = listeners.iter().map(ListenerName::as_str).collect();
                write!(
                    f,
                    "nothing was changed: {sessions} sessions would end, of {}",
                    names.join(", ")
                )
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
