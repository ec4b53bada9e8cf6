//! The way of answers out of the book to their sessions, and the answers that the listener gives itself: when nobody
//! answers in time, and when a session ends.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};

use super::book::Released;
use super::desk::{Desk, Peer, State};
use super::inbox::Happened;
use super::message::{Author, Message};
use crate::net::{Route, Session, SessionId, Transport};

/// How long an answer may be on its way to a disk that does not answer before its client gets another.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Once so many answers of the listener's own had to be put off, the others are put off unasked.
const MOST_PUT_OFF: usize = 1_000;

/// What was handed to a session.
#[derive(Default)]
pub(super) struct Delivery {
    /// It did not take it.
    pub(super) refused: bool,
    /// Nobody is there to get it.
    pub(super) late: bool,
    /// It has been asked to end, and may be owed nothing more.
    pub(super) leaving: Option<Peer>,
}

impl Delivery {
    /// Lets a session end that waited for this. Not under the desk's lock.
    pub(super) fn dismiss(&self) {
        if let Some((session, door)) = &self.leaving {
            door.recall(session);
        }
    }
}

impl Desk {
    /// Hands to a session what may go out.
    pub(super) fn deliver(&self, state: &State, id: SessionId, released: &Released) -> Delivery {
        let late = released.late;
        let Some((session, door)) = state.peers.get(&id).filter(|_| !released.ready.is_empty())
        else {
            return Delivery {
                late: late || !released.ready.is_empty(),
                ..Delivery::default()
            };
        };
        if let Some(since) = released.first_response {
            let took = since.elapsed();
            door.telemetry
                .first_response(&door.labels, took, &session.trace);
        }
        // What is released answers one message each; an unasked one answers none.
        let answers = released.ready.iter().filter(|m| m.in_reply_to > 0).count();
        session.touch();
        let before = session
            .owed
            .fetch_sub(u32::try_from(answers).unwrap_or(0), Ordering::AcqRel);
        let framed = released.ready.iter().map(|m| self.framing.wrap(&m.raw));
        let mut refused = false;
        for piece in self.together(session, framed) {
            refused |= !session.deliver(piece);
        }
        if refused {
            door.counters.refuse("answer_not_sent");
        }
        if self.transport == Transport::Udp {
            let by_person = released.ready.iter().any(|m| m.author == Author::Operator);
            self.table.note(session, by_person, Instant::now());
        }
        self.released.notify_waiters();
        let leaves = before as usize <= answers && session.asked().is_some();
        Delivery {
            refused,
            late,
            leaving: leaves.then(|| (session.clone(), door.clone())),
        }
    }

    /// Answers that are released together go over a stream in one piece: they are as long as an
    /// operator made them wait, which says nothing about how fast their peer reads.
    fn together(
        &self,
        session: &Session,
        framed: impl ExactSizeIterator<Item = Bytes>,
    ) -> Vec<Bytes> {
        if framed.len() < 2 || matches!(session.route(), Route::Datagram(_)) {
            return framed.collect();
        }
        let mut one = BytesMut::new();
        framed.for_each(|piece| one.extend_from_slice(&piece));
        vec![one.freeze()]
    }

    /// Answers what has waited too long, and ends the claims whose time is up.
    pub(super) fn expire(&self, now: Instant) {
        let mut state = crate::net::lock(&self.state);
        self.lapse(&mut state, now);
        let Some(before) = now.checked_sub(self.manner().unattended_after) else {
            return;
        };
        let overdue = state.book.overdue(before, now.checked_sub(PATIENCE));
        let (mut done, mut put_off) = (Vec::new(), 0);
        for (id, sequence, stuck) in overdue {
            if stuck {
                done.push(self.give_up(&mut state, id, sequence));
            } else if put_off == MOST_PUT_OFF && self.is_stranger(&state, id) {
                // Those behind them may be none.
            } else if self.may_speak(&state, id, now) {
                done.push(self.answer_unattended(&mut state, id, sequence));
            } else {
                put_off += 1;
            }
        }
        drop(state);
        done.iter().for_each(Delivery::dismiss);
    }

    /// Answers all that nobody answers yet of what one client waits for, since nobody will.
    pub(super) fn answer_rest(&self, id: SessionId) {
        let mut state = crate::net::lock(&self.state);
        for sequence in state.book.unanswered(id) {
            // Whoever is asked to end looks for itself whether it is owed something still.
            self.answer_unattended(&mut state, id, sequence);
        }
    }

    /// The same, and resolves once all answers that it is owed were handed to it. A disk that does not answer is not
    /// waited for long.
    pub(super) async fn settle(&self, id: SessionId) {
        self.answer_rest(id);
        let owed = || crate::net::lock(&self.state).book.owed(id);
        let settled = async {
            loop {
                // Made before the look: what is let out in between wakes it.
                let released = self.released.notified();
                if owed().is_empty() {
                    return;
                }
                released.await;
            }
        };
        if tokio::time::timeout(PATIENCE, settled).await.is_err() {
            let mut state = crate::net::lock(&self.state);
            for sequence in state.book.owed(id) {
                self.give_up(&mut state, id, sequence);
            }
        }
    }

    fn answer_unattended(&self, state: &mut State, id: SessionId, sequence: u64) -> Delivery {
        let message = self.unattended(state, id, sequence);
        self.tally.unattended.fetch_add(1, Ordering::Relaxed);
        if state.book.is_discarded(id, sequence) {
            let released = state.book.give_up(id, sequence, message);
            return self.deliver(state, id, &released);
        }
        // It was unanswered under this very lock, so it cannot be refused.
        match state.book.reserve(id, sequence, message, Instant::now()) {
            Ok(answer) => self.enter(state, answer, None).unwrap_or_else(|(_, d)| d),
            Err(_) => Delivery::default(),
        }
    }

    /// Answers a message whose answer does not get to the disk.
    fn give_up(&self, state: &mut State, id: SessionId, sequence: u64) -> Delivery {
        let message = self.unattended(state, id, sequence);
        let released = state.book.give_up(id, sequence, message);
        self.tally.not_kept.fetch_add(1, Ordering::Relaxed);
        let delivery = self.deliver(state, id, &released);
        self.tell(&mut state.book, id, Happened::Changed, None);
        delivery
    }

    /// Whether this conversation's turn has come to be answered though nobody is there.
    fn may_speak(&self, state: &State, id: SessionId, now: Instant) -> bool {
        let Some((session, door)) = state.peers.get(&id) else {
            return true;
        };
        let may = self.table.may_speak(session, now);
        if !may {
            door.counters.refuse("unattended_delayed");
        }
        may
    }

    /// Whether its peer may be somebody else than it seems.
    fn is_stranger(&self, state: &State, id: SessionId) -> bool {
        let peer = state.peers.get(&id);
        peer.is_some_and(|(session, _)| self.table.may_be_forged(session))
    }

    /// What is said to this message when nobody answers it.
    fn unattended(&self, state: &State, id: SessionId, sequence: u64) -> Message {
        Message {
            conversation: id,
            sequence: 0,
            author: Author::Unattended,
            operator: String::new(),
            raw: self.unattended_raw(state, id, sequence),
            time: SystemTime::now(),
            in_reply_to: 0,
            request_id: String::new(),
        }
    }

    fn unattended_raw(&self, state: &State, id: SessionId, sequence: u64) -> Vec<u8> {
        let heard = state.book.question(id, sequence);
        let speech = state.book.speech(id);
        let raw = self.manner().unattended(speech);
        let Some((session, door)) = state.peers.get(&id) else {
            return raw;
        };
        let most = heard.map_or(0, |m| m.raw.len());
        let most = self.table.most_said(session, most);
        if raw.len() <= most {
            return raw;
        }
        door.counters.refuse("unattended_cut");
        self.manner().unattended_within(speech, most)
    }
}
