//! Taking a file as the store, or leaving it as it is.
//!
//! Until everything in the file has been looked at nothing is written to it, its write-ahead log included. One exclusive
//! transaction spans the whole examination, so there is no moment in which another process could slip in.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tracing::info;

use super::error::{OpenError, Refusal};
use super::row::Kept;
use super::schema::{self, APPLICATION_ID};

/// How long another process may take to let go.
const PATIENCE: Duration = Duration::from_millis(400);

/// Files up to this size are read from end to end before they are trusted.
const EXAMINED: u64 = 256 << 20;

/// Pages in the write-ahead log at which it is worked off: half a mebibyte, so that it does not fill a small disk, on
/// which there would then be no room for the next write.
const LOG_PAGES: i64 = 128;

/// Statements that stay prepared: more than there are.
const STATEMENTS: usize = 64;

/// What the log is cut back to once it has been worked off: twice that.
const LOG_BYTES: i64 = 1 << 20;

/// What a database begins with, and where in its header the application's id stands.
const MAGIC: &[u8] = b"SQLite format 3\0";
const APPLICATION_ID_AT: usize = 68;
const HEADER: usize = 100;

/// What tells a file from another of its name: its file system and its number there.
pub(super) type FileId = (u64, u64);

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing outlives the process.
    Memory,
    /// In this file, without symbolic links.
    File(PathBuf),
}

impl Place {
    /// `:memory:`, or a file, which is made where there is none.
    pub(super) fn prepare(path: &Path) -> Result<Self, OpenError> {
        if path == Path::new(":memory:") {
            return Ok(Self::Memory);
        }
        let prepared = make_directory(path)
            .and_then(|()| make_file(path))
            .and_then(|()| path.canonicalize());
        match prepared {
            Ok(path) => Ok(Self::File(path)),
            Err(error) => Err(OpenError {
                path: path.to_owned(),
                refusal: Refusal::Unusable(error.to_string()),
            }),
        }
    }

    /// For people.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Memory => Path::new(":memory:"),
            Self::File(path) => path,
        }
    }

    /// Bytes on the disk, the log's included.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Memory => 0,
            Self::File(path) => length(path) + length(&self.log()),
        }
    }

    /// The file that is there now, if one is.
    pub(super) fn file_id(&self) -> Option<FileId> {
        match self {
            Self::Memory => None,
            Self::File(path) => {
                let metadata = fs::metadata(path).ok()?;
                Some((metadata.dev(), metadata.ino()))
            }
        }
    }

    fn log(&self) -> PathBuf {
        beside(self.path(), "-wal")
    }
}

/// Makes the directories that are missing, for the owner alone.
fn make_directory(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path
        .ancestors()
        .skip(1)
        .take_while(|directory| !directory.as_os_str().is_empty() && !directory.exists())
        .collect();
    let Some(directory) = missing.first() else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| named(&error, "its directory cannot be made"))?;
    missing.into_iter().try_for_each(sync_parent)
}

/// Makes the file, for the owner alone, if there is none; one that may not be read and written is refused.
fn make_file(path: &Path) -> io::Result<()> {
    if path.exists() && !path.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    // An empty one may have been made a moment ago.
    if file.metadata()?.len() == 0 {
        sync_parent(path)?;
    }
    Ok(())
}

/// A name is on the disk once its directory is.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn named(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Opens what [`Place::prepare`] found, brings its schema up to `steps`, and reads what it keeps. An empty file becomes
/// a store only where `anew`: one that was a store a moment ago has lost everything.
pub(super) fn connect(
    place: &Place,
    steps: &[&str],
    anew: bool,
) -> Result<(Connection, Kept), OpenError> {
    let attempt = || {
        if let Place::File(path) = place {
            look(path)?;
        }
        let without_log = !place.log().exists();
        // Without SQLITE_OPEN_CREATE: a file that is gone by now has been taken away.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(place.path(), flags)?;
        let looked = examine(&connection, place, steps, anew);
        let (found, kept) = looked.inspect_err(|refusal| {
            // SQLite has made one to look into it, which is not another's as long as the file is not.
            let made = without_log && length(&place.log()) == 0;
            if made && *refusal != Refusal::Held {
                let _ = fs::remove_file(place.log());
            }
        })?;
        accept(&connection, place)?;
        if found > 0 && found < steps.len() {
            let path = place.path().display();
            info!(store = %path, from = found, to = steps.len(), "store migrated");
        }
        Ok((connection, kept))
    };
    attempt().map_err(|refusal| OpenError {
        path: place.path().to_owned(),
        refusal,
    })
}

/// Looks at the file without SQLite, which deletes a log that has no database, and rolls back what another program was
/// in the middle of.
fn look(path: &Path) -> Result<(), Refusal> {
    let unreadable = |error: io::Error| Refusal::Unusable(error.to_string());
    let mut header = Vec::with_capacity(HEADER);
    let file = File::open(path).map_err(unreadable)?;
    let read = file.take(HEADER as u64).read_to_end(&mut header);
    read.map_err(unreadable)?;
    if header.is_empty() && length(&beside(path, "-wal")) > 0 {
        let what = "it is empty, but the -wal beside it is not";
        return Err(Refusal::Damaged(what.to_owned()));
    }
    // SQLite takes a file of one byte for an empty one.
    if (1..HEADER).contains(&header.len()) {
        let what = "it is shorter than what a database begins with";
        return Err(Refusal::Damaged(what.to_owned()));
    }
    let is_ours = || header[APPLICATION_ID_AT..].starts_with(&APPLICATION_ID.to_be_bytes());
    if header.starts_with(MAGIC) && !is_ours() {
        return Err(Refusal::Foreign);
    }
    Ok(())
}

/// Settings that hold for the connection and write nothing.
fn guard(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Before the log is touched: then its index is in memory and nobody else gets in.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(())
}

fn pages(connection: &Connection) -> rusqlite::Result<u64> {
    connection.pragma_query_value(None, "page_count", |row| {
        row.get::<_, i64>(0).map(|n| n as u64)
    })
}

/// In one exclusive transaction: the schema that the file had, and what is in it now.
fn examine(
    connection: &Connection,
    place: &Place,
    steps: &[&str],
    anew: bool,
) -> Result<(usize, Kept), Refusal> {
    guard(connection)?;
    if pages(connection)? > 0 {
        connection.execute_batch("BEGIN EXCLUSIVE")?;
    } else {
        // What writes the first page, so that a file is never a database without being a store.
        connection.execute_batch("BEGIN; PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    let found = schema::version(connection, steps)?;
    if found == 0 && !anew {
        return Err(Refusal::Damaged("it is empty".to_owned()));
    }
    if place.size() <= EXAMINED {
        let verdict: String =
            connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        if verdict != "ok" {
            let lines = verdict.lines().filter(|line| !line.starts_with("***"));
            let first: Vec<_> = lines.take(3).collect();
            return Err(Refusal::Damaged(first.join("; ")));
        }
    }
    schema::migrate(connection, steps, found)?;
    let kept = Kept::read(connection)?;
    connection.execute_batch("COMMIT")?;
    Ok((found, kept))
}

/// What writes to the file, once it is known to be ours.
fn accept(connection: &Connection, place: &Place) -> Result<(), Refusal> {
    let Place::File(path) = place else {
        return Ok(());
    };
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let why = format!("its file system allows no write-ahead log, only \"{mode}\"");
        return Err(Refusal::Unusable(why));
    }
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    // An exclusive connection leaves the journal of the first transaction behind, emptied.
    let _ = fs::remove_file(beside(path, "-journal"));
    Ok(())
}
