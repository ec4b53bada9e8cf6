//! What grows is cut: the audit trail, by age and by the file's size.
//!
//! Rows go in the order in which they were written, oldest first, a few at a time between the writes. Clocks jump, so
//! times only say where to stop: a row that seems old among newer ones stays as long as those do, a row from the future
//! goes once a later one is too old, and no run takes more than a tenth for its age, so that a clock that is years ahead
//! for an hour costs a tenth of the trail and not all of it.

use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OptionalExtension};
use tracing::info;

use super::row::nanos;

/// Rows and pages in one step: a few milliseconds.
const ROWS: i64 = 500;
const PAGES: i64 = 256;

/// The longest time between two looks at what is too old. With a short retention it is shorter: what a tenth holds must
/// be more than what falls due between two.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
const INTERVALS: u32 = 24;

/// Commits between two looks at the size.
const COMMITS: u64 = 100;

/// Free pages are given back when more than one in so many is free; the rest is soon used again.
const SLACK: i64 = 8;

pub(super) struct Sweep {
    retention: Duration,
    max_bytes: u64,
    /// When to look at the ages again.
    due: Instant,
    /// The count of commits at which to look at the size again.
    due_at: u64,
    /// Whether there may be something to remove.
    under_way: bool,
    /// The last row that is too old; 0 for none.
    too_old: i64,
    removed: usize,
}

impl Sweep {
    /// Begins with a run.
    pub(super) fn new(retention: Duration, max_bytes: u64) -> Self {
        Self {
            retention,
            max_bytes,
            due: Instant::now(),
            due_at: COMMITS,
            under_way: true,
            too_old: 0,
            removed: 0,
        }
    }

    /// How long the next step may wait.
    pub(super) fn wait(&self) -> Duration {
        if self.under_way {
            Duration::ZERO
        } else {
            self.due.saturating_duration_since(Instant::now())
        }
    }

    /// So many commits were made by now.
    pub(super) fn note(&mut self, commits: u64) {
        if commits >= self.due_at {
            self.due_at = commits + COMMITS;
            self.under_way = true;
        }
    }

    /// Something failed; all of it can wait.
    pub(super) fn pause(&mut self) {
        self.under_way = false;
        self.due = Instant::now() + self.interval();
    }

    fn interval(&self) -> Duration {
        let part = self.retention / INTERVALS;
        part.clamp(Duration::from_secs(1), INTERVAL)
    }

    /// Removes a few rows or gives a few pages back.
    pub(super) fn step(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.step_at(connection, SystemTime::now())
    }

    pub(super) fn step_at(
        &mut self,
        connection: &Connection,
        now: SystemTime,
    ) -> rusqlite::Result<()> {
        if self.due <= Instant::now() {
            self.due = Instant::now() + self.interval();
            self.too_old = too_old(connection, self.retention, now)?;
        }
        let too_large = used(connection)? > self.max_bytes;
        let last = if too_large { i64::MAX } else { self.too_old };
        let removed = connection
            .prepare_cached(
                "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id <= ?1 ORDER BY id LIMIT ?2)",
            )?
            .execute([last, ROWS])?;
        self.removed += removed;
        self.under_way = removed > 0 || give_back(connection)?;
        if !self.under_way && self.removed > 0 {
            info!(
                rows = self.removed,
                "retention removed the oldest audit events"
            );
            self.removed = 0;
        }
        Ok(())
    }
}

/// The last of the rows that age removes now; 0 for none.
fn too_old(connection: &Connection, retention: Duration, now: SystemTime) -> rusqlite::Result<i64> {
    let cutoff = now.checked_sub(retention).map_or(i64::MIN, nanos);
    let ends: (Option<i64>, Option<i64>) = connection.query_row(
        "SELECT (SELECT min(id) FROM events), (SELECT max(id) FROM events)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let (Some(first), Some(last)) = ends else {
        return Ok(0);
    };
    // Nothing goes from the first row on that is as young as it should be.
    let young: Option<i64> = connection
        .query_row(
            "SELECT id FROM events WHERE time BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1",
            [cutoff, nanos(now)],
            |row| row.get(0),
        )
        .optional()?;
    // Nor do those before it that seem to be of the future: they are about as old as it is.
    let old: Option<i64> = connection
        .query_row(
            "SELECT id FROM events WHERE id < ?1 AND time < ?2 ORDER BY id DESC LIMIT 1",
            [young.unwrap_or(i64::MAX), cutoff],
            |row| row.get(0),
        )
        .optional()?;
    let tenth = first + (last - first) / 10;
    Ok(old.unwrap_or(0).min(tenth))
}

/// Bytes of the pages in use.
fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let pages = number(connection, "page_count")? - number(connection, "freelist_count")?;
    Ok((pages * number(connection, "page_size")?) as u64)
}

/// Returns free pages to the file system; false when there are none worth it.
fn give_back(connection: &Connection) -> rusqlite::Result<bool> {
    let free = number(connection, "freelist_count")?;
    if free * SLACK <= number(connection, "page_count")? {
        return Ok(false);
    }
    // It frees one page at each step, and is not done before its last.
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut steps = vacuum.query([])?;
    while steps.next()?.is_some() {}
    Ok(number(connection, "freelist_count")? < free)
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}
