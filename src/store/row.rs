//! What is kept, and how it becomes rows and is read again.
//!
//! SQLite's own checks see damage to a page's structure, not to the bytes of a text within it. What is read at every
//! start therefore carries a checksum, so that a value that was never set is not taken for one that was.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Row, params};
use serde_json::Value;

use super::answer::{self, Answer};
use super::ban::{self, Ban};
use super::error::Refusal;

/// What was in the store when it was opened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    /// In the order of their paths, so that one stands before those below it.
    pub assignments: Vec<Assignment>,
    /// In the order of their names.
    pub identities: Vec<Identity>,
    /// In the order in which they were given.
    pub answers: Vec<Answer>,
    /// Those that have ended are still among them.
    pub bans: Vec<Ban>,
}

/// A value that a call set at a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// From the root: `["listeners", "ack", "bind"]`.
    pub path: Vec<String>,
    /// In the form of a file; null hides what lower layers say.
    pub value: Value,
    /// The call: `StopListener`.
    pub method: String,
    /// What the caller gave as the reason; may be empty.
    pub reason: String,
    /// Who called.
    pub set_by: String,
    /// When.
    pub set_time: SystemTime,
}

/// What a restart would otherwise give anew to a listener that calls have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub listener: String,
    /// Never given twice.
    pub uid: String,
    /// When it was made.
    pub created: SystemTime,
}

/// One change, all or nothing. The parts are applied in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Write {
    /// Assignments at these paths and all below them are removed.
    pub forget: Vec<Vec<String>>,
    /// Each replaces the assignment at its path and removes all below it.
    pub assign: Vec<Assignment>,
    /// By listener: what is kept from now on; `None` removes it.
    pub identities: Vec<(String, Option<Identity>)>,
    /// What the audit trail says of it.
    pub event: Option<Event>,
    /// The call that made it, so that it is not made twice.
    pub answer: Option<Answer>,
    /// Answers with a lesser stamp are removed.
    pub answers_from: Option<i64>,
}

/// A row of the audit trail: one change that was made or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it was answered.
    pub time: SystemTime,
    /// Who called.
    pub actor: String,
    /// The call: `switchboard.v1.ListenerService/StopListener`.
    pub method: String,
    /// What it was about: `listeners/ack`.
    pub resource: String,
    /// What the caller gave as the reason; may be empty.
    pub reason: String,
    /// How it ended: `OK`, `FAILED_PRECONDITION`.
    pub status: String,
    /// The resource's etag before; empty where there was none.
    pub before_etag: String,
    /// The resource's etag after; empty where there is none.
    pub after_etag: String,
    /// 32 hexadecimal digits; empty in rows that are older than that.
    pub trace_id: String,
}

impl Write {
    /// Within the caller's transaction.
    pub(super) fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        for path in &self.forget {
            forget(connection, path)?;
        }
        for assignment in &self.assign {
            forget(connection, &assignment.path)?;
            assign(connection, assignment)?;
        }
        for (listener, identity) in &self.identities {
            connection
                .prepare_cached("DELETE FROM identities WHERE listener = ?1")?
                .execute([listener])?;
            if let Some(identity) = identity {
                identify(connection, identity)?;
            }
        }
        if let Some(event) = &self.event {
            record(connection, event)?;
        }
        if let Some(answer) = &self.answer {
            answer::keep(connection, answer)?;
        }
        if let Some(stamp) = self.answers_from {
            answer::forget_before(connection, stamp)?;
        }
        Ok(())
    }
}

fn forget(connection: &Connection, path: &[String]) -> rusqlite::Result<()> {
    let key = key(path);
    let (from, to) = below(&key);
    connection
        .prepare_cached("DELETE FROM assignments WHERE path = ?1 OR (path >= ?2 AND path < ?3)")?
        .execute([key, from, to])?;
    Ok(())
}

fn assign(connection: &Connection, row: &Assignment) -> rusqlite::Result<()> {
    let (path, value, set_time) = (key(&row.path), row.value.to_string(), nanos(row.set_time));
    let sum = checksum(
        &[&path, &value, &row.method, &row.reason, &row.set_by],
        set_time,
    );
    connection
        .prepare_cached("INSERT INTO assignments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            path, value, row.method, row.reason, row.set_by, set_time, sum
        ])?;
    Ok(())
}

fn identify(connection: &Connection, row: &Identity) -> rusqlite::Result<()> {
    let created = nanos(row.created);
    let sum = checksum(&[&row.listener, &row.uid], created);
    connection
        .prepare_cached("INSERT OR REPLACE INTO identities VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![row.listener, row.uid, created, sum])?;
    Ok(())
}

fn record(connection: &Connection, event: &Event) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO events VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            nanos(event.time),
            event.actor,
            event.method,
            event.resource,
            event.reason,
            event.status,
            event.before_etag,
            event.after_etag,
            event.trace_id,
        ])?;
    Ok(())
}

impl Kept {
    /// Reads all of it; the first row that cannot be what was written is named.
    pub(super) fn read(connection: &Connection) -> Result<Self, Refusal> {
        let mut assignments: Vec<Assignment> = rows(
            connection,
            "assignments",
            "SELECT path, value, method, reason, set_by, set_time, checksum FROM assignments",
            assignment,
        )?;
        assignments.sort_by(|a, b| a.path.cmp(&b.path));
        let identities = rows(
            connection,
            "identities",
            "SELECT listener, uid, created, checksum FROM identities",
            identity,
        )?;
        let answers = rows(
            connection,
            "answers",
            "SELECT request_id, fingerprint, stamp, answer, checksum FROM answers ORDER BY stamp",
            answer::answer,
        )?;
        Ok(Self {
            assignments,
            identities,
            answers,
            bans: ban::read(connection)?,
        })
    }
}

/// All rows of a table. `read` makes nothing of one whose checksum is wrong.
pub(super) fn rows<T>(
    connection: &Connection,
    table: &str,
    query: &str,
    read: fn(&Row<'_>) -> rusqlite::Result<Option<T>>,
) -> Result<Vec<T>, Refusal> {
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let Ok(Some(value)) = read(row) else {
            let name = match row.get::<_, String>(0) {
                Ok(name) => name.escape_debug().to_string(),
                Err(_) => format!("number {}", all.len() + 1),
            };
            let what = format!("row {name} of its table {table} is not what was written");
            return Err(Refusal::Damaged(what));
        };
        all.push(value);
    }
    Ok(all)
}

fn assignment(row: &Row<'_>) -> rusqlite::Result<Option<Assignment>> {
    let (path, value): (String, String) = (row.get(0)?, row.get(1)?);
    let (method, reason, set_by): (String, String, String) =
        (row.get(2)?, row.get(3)?, row.get(4)?);
    let set_time = row.get(5)?;
    let sum = checksum(&[&path, &value, &method, &reason, &set_by], set_time);
    let (Ok(path), Ok(value)) = (serde_json::from_str(&path), serde_json::from_str(&value)) else {
        return Ok(None);
    };
    let assignment = Assignment {
        path,
        value,
        method,
        reason,
        set_by,
        set_time: time(set_time),
    };
    Ok((sum == row.get::<_, i64>(6)?).then_some(assignment))
}

fn identity(row: &Row<'_>) -> rusqlite::Result<Option<Identity>> {
    let (listener, uid): (String, String) = (row.get(0)?, row.get(1)?);
    let created = row.get(2)?;
    let sum = checksum(&[&listener, &uid], created);
    let identity = Identity {
        listener,
        uid,
        created: time(created),
    };
    Ok((sum == row.get::<_, i64>(3)?).then_some(identity))
}

/// A path as a column holds it: `["listeners","ack"]`. No name can look like two.
fn key(path: &[String]) -> String {
    Value::from(path).to_string()
}

/// The keys of all that is below, as bytes from one to before the other.
fn below(key: &str) -> (String, String) {
    let open = key.strip_suffix(']').unwrap_or(key);
    match open {
        "[" => ("[\"".to_owned(), "[#".to_owned()),
        _ => (format!("{open},"), format!("{open}-")),
    }
}

/// FNV-1a over the parts, each with its length: any one changed byte changes it.
pub(super) fn checksum<P: AsRef<[u8]>>(parts: &[P], number: i64) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for part in parts.iter().map(AsRef::as_ref) {
        add(&(part.len() as u64).to_le_bytes());
        add(part);
    }
    add(&number.to_le_bytes());
    hash as i64
}

/// Nanoseconds since 1970, as far as 64 bits reach: from 1677 to 2262.
pub(super) fn nanos(time: SystemTime) -> i64 {
    let limit = |gap: Duration| i64::try_from(gap.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => limit(after),
        Err(before) => -limit(before.duration()),
    }
}

pub(super) fn time(nanos: i64) -> SystemTime {
    let gap = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 {
        UNIX_EPOCH - gap
    } else {
        UNIX_EPOCH + gap
    }
}
