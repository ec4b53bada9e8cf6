//! A listener as callers see it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::lifecycle::Life;
use super::spec::{ListenerName, Spec};
use crate::config::Origin;
use crate::net::{AcceptQueue, Totals};

/// A drain under way.
#[derive(Debug, Clone)]
pub struct Draining {
    /// When it began.
    pub began: SystemTime,
    /// When what is left will be cut.
    pub deadline: SystemTime,
    /// Sessions that were open then.
    pub sessions_at_start: usize,
    /// What the caller said.
    pub reason: String,
    pub(super) insist: CancellationToken,
}

/// Why a listener does not serve.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The word, as in errors.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// When.
    pub at: SystemTime,
    /// When it is tried again, if it is.
    pub next_try: Option<SystemTime>,
}

/// A listener as callers see it.
#[derive(Debug, Clone)]
pub struct View {
    /// Its name.
    pub name: ListenerName,
    /// New for every create.
    pub uid: String,
    /// What it should be.
    pub spec: Spec,
    /// What it is.
    pub life: Life,
    /// Where it really listens.
    pub bound: Option<std::net::SocketAddr>,
    /// Its drain, if one is under way.
    pub draining: Option<Draining>,
    /// The last failure, until the next success.
    pub failure: Option<Failure>,
    /// Where its definition stands.
    pub origin: Arc<Origin>,
    /// Why it should serve, or not, when a call said so.
    pub why: String,
    /// It is on its way out for good.
    pub deleting: bool,
    /// When it was made.
    pub created: SystemTime,
    /// When its definition last changed.
    pub updated: SystemTime,
    /// When it last began to serve.
    pub started: Option<SystemTime>,
    /// Changes with every change of its definition or of what is wanted.
    pub etag: String,
    /// What it counted.
    pub status: Status,
}

/// What a listener counted since this process defined it.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Sessions that are open.
    pub active_sessions: usize,
    /// Sessions that may be open.
    pub max_sessions: usize,
    /// Connections and UDP peers that came, refused ones included.
    pub accepted: u64,
    /// Failed calls of accept.
    pub accept_errors: u64,
    /// Refused and dropped, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Messages and bytes, both ways.
    pub totals: Totals,
    /// Who waits to be accepted; none over UDP, and while none may come.
    pub accept_queue: Option<AcceptQueue>,
    /// Datagrams that the kernel dropped for want of room; none off UDP, and where it does not tell.
    pub kernel_drops: Option<u64>,
}

/// Reasons that turn a peer away, among all reasons that are counted.
pub const TURNED_AWAY: [&str; 5] = [
    "max_sessions",
    "per_source",
    "accept_rate",
    "denied",
    "descriptors",
];

/// Far enough away for whoever asks for ages.
pub(super) const LONGEST_GRACE: Duration = Duration::from_secs(365 * 86_400);

impl Draining {
    pub(super) fn new(grace: Duration, sessions_at_start: usize, reason: String) -> Self {
        let began = SystemTime::now();
        Self {
            began,
            deadline: began + grace.min(LONGEST_GRACE),
            sessions_at_start,
            reason,
            insist: CancellationToken::new(),
        }
    }
}
