//! What a desk remembers: pure state, no clock and no socket of its own.
//!
//! In lockstep every message gets exactly one answer, in the order of the messages: an answer to a
//! later one is held until the earlier ones are answered. The book says what is to be sent when;
//! it never sends. What waits for an answer is never forgotten; what was answered is, in time.

mod claims;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::entry::{Entry, Pending, Slot};
use super::inbox::Happened;
use super::message::{Author, Message};
use crate::net::SessionId;

/// Why an answer is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    NoConversation,
    Closed,
    NothingWaits,
    NoSuchMessage,
    AnsweredAlready(Arc<Message>),
}

/// All conversations of one listener, and what was said in them lately.
#[derive(Debug)]
pub(super) struct Book {
    entries: BTreeMap<SessionId, Entry>,
    said: VecDeque<Arc<Message>>,
    said_bytes: usize,
    waiting_bytes: usize,
    lockstep: bool,
    /// Conversations that were forgotten, until somebody asks.
    forgotten: Vec<(SessionId, SocketAddr)>,
}

/// Messages of one client that may be pending at once, and the bytes of those that wait.
const MAX_PENDING: (usize, usize) = (256, 1 << 20);

/// Bytes that may wait in all conversations of a listener.
const MAX_WAITING: usize = 64 << 20;

/// What is remembered of all conversations of a listener: a message counts its text and this much.
const REMEMBERED_BYTES: usize = 8 << 20;
const MESSAGE_COST: usize = 256;

impl Book {
    pub(super) fn new(lockstep: bool) -> Self {
        Self {
            entries: BTreeMap::new(),
            said: VecDeque::new(),
            said_bytes: 0,
            waiting_bytes: 0,
            lockstep,
            forgotten: Vec::new(),
        }
    }

    /// Enters a message of a client; false when too many wait already.
    pub(super) fn hear(
        &mut self,
        id: SessionId,
        peer: SocketAddr,
        raw: &[u8],
        (since, time): (Instant, SystemTime),
    ) -> bool {
        let own = self.entries.get(&id);
        let (pending, waiting) = own.map_or((0, 0), |e| (e.pending.len(), e.waiting_bytes));
        let crowded = pending >= MAX_PENDING.0
            || waiting + raw.len() > MAX_PENDING.1
            || self.waiting_bytes + raw.len() > MAX_WAITING;
        if crowded {
            // One that never began is no conversation.
            return false;
        }
        let entry = self.entries.entry(id).or_insert_with(|| Entry::new(peer));
        entry.waiting_bytes += raw.len();
        self.waiting_bytes += raw.len();
        let question = entry.say(Message {
            conversation: id,
            sequence: 0,
            author: Author::Peer,
            operator: String::new(),
            raw: raw.to_vec(),
            time,
            in_reply_to: 0,
            request_id: String::new(),
        });
        entry.pending.push_back(Pending {
            sequence: question.sequence,
            slot: Slot::Waiting { question, since },
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
    ) -> Result<(Arc<Message>, Vec<Vec<u8>>), Refused> {
        let entry = self.entries.get_mut(&id).ok_or(Refused::NoConversation)?;
        if !entry.open {
            return Err(Refused::Closed);
        }
        let place = entry.place(in_reply_to);
        if place.is_none() && (in_reply_to != 0 || self.lockstep) {
            return Err(self.refused(id, in_reply_to));
        }
        let mut ready = vec![message.raw.clone()];
        let mut question = None;
        if let Some(place) = place {
            message.in_reply_to = entry.pending[place].sequence;
            (question, ready) = entry.release(place, message.raw.clone(), self.lockstep);
        }
        let message = entry.say(message);
        if let Some(question) = question {
            entry.waiting_bytes -= question.raw.len();
            self.waiting_bytes -= question.raw.len();
            self.remember(question);
        }
        self.remember(message.clone());
        Ok((message, ready))
    }

    /// Why nothing waits for this answer.
    fn refused(&self, id: SessionId, in_reply_to: u64) -> Refused {
        if in_reply_to == 0 {
            return Refused::NothingWaits;
        }
        let answers = |m: &&Arc<Message>| m.conversation == id && m.in_reply_to == in_reply_to;
        match self.said.iter().find(answers) {
            Some(answer) => Refused::AnsweredAlready(answer.clone()),
            None if self
                .entries
                .get(&id)
                .is_some_and(|e| in_reply_to <= e.last_sequence) =>
            {
                Refused::NothingWaits
            }
            None => Refused::NoSuchMessage,
        }
    }

    /// The first answer that was given under this request id, if it is one.
    pub(super) fn repeated(&self, id: SessionId, request_id: &str) -> Option<&Arc<Message>> {
        if request_id.is_empty() {
            return None;
        }
        self.said
            .iter()
            .find(|m| m.conversation == id && m.request_id == request_id)
    }

    /// Conversations with a message that nobody answered since `before`, and that message.
    pub(super) fn overdue(&self, before: Instant) -> Vec<(SessionId, u64)> {
        let late = |(question, since): (&Arc<Message>, Instant)| {
            (since <= before).then_some((question.conversation, question.sequence))
        };
        let open = self.entries.values().filter(|entry| entry.open);
        open.flat_map(|entry| entry.waiting().filter_map(late))
            .collect()
    }

    /// Messages of one client that nobody answered.
    pub(super) fn unanswered(&self, id: SessionId) -> Vec<u64> {
        let waiting = self.entries.get(&id).into_iter().flat_map(Entry::waiting);
        waiting.map(|(question, _)| question.sequence).collect()
    }

    /// Its peer is gone; false if it was so before. What was said stays for a while.
    pub(super) fn close(&mut self, id: SessionId) -> bool {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.open) else {
            return false;
        };
        entry.open = false;
        entry.claim = None;
        self.waiting_bytes -= std::mem::take(&mut entry.waiting_bytes);
        let pending = std::mem::take(&mut entry.pending);
        // Counted until all of it is entered, so that the entry is there to count it.
        entry.remembered += 1;
        for pending in pending {
            if let Slot::Waiting { question, .. } = pending.slot {
                self.remember(question);
            }
        }
        self.forget_one(id);
        true
    }

    /// What it is to its conversation that the last message of a peer came.
    pub(super) fn happened(&self, id: SessionId) -> Happened {
        match self.entries.get(&id) {
            Some(entry) if entry.last_sequence == 1 => Happened::Began,
            _ => Happened::Changed,
        }
    }

    /// Conversations that were forgotten since the last time that this was asked.
    pub(super) fn take_forgotten(&mut self) -> Vec<(SessionId, SocketAddr)> {
        std::mem::take(&mut self.forgotten)
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// Conversations behind `after`, or all, by id.
    pub(super) fn entries(
        &self,
        after: Option<SessionId>,
    ) -> impl Iterator<Item = (SessionId, &Entry)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.entries.range((from, Bound::Unbounded));
        behind.map(|(id, entry)| (*id, entry))
    }

    /// What was said and what waits, oldest first; in one conversation or in all.
    pub(super) fn messages(&self, id: Option<SessionId>) -> Vec<Arc<Message>> {
        let waiting = self
            .entries
            .values()
            .flat_map(Entry::waiting)
            .map(|(question, _)| question);
        let all = self.said.iter().chain(waiting);
        let mut wanted: Vec<_> = all
            .filter(|m| id.is_none_or(|id| m.conversation == id))
            .cloned()
            .collect();
        wanted.sort_by_key(|m| (m.time, m.conversation, m.sequence));
        wanted
    }

    /// The message of this number, if it waits.
    pub(super) fn question(&self, id: SessionId, sequence: u64) -> Option<&Arc<Message>> {
        let mut waiting = self.entries.get(&id)?.waiting();
        waiting
            .find(|(question, _)| question.sequence == sequence)
            .map(|(question, _)| question)
    }

    /// What the peer of a conversation said last, as far as it is known.
    pub(super) fn last_heard(&self, id: SessionId) -> Option<&Arc<Message>> {
        let waiting = self
            .entries
            .get(&id)?
            .waiting()
            .next_back()
            .map(|(question, _)| question);
        let heard = |m: &&Arc<Message>| m.conversation == id && m.author == Author::Peer;
        waiting.or_else(|| self.said.iter().rev().find(heard))
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

    fn remember(&mut self, message: Arc<Message>) {
        if let Some(entry) = self.entries.get_mut(&message.conversation) {
            entry.remember(&message);
        }
        self.said_bytes += message.raw.len() + MESSAGE_COST;
        self.said.push_back(message);
        while self.said_bytes > REMEMBERED_BYTES {
            let Some(oldest) = self.said.pop_front() else {
                return;
            };
            self.said_bytes -= oldest.raw.len() + MESSAGE_COST;
            self.forget_one(oldest.conversation);
        }
    }

    /// One message less is known of a conversation; a closed one goes with its last.
    fn forget_one(&mut self, id: SessionId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.remembered -= 1;
            if !entry.open && entry.remembered == 0 {
                self.forgotten.push((id, entry.peer));
                self.entries.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::ConversationState;
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
        assert_eq!(book.messages(Some(ID)).len(), 1);
        assert!(book.overdue(Instant::now()).is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut book = Book::new(true);
        let heard = (0..1000).filter(|_| hear(&mut book, "x")).count();
        assert_eq!(heard, MAX_PENDING.0);
        let (id, long) = (SessionId(2), vec![0; MAX_PENDING.1 + 1]);
        assert!(!book.hear(id, ([127, 0, 0, 1], 9).into(), &long, now()));
        assert!(book.get(id).is_none() && !book.close(id));
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

    #[test]
    fn the_last_message_is_known_while_it_is_remembered() {
        let mut book = Book::new(false);
        let last = |book: &Book| {
            let last = book.get(ID).unwrap().last();
            last.map(|m| String::from_utf8(m.raw.clone()).unwrap())
        };
        hear(&mut book, "a");
        hear(&mut book, "b");
        assert_eq!(last(&book).as_deref(), Some("b"));
        answer(&mut book, 2, "B").unwrap();
        assert_eq!(last(&book).as_deref(), Some("B"));
        for id in 10..20_010u128 {
            book.hear(SessionId(id), ([127, 0, 0, 1], 9).into(), &[7; 1000], now());
            book.close(SessionId(id));
        }
        // What waits is not forgotten.
        assert_eq!(last(&book).as_deref(), Some("a"));
        book.close(ID);
        assert_eq!(last(&book).as_deref(), Some("a"));
    }

    #[test]
    fn an_answered_message_makes_room_for_the_next() {
        let mut book = Book::new(true);
        let long = "x".repeat(300_000);
        assert!(hear(&mut book, &long) && hear(&mut book, &long));
        for _ in 0..20 {
            answer(&mut book, 0, "y").unwrap();
            assert!(hear(&mut book, &long));
        }
        assert_eq!(book.waiting_bytes, 600_000);
        book.close(ID);
        assert_eq!(book.waiting_bytes, 0);
    }

    #[test]
    fn a_conversation_that_closes_after_it_was_forgotten_goes_too() {
        let mut book = Book::new(false);
        hear(&mut book, "a");
        answer(&mut book, 0, "A").unwrap();
        let other = SessionId(2);
        for _ in 0..100 {
            book.hear(other, ([127, 0, 0, 1], 10).into(), &[7; 500_000], now());
            let again = Message {
                conversation: other,
                ..reply("B", "")
            };
            book.answer(other, 0, again).unwrap();
        }
        assert_eq!(book.messages(Some(ID)).len(), 0);
        book.close(ID);
        assert!(book.get(ID).is_none() && book.get(other).is_some());
    }

    #[test]
    fn what_waits_is_not_forgotten() {
        let mut book = Book::new(false);
        hear(&mut book, "still here");
        for id in 10..20_010u128 {
            let id = SessionId(id);
            book.hear(id, ([127, 0, 0, 1], 9).into(), &[7; 1000], now());
            book.close(id);
        }
        assert_eq!(book.messages(Some(ID))[0].raw, b"still here");
    }

    proptest! {
        #[test]
        fn in_lockstep_answers_leave_one_each_and_in_order(order in Just((1u64..=12).collect::<Vec<_>>()).prop_shuffle()) {
            let mut book = Book::new(true);
            let mut sequences = Vec::new();
            for i in 0..order.len() {
                hear(&mut book, &i.to_string());
                sequences.push(book.last_heard(ID).unwrap().sequence);
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
