//! What a desk remembers: pure state, no clock and no socket of its own.
//!
//! In lockstep every message gets exactly one answer, in the order of the messages: an answer to a later one is held
//! until the earlier ones are answered. The book says what is to be sent when; it never sends. Whatever is said is first
//! on its way to the disk: a message of a peer is there for operators once it has arrived, and an answer takes its
//! message's place at once, so that there is no second one, and is let out once it has.
//!
//! ```text
//! hear ──▶ on its way ──▶ kept: waits ──▶ reserve: being answered ──▶ settle: answered, let out in order
//!                    └──▶ not kept: waits, unseen, for the answer that it gets in any case
//! ```

mod answering;
mod claims;
mod clocks;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::entry::{Entry, Kept, Pending, Question, Slot};
use super::inbox::Happened;
use super::message::{Author, Message};
use crate::net::SessionId;
pub(super) use answering::Released;
use clocks::Clocks;
use memory::Memory;

/// Why an answer is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    NoConversation,
    Closed,
    NothingWaits,
    NoSuchMessage,
    AnsweredAlready(Arc<Message>),
    /// By somebody whose answer is on its way to the disk.
    Answering(String),
}

/// What becomes of a message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It waits, and is to be entered in the transcript.
    Said(Arc<Message>),
    /// Nobody is told of it; in lockstep its client waits for an answer all the same.
    Muted {
        /// Whether it does.
        waits: bool,
    },
    /// Too many wait already.
    TooMany,
}

/// All conversations of one listener, and what was said in them lately.
#[derive(Debug)]
pub(super) struct Book {
    entries: BTreeMap<SessionId, Entry>,
    clocks: Clocks,
    memory: Memory,
    waiting_bytes: usize,
    lockstep: bool,
    /// Conversations that were forgotten, until somebody asks.
    forgotten: Vec<(SessionId, SocketAddr)>,
}

/// Messages of one client that may be pending at once, and the bytes of those that wait.
const MAX_PENDING: (usize, usize) = (256, 1 << 20);

/// Bytes that may wait in all conversations of a listener.
const MAX_WAITING: usize = 64 << 20;

impl Book {
    pub(super) fn new(lockstep: bool) -> Self {
        Self {
            entries: BTreeMap::new(),
            clocks: Clocks::default(),
            memory: Memory::default(),
            waiting_bytes: 0,
            lockstep,
            forgotten: Vec::new(),
        }
    }

    /// Enters a message of a client.
    pub(super) fn hear(
        &mut self,
        id: SessionId,
        peer: SocketAddr,
        raw: &[u8],
        (since, time): (Instant, SystemTime),
    ) -> Heard {
        let own = self.entries.get(&id);
        // One whose session has just ended hears nobody either.
        if own.is_some_and(|entry| !entry.open) {
            return Heard::Muted { waits: false };
        }
        let (pending, waiting) = own.map_or((0, 0), |e| (e.pending.len(), e.waiting_bytes));
        let crowded = pending >= MAX_PENDING.0
            || waiting + raw.len() > MAX_PENDING.1
            || self.waiting_bytes + raw.len() > MAX_WAITING;
        if crowded {
            // One that never began is no conversation.
            return Heard::TooMany;
        }
        if own.is_some_and(|entry| entry.muted) {
            return self.discard(id, (since, time));
        }
        let entry = self.entries.entry(id).or_insert_with(|| Entry::new(peer));
        entry.speech.hear(raw);
        entry.waiting_bytes += raw.len();
        self.waiting_bytes += raw.len();
        let message = entry.say(Message {
            conversation: id,
            sequence: 0,
            author: Author::Peer,
            operator: String::new(),
            raw: raw.to_vec(),
            time,
            in_reply_to: 0,
            request_id: String::new(),
        });
        let question = Question {
            message: message.clone(),
            since,
            kept: Kept::Writing,
        };
        entry.pending.push_back(Pending {
            sequence: message.sequence,
            slot: Slot::Waiting(question),
        });
        self.wind(id);
        Heard::Said(message)
    }

    /// A message of a client is in the transcript, or is not going to be. What that is to its conversation, if operators
    /// are to know of it.
    pub(super) fn kept(&mut self, said: &Arc<Message>, kept: bool) -> Option<Happened> {
        let id = said.conversation;
        let entry = self.entries.get_mut(&id)?;
        entry.writing -= 1;
        let question = entry.question(said.sequence);
        let waits = question.is_some();
        if let Some(question) = question {
            question.kept = if kept { Kept::Yes } else { Kept::No };
        }
        if !kept {
            self.let_go(id);
            return None;
        }
        entry.note(said);
        let happened = began(entry);
        if !waits {
            // It was answered, or its peer left, before it was there.
            self.remember(said.clone());
        }
        self.wind(id);
        Some(happened)
    }

    /// Messages of one client that nobody answers.
    pub(super) fn unanswered(&self, id: SessionId) -> Vec<u64> {
        let pending = self.entries.get(&id).into_iter().flat_map(|e| &e.pending);
        let waits = |p: &&Pending| matches!(p.slot, Slot::Waiting(_));
        pending.filter(waits).map(|p| p.sequence).collect()
    }

    /// Messages of one client whose answers have not been let out.
    pub(super) fn owed(&self, id: SessionId) -> Vec<u64> {
        let pending = self.entries.get(&id).into_iter().flat_map(|e| &e.pending);
        pending.map(|pending| pending.sequence).collect()
    }

    /// Its peer is gone; how many of its messages nobody answered, unless it was gone before. What was said stays for a
    /// while.
    pub(super) fn close(&mut self, id: SessionId) -> Option<usize> {
        let entry = self.entries.get_mut(&id).filter(|entry| entry.open)?;
        entry.open = false;
        entry.claim = None;
        self.waiting_bytes -= std::mem::take(&mut entry.waiting_bytes);
        let pending = std::mem::take(&mut entry.pending);
        // Counted until all of it is entered, so that the entry is there to count it.
        entry.remembered += 1;
        let mut unanswered = 0;
        for pending in pending {
            if let Slot::Waiting(question) | Slot::Answering(question, ..) = pending.slot {
                unanswered += 1;
                if question.kept == Kept::Yes {
                    self.remember(question.message);
                }
            }
        }
        self.wind(id);
        self.forget_one(id);
        Some(unanswered)
    }

    /// One that operators know of.
    pub(super) fn get(&self, id: SessionId) -> Option<&Entry> {
        self.entries.get(&id).filter(|entry| entry.begun)
    }

    /// One, whether or not operators know of it; made if there is none.
    pub(super) fn entry(&mut self, id: SessionId, peer: SocketAddr) -> &mut Entry {
        self.entries.entry(id).or_insert_with(|| Entry::new(peer))
    }

    /// One, whether or not operators know of it.
    pub(super) fn any(&self, id: SessionId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// Conversations that operators know of behind `after`, or all, by id.
    pub(super) fn entries(
        &self,
        after: Option<SessionId>,
    ) -> impl Iterator<Item = (SessionId, &Entry)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.entries.range((from, Bound::Unbounded));
        let known = behind.filter(|(_, entry)| entry.begun);
        known.map(|(id, entry)| (*id, entry))
    }
}

/// What it is to a conversation that something of it is in the transcript.
pub(super) fn began(entry: &mut Entry) -> Happened {
    match std::mem::replace(&mut entry.begun, true) {
        false => Happened::Began,
        true => Happened::Changed,
    }
}
