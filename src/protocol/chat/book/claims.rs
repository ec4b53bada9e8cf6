//! Claims: which operator holds a conversation, and until when.
//!
//! A claim is a lease. It keeps the other operators' answers out, and the conversation off the queue; it is renewed by
//! each sign of life of its holder, and when it lapses the conversation is back in the queue where its wait puts it:
//! by the time at which its oldest unanswered message came.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::super::entry::{Claim, Entry, Kept, Pending, Question, Slot};
use super::super::message::{Author, ClaimError, Message};
use super::{Book, Heard};
use crate::net::SessionId;

impl Book {
    /// Gives a conversation to an operator for another `lease`, and tells from whom it was taken. Another's claim
    /// stands unless it is to be taken by `force`.
    pub(in super::super) fn claim(
        &mut self,
        id: SessionId,
        operator: &str,
        force: bool,
        (now, time): (Instant, SystemTime),
        lease: Duration,
    ) -> Result<Option<String>, ClaimError> {
        let entry = self.known(id)?;
        if !entry.open {
            return Err(ClaimError::Closed);
        }
        let other = entry
            .claim
            .take_if(|claim| force || claim.operator == operator);
        if let Some(claim) = &entry.claim {
            return Err(held(claim));
        }
        entry.claim = Some(Claim {
            operator: operator.to_owned(),
            until: (now + lease, time + lease),
        });
        self.wind(id);
        Ok(other
            .map(|claim| claim.operator)
            .filter(|other| other != operator))
    }

    /// Takes the claim of an operator off a conversation, or anybody's; tells whether there was one.
    pub(in super::super) fn release(
        &mut self,
        id: SessionId,
        operator: Option<&str>,
    ) -> Result<bool, ClaimError> {
        let entry = self.known(id)?;
        if let Some(claim) = &entry.claim
            && operator.is_some_and(|operator| operator != claim.operator)
        {
            return Err(held(claim));
        }
        let released = entry.claim.take().is_some();
        self.wind(id);
        Ok(released)
    }

    /// Whether an operator may answer: nobody else holds the conversation. Tells whether they hold it themselves.
    pub(in super::super) fn may_answer(
        &self,
        id: SessionId,
        operator: &str,
    ) -> Result<bool, ClaimError> {
        match self.get(id).and_then(|entry| entry.claim.as_ref()) {
            Some(claim) if claim.operator != operator => Err(held(claim)),
            claim => Ok(claim.is_some()),
        }
    }

    /// Renews all claims of an operator, and names them.
    pub(in super::super) fn renew(
        &mut self,
        operator: &str,
        (now, time): (Instant, SystemTime),
        lease: Duration,
    ) -> Vec<SessionId> {
        let mut renewed = self.claimed();
        renewed.retain(|id| {
            let claim = self.entries.get_mut(id).and_then(|e| e.claim.as_mut());
            let own = claim.filter(|claim| claim.operator == operator);
            own.map(|claim| claim.until = (now + lease, time + lease))
                .is_some()
        });
        renewed.iter().for_each(|id| self.wind(*id));
        renewed
    }

    /// Ends the claims whose time is up, and names them.
    pub(in super::super) fn lapse(&mut self, now: Instant) -> Vec<SessionId> {
        let lapsed = self.lapsed(now);
        for id in &lapsed {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.claim = None;
            }
            self.wind(*id);
        }
        lapsed
    }

    /// Has what a peer says discarded, or not any more; tells whether that is new.
    pub(in super::super) fn mute(
        &mut self,
        id: SessionId,
        muted: bool,
    ) -> Result<bool, ClaimError> {
        let entry = self.known(id)?;
        if !entry.open {
            return Err(ClaimError::Closed);
        }
        Ok(std::mem::replace(&mut entry.muted, muted) != muted)
    }

    /// Hears a muted peer: nothing is kept of what it said but that its client waits, if it does.
    pub(super) fn discard(&mut self, id: SessionId, (since, time): (Instant, SystemTime)) -> Heard {
        let lockstep = self.lockstep;
        let entry = self.entries.get_mut(&id).filter(|_| lockstep);
        let Some(entry) = entry else {
            return Heard::Muted { waits: false };
        };
        entry.last_sequence += 1;
        let sequence = entry.last_sequence;
        let message = Arc::new(Message {
            conversation: id,
            sequence,
            author: Author::Peer,
            operator: String::new(),
            raw: Vec::new(),
            time,
            in_reply_to: 0,
            request_id: String::new(),
        });
        let question = Question {
            message,
            since,
            kept: Kept::Never,
        };
        entry.pending.push_back(Pending {
            sequence,
            slot: Slot::Waiting(question),
        });
        self.wind(id);
        Heard::Muted { waits: true }
    }

    /// Whether a message that waits was discarded.
    pub(in super::super) fn is_discarded(&self, id: SessionId, sequence: u64) -> bool {
        let mut waiting = self
            .entries
            .get(&id)
            .into_iter()
            .flat_map(Entry::unanswered);
        waiting.any(|q| q.message.sequence == sequence && q.kept == Kept::Never)
    }

    fn known(&mut self, id: SessionId) -> Result<&mut Entry, ClaimError> {
        let entry = self.entries.get_mut(&id).filter(|entry| entry.begun);
        entry.ok_or(ClaimError::NotFound)
    }
}

fn held(claim: &Claim) -> ClaimError {
    ClaimError::Held {
        operator: claim.operator.clone(),
        until: claim.until.1,
    }
}
