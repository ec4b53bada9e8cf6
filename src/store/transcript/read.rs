//! Reading transcripts back.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::Store;
use super::super::error::{Refusal, WriteError};
use super::super::row::time;
use super::row::{LINE, line, signed};
use super::{Dialog, Line, Open};

/// Bytes of lines that are read at once.
const SLICE_BYTES: usize = 4 << 20;

/// Lines of an open dialog that are looked at to see which of them wait: more than may.
const WAITING: i64 = 1_024;

/// A slice of transcripts, oldest first: the number behind which the next one begins, the session, and the line. Of all
/// dialogs those of other listeners are among them, without their lines.
pub type Lines = Vec<(i64, Option<(String, Line)>)>;

/// Whose lines are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// Of all dialogs of this listener.
    Listener(String),
    /// Of one of them: listener and session.
    Dialog(String, String),
}

impl Store {
    /// At most `most` lines, oldest first, or fewer when they are long: those behind the number `after`, or the oldest;
    /// and whether there are more. All that was told to be on the disk is among them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn lines(
        &self,
        of: Of,
        after: Option<i64>,
        most: usize,
    ) -> Result<(Lines, bool), WriteError> {
        let after = after.unwrap_or(0);
        self.read(move |connection| match &of {
            Of::Listener(listener) => of_all(connection, listener, after, most),
            Of::Dialog(listener, session) => match number(connection, listener, session)? {
                Some(id) => of_one(connection, (id, session), after, most),
                None => Ok((Lines::new(), false)),
            },
        })
        .await
    }

    /// The last lines of a dialog, oldest first: at most `most`, or fewer when they are long.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn last_lines(
        &self,
        listener: &str,
        session: &str,
        most: usize,
    ) -> Result<Vec<Line>, WriteError> {
        let of = (listener.to_owned(), session.to_owned());
        self.read(move |connection| {
            let Some(id) = number(connection, &of.0, &of.1)? else {
                return Ok(Vec::new());
            };
            let mut lines = tail(connection, id, most)?;
            lines.reverse();
            Ok(lines)
        })
        .await
    }

    /// The line of a dialog that its author named so.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn line_named(
        &self,
        listener: &str,
        session: &str,
        request_id: &str,
    ) -> Result<Option<Line>, WriteError> {
        let of = (
            listener.to_owned(),
            session.to_owned(),
            request_id.to_owned(),
        );
        self.read(move |connection| {
            let query = format!(
                "SELECT {LINE} FROM messages m JOIN dialogs d ON d.id = m.dialog \
                 WHERE d.listener = ?1 AND d.session = ?2 AND m.request_id = ?3 AND m.request_id != ''"
            );
            let mut statement = connection.prepare_cached(&query)?;
            let of = params![of.0, of.1, of.2];
            statement.query_row(of, |row| line(row, 0)).optional()
        })
        .await
    }

    /// The line of a dialog that answers another.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn line_answering(
        &self,
        listener: &str,
        session: &str,
        sequence: u64,
    ) -> Result<Option<Line>, WriteError> {
        let of = (listener.to_owned(), session.to_owned());
        self.read(move |connection| {
            let query = format!(
                "SELECT {LINE} FROM messages m JOIN dialogs d ON d.id = m.dialog \
                 WHERE d.listener = ?1 AND d.session = ?2 AND m.in_reply_to = ?3 AND m.in_reply_to > 0"
            );
            let mut statement = connection.prepare_cached(&query)?;
            let of = params![of.0, of.1, signed(sequence)];
            statement.query_row(of, |row| line(row, 0)).optional()
        })
        .await
    }

    /// Whether there is a transcript of such a session.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn has_dialog(&self, listener: &str, session: &str) -> Result<bool, WriteError> {
        let of = (listener.to_owned(), session.to_owned());
        self.read(move |connection| Ok(number(connection, &of.0, &of.1)?.is_some()))
            .await
    }
}

fn number(connection: &Connection, listener: &str, session: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM dialogs WHERE listener = ?1 AND session = ?2")?
        .query_row([listener, session], |row| row.get(0))
        .optional()
}

fn of_one(
    connection: &Connection,
    (id, session): (i64, &str),
    after: i64,
    most: usize,
) -> rusqlite::Result<(Lines, bool)> {
    let query = format!(
        "SELECT {LINE} FROM messages m WHERE m.dialog = ?1 AND m.sequence > ?2 ORDER BY m.sequence"
    );
    let mut statement = connection.prepare_cached(&query)?;
    let (mut rows, mut slice, mut bytes) = (statement.query([id, after])?, Lines::new(), 0);
    while let Some(row) = rows.next()? {
        if slice.len() == most || bytes > SLICE_BYTES {
            return Ok((slice, true));
        }
        let line = line(row, 0)?;
        bytes += line.raw.len();
        slice.push((row.get(0)?, Some((session.to_owned(), line))));
    }
    Ok((slice, false))
}

fn of_all(
    connection: &Connection,
    listener: &str,
    after: i64,
    most: usize,
) -> rusqlite::Result<(Lines, bool)> {
    let query = format!(
        "SELECT m.id, d.listener = ?2, d.session, {LINE} FROM messages m JOIN dialogs d ON d.id = m.dialog \
         WHERE m.id > ?1 ORDER BY m.id"
    );
    let mut statement = connection.prepare_cached(&query)?;
    let mut rows = statement.query(params![after, listener])?;
    let (mut slice, mut bytes) = (Lines::new(), 0);
    while let Some(row) = rows.next()? {
        if slice.len() == most || bytes > SLICE_BYTES {
            return Ok((slice, true));
        }
        let found = match row.get(1)? {
            true => Some((row.get(2)?, line(row, 3)?)),
            false => None,
        };
        bytes += found
            .as_ref()
            .map_or(0, |(_, line): &(_, Line)| line.raw.len());
        slice.push((row.get(0)?, found));
    }
    Ok((slice, false))
}

/// The last lines of a dialog, newest first.
fn tail(connection: &Connection, dialog: i64, most: usize) -> rusqlite::Result<Vec<Line>> {
    let query =
        format!("SELECT {LINE} FROM messages m WHERE m.dialog = ?1 ORDER BY m.sequence DESC");
    let mut statement = connection.prepare_cached(&query)?;
    let (mut rows, mut tail, mut read) = (statement.query([dialog])?, Vec::new(), 0);
    while tail.len() < most
        && read < SLICE_BYTES
        && let Some(row) = rows.next()?
    {
        let line = line(row, 0)?;
        read += line.raw.len();
        tail.push(line);
    }
    Ok(tail)
}

/// All dialogs that have not ended, oldest first.
pub(super) fn open(connection: &Connection) -> Result<Vec<Open>, Refusal> {
    let mut statement = connection.prepare(
        "SELECT id, listener, session, peer, began, muted FROM dialogs WHERE ended IS NULL ORDER BY id",
    )?;
    let dialogs = statement.query_map([], |row| {
        let dialog = Dialog {
            id: row.get(0)?,
            listener: row.get(1)?,
            session: row.get(2)?,
            peer: row.get(3)?,
            began: time(row.get(4)?),
        };
        Ok((dialog, row.get(5)?))
    })?;
    let mut open = Vec::new();
    for found in dialogs {
        let (dialog, muted) = found?;
        let lines = owed(connection, dialog.id)?;
        open.push(Open {
            dialog,
            muted,
            lines,
        });
    }
    Ok(open)
}

/// All from the first line of its peer on that nobody answered; the last line where all are answered.
fn owed(connection: &Connection, dialog: i64) -> Result<Vec<Line>, Refusal> {
    let first: Option<i64> = connection
        .prepare_cached(
            "SELECT min(sequence) FROM (SELECT sequence, author FROM messages WHERE dialog = ?1 \
             ORDER BY sequence DESC LIMIT ?2) m WHERE author = 0 AND NOT EXISTS \
             (SELECT 1 FROM messages a WHERE a.dialog = ?1 AND a.in_reply_to = m.sequence AND a.in_reply_to > 0)",
        )?
        .query_row(params![dialog, WAITING], |row| row.get(0))?;
    let Some(first) = first else {
        return Ok(tail(connection, dialog, 1)?);
    };
    let query = format!(
        "SELECT {LINE} FROM messages m WHERE m.dialog = ?1 AND m.sequence >= ?2 ORDER BY m.sequence"
    );
    let mut statement = connection.prepare_cached(&query)?;
    let lines = statement.query_map([dialog, first], |row| line(row, 0))?;
    Ok(lines.collect::<Result<_, _>>()?)
}
