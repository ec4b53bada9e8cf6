//! One listener: what it should be, what it is, and what it counted. Changed only under the
//! supervisor's lock, by short steps that never wait.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use super::bind;
use super::cage::Followed;
use super::feed::Feeds;
use super::lifecycle::{Life, State};
use super::spec::{ListenerName, Spec};
use super::view::{Draining, Failure, Status, View};
use crate::config::{Layer, Origin};
use crate::net::{
    Bans, BindError, Bound, Bounds, Closures, Counters, Door, DoorParts, PauseMode, Running,
    Transport,
};
use crate::protocol::{Built, Ground};
use crate::telemetry::{Labels, Telemetry};

/// A listener and its history.
pub(super) struct Listener {
    pub(super) name: ListenerName,
    pub(super) spec: Spec,
    pub(super) uid: String,
    pub(super) life: Life,
    pub(super) built: Built,
    /// How the cage of its commands fares, if it runs any.
    pub(super) cage: Followed,
    pub(super) labels: Labels,
    pub(super) running: Option<Arc<Running>>,
    pub(super) draining: Option<Draining>,
    /// It is being deleted: nothing brings it up any more.
    pub(super) deleting: bool,
    pub(super) counters: Arc<Counters>,
    pub(super) closures: Arc<Closures>,
    pub(super) failure: Option<Failure>,
    pub(super) failures_in_a_row: u32,
    /// Counts failures to bind over its whole life, to tell their retries apart.
    pub(super) tries: u64,
    /// Former runs whose sessions have not all left.
    pub(super) retiring: Vec<Retiring>,
    pub(super) origin: Arc<Origin>,
    pub(super) why: String,
    pub(super) created: SystemTime,
    pub(super) updated: SystemTime,
    pub(super) started: Option<SystemTime>,
}

/// A former run of a listener.
pub(super) struct Retiring {
    pub(super) running: Arc<Running>,
    /// Has its sessions leave at once.
    pub(super) insist: CancellationToken,
}

/// What a listener should be, and whence that comes.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it should be.
    pub spec: Spec,
    /// Where its definition stands.
    pub origin: Arc<Origin>,
    /// Why it should serve, or not, when a call said so.
    pub why: String,
    /// Who it was before a restart: its uid, and when it was made.
    pub identity: Option<(String, SystemTime)>,
    /// When a call last changed it, if one did.
    pub updated: Option<SystemTime>,
}

impl Listener {
    pub(super) fn new(name: ListenerName, target: Target, ground: &Ground) -> Self {
        let now = SystemTime::now();
        let Target {
            spec,
            origin,
            why,
            identity,
            updated,
        } = target;
        let (uid, created) = identity.unwrap_or_else(|| (fresh_uid(), now));
        Self {
            labels: Labels::new(
                name.as_str().into(),
                spec.protocol.word(),
                spec.protocol.transport().word(),
                spec.bind.network(),
            ),
            built: spec.protocol.build(ground),
            cage: Followed::default(),
            uid,
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
            tries: 0,
            retiring: Vec::new(),
            origin,
            why,
            created,
            updated: updated.unwrap_or(now),
            started: None,
        }
    }

    /// Takes another definition; what runs is the caller's to see to.
    pub(super) fn take(&mut self, target: Target) {
        (self.spec, self.origin, self.why) = (target.spec, target.origin, target.why);
    }

    /// Serves on a bound socket. Must be called within the runtime.
    pub(super) fn run(
        &self,
        bound: Bound,
        bans: Bans,
        telemetry: &Telemetry,
        feeds: &Feeds,
        most_sessions: usize,
    ) -> Result<Running, BindError> {
        let gate = bind::gate(&self.spec);
        let address = bound.address();
        if let Some(desk) = &self.built.desk {
            desk.report(&self.labels.listener, &feeds.conversations);
        }
        let door = Door::new(DoorParts {
            labels: self.labels.clone(),
            bounds: self.bounds(most_sessions),
            handler: self.built.handler.clone(),
            bans,
            counters: self.counters.clone(),
            closures: self.closures.clone(),
            feed: feeds.sessions.clone(),
            telemetry: telemetry.clone(),
        });
        Running::start(door, bound, gate).map_err(|source| BindError { address, source })
    }

    pub(super) fn bounds(&self, most_sessions: usize) -> Bounds {
        bind::bounds(&self.spec, most_sessions)
    }

    /// The same for the same definition of the same listener, in this process or the next.
    pub(super) fn etag(&self) -> String {
        // One that no call has made is not told from another of its name: it gets a uid with every process.
        let by_call = matches!(self.origin.layer, Layer::Runtime | Layer::Ephemeral);
        etag(if by_call { &self.uid } else { "" }, &self.spec)
    }

    /// Lets go of a run whose last session has left.
    pub(super) fn forget_run(&mut self, gone: &Arc<Running>) {
        self.running.take_if(|running| Arc::ptr_eq(running, gone));
        self.retiring.retain(|former| {
            let is_gone = Arc::ptr_eq(&former.running, gone);
            if is_gone {
                // Whoever waits to insist need not any more.
                former.insist.cancel();
            }
            !is_gone
        });
    }

    /// Every run that has sessions: the one that serves, and former ones.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Arc<Running>> {
        let former = self.retiring.iter().map(|former| &former.running);
        self.running.iter().chain(former)
    }

    /// How long until the next try: doubled each time, from half a second to half a minute.
    pub(super) fn back_off(&self) -> Duration {
        let doubled =
            Duration::from_millis(500) * 2u32.saturating_pow(self.failures_in_a_row.min(6));
        doubled.min(Duration::from_secs(30))
    }

    /// Notes a failure. A try that was planned stays planned.
    pub(super) fn fail(
        &mut self,
        reason: &'static str,
        message: String,
        again_after: Option<Duration>,
    ) {
        let now = SystemTime::now();
        let failed = self.life.state == State::Failed;
        let planned = self
            .failure
            .take()
            .filter(|_| failed)
            .and_then(|f| f.next_try);
        self.failures_in_a_row += 1;
        self.failure = Some(Failure {
            reason,
            message,
            at: now,
            next_try: again_after.map(|wait| now + wait).or(planned),
        });
    }

    pub(super) fn status(&self, most_sessions: usize) -> Status {
        let mut totals = self.counters.ended.totals();
        for running in self.runs() {
            totals = totals + running.door.live_totals();
        }
        Status {
            active_sessions: self.runs().map(|r| r.door.sessions.count()).sum(),
            max_sessions: self.bounds(most_sessions).max_sessions,
            accepted: self.counters.accepted.load(Ordering::Relaxed),
            accept_errors: self.counters.accept_errors.load(Ordering::Relaxed),
            refused: self.counters.refusals(),
            totals,
            accept_queue: self.running.as_ref().and_then(|r| r.accept_queue()),
            kernel_drops: self.kernel_drops(),
        }
    }

    /// Over all runs, of which each is asked for what it does not know yet.
    fn kernel_drops(&self) -> Option<u64> {
        let told = self.runs().all(|running| running.count_drops().is_ok());
        let of_datagrams = self.spec.protocol.transport() == Transport::Udp;
        (told && of_datagrams).then(|| self.counters.kernel_drops.load(Ordering::Relaxed))
    }

    pub(super) fn view(&self, most_sessions: usize) -> View {
        View {
            name: self.name.clone(),
            uid: self.uid.clone(),
            spec: self.spec.clone(),
            life: self.life,
            bound: self.running.as_ref().map(|r| r.address),
            pause_mode: self.pause_mode(),
            draining: self.draining.clone(),
            failure: self.failure.clone(),
            origin: self.origin.clone(),
            why: self.why.clone(),
            deleting: self.deleting,
            created: self.created,
            updated: self.updated,
            started: self.started,
            etag: self.etag(),
            offer: self.cage.offer.clone(),
            ailing: self.cage.is_broken(),
            status: self.status(most_sessions),
        }
    }

    /// Whether it is the one that failed so, and no later one of its name or failure of its own.
    pub(super) fn is_try(&self, uid: &str, tries: u64) -> bool {
        self.uid == uid && self.tries == tries && !self.deleting
    }

    fn pause_mode(&self) -> Option<PauseMode> {
        match self.life.state {
            State::Paused => Some(self.spec.pause_mode),
            State::Draining => self.draining.as_ref()?.mode,
            _ => None,
        }
    }

    /// Leaves off with a drain that need not end any more.
    pub(super) fn leave_off(&mut self) {
        if let Some(draining) = self.draining.take() {
            draining.leave_off.cancel();
        }
    }

    /// How many conversations wait at its desk, and the longest wait.
    pub(super) fn waiting(&self) -> Option<(usize, Duration)> {
        self.built.desk.as_ref().map(|desk| desk.waiting())
    }

    /// Bytes that wait for peers to read, and how many may.
    pub(super) fn queued_bytes(&self) -> (usize, usize) {
        let mut sum = (0, 0);
        for running in self.runs() {
            running.door.sessions.each(|session| {
                sum.0 += session.queued_bytes();
                sum.1 += session.most_queued_bytes().unwrap_or(0);
            });
        }
        sum
    }
}

/// What tells a listener from every other of its name.
pub fn fresh_uid() -> String {
    format!("{:016x}", fresh_seed())
}

/// A number that nobody foresees.
pub(super) fn fresh_seed() -> u64 {
    RandomState::new().hash_one(SystemTime::now())
}

/// What changes with a listener's definition, and with nothing else. The uid of one that no call has made is empty.
pub fn etag(uid: &str, spec: &Spec) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    // Its keys and no addresses of this process: the same after a restart.
    (uid, crate::config::to_value(spec).to_string()).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// When a drain is over: its time is up, or somebody insists.
pub(super) async fn over(deadline: Instant, insist: CancellationToken, cut: CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep_until(deadline.into()) => {}
        () = insist.cancelled() => {}
        () = cut.cancelled() => {}
    }
}
