//! What grows is cut: the audit trail, the commands and the transcripts, by age and by the file's size.
//!
//! What takes the most room of them gives way to the size, so that none pushes the others out.
//!
//! Rows go in the order in which they were written, oldest first, a few at a time between the writes. Clocks jump, so
//! times only say where to stop: a row that seems old among newer ones stays as long as those do, a row from the future
//! goes once a later one is too old, and no run takes more than a tenth for its age, so that a clock that is years ahead
//! for an hour costs a tenth of the trail and not all of it.

use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OptionalExtension};
use tracing::info;

use super::row::nanos;

/// Rows, their bytes where they are long, and pages in one step: a few milliseconds.
const ROWS: i64 = 500;
const BYTES: f64 = 300_000.0;
const PAGES: i64 = 256;

/// The longest time between two looks at what is too old. With a short retention it is shorter: what a tenth holds must
/// be more than what falls due between two.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
const INTERVALS: u32 = 24;

/// Commits between two looks at the size: a few mebibytes' worth, where each is as large as it may be.
const COMMITS: u64 = 16;

/// The tables that grow, and about how many bytes one of their rows has.
const TABLES: [(&str, &str); 3] = [
    ("events", "150 + length(reason)"),
    ("commands", "150 + length(command)"),
    ("messages", "150 + length(raw)"),
];

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
    /// The last row of each table that is too old; 0 for none.
    too_old: [i64; TABLES.len()],
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
            too_old: [0; TABLES.len()],
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

    /// What is older goes now, if it is time to look at the ages.
    pub(super) fn cutoff(&self) -> Option<SystemTime> {
        let due = self.due <= Instant::now();
        due.then(|| SystemTime::now().checked_sub(self.retention))?
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
            for (last, (table, _)) in self.too_old.iter_mut().zip(TABLES) {
                *last = too_old(connection, table, self.retention, now)?;
            }
        }
        let mut removed = 0;
        if used(connection)? > self.max_bytes {
            let (table, rows) = largest(connection)?;
            removed += remove(connection, table, i64::MAX, rows)?;
        }
        for (last, (table, _)) in self.too_old.into_iter().zip(TABLES) {
            if last > 0 {
                removed += remove(connection, table, last, ROWS)?;
            }
        }
        self.removed += removed;
        self.under_way = removed > 0 || give_back(connection)?;
        if !self.under_way && self.removed > 0 {
            info!(
                rows = self.removed,
                "retention removed the oldest audit events, commands and transcripts"
            );
            self.removed = 0;
        }
        Ok(())
    }
}

/// Removes a few of the rows up to one, oldest first.
fn remove(connection: &Connection, table: &str, last: i64, rows: i64) -> rusqlite::Result<usize> {
    let few = format!("SELECT id FROM {table} WHERE id <= ?1 ORDER BY id LIMIT ?2");
    connection
        .prepare_cached(&format!("DELETE FROM {table} WHERE id IN ({few})"))?
        .execute([last, rows])
}

/// The table whose rows take the most room, to judge by its oldest, and how many of those one step removes.
fn largest(connection: &Connection) -> rusqlite::Result<(&'static str, i64)> {
    let (mut largest, mut most) = ((TABLES[0].0, ROWS), 0.0);
    for (table, bytes) in TABLES {
        let Some((first, last)) = ends(connection, table)? else {
            continue;
        };
        let oldest = format!("SELECT {bytes} AS bytes FROM {table} ORDER BY id LIMIT {ROWS}");
        let average: f64 = connection
            .prepare_cached(&format!("SELECT avg(bytes) FROM ({oldest})"))?
            .query_row([], |row| row.get(0))?;
        let size = average * (last - first + 1) as f64;
        if size > most {
            largest = (table, ((BYTES / average) as i64).clamp(1, ROWS));
            most = size;
        }
    }
    Ok(largest)
}

/// The first and the last row of a table that is not empty.
fn ends(connection: &Connection, table: &str) -> rusqlite::Result<Option<(i64, i64)>> {
    let end = |which| format!("(SELECT {which}(id) FROM {table})");
    connection
        .prepare_cached(&format!("SELECT {}, {}", end("min"), end("max")))?
        .query_row([], |row| {
            let (first, last): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
            Ok(first.zip(last))
        })
}

/// The last of the rows that age removes now; 0 for none.
fn too_old(
    connection: &Connection,
    table: &str,
    retention: Duration,
    now: SystemTime,
) -> rusqlite::Result<i64> {
    let cutoff = now.checked_sub(retention).map_or(i64::MIN, nanos);
    let Some((first, last)) = ends(connection, table)? else {
        return Ok(0);
    };
    // Nothing goes from the first row on that is as young as it should be.
    let young: Option<i64> = connection
        .query_row(
            &format!("SELECT id FROM {table} WHERE time BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1"),
            [cutoff, nanos(now)],
            |row| row.get(0),
        )
        .optional()?;
    // Nor do those before it that seem to be of the future: they are about as old as it is.
    let old: Option<i64> = connection
        .query_row(
            &format!("SELECT id FROM {table} WHERE id < ?1 AND time < ?2 ORDER BY id DESC LIMIT 1"),
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
