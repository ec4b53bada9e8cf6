//! Claims: which operator holds a conversation, and until when.
//!
//! A claim is a lease. It keeps the other operators' answers out, and the conversation off the queue; it is renewed by
//! each sign of life of its holder, and when it lapses the conversation is back in the queue where its wait puts it:
//! by the time at which its oldest unanswered message came.

use std::time::{Duration, Instant, SystemTime};

use super::super::entry::Claim;
use super::super::message::ClaimError;
use super::Book;
use crate::net::SessionId;

impl Book {
    /// The longest waiting conversation that nobody holds.
    pub(in super::super) fn next_waiting(&self) -> Option<SessionId> {
        let waits = self
            .entries
            .iter()
            .filter(|(_, e)| e.open && e.claim.is_none());
        let since = waits.filter_map(|(id, e)| Some((e.waiting_since()?.0, *id)));
        since.min().map(|(_, id)| id)
    }

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
        let entry = self.entries.get_mut(&id).ok_or(ClaimError::NotFound)?;
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
        let entry = self.entries.get_mut(&id).ok_or(ClaimError::NotFound)?;
        match &entry.claim {
            Some(claim) if operator.is_some_and(|operator| operator != claim.operator) => {
                Err(held(claim))
            }
            _ => Ok(entry.claim.take().is_some()),
        }
    }

    /// Whether an operator may answer: nobody else holds the conversation.
    pub(in super::super) fn may_answer(
        &self,
        id: SessionId,
        operator: &str,
    ) -> Result<(), ClaimError> {
        match self.entries.get(&id).and_then(|entry| entry.claim.as_ref()) {
            Some(claim) if claim.operator != operator => Err(held(claim)),
            _ => Ok(()),
        }
    }

    /// Renews all claims of an operator, and names them.
    pub(in super::super) fn renew(
        &mut self,
        operator: &str,
        (now, time): (Instant, SystemTime),
        lease: Duration,
    ) -> Vec<SessionId> {
        let mut renewed = Vec::new();
        for (id, entry) in &mut self.entries {
            if let Some(claim) = entry.claim.as_mut().filter(|c| c.operator == operator) {
                claim.until = (now + lease, time + lease);
                renewed.push(*id);
            }
        }
        renewed
    }

    /// Ends the claims whose time is up, and names them.
    pub(in super::super) fn lapse(&mut self, now: Instant) -> Vec<SessionId> {
        let over = |claim: &mut Claim| claim.until.0 <= now;
        let entries = self.entries.iter_mut();
        let lapsed = entries.filter_map(|(id, e)| e.claim.take_if(over).map(|_| *id));
        lapsed.collect()
    }

    /// Has what a peer says discarded, or not any more; tells whether that is new.
    pub(in super::super) fn mute(
        &mut self,
        id: SessionId,
        muted: bool,
    ) -> Result<bool, ClaimError> {
        let entry = self.entries.get_mut(&id).ok_or(ClaimError::NotFound)?;
        if !entry.open {
            return Err(ClaimError::Closed);
        }
        Ok(std::mem::replace(&mut entry.muted, muted) != muted)
    }
}

fn held(claim: &Claim) -> ClaimError {
    ClaimError::Held {
        operator: claim.operator.clone(),
        until: claim.until.1,
    }
}
