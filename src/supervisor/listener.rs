//! One listener: what it should be, what it is, and what it counted. Changed only under the
//! supervisor's lock, by short steps that never wait.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use super::lifecycle::{Life, State};
use super::spec::{ListenerName, Spec};
use crate::config::Origin;
use crate::net::{
    BindError, Bounds, Closures, Counters, Door, DoorParts, Running, Totals, Transport,
    bind_datagram, bind_stream,
};
use crate::protocol::Built;
use crate::telemetry::{Labels, Telemetry};

/// A listener and its history.
pub(super) struct Listener {
    pub(super) name: ListenerName,
    pub(super) spec: Spec,
    pub(super) uid: String,
    pub(super) life: Life,
    pub(super) built: Built,
    pub(super) labels: Labels,
    pub(super) running: Option<Arc<Running>>,
    pub(super) draining: Option<Draining>,
    /// It is being deleted: nothing brings it up any more.
    pub(super) deleting: bool,
    pub(super) counters: Arc<Counters>,
    pub(super) closures: Arc<Closures>,
    pub(super) failure: Option<Failure>,
    pub(super) failures_in_a_row: u32,
    pub(super) origin: Option<Arc<Origin>>,
    pub(super) created: SystemTime,
    pub(super) updated: SystemTime,
    pub(super) started: Option<SystemTime>,
    pub(super) revision: u64,
}

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
    /// Where its definition stands; `None` when it was made at run time.
    pub origin: Option<Arc<Origin>>,
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
}

/// Reasons that turn a peer away, among all reasons that are counted.
pub const TURNED_AWAY: [&str; 5] = [
    "max_sessions",
    "per_source",
    "accept_rate",
    "denied",
    "descriptors",
];

impl Listener {
    pub(super) fn new(name: ListenerName, spec: Spec, origin: Option<Arc<Origin>>) -> Self {
        let now = SystemTime::now();
        Self {
            labels: Labels {
                listener: name.as_str().into(),
                protocol: spec.protocol.word(),
                transport: spec.protocol.transport().word(),
            },
            built: spec.protocol.build(),
            uid: format!("{:016x}", RandomState::new().hash_one((&name, now))),
            name,
            spec,
            life: Life::STOPPED,
            running: None,
            draining: None,
            deleting: false,
            counters: Arc::default(),
            closures: Arc::default(),
            failure: None,
            failures_in_a_row: 0,
            origin,
            created: now,
            updated: now,
            started: None,
            revision: 1,
        }
    }

    /// Binds and serves. Must be called within the runtime.
    pub(super) fn run(
        &self,
        telemetry: &Telemetry,
        most_sessions: usize,
    ) -> Result<Running, BindError> {
        let bounds = self.bounds(most_sessions);
        let bound = bind(&self.spec, &bounds)?;
        let address = bound.address();
        let door = Door::new(DoorParts {
            labels: self.labels.clone(),
            bounds,
            handler: self.built.handler.clone(),
            counters: self.counters.clone(),
            closures: self.closures.clone(),
            telemetry: telemetry.clone(),
        });
        Running::start(door, bound).map_err(|source| BindError { address, source })
    }

    /// What is obeyed: never more sessions than there are descriptors.
    pub(super) fn bounds(&self, most_sessions: usize) -> Bounds {
        let transport = self.spec.protocol.transport();
        let mut bounds = self.spec.limits.bounds(transport);
        if transport == Transport::Tcp {
            bounds.max_sessions = bounds.max_sessions.min(most_sessions);
        }
        bounds
    }

    pub(super) fn etag(&self) -> String {
        format!("{}-{}", &self.uid[..8], self.revision)
    }

    /// How long until the next try: doubled each time, from half a second to half a minute.
    pub(super) fn back_off(&self) -> Duration {
        let doubled =
            Duration::from_millis(500) * 2u32.saturating_pow(self.failures_in_a_row.min(6));
        doubled.min(Duration::from_secs(30))
    }

    /// Notes a failure. A try that was planned stays planned.
    pub(super) fn fail(&mut self, error: &BindError, again_after: Option<Duration>) {
        let now = SystemTime::now();
        let failed = self.life.state == State::Failed;
        let planned = self
            .failure
            .take()
            .filter(|_| failed)
            .and_then(|f| f.next_try);
        self.failures_in_a_row += 1;
        self.failure = Some(Failure {
            reason: error.reason(),
            message: error.to_string(),
            at: now,
            next_try: again_after.map(|wait| now + wait).or(planned),
        });
    }

    pub(super) fn status(&self, most_sessions: usize) -> Status {
        let door = self.running.as_ref().map(|r| &r.door);
        Status {
            active_sessions: door.map_or(0, |door| door.sessions.count()),
            max_sessions: self.bounds(most_sessions).max_sessions,
            accepted: self.counters.accepted.load(Ordering::Relaxed),
            accept_errors: self.counters.accept_errors.load(Ordering::Relaxed),
            refused: self.counters.refusals(),
            totals: door.map_or_else(|| self.counters.ended.totals(), |door| door.totals()),
        }
    }

    pub(super) fn view(&self, most_sessions: usize) -> View {
        View {
            name: self.name.clone(),
            uid: self.uid.clone(),
            spec: self.spec.clone(),
            life: self.life,
            bound: self.running.as_ref().map(|r| r.address),
            draining: self.draining.clone(),
            failure: self.failure.clone(),
            origin: self.origin.clone(),
            created: self.created,
            updated: self.updated,
            started: self.started,
            etag: self.etag(),
            status: self.status(most_sessions),
        }
    }

    /// How many conversations wait at its desk, and the longest wait.
    pub(super) fn waiting(&self) -> Option<(usize, Duration)> {
        self.built.desk.as_ref().map(|desk| desk.waiting())
    }

    /// Bytes that wait for peers to read.
    pub(super) fn queued_bytes(&self) -> usize {
        let mut sum = 0;
        if let Some(running) = &self.running {
            running
                .door
                .sessions
                .each(|session| sum += session.queued_bytes());
        }
        sum
    }
}

/// Binds as `spec` asks.
pub(super) fn bind(spec: &Spec, bounds: &Bounds) -> Result<crate::net::Bound, BindError> {
    match spec.protocol.transport() {
        Transport::Tcp => bind_stream(spec.bind, bounds.accept_backlog),
        Transport::Udp => bind_datagram(spec.bind),
    }
}

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

/// When a drain is over: its time is up, or somebody insists.
pub(super) async fn over(deadline: Instant, insist: CancellationToken, cut: CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep_until(deadline.into()) => {}
        () = insist.cancelled() => {}
        () = cut.cancelled() => {}
    }
}
