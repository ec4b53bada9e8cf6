//! What a desk remembers: pure state, no clock and no socket of its own.
//!
//! In lockstep every message gets exactly one answer, in the order of the messages: an answer to a
//! later one is held until the earlier ones are answered. The book says what is to be sent when;
//! it never sends.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use super::message::{Author, ConversationState, Message};
use crate::net::SessionId;

/// A message that its client waits at.
#[derive(Debug)]
struct Pending {
    sequence: u64,
    since: Instant,
    time: SystemTime,
    /// Written but held back: an earlier message is not answered.
    held: Option<Vec<u8>>,
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) peer: SocketAddr,
    pub(super) open: bool,
    last_sequence: u64,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
}

/// Why an answer is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    NoConversation,
    Closed,
    NothingWaits,
    NoSuchMessage,
    AnsweredAlready(Box<Message>),
}

/// All conversations of one listener, and what was said in them lately.
#[derive(Debug)]
pub(super) struct Book {
    entries: BTreeMap<SessionId, Entry>,
    said: VecDeque<Message>,
    said_bytes: usize,
    lockstep: bool,
}

/// Messages of one client that may wait at once, and their bytes.
const MAX_PENDING: (usize, usize) = (256, 1 << 20);

/// What is remembered of all conversations of a listener: a message counts its text and this much.
const REMEMBERED_BYTES: usize = 8 << 20;
const MESSAGE_COST: usize = 256;

impl Entry {
    pub(super) fn state(&self) -> ConversationState {
        match (self.open, self.unanswered() > 0) {
            (false, _) => ConversationState::Closed,
            (true, true) => ConversationState::Waiting,
            (true, false) => ConversationState::Answered,
        }
    }

    /// Messages that nobody has answered.
    pub(super) fn unanswered(&self) -> usize {
        self.pending.iter().filter(|p| p.held.is_none()).count()
    }

    /// When the oldest unanswered message came.
    pub(super) fn waiting_since(&self) -> Option<(Instant, SystemTime)> {
        self.pending
            .iter()
            .find(|p| p.held.is_none())
            .map(|p| (p.since, p.time))
    }
}

impl Book {
    pub(super) fn new(lockstep: bool) -> Self {
        Self {
            entries: BTreeMap::new(),
            said: VecDeque::new(),
            said_bytes: 0,
            lockstep,
        }
    }

    /// Enters a message of a client; false when too many of its wait already.
    pub(super) fn hear(
        &mut self,
        id: SessionId,
        peer: SocketAddr,
        raw: &[u8],
        (since, time): (Instant, SystemTime),
    ) -> bool {
        let entry = self.entries.entry(id).or_insert_with(|| Entry {
            peer,
            open: true,
            last_sequence: 0,
            pending: VecDeque::new(),
            pending_bytes: 0,
        });
        if entry.pending.len() >= MAX_PENDING.0 || entry.pending_bytes + raw.len() > MAX_PENDING.1 {
            return false;
        }
        entry.last_sequence += 1;
        entry.pending_bytes += raw.len();
        let sequence = entry.last_sequence;
        entry.pending.push_back(Pending {
            sequence,
            since,
            time,
            held: None,
        });
        self.remember(Message {
            conversation: id,
            sequence,
            author: Author::Peer,
            operator: String::new(),
            raw: raw.to_vec(),
            time,
            in_reply_to: 0,
            request_id: String::new(),
        });
        true
    }

    /// Enters an answer and returns it with what may be sent now, in order. `in_reply_to` 0 is the
    /// oldest unanswered message. With free pace an answer may answer nothing.
    pub(super) fn answer(
        &mut self,
        id: SessionId,
        in_reply_to: u64,
        mut message: Message,
    ) -> Result<(Message, Vec<Vec<u8>>), Refused> {
        let entry = self.entries.get_mut(&id).ok_or(Refused::NoConversation)?;
        if !entry.open {
            return Err(Refused::Closed);
        }
        let waits =
            |p: &Pending| p.held.is_none() && (in_reply_to == 0 || p.sequence == in_reply_to);
        let place = entry.pending.iter().position(waits);
        if place.is_none() && in_reply_to != 0 {
            let answered = self
                .said
                .iter()
                .find(|m| m.conversation == id && m.in_reply_to == in_reply_to);
            let known = in_reply_to <= entry.last_sequence;
            return Err(match answered {
                Some(answer) => Refused::AnsweredAlready(Box::new(answer.clone())),
                None if known => Refused::NothingWaits,
                None => Refused::NoSuchMessage,
            });
        }
        if place.is_none() && self.lockstep {
            return Err(Refused::NothingWaits);
        }
        entry.last_sequence += 1;
        message.sequence = entry.last_sequence;
        message.in_reply_to = place.map_or(0, |place| entry.pending[place].sequence);
        let ready = match place {
            Some(place) => release(entry, place, message.raw.clone(), self.lockstep),
            None => vec![message.raw.clone()],
        };
        entry.pending_bytes = if entry.pending.is_empty() {
            0
        } else {
            entry.pending_bytes
        };
        self.remember(message.clone());
        Ok((message, ready))
    }

    /// The first answer that was given under this request id, if it is one.
    pub(super) fn repeated(&self, id: SessionId, request_id: &str) -> Option<&Message> {
        if request_id.is_empty() {
            return None;
        }
        self.said
            .iter()
            .find(|m| m.conversation == id && m.request_id == request_id)
    }

    /// Conversations with a message that nobody answered since `before`, and that message.
    pub(super) fn overdue(&self, before: Instant) -> Vec<(SessionId, u64)> {
        let late = |p: &&Pending| p.held.is_none() && p.since <= before;
        self.entries
            .iter()
            .filter(|(_, entry)| entry.open)
            .flat_map(|(id, entry)| entry.pending.iter().filter(late).map(|p| (*id, p.sequence)))
            .collect()
    }

    /// Messages of one client that nobody answered.
    pub(super) fn unanswered(&self, id: SessionId) -> Vec<u64> {
        let pending = self.entries.get(&id).map(|e| &e.pending);
        let pending = pending.into_iter().flatten().filter(|p| p.held.is_none());
        pending.map(|p| p.sequence).collect()
    }

    /// Its peer is gone. What was said stays for a while.
    pub(super) fn close(&mut self, id: SessionId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.open = false;
            entry.pending = VecDeque::new();
        }
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (SessionId, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// What was said, oldest first; in one conversation or in all.
    pub(super) fn said(&self, id: Option<SessionId>) -> impl DoubleEndedIterator<Item = &Message> {
        self.said
            .iter()
            .filter(move |m| id.is_none_or(|id| m.conversation == id))
    }

    /// How many conversations wait, and the longest wait.
    pub(super) fn waiting(&self, now: Instant) -> (usize, Duration) {
        let waits = self
            .entries
            .values()
            .filter(|e| e.open)
            .filter_map(Entry::waiting_since);
        waits.fold((0, Duration::ZERO), |(count, longest), (since, _)| {
            (count + 1, longest.max(now.saturating_duration_since(since)))
        })
    }

    fn remember(&mut self, message: Message) {
        self.said_bytes += message.raw.len() + MESSAGE_COST;
        self.said.push_back(message);
        while self.said_bytes > REMEMBERED_BYTES {
            let Some(oldest) = self.said.pop_front() else {
                return;
            };
            self.said_bytes -= oldest.raw.len() + MESSAGE_COST;
            // A closed conversation goes with the last that is known of it.
            let closed = self
                .entries
                .get(&oldest.conversation)
                .is_some_and(|e| !e.open);
            if closed
                && !self
                    .said
                    .iter()
                    .any(|m| m.conversation == oldest.conversation)
            {
                self.entries.remove(&oldest.conversation);
            }
        }
    }
}

/// Answers the pending message at `place`; returns what may go out now.
fn release(entry: &mut Entry, place: usize, answer: Vec<u8>, lockstep: bool) -> Vec<Vec<u8>> {
    if !lockstep {
        entry.pending.remove(place);
        return vec![answer];
    }
    entry.pending[place].held = Some(answer);
    let mut ready = Vec::new();
    while let Some(answer) = entry.pending.front_mut().and_then(|p| p.held.take()) {
        entry.pending.pop_front();
        ready.push(answer);
    }
    ready
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: SessionId = SessionId(1);

    fn now() -> (Instant, SystemTime) {
        (Instant::now(), SystemTime::now())
    }

    fn hear(book: &mut Book, text: &str) -> bool {
        book.hear(ID, ([127, 0, 0, 1], 9).into(), text.as_bytes(), now())
    }

    fn reply(text: &str, request_id: &str) -> Message {
        Message {
            conversation: ID,
            sequence: 0,
            author: Author::Operator,
            operator: "ann".into(),
            raw: text.as_bytes().to_vec(),
            time: SystemTime::now(),
            in_reply_to: 0,
            request_id: request_id.into(),
        }
    }

    fn answer(book: &mut Book, to: u64, text: &str) -> Result<Vec<String>, Refused> {
        let (_, ready) = book.answer(ID, to, reply(text, ""))?;
        Ok(ready
            .into_iter()
            .map(|r| String::from_utf8(r).unwrap())
            .collect())
    }

    #[test]
    fn a_later_answer_is_held_until_the_earlier_ones_are_given() {
        let mut book = Book::new(true);
        assert!(hear(&mut book, "a") && hear(&mut book, "b") && hear(&mut book, "c"));
        assert_eq!(answer(&mut book, 2, "B").unwrap(), Vec::<String>::new());
        assert_eq!(book.get(ID).unwrap().unanswered(), 2);
        assert_eq!(answer(&mut book, 0, "A").unwrap(), ["A", "B"]);
        assert_eq!(answer(&mut book, 0, "C").unwrap(), ["C"]);
        assert_eq!(book.get(ID).unwrap().state(), ConversationState::Answered);
    }

    #[test]
    fn nothing_is_answered_twice() {
        let mut book = Book::new(true);
        hear(&mut book, "a");
        answer(&mut book, 1, "A").unwrap();
        assert!(
            matches!(answer(&mut book, 1, "again"), Err(Refused::AnsweredAlready(m)) if m.raw == b"A")
        );
        assert_eq!(answer(&mut book, 0, "more"), Err(Refused::NothingWaits));
        assert_eq!(answer(&mut book, 99, "x"), Err(Refused::NoSuchMessage));
    }

    #[test]
    fn free_pace_answers_at_once_and_unasked() {
        let mut book = Book::new(false);
        hear(&mut book, "a");
        hear(&mut book, "b");
        assert_eq!(answer(&mut book, 2, "B").unwrap(), ["B"]);
        assert_eq!(answer(&mut book, 1, "A").unwrap(), ["A"]);
        assert_eq!(answer(&mut book, 0, "and?").unwrap(), ["and?"]);
    }

    #[test]
    fn a_closed_conversation_takes_no_answer_and_keeps_what_was_said() {
        let mut book = Book::new(true);
        hear(&mut book, "a");
        book.close(ID);
        assert_eq!(answer(&mut book, 0, "A"), Err(Refused::Closed));
        assert_eq!(book.said(Some(ID)).count(), 1);
        assert!(book.overdue(Instant::now()).is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut book = Book::new(true);
        let heard = (0..1000).filter(|_| hear(&mut book, "x")).count();
        assert_eq!(heard, MAX_PENDING.0);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgets_whole_conversations() {
        let mut book = Book::new(false);
        for id in 0..20_000u128 {
            let id = SessionId(id);
            book.hear(id, ([127, 0, 0, 1], 9).into(), &[7; 1000], now());
            book.close(id);
        }
        assert!(book.said_bytes <= REMEMBERED_BYTES);
        assert_eq!(book.entries.len(), book.said.len());
    }

    proptest! {
        #[test]
        fn in_lockstep_answers_leave_one_each_and_in_order(order in Just((1u64..=12).collect::<Vec<_>>()).prop_shuffle()) {
            let mut book = Book::new(true);
            let mut sequences = Vec::new();
            for i in 0..order.len() {
                hear(&mut book, &i.to_string());
                sequences.push(book.said(Some(ID)).next_back().unwrap().sequence);
            }
            let mut left = Vec::new();
            for place in &order {
                let sequence = sequences[*place as usize - 1];
                left.extend(answer(&mut book, sequence, &place.to_string()).unwrap());
            }
            let want: Vec<_> = (1..=order.len()).map(|i| i.to_string()).collect();
            prop_assert_eq!(left, want);
        }
    }
}
