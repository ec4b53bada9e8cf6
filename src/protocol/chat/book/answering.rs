//! Answers: each takes its message's place, and is let out in its turn once it is in the transcript.

use std::sync::Arc;
use std::time::Instant;

use super::super::entry::{Entry, Kept, Pending, Question, Slot};
use super::super::message::{Author, Message};
use super::{Book, Refused};
use crate::net::SessionId;

/// What an answer lets out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Released {
    /// In the order in which it goes out.
    pub(in super::super) ready: Vec<Arc<Message>>,
    /// The message that it answers, where it is the first of an operator in its conversation.
    pub(in super::super) first_response: Option<Instant>,
    /// Nobody is going to get it: its peer is gone, or was answered meanwhile.
    pub(in super::super) late: bool,
}

impl Book {
    /// Enters an answer, which nobody gets before it is [settled](Self::settle), and takes its message's place.
    /// `in_reply_to` 0 is the oldest message that nobody answers. With free pace an answer may answer nothing; a
    /// broadcast never does.
    pub(in super::super) fn reserve(
        &mut self,
        id: SessionId,
        in_reply_to: u64,
        mut message: Message,
        now: Instant,
    ) -> Result<Arc<Message>, Refused> {
        let author = message.author;
        let known = |entry: &&mut Entry| entry.begun || author != Author::Operator;
        let entry = self.entries.get_mut(&id).filter(known);
        let entry = entry.ok_or(Refused::NoConversation)?;
        if !entry.open {
            return Err(Refused::Closed);
        }
        let place = match author {
            Author::Broadcast => None,
            _ => entry.place(in_reply_to, author),
        };
        let answers = in_reply_to != 0 || self.lockstep;
        if place.is_none() && answers && author != Author::Broadcast {
            return Err(self.refused(id, in_reply_to));
        }
        message.in_reply_to = place.map_or(0, |place| entry.pending[place].sequence);
        let message = entry.say(message);
        if let Some(place) = place {
            entry.reserve(place, &message, now);
        }
        Ok(message)
    }

    /// An answer is in the transcript, or is not going to be. One that the listener gives itself is let out in any case.
    pub(in super::super) fn settle(&mut self, answer: &Arc<Message>, kept: bool) -> Released {
        let (id, lockstep) = (answer.conversation, self.lockstep);
        let Some(entry) = self.entries.get_mut(&id) else {
            return Released::default();
        };
        entry.writing -= 1;
        if kept {
            entry.note(answer);
            entry.begun = true;
        }
        let lets_out = kept || answer.author == Author::Unattended;
        let ours =
            |p: &Pending| matches!(&p.slot, Slot::Answering(_, a, _) if Arc::ptr_eq(a, answer));
        let place = entry.pending.iter().position(ours);
        let (mut released, mut question) = (Released::default(), None);
        match place {
            Some(place) if lets_out => {
                (question, released.ready) = entry.release(place, answer.clone(), lockstep);
            }
            Some(place) => entry.unreserve(place),
            None if answer.in_reply_to == 0 && entry.open && lets_out => {
                released.ready.push(answer.clone());
            }
            None => released.late = true,
        }
        if let Some(question) = question {
            let first =
                answer.author == Author::Operator && !std::mem::replace(&mut entry.responded, true);
            released.first_response = first.then_some(question.since);
            self.answered(id, question);
        }
        if kept {
            self.remember(answer.clone());
        }
        self.wind(id);
        self.let_go(id);
        released
    }

    /// Answers a message without the transcript, whoever may be about to: its client cannot wait any longer.
    pub(in super::super) fn give_up(
        &mut self,
        id: SessionId,
        sequence: u64,
        mut answer: Message,
    ) -> Released {
        let lockstep = self.lockstep;
        let Some(entry) = self.entries.get_mut(&id) else {
            return Released::default();
        };
        let Some(place) = entry
            .pending
            .iter()
            .position(|p| p.sequence == sequence && !matches!(p.slot, Slot::Held(_)))
        else {
            return Released::default();
        };
        answer.in_reply_to = sequence;
        let (question, ready) = entry.release(place, Arc::new(answer), lockstep);
        if let Some(question) = question {
            self.answered(id, question);
        }
        self.wind(id);
        Released {
            ready,
            ..Released::default()
        }
    }

    /// A message waits no more.
    fn answered(&mut self, id: SessionId, question: Question) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.waiting_bytes -= question.message.raw.len();
            self.waiting_bytes -= question.message.raw.len();
        }
        if question.kept == Kept::Yes {
            self.remember(question.message);
        }
    }
}
