//! What nobody waits for: it goes with whatever is written next.

use std::sync::Mutex;
use std::time::Duration;

use rusqlite::Connection;

use super::super::error::WriteError;
use super::super::lock;
use super::{Command, CommandEnd, row};

/// How long something may wait for a commit to go with.
pub(in crate::store) const PAUSE: Duration = Duration::from_millis(100);

/// As many as may wait; commands that may run at once are far fewer.
const MOST: usize = 4_096;

#[derive(Debug)]
pub(in crate::store) enum Late {
    /// A command of this number has ended.
    End(i64, CommandEnd),
    /// A command that was not run.
    Refused(Box<(i64, Command, CommandEnd)>),
}

impl Late {
    /// Within the caller's transaction.
    pub(in crate::store) fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        match self {
            Self::End(id, end) => row::end(connection, *id, end),
            Self::Refused(row) => {
                let (id, command, end) = &**row;
                row::insert(connection, *id, command)?;
                row::end(connection, *id, end)
            }
        }
    }
}

/// All that waits.
#[derive(Debug, Default)]
pub(in crate::store) struct LatePart(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<Late>,
    /// The writer comes by within [`PAUSE`], so that it need not be woken.
    attended: bool,
}

impl LatePart {
    /// Adds one. Tells whether the writer was on its way; if not it is to be woken now.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn push(&self, late: Late) -> Result<bool, WriteError> {
        let mut waiting = lock(&self.0);
        if waiting.entries.len() >= MOST {
            return Err(WriteError::Busy);
        }
        waiting.entries.push(late);
        Ok(std::mem::replace(&mut waiting.attended, true))
    }

    /// Takes all; whoever does comes again within [`PAUSE`] when it says so. It need not when there is nothing.
    pub(in crate::store) fn take(&self, comes_again: bool) -> Vec<Late> {
        let mut waiting = lock(&self.0);
        waiting.attended = comes_again || !waiting.entries.is_empty();
        std::mem::take(&mut waiting.entries)
    }

    /// Puts back what could not be written. Tells how many there was no room for.
    pub(in crate::store) fn put_back(&self, mut entries: Vec<Late>) -> usize {
        let mut waiting = lock(&self.0);
        entries.append(&mut waiting.entries);
        let lost = entries.len().saturating_sub(MOST);
        entries.truncate(MOST);
        waiting.entries = entries;
        lost
    }
}
