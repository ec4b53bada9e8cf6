//! What operators do with a conversation besides answering it: take it, keep it, give it back, mute it.

use std::time::{Instant, SystemTime};

use super::desk::{Desk, State};
use super::inbox::{Happened, seen};
use super::message::{ClaimError, Claimed, Conversation};
use crate::net::SessionId;
use crate::store::Entry;

impl Desk {
    /// Takes a conversation for `claim_lease`, or the longest waiting one that nobody holds when `id` is none; one's own
    /// is renewed. What another holds is only taken by `force`.
    ///
    /// # Errors
    /// There is none, its peer is gone, or another holds it.
    pub fn claim(
        &self,
        id: Option<SessionId>,
        operator: &str,
        force: bool,
    ) -> Result<Claimed, ClaimError> {
        let mut state = crate::net::lock(&self.state);
        let now = (Instant::now(), SystemTime::now());
        self.lapse(&mut state, now.0);
        let next = || state.book.next_waiting().ok_or(ClaimError::NothingWaits);
        let id = id.map_or_else(next, Ok)?;
        let lease = self.manner().claim_lease;
        let taken_from = state.book.claim(id, operator, force, now, lease)?;
        let conversation = self.changed(&mut state, id, true)?;
        Ok(Claimed {
            conversation,
            taken_from,
        })
    }

    /// Gives a conversation back to the queue: that of this operator, or whoever holds it for none. What nobody holds
    /// is given back already.
    ///
    /// # Errors
    /// There is none, or another holds it.
    pub fn release(
        &self,
        id: SessionId,
        operator: Option<&str>,
    ) -> Result<Conversation, ClaimError> {
        let mut state = crate::net::lock(&self.state);
        self.lapse(&mut state, Instant::now());
        let changed = state.book.release(id, operator)?;
        self.changed(&mut state, id, changed)
    }

    /// Renews all claims of an operator for another `claim_lease`.
    pub fn renew(&self, operator: &str) {
        let mut state = crate::net::lock(&self.state);
        let now = (Instant::now(), SystemTime::now());
        self.lapse(&mut state, now.0);
        for id in state.book.renew(operator, now, self.manner().claim_lease) {
            self.tell(&mut state.book, id, Happened::Changed, None);
        }
    }

    /// Has what a peer says read and discarded, or heard again.
    ///
    /// # Errors
    /// There is no such conversation, or its peer is gone.
    pub fn mute(&self, id: SessionId, muted: bool) -> Result<Conversation, ClaimError> {
        let mut state = crate::net::lock(&self.state);
        let changed = state.book.mute(id, muted)?;
        let dialog = state.book.get(id).and_then(|entry| entry.dialog.clone());
        if let Some(dialog) = dialog.filter(|_| changed) {
            self.note(Entry::Muted(dialog.id, muted));
        }
        self.changed(&mut state, id, changed)
    }

    /// Ends the claims whose time is up.
    pub(super) fn lapse(&self, state: &mut State, now: Instant) {
        for id in state.book.lapse(now) {
            self.tell(&mut state.book, id, Happened::Changed, None);
        }
    }

    /// A conversation as it is now, which is told if it is another than before.
    fn changed(
        &self,
        state: &mut State,
        id: SessionId,
        is_new: bool,
    ) -> Result<Conversation, ClaimError> {
        if is_new {
            self.tell(&mut state.book, id, Happened::Changed, None);
        }
        let entry = state.book.get(id).ok_or(ClaimError::NotFound)?;
        Ok(seen(id, entry))
    }
}
