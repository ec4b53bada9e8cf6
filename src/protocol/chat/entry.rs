//! One conversation: which of its messages wait, which are being answered, which are answered and held back; and who
//! holds it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use super::message::{Author, ConversationState, Message};
use super::text::Speech;
use crate::store::Dialog;

/// A message that its client waits at.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) sequence: u64,
    pub(super) slot: Slot,
}

#[derive(Debug)]
pub(super) enum Slot {
    /// Nobody has answered it.
    Waiting(Question),
    /// An answer to it is on its way to the disk, since then.
    Answering(Question, Arc<Message>, Instant),
    /// Answered, and held back: an earlier message is not.
    Held(Arc<Message>),
}

/// A message without an answer.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) message: Arc<Message>,
    pub(super) since: Instant,
    pub(super) kept: Kept,
}

/// Whether a message is in the transcript. Only those that are are there for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is on its way.
    Writing,
    Yes,
    /// It could not be.
    No,
    /// It is not to be: its peer is muted.
    Never,
}

/// Who may answer, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) operator: String,
    /// When it lapses, for clocks and for people.
    pub(super) until: (Instant, SystemTime),
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) peer: SocketAddr,
    /// Its transcript, where one is kept.
    pub(super) dialog: Option<Arc<Dialog>>,
    pub(super) open: bool,
    /// Something of it is in the transcript: operators know of it.
    pub(super) begun: bool,
    /// An operator has answered in it.
    pub(super) responded: bool,
    pub(super) claim: Option<Claim>,
    /// What its peer says is discarded.
    pub(super) muted: bool,
    /// How its peer writes.
    pub(super) speech: Speech,
    pub(super) last_sequence: u64,
    pub(super) pending: VecDeque<Pending>,
    pub(super) waiting_bytes: usize,
    /// What was said last, as long as that is remembered.
    last: Weak<Message>,
    /// The number of the newest message that is in the transcript.
    pub(super) newest: u64,
    /// Its messages among those that are remembered.
    pub(super) remembered: usize,
    /// Its messages on their way to the disk.
    pub(super) writing: usize,
    /// Not all that was said in it is remembered.
    pub(super) forgetful: bool,
}

impl Entry {
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            dialog: None,
            open: true,
            begun: false,
            responded: false,
            claim: None,
            muted: false,
            speech: Speech::default(),
            last_sequence: 0,
            pending: VecDeque::new(),
            waiting_bytes: 0,
            last: Weak::new(),
            newest: 0,
            remembered: 0,
            writing: 0,
            forgetful: false,
        }
    }

    pub(super) fn state(&self) -> ConversationState {
        match (self.open, &self.claim) {
            (false, _) => ConversationState::Closed,
            (true, Some(_)) => ConversationState::Claimed,
            (true, None) if self.waiting().next().is_some() => ConversationState::Waiting,
            (true, None) => ConversationState::Answered,
        }
    }

    /// Something is said in it, and on its way to the disk.
    pub(super) fn say(&mut self, mut message: Message) -> Arc<Message> {
        self.last_sequence += 1;
        message.sequence = self.last_sequence;
        self.writing += 1;
        Arc::new(message)
    }

    /// Something that was said in it is on the disk.
    pub(super) fn note(&mut self, said: &Arc<Message>) {
        let last = self.last.upgrade();
        if last.is_none_or(|last| last.sequence < said.sequence) {
            self.last = Arc::downgrade(said);
        }
        self.newest = self.newest.max(said.sequence);
    }

    /// The newest message, if it is still known.
    pub(super) fn last(&self) -> Option<Arc<Message>> {
        let waits = || self.waiting().next_back().map(|q| q.message.clone());
        let last = self.last.upgrade().or_else(waits);
        last.filter(|last| last.sequence == self.newest)
    }

    /// Messages that operators see and nobody has answered, oldest first.
    pub(super) fn waiting(&self) -> impl DoubleEndedIterator<Item = &Question> {
        self.unanswered().filter(|q| q.kept == Kept::Yes)
    }

    /// All messages that have no answer yet, be it on its way, oldest first.
    pub(super) fn unanswered(&self) -> impl DoubleEndedIterator<Item = &Question> {
        self.pending
            .iter()
            .filter_map(|pending| match &pending.slot {
                Slot::Waiting(question) | Slot::Answering(question, ..) => Some(question),
                Slot::Held(_) => None,
            })
    }

    /// Who is about to answer a message, or any for 0.
    pub(super) fn answering(&self, sequence: u64) -> Option<&Arc<Message>> {
        self.pending.iter().find_map(|pending| match &pending.slot {
            Slot::Answering(_, answer, _) if sequence == 0 || pending.sequence == sequence => {
                Some(answer)
            }
            _ => None,
        })
    }

    /// The place of the message that an answer of this author is for; the oldest that nobody answers for 0.
    pub(super) fn place(&self, in_reply_to: u64, author: Author) -> Option<usize> {
        self.pending.iter().position(|pending| {
            let named = in_reply_to == 0 || pending.sequence == in_reply_to;
            match &pending.slot {
                Slot::Waiting(q) => named && (author == Author::Unattended || q.kept == Kept::Yes),
                _ => false,
            }
        })
    }

    /// The question that is pending under this number.
    pub(super) fn question(&mut self, sequence: u64) -> Option<&mut Question> {
        let pending = self.pending.iter_mut().find(|p| p.sequence == sequence)?;
        match &mut pending.slot {
            Slot::Waiting(question) | Slot::Answering(question, ..) => Some(question),
            Slot::Held(_) => None,
        }
    }

    /// An answer is on its way to the message at `place`.
    pub(super) fn reserve(&mut self, place: usize, answer: &Arc<Message>, now: Instant) {
        let slot = &mut self.pending[place].slot;
        if let Slot::Waiting(question) = slot {
            *slot = Slot::Answering(question.clone(), answer.clone(), now);
        }
    }

    /// The answer did not come to be; its message waits as before.
    pub(super) fn unreserve(&mut self, place: usize) {
        let slot = &mut self.pending[place].slot;
        if let Slot::Answering(question, ..) = slot {
            *slot = Slot::Waiting(question.clone());
        }
    }

    /// Answers the pending message at `place`: the question, and what may go out now.
    pub(super) fn release(
        &mut self,
        place: usize,
        answer: Arc<Message>,
        lockstep: bool,
    ) -> (Option<Question>, Vec<Arc<Message>>) {
        let slot = std::mem::replace(&mut self.pending[place].slot, Slot::Held(answer));
        let question = match slot {
            Slot::Waiting(question) | Slot::Answering(question, ..) => Some(question),
            Slot::Held(_) => None,
        };
        let mut ready = Vec::new();
        if lockstep {
            while let Some(Slot::Held(answer)) = self.pending.front().map(|p| &p.slot) {
                ready.push(answer.clone());
                self.pending.pop_front();
            }
        } else {
            ready.extend(self.pending.remove(place).and_then(Pending::held));
        }
        (question, ready)
    }
}

impl Pending {
    fn held(self) -> Option<Arc<Message>> {
        match self.slot {
            Slot::Held(answer) => Some(answer),
            Slot::Waiting(_) | Slot::Answering(..) => None,
        }
    }
}
