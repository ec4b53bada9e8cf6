//! The desk: the book behind one lock, and the way from an operator's words to a peer's socket.
//!
//! The lock is held while an answer is handed to its session's outbox, so that answers leave in the
//! order in which the book released them; handing over never waits.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};

use super::book::{Book, Refused};
use super::inbox::{Happened, Reported};
use super::manner::Manner;
use super::message::{Author, Body, BroadcastError, ClaimError, Message, Replied, ReplyError};
use super::{Pace, Settings};
use crate::net::{Door, Framing, MAX_DATAGRAM, Route, Session, SessionId, Transport};

/// Where the conversations of one listener are answered. Outlives its runs.
pub struct Desk {
    pub(super) state: Mutex<State>,
    pub(super) reported: OnceLock<Reported>,
    manner: Mutex<Arc<Manner>>,
    transport: Transport,
    framing: Framing,
    lockstep: bool,
}

pub(super) struct State {
    pub(super) book: Book,
    peers: HashMap<SessionId, (Arc<Session>, Arc<Door>)>,
}

/// The old clients' `recv(1024)`.
const ONE_RECV: usize = 1_024;

impl Desk {
    /// `settings` have every default written out.
    pub(super) fn new(settings: &Settings) -> Self {
        let lockstep = settings.pace == Pace::Lockstep;
        Self {
            state: Mutex::new(State {
                book: Book::new(lockstep),
                peers: HashMap::new(),
            }),
            reported: OnceLock::new(),
            manner: Mutex::new(Arc::new(Manner::new(settings))),
            transport: settings.transport,
            framing: settings.framing(),
            lockstep,
        }
    }

    /// Whether those who are at it could be served by these settings too.
    pub(super) fn suits(&self, settings: &Settings) -> bool {
        (self.transport, self.framing, self.lockstep)
            == (
                settings.transport,
                settings.framing(),
                settings.pace == Pace::Lockstep,
            )
    }

    /// Changes what may change while clients wait; for them too.
    pub(super) fn set_manner(&self, settings: &Settings) {
        *crate::net::lock(&self.manner) = Arc::new(Manner::new(settings));
    }

    pub(super) fn manner(&self) -> Arc<Manner> {
        crate::net::lock(&self.manner).clone()
    }

    /// The shortest time that [`expire`](Self::expire) must notice.
    pub(super) fn beat(&self) -> Duration {
        self.manner().unattended_after
    }

    /// Enters a message of a client; false when too many of its wait already.
    pub(super) fn hear(&self, session: &Arc<Session>, door: &Arc<Door>, raw: &[u8]) -> bool {
        let mut state = crate::net::lock(&self.state);
        let now = (Instant::now(), SystemTime::now());
        if !state.book.hear(session.id, session.peer, raw, now) {
            return false;
        }
        session.owed.fetch_add(1, Ordering::AcqRel);
        state
            .peers
            .entry(session.id)
            .or_insert_with(|| (session.clone(), door.clone()));
        let happened = state.book.happened(session.id);
        let said = state.book.last_heard(session.id).cloned();
        self.tell(&mut state.book, session.id, happened, said);
        true
    }

    /// Answers one message; see [`ReplyError`] for what is refused.
    pub async fn reply(
        &self,
        id: SessionId,
        in_reply_to: u64,
        body: Body<'_>,
        operator: &str,
        request_id: &str,
    ) -> Result<Replied, ReplyError> {
        let mut state = crate::net::lock(&self.state);
        if let Some(first) = state.book.repeated(id, request_id) {
            return Ok(Replied {
                message: first.clone(),
                warnings: Vec::new(),
            });
        }
        state
            .book
            .may_answer(id, operator)
            .map_err(|error| match error {
                ClaimError::Held { operator, until } => ReplyError::Held { operator, until },
                _ => ReplyError::NotFound,
            })?;
        let raw = self.encoded(&state, id, body)?;
        let mut warnings = self.warnings(&raw);
        let message = Message {
            conversation: id,
            sequence: 0,
            author: Author::Operator,
            operator: operator.to_owned(),
            raw,
            time: SystemTime::now(),
            in_reply_to: 0,
            request_id: request_id.to_owned(),
        };
        let (message, taken) =
            self.give(&mut state, id, in_reply_to, message)
                .map_err(|refused| match refused {
                    Refused::NoConversation => ReplyError::NotFound,
                    Refused::Closed => ReplyError::Closed,
                    Refused::NothingWaits => ReplyError::NothingWaits,
                    Refused::NoSuchMessage => ReplyError::NoSuchMessage(in_reply_to),
                    Refused::AnsweredAlready(answer) => ReplyError::Answered(answer),
                })?;
        let now = (Instant::now(), SystemTime::now());
        let own = state.book.get(id).is_some_and(|e| e.claim.is_some());
        if own {
            // Nobody else's is left by now.
            let _ = state
                .book
                .claim(id, operator, false, now, self.manner().claim_lease);
        }
        if !taken {
            warnings.push("it was not delivered: the peer does not take what it is sent".into());
        }
        Ok(Replied { message, warnings })
    }

    /// Says something to everybody who is there, which is entered in each of their transcripts. Tells how many were
    /// handed it.
    ///
    /// # Errors
    /// The clients are lockstep, or it cannot be said.
    pub async fn broadcast(
        &self,
        text: &str,
        operator: &str,
        request_id: &str,
    ) -> Result<usize, BroadcastError> {
        if self.lockstep {
            return Err(BroadcastError::Lockstep);
        }
        if text.is_empty() {
            return Err(BroadcastError::Empty);
        }
        let mut state = crate::net::lock(&self.state);
        let ids: Vec<_> = state.peers.keys().copied().collect();
        let mut recipients = 0;
        for id in ids {
            let heard = state.book.last_heard(id).map_or(&[][..], |m| &m.raw);
            let raw = self
                .manner()
                .encoded(text, heard)
                .map_err(BroadcastError::Unmappable)?;
            let message = Message {
                conversation: id,
                sequence: 0,
                author: Author::Broadcast,
                operator: operator.to_owned(),
                raw,
                time: SystemTime::now(),
                in_reply_to: 0,
                request_id: request_id.to_owned(),
            };
            let given = self.give(&mut state, id, 0, message);
            recipients += usize::from(given.is_ok_and(|(_, taken)| taken));
        }
        Ok(recipients)
    }

    /// The bytes of an answer, if it can be one.
    fn encoded(&self, state: &State, id: SessionId, body: Body<'_>) -> Result<Vec<u8>, ReplyError> {
        let raw = match body {
            Body::Raw(raw) => raw.to_vec(),
            Body::Text(text) => {
                let heard = state.book.last_heard(id).map_or(&[][..], |m| &m.raw);
                self.manner()
                    .encoded(text, heard)
                    .map_err(ReplyError::Unmappable)?
            }
        };
        if raw.is_empty() {
            return Err(ReplyError::Empty);
        }
        if self.lockstep && self.framing == Framing::Line && raw.contains(&b'\n') {
            return Err(ReplyError::LineEnd);
        }
        let over_udp = state
            .peers
            .get(&id)
            .is_some_and(|(s, _)| matches!(s.route(), Route::Datagram(_)));
        let max = if over_udp { MAX_DATAGRAM } else { 16 << 20 };
        if raw.len() > max {
            return Err(ReplyError::TooLong {
                length: raw.len(),
                max,
            });
        }
        Ok(raw)
    }

    fn warnings(&self, raw: &[u8]) -> Vec<String> {
        if self.lockstep && raw.len() > ONE_RECV {
            let length = raw.len();
            // A stream keeps what was not read; the rest of a datagram is gone.
            let rest = match self.transport {
                Transport::Udp => "loses the rest",
                Transport::Tcp => "reads the rest as its next answer",
            };
            return vec![format!(
                "the answer has {length} bytes; a client that calls recv({ONE_RECV}) once {rest}"
            )];
        }
        Vec::new()
    }

    /// Enters an answer and hands what may go out to the session; false when it does not take it.
    fn give(
        &self,
        state: &mut State,
        id: SessionId,
        in_reply_to: u64,
        message: Message,
    ) -> Result<(Arc<Message>, bool), Refused> {
        let (message, ready) = state.book.answer(id, in_reply_to, message)?;
        let said = Some(message.clone());
        self.tell(&mut state.book, id, Happened::Changed, said);
        let Some((session, door)) = state.peers.get(&id) else {
            return Ok((message, true));
        };
        // What is released answers one message each; an unasked one answers none.
        let answers = if message.in_reply_to == 0 {
            0
        } else {
            ready.len()
        };
        session.touch();
        session
            .owed
            .fetch_sub(u32::try_from(answers).unwrap_or(0), Ordering::AcqRel);
        let framed = ready.iter().map(|answer| self.framing.wrap(answer));
        let mut taken = true;
        for piece in self.together(session, framed) {
            taken &= session.deliver(piece);
        }
        if !taken {
            door.counters.refuse("answer_not_sent");
        }
        Ok((message, taken))
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
        let Some(before) = now.checked_sub(self.beat()) else {
            return;
        };
        for (id, sequence) in state.book.overdue(before) {
            self.answer_unattended(&mut state, id, sequence);
        }
    }

    /// Answers all that one client waits for, since nobody will.
    pub(super) fn settle(&self, id: SessionId) {
        let mut state = crate::net::lock(&self.state);
        for sequence in state.book.unanswered(id) {
            self.answer_unattended(&mut state, id, sequence);
        }
    }

    fn answer_unattended(&self, state: &mut State, id: SessionId, sequence: u64) {
        let heard = state.book.question(id, sequence);
        let raw = self.manner().unattended(heard.map_or(&[], |m| &m.raw));
        let message = Message {
            conversation: id,
            sequence: 0,
            author: Author::Unattended,
            operator: String::new(),
            raw,
            time: SystemTime::now(),
            in_reply_to: 0,
            request_id: String::new(),
        };
        // It was unanswered under this very lock, so it cannot be refused.
        let _ = self.give(state, id, sequence, message);
    }

    /// The peer is gone.
    pub(super) fn close(&self, id: SessionId) {
        let mut state = crate::net::lock(&self.state);
        state.peers.remove(&id);
        if state.book.close(id) {
            self.tell(&mut state.book, id, Happened::Changed, None);
        }
    }

    /// Whether there is, or lately was, such a conversation.
    pub fn knows(&self, id: SessionId) -> bool {
        crate::net::lock(&self.state).book.get(id).is_some()
    }

    /// What was said, oldest first: in one conversation or in all.
    pub fn messages(&self, id: Option<SessionId>) -> Vec<Arc<Message>> {
        crate::net::lock(&self.state).book.messages(id)
    }

    /// What a message says, every control and direction character made visible.
    pub fn text(&self, raw: &[u8]) -> String {
        self.manner().text(raw)
    }

    /// How many conversations wait, and the longest wait.
    pub fn waiting(&self) -> (usize, Duration) {
        crate::net::lock(&self.state).book.waiting(Instant::now())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let state = crate::net::lock(&self.state);
        for (id, entry) in state.book.entries(None) {
            self.publish(id, entry.peer, Happened::Forgotten, None);
        }
    }
}
