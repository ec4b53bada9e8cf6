//! A desk's sessions over UDP: one for each source address and port, until it is idle.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::desk::Desk;
use crate::net::{
    Ask, Batch, CloseReason, Datagram, DatagramHandler, Door, PauseMode, PeerSocket, Route,
    Session, UNAVAILABLE,
};

/// Serves clients of a desk.
pub(super) struct Visits {
    desk: Arc<Desk>,
}

impl Visits {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }

    /// The session of this datagram's sender; made if there is none and a limit allows it.
    fn session(
        &self,
        door: &Arc<Door>,
        batch: &Batch<'_>,
        datagram: &Datagram<'_>,
    ) -> Option<Arc<Session>> {
        let table = &self.desk.table;
        if let Some(session) = table.speaks(datagram.peer) {
            return Some(session);
        }
        let (bounds, local) = (&batch.terms.bounds, batch.local(datagram));
        let route = Route::Datagram(batch.route(datagram));
        let make_room = || {
            if let Some(session) = table.makes_room(bounds.max_sessions, batch.now) {
                self.end(door, &session, CloseReason::Limit);
            }
        };
        let session = door.admit(batch.terms, datagram.peer, local, route, make_room);
        let session = session.ok()?;
        table.enter(&session, !bounds.allow_cidrs.is_empty());
        Some(session)
    }

    fn end(&self, door: &Door, session: &Session, reason: CloseReason) {
        self.desk.table.leave(session);
        self.desk.close(session.id);
        door.end(session, reason);
    }
}

/// Tells a peer that comes while nobody is let in, if that is what its listener does. Never more than the peer said:
/// it may not be who it seems.
fn turn_away(door: &Door, batch: &mut Batch<'_>, datagram: &Datagram<'_>) {
    let answer = UNAVAILABLE.as_bytes();
    let rejects = matches!(door.shut(), Some((PauseMode::Reject, _)));
    if rejects && datagram.data.len() >= answer.len() {
        batch.answers.push(datagram, |out| {
            out.extend_from_slice(answer);
            true
        });
    }
}

impl DatagramHandler for Visits {
    fn has_sessions(&self) -> bool {
        true
    }

    fn batch(&self, door: &Arc<Door>, batch: &mut Batch<'_>) {
        for datagram in batch.datagrams() {
            if !door.passes(batch, &datagram) {
                continue;
            }
            let Some(session) = self.session(door, batch, &datagram) else {
                turn_away(door, batch, &datagram);
                continue;
            };
            session.receive_datagram(datagram.data);
            let span = door.telemetry.message(&door.labels, &session.trace);
            if !self.desk.hear(&session, door, datagram.data) {
                door.counters.refuse("too_many_unanswered");
                if let Some(span) = span {
                    span.refused("too_many_unanswered");
                }
            }
            self.desk.table.note(&session, false, batch.now);
            if door.session(session.id).is_none() {
                // It was ended between our finding it and its message; nobody else will close it.
                self.desk.table.leave(&session);
                self.desk.close(session.id);
            }
        }
    }

    fn asked(&self, door: &Door, session: &Arc<Session>) {
        let Some(ask) = session.asked() else { return };
        if let Ask::Finish(_) = ask {
            self.desk.answer_rest(session.id);
            if session.owed.load(Ordering::Acquire) > 0 {
                // It is asked again when the last answer has gone out.
                return;
            }
        }
        self.end(door, session, ask.reason());
    }

    fn open(&self, door: &Arc<Door>, way: &PeerSocket) {
        let trusted = !door.terms().bounds.allow_cidrs.is_empty();
        for (id, peer, owed) in self.desk.come_back() {
            let Some(session) = door.readmit(id, peer, Route::Datagram(way.clone())) else {
                self.desk.close(id);
                continue;
            };
            let owed = u32::try_from(owed).unwrap_or(u32::MAX);
            session.owed.store(owed, Ordering::Release);
            self.desk.arrive(&session, door);
            self.desk.table.enter(&session, trusted);
        }
    }

    fn beat(&self) -> Option<Duration> {
        Some(self.desk.beat())
    }

    fn due(&self) -> Option<Instant> {
        self.desk.due()
    }

    fn tick(&self, now: Instant) {
        self.desk.expire(now);
    }
}
