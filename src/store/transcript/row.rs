//! Transcripts as rows of the file.

use std::time::SystemTime;

use rusqlite::{Connection, Row, params};

use super::super::error::Refusal;
use super::super::row::{nanos, time};
use super::{Author, Dialog, Entry, Line};

/// The columns of a line, in the order in which [`line`] reads them.
pub(super) const LINE: &str =
    "m.sequence, m.author, m.operator, m.raw, m.time, m.in_reply_to, m.request_id";

const AUTHORS: [Author; 4] = [
    Author::Peer,
    Author::Operator,
    Author::Unattended,
    Author::Broadcast,
];

/// The number of the newest dialog; 0 for none.
pub(super) fn last(connection: &Connection) -> Result<i64, Refusal> {
    let last = connection.query_row("SELECT coalesce(max(id), 0) FROM dialogs", [], |row| {
        row.get(0)
    });
    Ok(last?)
}

impl Entry {
    /// Within the caller's transaction.
    pub(in crate::store) fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        match self {
            Self::Said(dialog, line) => {
                begin(connection, dialog)?;
                say(connection, dialog.id, line)
            }
            Self::Muted(id, muted) => connection
                .prepare_cached("UPDATE dialogs SET muted = ?2 WHERE id = ?1")?
                .execute(params![id, muted])
                .map(drop),
            Self::Ended(id, at) => end(connection, *id, *at),
        }
    }
}

/// Makes its row unless it is there: with its last line it goes, and it comes again with the next.
fn begin(connection: &Connection, dialog: &Dialog) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO dialogs (id, listener, session, peer, began) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            dialog.id,
            dialog.listener,
            dialog.session,
            dialog.peer,
            nanos(dialog.began),
        ])
        .map(drop)
}

fn say(connection: &Connection, dialog: i64, line: &Line) -> rusqlite::Result<()> {
    let author = AUTHORS.iter().position(|author| *author == line.author);
    connection
        .prepare_cached(
            "INSERT INTO messages (dialog, sequence, author, operator, raw, time, in_reply_to, request_id) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            dialog,
            signed(line.sequence),
            author.and_then(|author| i64::try_from(author).ok()),
            line.operator,
            line.raw,
            nanos(line.time),
            signed(line.in_reply_to),
            line.request_id,
        ])
        .map(drop)
}

fn end(connection: &Connection, dialog: i64, at: SystemTime) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE dialogs SET ended = ?2 WHERE id = ?1")?
        .execute(params![dialog, nanos(at)])
        .map(drop)
}

/// The columns [`LINE`], from this one on.
pub(super) fn line(row: &Row<'_>, from: usize) -> rusqlite::Result<Line> {
    let author: i64 = row.get(from + 1)?;
    let author = usize::try_from(author).ok();
    Ok(Line {
        sequence: unsigned(row.get(from)?),
        // What no version of this program has written was not said by a peer.
        author: author
            .and_then(|author| AUTHORS.get(author).copied())
            .unwrap_or(Author::Unattended),
        operator: row.get(from + 2)?,
        raw: row.get(from + 3)?,
        time: time(row.get(from + 4)?),
        in_reply_to: unsigned(row.get(from + 5)?),
        request_id: row.get(from + 6)?,
    })
}

/// As a column holds it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
