//! One conversation: which of its messages wait, which are answered and held back.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use super::message::{ConversationState, Message};

/// A message that its client waits at.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) sequence: u64,
    pub(super) slot: Slot,
}

#[derive(Debug)]
pub(super) enum Slot {
    /// Nobody has answered it.
    Waiting {
        question: Arc<Message>,
        since: Instant,
    },
    /// Answered, and held back: an earlier message is not.
    Held(Vec<u8>),
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
    pub(super) open: bool,
    pub(super) claim: Option<Claim>,
    /// What its peer says is discarded.
    pub(super) muted: bool,
    pub(super) last_sequence: u64,
    pub(super) pending: VecDeque<Pending>,
    pub(super) waiting_bytes: usize,
    /// What was said last, as long as that is remembered.
    last: Weak<Message>,
    /// Its messages among those that were said.
    pub(super) remembered: usize,
}

impl Entry {
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            open: true,
            claim: None,
            muted: false,
            last_sequence: 0,
            pending: VecDeque::new(),
            waiting_bytes: 0,
            last: Weak::new(),
            remembered: 0,
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

    /// Something is said in it.
    pub(super) fn say(&mut self, mut message: Message) -> Arc<Message> {
        self.last_sequence += 1;
        message.sequence = self.last_sequence;
        let said = Arc::new(message);
        self.last = Arc::downgrade(&said);
        said
    }

    /// One of its messages is among those that were said.
    pub(super) fn remember(&mut self, said: &Arc<Message>) {
        self.remembered += 1;
        let last = self.last.upgrade();
        if last.is_none_or(|last| last.sequence < said.sequence) {
            self.last = Arc::downgrade(said);
        }
    }

    /// The last message that is still known.
    pub(super) fn last(&self) -> Option<Arc<Message>> {
        let waits = || self.waiting().next_back().map(|(last, _)| last.clone());
        self.last.upgrade().or_else(waits)
    }

    /// Messages that nobody has answered, oldest first.
    pub(super) fn waiting(&self) -> impl DoubleEndedIterator<Item = (&Arc<Message>, Instant)> {
        self.pending
            .iter()
            .filter_map(|pending| match &pending.slot {
                Slot::Waiting { question, since } => Some((question, *since)),
                Slot::Held(_) => None,
            })
    }

    /// How many messages nobody has answered.
    pub(super) fn unanswered(&self) -> usize {
        self.waiting().count()
    }

    /// When the oldest unanswered message came.
    pub(super) fn waiting_since(&self) -> Option<(Instant, SystemTime)> {
        self.waiting()
            .next()
            .map(|(question, since)| (since, question.time))
    }

    /// The place of the message that an answer is for; the oldest unanswered one for 0.
    pub(super) fn place(&self, in_reply_to: u64) -> Option<usize> {
        self.pending.iter().position(|pending| {
            let named = in_reply_to == 0 || pending.sequence == in_reply_to;
            named && matches!(pending.slot, Slot::Waiting { .. })
        })
    }

    /// Answers the pending message at `place`: the question, and what may go out now.
    pub(super) fn release(
        &mut self,
        place: usize,
        answer: Vec<u8>,
        lockstep: bool,
    ) -> (Option<Arc<Message>>, Vec<Vec<u8>>) {
        let slot = std::mem::replace(&mut self.pending[place].slot, Slot::Held(answer));
        let question = match slot {
            Slot::Waiting { question, .. } => Some(question),
            Slot::Held(_) => None,
        };
        let mut ready = Vec::new();
        if lockstep {
            while let Some(Pending {
                slot: Slot::Held(_),
                ..
            }) = self.pending.front()
            {
                ready.extend(self.pending.pop_front().and_then(Pending::held));
            }
        } else {
            ready.extend(self.pending.remove(place).and_then(Pending::held));
        }
        (question, ready)
    }
}

impl Pending {
    fn held(self) -> Option<Vec<u8>> {
        match self.slot {
            Slot::Held(answer) => Some(answer),
            Slot::Waiting { .. } => None,
        }
    }
}
