//! One run of a listener: what all its sessions share, and who is let in.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::debug;

use super::close::{Ask, CloseReason};
use super::counters::{Counters, Totals};
use super::feed::Feed;
use super::gate::{Gate, PauseMode, Why};
use super::handler::Handler;
use super::id::{Ids, SessionId};
use super::limits::Bounds;
use super::networks::Bans;
use super::session::{Route, Session};
use super::sessions::{Closed, Closures, Opened, SessionEvent, Sessions};
use super::terms::Terms;
use crate::telemetry::{Labels, Telemetry};

/// What a door is made of.
pub struct DoorParts {
    /// Name, protocol and transport, as metrics and spans have them.
    pub labels: Labels,
    /// What is allowed.
    pub bounds: Bounds,
    /// The running protocol.
    pub handler: Handler,
    /// Who is kept away.
    pub bans: Bans,
    /// Sums over all runs.
    pub counters: Arc<Counters>,
    /// Closed sessions of all runs.
    pub closures: Arc<Closures>,
    /// Tells of all sessions of all listeners.
    pub feed: Arc<Feed<SessionEvent>>,
    /// Where events are told.
    pub telemetry: Telemetry,
}

/// What all sessions of one run of a listener share.
pub struct Door {
    /// Name, protocol and transport, as metrics and spans have them.
    pub labels: Labels,
    /// Sums over all runs.
    pub counters: Arc<Counters>,
    /// Closed sessions of all runs.
    pub closures: Arc<Closures>,
    /// Those that live.
    pub sessions: Sessions,
    /// Where events are told.
    pub telemetry: Telemetry,
    feed: Arc<Feed<SessionEvent>>,
    terms: Mutex<Arc<Terms>>,
    /// Not of the terms, which sessions keep: there may be many, and they change often.
    bans: Mutex<Bans>,
    /// How it is shut, as [`Gate::number`] has it.
    shut: AtomicU8,
    ids: Ids,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("listener", &self.labels.listener)
            .finish_non_exhaustive()
    }
}

impl Door {
    /// A door that nobody has come through yet.
    pub fn new(parts: DoorParts) -> Arc<Self> {
        use std::hash::{BuildHasher, RandomState};
        let terms = Terms::new(parts.bounds, parts.handler, None);
        Arc::new(Self {
            labels: parts.labels,
            counters: parts.counters,
            closures: parts.closures,
            sessions: Sessions::default(),
            telemetry: parts.telemetry,
            feed: parts.feed,
            terms: Mutex::new(Arc::new(terms)),
            bans: Mutex::new(parts.bans),
            shut: AtomicU8::new(0),
            // Ids differ between processes and runs even if their clocks agree.
            ids: Ids::new(RandomState::new().hash_one(Instant::now())),
        })
    }

    /// What is obeyed now.
    pub fn terms(&self) -> Arc<Terms> {
        super::lock(&self.terms).clone()
    }

    /// Exchanges what is obeyed. TCP sessions that are open keep what they are served by; every
    /// clock, whoever comes in and every datagram obey the new terms from their next look on.
    pub(super) fn set_terms(&self, bounds: Bounds, handler: Handler) {
        let mut terms = super::lock(&self.terms);
        *terms = Arc::new(Terms::new(bounds, handler, Some(&terms)));
    }

    /// Who is kept away now.
    pub(super) fn bans(&self) -> Bans {
        super::lock(&self.bans).clone()
    }

    /// Exchanges who is kept away. Those who are in stay; of datagrams each is a new look.
    pub fn set_bans(&self, bans: Bans) {
        *super::lock(&self.bans) = bans;
    }

    /// What the ids of its sessions have in common, see [`SessionId::run`].
    pub fn run(&self) -> u64 {
        self.ids.run()
    }

    pub(super) fn set_shut(&self, gate: Gate) {
        self.shut.store(gate.number(), Ordering::Release);
    }

    /// How, and why, new peers are kept away, while they are.
    pub fn shut(&self) -> Option<(PauseMode, Why)> {
        Gate::shut(self.shut.load(Ordering::Acquire))
    }

    /// Lets a peer in as a new session under `terms`, or says which limit keeps it out. The refusal
    /// is counted. Where nothing but the room is missing, `make_room` may end a session first.
    pub fn admit(
        &self,
        terms: &Terms,
        peer: SocketAddr,
        local: SocketAddr,
        route: Route,
        make_room: impl FnOnce(),
    ) -> Result<Arc<Session>, &'static str> {
        let began = Instant::now();
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let (peer, bounds) = (canonical(peer), &terms.bounds);
        // Over TCP the entrance has kept those away that came since.
        let away = self.shut().filter(|_| matches!(route, Route::Datagram(_)));
        let open = away.map_or(Ok(()), |(_, why)| Err(why.word()));
        let allowed = open
            .and_then(|()| terms.permit(&self.bans(), peer.ip()))
            .and_then(|()| {
                let make = || {
                    let id = self.ids.next();
                    let trace = self
                        .telemetry
                        .session_setup(&self.labels, id.0, began.elapsed());
                    let (local, outbox) = (canonical(local), bounds.outbox_bytes);
                    let session = Session::new(id, (peer, local), route, trace, outbox);
                    self.feed.publish(|| self.opened(&session));
                    session
                };
                let (max, per_source) = (bounds.max_sessions, bounds.max_sessions_per_source);
                if self.sessions.lack_room(peer.ip(), max, per_source) {
                    make_room();
                }
                self.sessions.enter(peer.ip(), max, per_source, make)
            });
        match &allowed {
            Ok(session) => {
                debug!(
                    listener = %self.labels.listener, session = %session.id, peer = %peer,
                    trace_id = %session.trace, "session opened"
                );
            }
            Err(reason) => {
                self.counters.refuse(reason);
                debug!(listener = %self.labels.listener, peer = %peer, reason, "peer refused");
            }
        }
        allowed
    }

    /// Lets a peer in again who came to an earlier process, as the session that it was; none if it may not come any more.
    pub fn readmit(&self, id: SessionId, peer: SocketAddr, route: Route) -> Option<Arc<Session>> {
        let began = Instant::now();
        let (peer, terms) = (canonical(peer), self.terms());
        terms.welcome(&self.bans(), peer.ip()).ok()?;
        let local = match &route {
            Route::Datagram(way) => way.address(),
            Route::Stream(_) => return None,
        };
        let make = || {
            let trace = self
                .telemetry
                .session_setup(&self.labels, id.0, began.elapsed());
            let session = Session::new(id, (peer, local), route, trace, terms.bounds.outbox_bytes);
            self.feed.publish(|| self.opened(&session));
            session
        };
        // They were within the limits, and are owed something.
        let readmitted = self.sessions.enter(peer.ip(), usize::MAX, usize::MAX, make);
        readmitted.ok()
    }

    /// Keeps what a caller says of the end that it is about to ask for; of several the first one who ends it is heard.
    pub fn note(&self, session: &Session, why: &Arc<str>) {
        if !why.is_empty() && session.ending().is_none() {
            self.sessions.note(session.id, why.clone());
        }
    }

    /// Asks one session to end.
    pub fn ask(&self, session: &Arc<Session>, ask: Ask) {
        session.ask(ask);
        self.recall(session);
    }

    /// Has a session without a task of its own look at what it was asked, as there was something to be done first.
    pub fn recall(&self, session: &Arc<Session>) {
        if let Handler::Datagram(handler) = &self.terms().handler {
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
        self.end_after(session, reason, 0);
    }

    /// The same with the round-trip time in microseconds, if that was asked for before its connection was closed.
    pub(super) fn end_after(&self, session: &Session, reason: CloseReason, rtt: u32) {
        let left = self.sessions.leave(session, |detail| {
            let closed = Closed::new(session, reason, detail);
            let name = &self.labels.listener;
            self.feed
                .publish(|| SessionEvent::Closed(name.clone(), closed.clone()));
            let totals = closed.totals;
            // Whoever looks for it finds it among the one or the other.
            self.closures.push(closed);
            totals
        });
        let Some(totals) = left else { return };
        self.counters.ended.absorb(totals);
        session.end_taps();
        let open_for = session.since.elapsed();
        self.telemetry
            .session_ended(&self.labels, reason.word(), open_for, &session.trace);
        self.tell_end(session, reason, &totals, open_for, rtt);
    }

    fn opened(&self, session: &Session) -> SessionEvent {
        let opened = Opened {
            id: session.id,
            peer: session.peer,
            local: session.local,
            opened: session.opened,
            trace: session.trace,
        };
        SessionEvent::Opened(self.labels.listener.clone(), opened)
    }

    /// Traffic of the sessions that live.
    pub fn live_totals(&self) -> Totals {
        let mut sum = Totals::default();
        self.sessions
            .each(|session| sum = sum + session.traffic.totals());
        sum
    }

    /// The session of this id, if it lives.
    pub fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.get(id)
    }
}

/// An IPv4 peer is the same peer on an IPv6 socket. The scope of a link-local address stays: it is
/// part of the way back.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        v4 => SocketAddr::new(v4, address.port()),
    }
}
