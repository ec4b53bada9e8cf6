//! What was said lately, within a bound; the rest is in the transcript alone. What waits is not forgotten.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::super::entry::{Entry, Kept, Pending, Question, Slot};
use super::super::message::{Author, Message};
use super::super::text::Speech;
use super::{Book, Refused};
use crate::net::SessionId;

/// What is remembered of all conversations of a listener: a message counts its text and this much.
pub(super) const REMEMBERED_BYTES: usize = 8 << 20;
const MESSAGE_COST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) said: VecDeque<Arc<Message>>,
    pub(super) bytes: usize,
}

impl Memory {
    fn push(&mut self, message: Arc<Message>) {
        self.bytes += message.raw.len() + MESSAGE_COST;
        self.said.push_back(message);
    }

    /// Drops the oldest when there is too much.
    fn pop(&mut self) -> Option<Arc<Message>> {
        if self.bytes <= REMEMBERED_BYTES {
            return None;
        }
        let oldest = self.said.pop_front()?;
        self.bytes -= oldest.raw.len() + MESSAGE_COST;
        Some(oldest)
    }
}

impl Book {
    /// Why nothing waits for this answer.
    pub(in super::super) fn refused(&self, id: SessionId, in_reply_to: u64) -> Refused {
        let entry = self.entries.get(&id);
        if let Some(answer) = entry.and_then(|entry| entry.answering(in_reply_to)) {
            return Refused::Answering(answer.operator.clone());
        }
        if in_reply_to == 0 {
            return Refused::NothingWaits;
        }
        let answers = |m: &&Arc<Message>| m.conversation == id && m.in_reply_to == in_reply_to;
        match self.memory.said.iter().rev().find(answers) {
            Some(answer) => Refused::AnsweredAlready(answer.clone()),
            None if entry.is_some_and(|e| in_reply_to <= e.last_sequence) => Refused::NothingWaits,
            None => Refused::NoSuchMessage,
        }
    }

    /// What was said under this request id, if it is remembered.
    pub(in super::super) fn repeated(
        &self,
        id: SessionId,
        request_id: &str,
    ) -> Option<&Arc<Message>> {
        if request_id.is_empty() {
            return None;
        }
        let said = self.memory.said.iter().rev();
        said.into_iter()
            .find(|m| m.conversation == id && m.request_id == request_id)
    }

    /// Whether the transcript may know of more that was said than is remembered.
    pub(in super::super) fn is_forgetful(&self, id: SessionId) -> bool {
        self.entries.get(&id).is_none_or(|entry| entry.forgetful)
    }

    /// Conversations that were forgotten since the last time that this was asked.
    pub(in super::super) fn take_forgotten(&mut self) -> Vec<(SessionId, SocketAddr)> {
        std::mem::take(&mut self.forgotten)
    }

    /// The message of this number, if it has no answer.
    pub(in super::super) fn question(&self, id: SessionId, sequence: u64) -> Option<&Arc<Message>> {
        let mut waiting = self.entries.get(&id)?.unanswered();
        waiting
            .find(|question| question.message.sequence == sequence)
            .map(|question| &question.message)
    }

    /// How the peer of a conversation writes.
    pub(in super::super) fn speech(&self, id: SessionId) -> Speech {
        let entry = self.entries.get(&id);
        entry.map(|entry| entry.speech).unwrap_or_default()
    }

    /// A conversation of the last process comes back: `lines` are all from its first message on that nobody answered, or
    /// the last one. It waits if it is to be `open`, and else its peer is gone.
    pub(in super::super) fn revive(
        &mut self,
        id: SessionId,
        mut entry: Entry,
        lines: Vec<Message>,
        since: impl Fn(&Message) -> Instant,
    ) {
        entry.begun = true;
        entry.forgetful = true;
        entry.last_sequence = lines.last().map_or(0, |line| line.sequence);
        let lines: Vec<_> = lines.into_iter().map(Arc::new).collect();
        if let Some(last) = lines.last() {
            entry.note(last);
        }
        let heard = lines.iter().filter(|line| line.author == Author::Peer);
        heard.for_each(|line| entry.speech.hear(&line.raw));
        let answer = |q: &Message| lines.iter().find(|a| a.in_reply_to == q.sequence);
        let mut rest = Vec::new();
        for line in &lines {
            let asks = entry.open && line.author == Author::Peer;
            let slot = match answer(line) {
                None if asks => {
                    entry.waiting_bytes += line.raw.len();
                    Slot::Waiting(Question {
                        message: line.clone(),
                        since: since(line),
                        kept: Kept::Yes,
                    })
                }
                // Given, and not let out: an earlier message waits.
                Some(answer) if asks && self.lockstep => Slot::Held(answer.clone()),
                _ => {
                    rest.push(line.clone());
                    continue;
                }
            };
            entry.pending.push_back(Pending {
                sequence: line.sequence,
                slot,
            });
        }
        self.waiting_bytes += entry.waiting_bytes;
        self.entries.insert(id, entry);
        rest.into_iter().for_each(|line| self.remember(line));
        self.wind(id);
        self.let_go(id);
    }

    pub(super) fn remember(&mut self, message: Arc<Message>) {
        if let Some(entry) = self.entries.get_mut(&message.conversation) {
            entry.remembered += 1;
            entry.note(&message);
        }
        self.memory.push(message);
        while let Some(oldest) = self.memory.pop() {
            self.forget_one(oldest.conversation);
        }
    }

    /// One message less is known of a conversation; a closed one goes with its last.
    pub(super) fn forget_one(&mut self, id: SessionId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.remembered -= 1;
            entry.forgetful = true;
        }
        self.let_go(id);
    }

    /// Lets a closed conversation go of which nothing is known and nothing under way.
    pub(super) fn let_go(&mut self, id: SessionId) {
        let gone = |e: &Entry| !e.open && e.remembered == 0 && e.writing == 0;
        if self.entries.get(&id).is_some_and(gone)
            && let Some(entry) = self.entries.remove(&id)
            && entry.begun
        {
            self.forgotten.push((id, entry.peer));
        }
    }
}
