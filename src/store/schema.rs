//! The tables, and how those of an older version become those of this one.

use rusqlite::Connection;

use super::error::Refusal;

/// In the file's header: `SWBD`.
pub(super) const APPLICATION_ID: i32 = 0x5357_4244;

/// Each step leads from the schema of its index to the next one. Steps are added, never changed: there are files that
/// have taken them.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE assignments (
        path TEXT PRIMARY KEY NOT NULL,
        value TEXT NOT NULL,
        method TEXT NOT NULL,
        reason TEXT NOT NULL,
        set_by TEXT NOT NULL,
        set_time INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE identities (
        listener TEXT PRIMARY KEY NOT NULL,
        uid TEXT NOT NULL,
        created INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        actor TEXT NOT NULL,
        method TEXT NOT NULL,
        resource TEXT NOT NULL,
        reason TEXT NOT NULL,
        status TEXT NOT NULL,
        before_etag TEXT NOT NULL,
        after_etag TEXT NOT NULL,
        trace_id TEXT NOT NULL
    ) STRICT;
",
    "
    CREATE TABLE answers (
        request_id TEXT PRIMARY KEY NOT NULL,
        fingerprint INTEGER NOT NULL,
        stamp INTEGER NOT NULL UNIQUE,
        answer BLOB,
        checksum INTEGER NOT NULL
    ) STRICT;
",
    "
    CREATE TABLE bans (
        listener TEXT NOT NULL,
        network TEXT NOT NULL,
        until INTEGER,
        reason TEXT NOT NULL,
        actor TEXT NOT NULL,
        checksum INTEGER NOT NULL,
        PRIMARY KEY (listener, network)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE commands (
        id INTEGER PRIMARY KEY NOT NULL,
        time INTEGER NOT NULL,
        listener TEXT NOT NULL,
        session TEXT NOT NULL,
        peer TEXT NOT NULL,
        command BLOB NOT NULL,
        trace_id TEXT NOT NULL,
        duration INTEGER,
        exit_code INTEGER,
        signal TEXT NOT NULL DEFAULT '',
        stdout_bytes INTEGER NOT NULL DEFAULT 0,
        stderr_bytes INTEGER NOT NULL DEFAULT 0,
        truncated INTEGER NOT NULL DEFAULT 0,
        timed_out INTEGER NOT NULL DEFAULT 0,
        refused TEXT NOT NULL DEFAULT ''
    ) STRICT;
",
    "
    CREATE TABLE dialogs (
        id INTEGER PRIMARY KEY NOT NULL,
        listener TEXT NOT NULL,
        session TEXT NOT NULL,
        peer TEXT NOT NULL,
        began INTEGER NOT NULL,
        ended INTEGER,
        muted INTEGER NOT NULL DEFAULT 0,
        UNIQUE (listener, session)
    ) STRICT;
    CREATE INDEX open_dialogs ON dialogs (id) WHERE ended IS NULL;
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        dialog INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        author INTEGER NOT NULL,
        operator TEXT NOT NULL,
        raw BLOB NOT NULL,
        in_reply_to INTEGER NOT NULL,
        request_id TEXT NOT NULL,
        UNIQUE (dialog, sequence)
    ) STRICT;
    CREATE UNIQUE INDEX answers_of_messages ON messages (dialog, in_reply_to) WHERE in_reply_to > 0;
    CREATE UNIQUE INDEX named_messages ON messages (dialog, request_id) WHERE request_id != '';
    CREATE TRIGGER forgotten_dialogs AFTER DELETE ON messages
    WHEN NOT EXISTS (SELECT 1 FROM messages WHERE dialog = OLD.dialog)
    BEGIN
        DELETE FROM dialogs WHERE id = OLD.dialog;
    END;
",
];

/// The schema that the file has; 0 when it has none yet. One that `steps` do not lead to is refused.
pub(super) fn version(connection: &Connection, steps: &[&str]) -> Result<usize, Refusal> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = steps.len() as u32;
    if found > known {
        return Err(Refusal::Newer { found, known });
    }
    Ok(found as usize)
}

/// Takes the steps that are missing. The caller's transaction makes them all or nothing.
pub(super) fn migrate(connection: &Connection, steps: &[&str], from: usize) -> Result<(), Refusal> {
    for (step, next) in steps.iter().zip(1_u32..).skip(from) {
        let taken = connection
            .execute_batch(step)
            .and_then(|()| connection.pragma_update(None, "user_version", next))
            .and_then(|()| connection.pragma_update(None, "application_id", APPLICATION_ID));
        taken.map_err(|error| match Refusal::from(error) {
            Refusal::Damaged(what) => {
                Refusal::Damaged(format!("its schema does not become version {next}: {what}"))
            }
            other => other,
        })?;
    }
    Ok(())
}
