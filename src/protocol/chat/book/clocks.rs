//! What time does to conversations, found without looking at each: who waits longest, whose answer is overdue, which
//! claim lapses next.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::super::entry::{Pending, Slot};
use super::Book;
use crate::net::SessionId;

/// Moments of one kind, each with its conversation.
type Moments = BTreeSet<(Instant, SessionId)>;

/// All that is found by its time.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// Since when a conversation waits that nobody holds.
    queue: Moments,
    /// Since when a message that operators see has no answer.
    seen: Moments,
    /// Since when any message has none.
    waits: Moments,
    /// When a claim lapses.
    leases: Moments,
    /// Under which moments a conversation is found here.
    wound: std::collections::HashMap<SessionId, Wound>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wound {
    queue: Option<Instant>,
    seen: Option<Instant>,
    wait: Option<Instant>,
    lease: Option<Instant>,
}

fn exchange(moments: &mut Moments, id: SessionId, old: Option<Instant>, new: Option<Instant>) {
    if old != new {
        old.map(|old| moments.remove(&(old, id)));
        moments.extend(new.map(|new| (new, id)));
    }
}

impl Clocks {
    fn set(&mut self, id: SessionId, new: Wound) {
        let old = match new == Wound::default() {
            true => self.wound.remove(&id),
            false => self.wound.insert(id, new),
        };
        let old = old.unwrap_or_default();
        exchange(&mut self.queue, id, old.queue, new.queue);
        exchange(&mut self.seen, id, old.seen, new.seen);
        exchange(&mut self.waits, id, old.wait, new.wait);
        exchange(&mut self.leases, id, old.lease, new.lease);
    }
}

impl Book {
    /// Has a conversation found by its times as they are now. To be called after whatever changes them.
    pub(super) fn wind(&mut self, id: SessionId) {
        let Some(entry) = self.entries.get(&id).filter(|entry| entry.open) else {
            return self.clocks.set(id, Wound::default());
        };
        let free = entry.claim.is_none() && entry.begun;
        let first = || {
            entry
                .pending
                .iter()
                .find_map(|pending| match &pending.slot {
                    Slot::Waiting(q) if q.kept == super::Kept::Yes => Some(q.since),
                    _ => None,
                })
        };
        self.clocks.set(
            id,
            Wound {
                queue: free.then(first).flatten(),
                seen: entry.waiting().next().map(|q| q.since),
                wait: entry.unanswered().next().map(|q| q.since),
                lease: entry.claim.as_ref().map(|claim| claim.until.0),
            },
        );
    }

    /// The longest waiting conversation that nobody holds.
    pub(in super::super) fn next_waiting(&self) -> Option<SessionId> {
        self.clocks.queue.first().map(|(_, id)| *id)
    }

    /// Conversations whose claim has lapsed by now.
    pub(super) fn lapsed(&self, now: Instant) -> Vec<SessionId> {
        let lapsed = self.clocks.leases.iter().take_while(|(at, _)| *at <= now);
        lapsed.map(|(_, id)| *id).collect()
    }

    /// Conversations that somebody holds.
    pub(super) fn claimed(&self) -> Vec<SessionId> {
        self.clocks.leases.iter().map(|(_, id)| *id).collect()
    }

    /// Messages that have had no answer since `before`, and whether they cannot wait for one any longer that has been on
    /// its way since `stuck`.
    pub(in super::super) fn overdue(
        &self,
        before: Instant,
        stuck: Option<Instant>,
    ) -> Vec<(SessionId, u64, bool)> {
        let late = self.clocks.waits.iter().take_while(|(at, _)| *at <= before);
        let entries = late.filter_map(|(_, id)| Some((*id, self.entries.get(id)?)));
        let mut overdue = Vec::new();
        for (id, entry) in entries {
            overdue.extend(
                entry
                    .pending
                    .iter()
                    .filter_map(|pending| match &pending.slot {
                        Slot::Waiting(q) if q.since <= before => {
                            Some((id, pending.sequence, false))
                        }
                        Slot::Answering(q, _, at) if q.since <= before => {
                            let is_stuck = stuck.is_some_and(|stuck| *at <= stuck);
                            is_stuck.then_some((id, pending.sequence, true))
                        }
                        _ => None,
                    }),
            );
        }
        overdue
    }

    /// When the next claim lapses, or the next message has waited for `patience`, if one does: while an answer to that
    /// is on its way, not before `then`.
    pub(in super::super) fn due(&self, patience: Duration, then: Instant) -> Option<Instant> {
        let lease = self.clocks.leases.first().map(|(at, _)| *at);
        let wait = self.clocks.waits.first().map(|(since, id)| {
            let entry = self.entries.get(id);
            let answered = |p: &Pending| matches!(p.slot, Slot::Answering(..));
            let first =
                entry.and_then(|e| e.pending.iter().find(|p| !matches!(p.slot, Slot::Held(_))));
            match first.is_some_and(answered) {
                true => (*since + patience).max(then),
                false => *since + patience,
            }
        });
        lease.into_iter().chain(wait).min()
    }

    /// How many conversations wait, and the longest wait.
    pub(in super::super) fn waiting(&self, now: Instant) -> (usize, Duration) {
        let first = self.clocks.seen.first();
        let longest = first.map(|(since, _)| now.saturating_duration_since(*since));
        (self.clocks.seen.len(), longest.unwrap_or_default())
    }
}
