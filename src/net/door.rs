//! One run of a listener: what all its sessions share, who is let in, and the sweep that keeps
//! every clock of every session with one timer.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::close::{Ask, CloseReason};
use super::counters::{Counters, Totals};
use super::handler::Handler;
use super::id::{Ids, SessionId};
use super::limits::Bounds;
use super::rate::{RateTable, TokenBucket};
use super::session::{Route, Session};
use super::sessions::{Closed, Closures, Sessions};
use crate::telemetry::{Labels, Telemetry};

/// What a door is made of.
pub struct DoorParts {
    /// Name, protocol and transport, as metrics and spans have them.
    pub labels: Labels,
    /// What is allowed.
    pub bounds: Bounds,
    /// The running protocol.
    pub handler: Handler,
    /// Sums over all runs.
    pub counters: Arc<Counters>,
    /// Closed sessions of all runs.
    pub closures: Arc<Closures>,
    /// Where events are told.
    pub telemetry: Telemetry,
}

/// What all sessions of one run of a listener share.
pub struct Door {
    /// Name, protocol and transport, as metrics and spans have them.
    pub labels: Labels,
    /// What is allowed.
    pub bounds: Bounds,
    /// Sums over all runs.
    pub counters: Arc<Counters>,
    /// Closed sessions of all runs.
    pub closures: Arc<Closures>,
    /// Those that live.
    pub sessions: Sessions,
    /// Where events are told.
    pub telemetry: Telemetry,
    /// Rates of peers without a session.
    pub rates: Option<RateTable>,
    handler: Handler,
    accepts: Option<Mutex<TokenBucket>>,
    ids: Ids,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("listener", &self.labels.listener)
            .finish_non_exhaustive()
    }
}

/// A peer that lets its bytes wait this long without one of them moving is a slow consumer.
const STALL: Duration = Duration::from_secs(10);

impl Door {
    /// A door that nobody has come through yet.
    pub fn new(parts: DoorParts) -> Arc<Self> {
        use std::hash::{BuildHasher, RandomState};
        let now = Instant::now();
        let bucket = |rate| Mutex::new(TokenBucket::new(rate, now));
        let peerless = parts.labels.transport == super::Transport::Udp.word();
        Arc::new(Self {
            accepts: parts.bounds.max_accepts_per_second.map(bucket),
            rates: parts
                .bounds
                .max_message_rate
                .filter(|_| peerless)
                .map(RateTable::new),
            labels: parts.labels,
            bounds: parts.bounds,
            counters: parts.counters,
            closures: parts.closures,
            sessions: Sessions::default(),
            telemetry: parts.telemetry,
            handler: parts.handler,
            // Ids differ between processes and runs even if their clocks agree.
            ids: Ids::new(RandomState::new().hash_one(now)),
        })
    }

    /// The running protocol.
    pub fn handler(&self) -> &Handler {
        &self.handler
    }

    /// Lets a peer in as a new session, or says which limit keeps it out. The refusal is counted.
    pub fn admit(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        route: Route,
    ) -> Result<Arc<Session>, &'static str> {
        let began = Instant::now();
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let peer = canonical(peer);
        let allowed = self.permits(peer).and_then(|()| {
            let make = || {
                let id = self.ids.next();
                let trace = self
                    .telemetry
                    .session_setup(&self.labels, id.0, began.elapsed());
                Session::new(id, (peer, canonical(local)), route, trace)
            };
            let (max, per_source) = (
                self.bounds.max_sessions,
                self.bounds.max_sessions_per_source,
            );
            self.sessions.enter(peer.ip(), max, per_source, make)
        });
        match &allowed {
            Ok(session) => {
                debug!(listener = %self.labels.listener, session = %session.id, peer = %peer, "session opened");
            }
            Err(reason) => {
                self.counters.refuse(reason);
                debug!(listener = %self.labels.listener, peer = %peer, reason, "peer refused");
            }
        }
        allowed
    }

    fn permits(&self, peer: SocketAddr) -> Result<(), &'static str> {
        if !self.bounds.allows(peer.ip()) {
            return Err("denied");
        }
        match &self.accepts {
            Some(bucket) if !super::lock(bucket).take(Instant::now()) => Err("accept_rate"),
            _ => Ok(()),
        }
    }

    /// Asks one session to end.
    pub fn ask(&self, session: &Arc<Session>, ask: Ask) {
        session.ask(ask);
        if let Handler::Datagram(handler) = &self.handler {
            handler.asked(self, session);
        }
    }

    /// Ends one session with a reset: nothing more is flushed.
    pub fn abort(&self, session: &Arc<Session>, reason: CloseReason) {
        session.abort.store(true, Ordering::Release);
        self.ask(session, Ask::Cut(reason));
    }

    /// Asks all sessions to end.
    pub fn ask_all(&self, ask: Ask) {
        for session in self.sessions.all() {
            self.ask(&session, ask);
        }
    }

    /// Takes a session off the books. Of several callers only the first one's reason counts.
    pub fn end(&self, session: &Session, reason: CloseReason) {
        if !self.sessions.leave(session) {
            return;
        }
        let totals = session.traffic.totals();
        self.counters.ended.absorb(totals);
        self.closures.push(Closed {
            id: session.id,
            peer: session.peer,
            local: session.local,
            opened: session.opened,
            closed: SystemTime::now(),
            last_receive: session.last_receive(),
            last_send: session.last_send(),
            reason,
            totals,
            trace: session.trace,
        });
        let open_for = session.since.elapsed();
        self.telemetry
            .session_ended(&self.labels, reason.word(), open_for);
        debug!(
            listener = %self.labels.listener, session = %session.id, reason = reason.word(),
            received_messages = totals.received_messages, sent_messages = totals.sent_messages,
            received_bytes = totals.received_bytes, sent_bytes = totals.sent_bytes,
            open_ms = u64::try_from(open_for.as_millis()).unwrap_or(u64::MAX),
            trace_id = %session.trace, "session ended"
        );
    }

    /// Traffic of this listener: of sessions that ended, in all runs, and of those that live.
    pub fn totals(&self) -> Totals {
        let mut sum = self.counters.ended.totals();
        self.sessions
            .each(|session| sum = sum + session.traffic.totals());
        sum
    }

    /// Runs every clock of this door until `stop`.
    pub(super) async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.sweep_interval());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.handler.tick(Instant::now());
            for (session, ask) in self.overdue() {
                self.ask(&session, ask);
            }
        }
    }

    /// A tenth of the shortest time that must be noticed, from 10 ms to 1 s.
    fn sweep_interval(&self) -> Duration {
        let age = self.bounds.max_session_age.unwrap_or(Duration::MAX);
        let beat = self.handler.beat().unwrap_or(Duration::MAX);
        let shortest = self.bounds.idle_timeout.min(age).min(beat);
        (shortest / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    fn overdue(&self) -> Vec<(Arc<Session>, Ask)> {
        let mut overdue = Vec::new();
        self.sessions.each(|session| {
            if let Some(ask) = self.judge(session) {
                overdue.push((session.clone(), ask));
            }
        });
        overdue
    }

    fn judge(&self, session: &Session) -> Option<Ask> {
        if session.stalled_for() > STALL {
            self.counters.stalls.fetch_add(1, Ordering::Relaxed);
            return Some(Ask::Cut(CloseReason::SlowConsumer));
        }
        if session.is_ending() {
            return None;
        }
        let busy = session.owed.load(Ordering::Relaxed) > 0 || session.queued_bytes() > 0;
        if !busy && session.quiet_for() > self.bounds.idle_timeout {
            return Some(Ask::Cut(CloseReason::Idle));
        }
        let old = self
            .bounds
            .max_session_age
            .is_some_and(|age| session.since.elapsed() > age);
        (old && session.asked().is_none()).then_some(Ask::Finish(CloseReason::MaxAge))
    }

    /// The session of this id, if it lives.
    pub fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.get(id)
    }
}

/// An IPv4 peer is the same peer on an IPv6 socket. The scope of a link-local address stays: it is
/// part of the way back.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        v4 => SocketAddr::new(v4, address.port()),
    }
}
