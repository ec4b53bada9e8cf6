//! When a changed setting takes effect.
//!
//! The words alone: which setting has which is said beside the code that obeys it.

/// How far the change of a setting reaches, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// At once, live sessions included.
    Live,
    /// For what begins from now on; live sessions keep what they began with.
    NewSessions,
    /// Only once the socket has been closed and bound again; its sessions end.
    Rebind,
    /// Only once the process has been started again.
    Restart,
}

impl Scope {
    /// The word for people and scripts: `live`, `new_sessions`, `rebind`, `restart`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::NewSessions => "new_sessions",
            Self::Rebind => "rebind",
            Self::Restart => "restart",
        }
    }
}
