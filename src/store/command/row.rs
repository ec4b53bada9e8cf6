//! Commands as rows of the file.

use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::super::error::Refusal;
use super::super::row::{nanos, time};
use super::{Command, CommandEnd, Recorded, Slice};

/// Bytes of commands that are read at once.
const SLICE_BYTES: usize = 4 << 20;

/// The number of the newest; 0 for none.
pub(super) fn last(connection: &Connection) -> Result<i64, Refusal> {
    let last = connection.query_row("SELECT coalesce(max(id), 0) FROM commands", [], |row| {
        row.get(0)
    });
    Ok(last?)
}

/// Enters a command that has not ended.
pub(in crate::store) fn insert(
    connection: &Connection,
    id: i64,
    command: &Command,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO commands (id, time, listener, session, peer, command, trace_id) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            id,
            nanos(command.time),
            command.listener,
            command.session,
            command.peer,
            command.text,
            command.trace_id,
        ])?;
    Ok(())
}

/// Enters an end, unless the command has been removed.
pub(super) fn end(connection: &Connection, id: i64, end: &CommandEnd) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE commands SET duration = ?2, exit_code = ?3, signal = ?4, stdout_bytes = ?5, stderr_bytes = ?6, \
             truncated = ?7, timed_out = ?8, refused = ?9 WHERE id = ?1",
        )?
        .execute(params![
            id,
            end.duration.map(|duration| limited(duration.as_nanos())),
            end.exit_code,
            end.signal,
            limited(end.stdout_bytes),
            limited(end.stderr_bytes),
            end.truncated,
            end.timed_out,
            end.refused,
        ])?;
    Ok(())
}

fn limited(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// At most `most` before one, newest first, or fewer when they are long; and whether there are more.
pub(super) fn slice(
    connection: &Connection,
    before: i64,
    most: usize,
) -> rusqlite::Result<(Slice, bool)> {
    let mut statement = connection.prepare_cached(
        "SELECT id, time, listener, session, peer, command, trace_id, duration, exit_code, signal, stdout_bytes, \
         stderr_bytes, truncated, timed_out, refused FROM commands WHERE id < ?1 ORDER BY id DESC",
    )?;
    let (mut rows, mut slice, mut bytes) = (statement.query([before])?, Slice::new(), 0);
    while let Some(row) = rows.next()? {
        if slice.len() == most || bytes > SLICE_BYTES {
            return Ok((slice, true));
        }
        let recorded = recorded(row)?;
        bytes += recorded.command.text.len();
        slice.push((row.get(0)?, recorded));
    }
    Ok((slice, false))
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    let command = Command {
        time: time(row.get(1)?),
        listener: row.get(2)?,
        session: row.get(3)?,
        peer: row.get(4)?,
        text: row.get(5)?,
        trace_id: row.get(6)?,
    };
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let duration: Option<i64> = row.get(7)?;
    let end = CommandEnd {
        duration: duration.map(|nanos| Duration::from_nanos(unsigned(nanos))),
        exit_code: row.get(8)?,
        signal: row.get(9)?,
        stdout_bytes: unsigned(row.get(10)?),
        stderr_bytes: unsigned(row.get(11)?),
        truncated: row.get(12)?,
        timed_out: row.get(13)?,
        refused: row.get(14)?,
    };
    let has_ended = end.duration.is_some() || !end.refused.is_empty();
    Ok(Recorded {
        command,
        end: has_ended.then_some(end),
    })
}
