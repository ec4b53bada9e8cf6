//! Transcripts: what was said with the listeners' peers, in the order in which it was entered.
//!
//! ```text
//! enter ──▶ waits, in order ──▶ one commit takes all that waits ──▶ each is told, in order
//! ```
//!
//! Nobody stands still for it: a line is left here under whatever lock gives it its place, and what hangs on its being
//! on the disk is done by its `then`, on the writer's thread. However many come at once share a commit. With the store
//! in memory it is the same, and gone with the process.

mod queue;
mod read;
mod row;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rusqlite::Connection;

use super::error::{Refusal, WriteError};
use super::writer::Job;
use super::{Store, lock};

pub(super) use queue::Queue;
pub use read::{Lines, Of};

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// The client.
    Peer,
    /// An operator.
    Operator,
    /// The listener, since no operator did.
    Unattended,
    /// An operator, to everybody at once.
    Broadcast,
}

/// Whose transcript it is. Its row is made with its first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialog {
    /// Its number: greater than that of all before.
    pub id: i64,
    /// The listener's name.
    pub listener: String,
    /// The session, without the node's name.
    pub session: String,
    /// The peer's address.
    pub peer: String,
    /// When it began.
    pub began: SystemTime,
}

/// One thing that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counts up within the dialog.
    pub sequence: u64,
    /// Who wrote it.
    pub author: Author,
    /// Which operator, where one did.
    pub operator: String,
    /// As it crossed the wire, without its frame.
    pub raw: Vec<u8>,
    /// When it came or was written.
    pub time: SystemTime,
    /// The line that it answers; 0 for none. No line is answered by two.
    pub in_reply_to: u64,
    /// What its author named it, if anything. No two of a dialog have one name.
    pub request_id: String,
}

/// What is entered of a dialog.
#[derive(Debug, Clone)]
pub enum Entry {
    /// Something was said.
    Said(Arc<Dialog>, Line),
    /// Its peer is to be heard no more, or again.
    Muted(i64, bool),
    /// Its peer is gone.
    Ended(i64, SystemTime),
}

/// What hangs on an entry's being on the disk. Runs on the writer's thread, so it must be quick.
pub type Then = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// A dialog that had not ended when the process did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Whose.
    pub dialog: Dialog,
    /// Whether its peer was heard no more.
    pub muted: bool,
    /// All from the first line of the peer on that nobody answered; the last line where all are answered.
    pub lines: Vec<Line>,
}

/// Where transcripts are entered.
pub(super) struct Transcripts {
    last: AtomicI64,
    pub(super) queue: Queue,
    /// By listener, until somebody goes on with them.
    open: Mutex<HashMap<String, Vec<Open>>>,
}

impl Transcripts {
    /// Goes on behind what the file holds.
    pub(super) fn new(connection: &Connection) -> Result<Self, Refusal> {
        let mut open: HashMap<String, Vec<Open>> = HashMap::new();
        for one in read::open(connection)? {
            let listener = one.dialog.listener.clone();
            open.entry(listener).or_default().push(one);
        }
        Ok(Self {
            last: row::last(connection)?.into(),
            queue: Queue::default(),
            open: Mutex::new(open),
        })
    }
}

impl Store {
    /// The number of a dialog that begins.
    pub fn next_dialog(&self) -> i64 {
        self.0.transcripts.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The dialogs of a listener that had not ended when the last process did, oldest first; once.
    pub fn take_open_dialogs(&self, listener: &str) -> Vec<Open> {
        let taken = lock(&self.0.transcripts.open).remove(listener);
        taken.unwrap_or_default()
    }

    /// Enters something. It is on its way to the disk in the order of these calls; `then` is called once it is there,
    /// or is not going to be, unless this fails.
    ///
    /// # Errors
    /// Too much waits, or the store is closed: it is not entered.
    pub fn enter(&self, entry: Entry, then: Then) -> Result<(), WriteError> {
        let entered = match self.0.transcripts.queue.push(entry, then) {
            // With a full queue of jobs there is going to be a commit anyway.
            Ok(true) => match self.send(Job::Transcribe) {
                Err(WriteError::Closed) => Err(WriteError::Closed),
                _ => Ok(()),
            },
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        entered.inspect_err(|error| self.0.tally.failed(error))
    }
}
