//! A desk's sessions over UDP: one for each source address and port, until it is idle.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::desk::Desk;
use crate::net::{
    Ask, Batch, Bounds, CloseReason, Datagram, DatagramHandler, Door, PauseMode, PeerSocket, Route,
    Session, UNAVAILABLE,
};

/// Serves clients of a desk.
pub(super) struct Visits {
    desk: Arc<Desk>,
    by_peer: Mutex<HashMap<SocketAddr, Arc<Session>>>,
}

impl Visits {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self {
            desk,
            by_peer: Mutex::new(HashMap::new()),
        }
    }

    /// The session of this datagram's sender; made if there is none and a limit allows it.
    fn session(
        &self,
        door: &Arc<Door>,
        batch: &Batch<'_>,
        datagram: &Datagram<'_>,
    ) -> Option<Arc<Session>> {
        if let Some(session) = crate::net::lock(&self.by_peer).get(&datagram.peer) {
            return Some(session.clone());
        }
        let full = door.sessions.count() >= batch.terms.bounds.max_sessions;
        if full && door.shut().is_none() {
            self.make_room(door, &batch.terms.bounds);
        }
        let route = Route::Datagram(batch.route(datagram));
        let session = door
            .admit(batch.terms, datagram.peer, batch.local(datagram), route)
            .ok()?;
        crate::net::lock(&self.by_peer).insert(datagram.peer, session.clone());
        Some(session)
    }

    /// Ends the longest idle of those that are owed nothing: a few at a time, so that a flood of
    /// new sources does not look through the whole table for each.
    fn make_room(&self, door: &Door, bounds: &Bounds) {
        let mut idle = Vec::new();
        door.sessions.each(|session| {
            if session.owed.load(Ordering::Acquire) == 0 {
                let last = session.last_receive().unwrap_or(session.opened);
                idle.push((last, session.clone()));
            }
        });
        idle.sort_by_key(|(last, _)| *last);
        let enough = bounds.max_sessions / 64 + 1;
        for (_, session) in idle.into_iter().take(enough) {
            self.end(door, &session, CloseReason::Limit);
        }
    }

    fn end(&self, door: &Door, session: &Session, reason: CloseReason) {
        crate::net::lock(&self.by_peer).remove(&session.peer);
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
            if !self.desk.hear(&session, door, datagram.data) {
                door.counters.refuse("too_many_unanswered");
            }
            if door.session(session.id).is_none() {
                // It was ended between our finding it and its message; nobody else will close it.
                self.desk.close(session.id);
            }
            door.telemetry.message(&door.labels, &session.trace);
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
        for (id, peer, owed) in self.desk.come_back() {
            let Some(session) = door.readmit(id, peer, Route::Datagram(way.clone())) else {
                self.desk.close(id);
                continue;
            };
            session
                .owed
                .store(u32::try_from(owed).unwrap_or(u32::MAX), Ordering::Release);
            self.desk.arrive(&session, door);
            crate::net::lock(&self.by_peer).insert(peer, session);
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
