//! Why a store is not opened, and why a write is not kept.
//!
//! SQLite's many codes become the few that somebody can act on: make room, mend the disk, restore the file, wait.

use std::fmt;
use std::path::PathBuf;

use rusqlite::ErrorCode;

/// A file that was not taken as the store. It is as it was, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub refusal: Refusal,
}

/// What was wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another process has it open.
    Held,
    /// A newer version made it.
    Newer {
        /// The schema that it has.
        found: u32,
        /// The newest schema that is known here.
        known: u32,
    },
    /// It is a database of something else.
    Foreign,
    /// Something in it cannot be right: what.
    Damaged(String),
    /// It cannot be made, read or written: why.
    Unusable(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store {} ", self.path.display())?;
        match &self.refusal {
            Refusal::Held => f.write_str(
                "is open in another process; stop that one, or give this one a path of its own",
            ),
            Refusal::Newer { found, known } => write!(
                f,
                "was made by a newer version: its schema is {found}, and up to {known} is known here; run that \
                 version, or restore the file from before the upgrade"
            ),
            Refusal::Foreign => {
                f.write_str("is a database, but of another program; give a path of its own")
            }
            Refusal::Damaged(what) => write!(
                f,
                "is damaged: {what}; restore it and its -wal from a backup, or move both away to begin anew"
            ),
            Refusal::Unusable(why) => write!(f, "cannot be used: {why}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// What went wrong while the store was being opened.
impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Held,
            Some(ErrorCode::DiskFull) => Self::Unusable("the disk is full".to_owned()),
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NoLargeFileSupport
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure,
            ) => Self::Unusable(described(&error)),
            // A table that is not there and a text that is not UTF-8 are damages too.
            _ => Self::Damaged(described(&error)),
        }
    }
}

/// Why a write was not kept. Nothing of it is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteError {
    /// There is no room on the disk. Once there is, the next write works.
    Full,
    /// The disk failed, or the file cannot be reached: how. Every write tries anew.
    Io(String),
    /// Too many writes wait.
    Busy,
    /// The store is closed.
    Closed,
    /// The file is damaged: how.
    Damaged(String),
    /// The database refuses this one write, and has nothing against others: why.
    Rejected(String),
}

impl WriteError {
    /// Every reason.
    pub const REASONS: [&'static str; 6] = [
        "STORE_FULL",
        "STORE_IO",
        "STORE_BUSY",
        "STORE_CLOSED",
        "STORE_DAMAGED",
        "STORE_REJECTED",
    ];

    /// One of [`Self::REASONS`].
    pub fn reason(&self) -> &'static str {
        Self::REASONS[self.index()]
    }

    /// Where its reason stands among [`Self::REASONS`].
    pub(super) fn index(&self) -> usize {
        match self {
            Self::Full => 0,
            Self::Io(_) => 1,
            Self::Busy => 2,
            Self::Closed => 3,
            Self::Damaged(_) => 4,
            Self::Rejected(_) => 5,
        }
    }

    /// Whether the connection that said so is to be trusted no more.
    pub(super) fn discredits(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Damaged(_))
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the store's disk is full; make room and try again"),
            Self::Io(how) => write!(f, "the store's disk failed: {how}"),
            Self::Busy => f.write_str("the store has too many writes waiting; try again"),
            Self::Closed => f.write_str("the store is closed"),
            Self::Damaged(how) => write!(f, "the store is damaged: {how}"),
            Self::Rejected(why) => write!(f, "the store does not take this: {why}"),
        }
    }
}

impl std::error::Error for WriteError {}

/// What went wrong in a transaction.
impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(described(&error))
            }
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NoLargeFileSupport
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure,
            ) => Self::Io(described(&error)),
            _ => Self::Rejected(described(&error)),
        }
    }
}

/// A file that no longer opens while the store is in use.
impl From<OpenError> for WriteError {
    fn from(error: OpenError) -> Self {
        match error.refusal {
            Refusal::Damaged(how) => Self::Damaged(how),
            _ => Self::Io(error.to_string()),
        }
    }
}

/// SQLite's words, and the code that tells one I/O error from another.
fn described(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(cause, _) => {
            format!("{error} (code {})", cause.extended_code)
        }
        _ => error.to_string(),
    }
}
