//! The one connection, and whether it is to be trusted.
//!
//! After a failed write nobody knows what the kernel still holds of it, and asking again may be answered with a success
//! that is none. So a connection whose disk failed is closed, and the file examined as at the start, before anything
//! more is written.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tracing::warn;

use super::error::WriteError;
use super::open::{FileId, Place, connect};
use super::schema::MIGRATIONS;

/// Between attempts to open a file that failed; writes are refused meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Link {
    pub(super) place: Place,
    /// The file that was opened.
    file: Option<FileId>,
    connection: Option<Connection>,
    doubt: Option<Doubt>,
}

/// Why the connection is not trusted, and when to look again.
struct Doubt {
    error: WriteError,
    until: Instant,
}

impl Link {
    pub(super) fn new(place: Place, connection: Connection) -> Self {
        Self {
            file: place.file_id(),
            place,
            connection: Some(connection),
            doubt: None,
        }
    }

    /// The connection, opened anew if it was in doubt.
    pub(super) fn connection(&mut self) -> Result<&Connection, WriteError> {
        // SQLite goes on with a file that has no name any more, and all that is in it goes with the process.
        if self.place.file_id() != self.file {
            let how = "its file has been moved, removed or replaced; put it back, or start the service again";
            return Err(WriteError::Io(how.to_owned()));
        }
        if let Some(doubt) = &self.doubt {
            if Instant::now() < doubt.until {
                return Err(doubt.error.clone());
            }
            let cause = doubt.error.clone();
            match self.renew(&cause) {
                Ok(()) => self.doubt = None,
                Err(error) => {
                    self.doubt = Some(Doubt {
                        error: error.clone(),
                        until: Instant::now() + PAUSE,
                    });
                    return Err(error);
                }
            }
        }
        self.connection.as_ref().ok_or(WriteError::Closed)
    }

    /// A transaction failed: ends it, and doubts the connection if that is what the error means. What is in memory has
    /// no disk that could fail, and would be lost.
    pub(super) fn failed(&mut self, error: &WriteError) {
        let Some(connection) = &self.connection else {
            return;
        };
        let ended = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        if self.place != Place::Memory && (error.discredits() || !ended) {
            self.doubt = Some(Doubt {
                error: error.clone(),
                until: Instant::now(),
            });
        }
    }

    fn renew(&mut self, cause: &WriteError) -> Result<(), WriteError> {
        if let Some(old) = &self.connection {
            // A commit that failed at its very end may stand in the log, whole, and would be found there by whoever
            // opens it next, though its caller was told that it is not kept. This connection alone knows where the
            // log ends in truth: it works it off that far and cuts it.
            if !matches!(cause, WriteError::Damaged(_)) {
                cut_log(old)?;
            }
            old.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        }
        // Its lock goes with it.
        self.connection = None;
        let (connection, _) = connect(&self.place, MIGRATIONS, false)?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Works off the log and lets the file go.
    pub(super) fn close(mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if let Err((_, error)) = connection.close() {
            warn!(store = %self.place.path().display(), %error, "store not closed cleanly");
        }
    }
}

fn cut_log(connection: &Connection) -> Result<(), WriteError> {
    let busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        return Err(WriteError::Io("its log cannot be worked off".to_owned()));
    }
    Ok(())
}
