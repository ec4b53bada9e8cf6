//! The audit trail, as far as it is not part of a change.

use std::time::{Duration, Instant};

use rusqlite::Row;
use tracing::error;

use super::error::WriteError;
use super::row::{Event, Write, time};
use super::writer::{Job, Work};
use super::{QUEUE, Store, lock};

/// How long somebody waits for an event of what was done anyway: a disk may never answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Events of refusals that may be kept in so long: a flood of them must not take the place of all that was done.
const NOTES: (u32, Duration) = (300, Duration::from_secs(60));

/// The refusals of the minute that runs.
#[derive(Debug, Default)]
pub(super) struct Notes {
    since: Option<Instant>,
    taken: u32,
}

impl Notes {
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let runs = |since: Instant| now.saturating_duration_since(since) < NOTES.1;
        if !self.since.is_some_and(runs) {
            (self.since, self.taken) = (Some(now), 0);
        }
        self.taken += 1;
        self.taken <= NOTES.0
    }
}

impl Store {
    /// Keeps an event of something that was done whether or not it can be kept: nobody has to make room on a disk before
    /// a session can be ended. Resolves once it is on the disk, or cannot be, or takes too long; the log has it then.
    pub async fn record(&self, event: Event) {
        let write = Write {
            event: Some(event.clone()),
            ..Write::default()
        };
        let why = match tokio::time::timeout(PATIENCE, self.write(write)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the disk does not answer".to_owned(),
        };
        self.0.tally.event_lost();
        let Event {
            actor,
            method,
            resource,
            reason,
            status,
            trace_id,
            ..
        } = event;
        error!(
            why,
            actor, method, resource, reason, status, trace_id, "audit event not kept"
        );
    }

    /// At most `most` events, newest first, each with its number: those before the one of this number, or the newest.
    /// Later ones have greater numbers.
    pub async fn events(
        &self,
        before: Option<i64>,
        most: usize,
    ) -> Result<Vec<(i64, Event)>, WriteError> {
        let before = before.unwrap_or(i64::MAX);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, time, actor, method, resource, reason, status, before_etag, after_etag, trace_id \
                 FROM events WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            statement.query_map([before, most], event)?.collect()
        })
        .await
    }

    /// Keeps an event of something that was refused, if there is room to spare. Nobody waits for it.
    pub fn note(&self, event: Event) {
        let room = self.0.tally.facts().queued < QUEUE / 4;
        if !room || !lock(&self.0.notes).admit(Instant::now()) {
            self.0.tally.event_lost();
            return;
        }
        let write = Write {
            event: Some(event),
            ..Write::default()
        };
        let work = Work::Any(Box::new(move |connection: &_| write.apply(connection)));
        let (answer, _) = tokio::sync::oneshot::channel();
        if let Err(error) = self.send(Job::Write(work, answer)) {
            self.0.tally.failed(&error);
            self.0.tally.event_lost();
        }
    }
}

fn event(row: &Row<'_>) -> rusqlite::Result<(i64, Event)> {
    let event = Event {
        time: time(row.get(1)?),
        actor: row.get(2)?,
        method: row.get(3)?,
        resource: row.get(4)?,
        reason: row.get(5)?,
        status: row.get(6)?,
        before_etag: row.get(7)?,
        after_etag: row.get(8)?,
        trace_id: row.get(9)?,
    };
    Ok((row.get(0)?, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_cut_and_the_next_minute_has_room_again() {
        let (mut notes, now) = (Notes::default(), Instant::now());
        let admitted = (0..10_000).filter(|_| notes.admit(now)).count();
        assert_eq!(admitted, 300);
        assert!(!notes.admit(now + Duration::from_secs(59)));
        assert!(notes.admit(now + Duration::from_secs(60)));
    }
}
