//! A listener as callers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use super::lifecycle::Life;
use super::spec::{ListenerName, Spec};
use crate::cage::Offer;
use crate::config::Origin;
use crate::net::{AcceptQueue, PauseMode, Totals};

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Listeners, whatever becomes of them.
    pub listeners: usize,
    /// Those that let peers in.
    pub serving: usize,
    /// Sessions of all of them.
    pub sessions: usize,
}

/// The last drain of a listener, until that takes peers again.
#[derive(Debug, Clone)]
pub struct Draining {
    /// When it began.
    pub began: SystemTime,
    /// When what is left will be cut.
    pub deadline: SystemTime,
    /// When it was over, if it is.
    pub ended: Option<SystemTime>,
    /// Sessions that were open when it began.
    pub sessions_at_start: usize,
    /// Sessions that it has cut.
    pub cut: Arc<AtomicUsize>,
    /// What the caller said.
    pub reason: String,
    /// How new peers are kept away; the port is given away at once where there is none.
    pub mode: Option<PauseMode>,
    /// Somebody asked for it by name, and may look at what it came to.
    pub(super) is_told: bool,
    pub(super) since: Instant,
    /// Ends it at once: what is left is cut.
    pub(super) insist: CancellationToken,
    /// Leaves off: who is left stays.
    pub(super) leave_off: CancellationToken,
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
    /// How new peers are kept away, while they are.
    pub pause_mode: Option<PauseMode>,
    /// Its last drain, until it takes peers again.
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
    /// What its commands are held in, or what the host offered when that was too little; none before it is known.
    pub offer: Option<Arc<Offer>>,
    /// It serves, and cannot do what it is there for: `failure` says why.
    pub ailing: bool,
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
pub const TURNED_AWAY: [&str; 8] = [
    "paused",
    "draining",
    "max_sessions",
    "per_source",
    "accept_rate",
    "denied",
    "banned",
    "descriptors",
];

/// Far enough away for whoever asks for ages.
pub(super) const LONGEST_GRACE: Duration = Duration::from_secs(365 * 86_400);

impl Draining {
    pub(super) fn new(
        grace: Duration,
        sessions_at_start: usize,
        reason: String,
        mode: Option<PauseMode>,
    ) -> Self {
        let began = SystemTime::now();
        Self {
            began,
            deadline: began + grace.min(LONGEST_GRACE),
            ended: None,
            sessions_at_start,
            cut: Arc::default(),
            reason,
            mode,
            is_told: mode.is_some(),
            since: Instant::now(),
            insist: CancellationToken::new(),
            leave_off: CancellationToken::new(),
        }
    }

    /// How it ended, in the metrics' word.
    pub(super) fn outcome(&self) -> &'static str {
        match self.cut.load(Ordering::Relaxed) {
            0 => "completed",
            _ => "deadline",
        }
    }
}
