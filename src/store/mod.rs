//! What outlives a restart: one SQLite file, and the one thread that writes to it.
//!
//! A write that was acknowledged is on the disk; one that was refused is not there, not even in part. The store knows
//! rows, not listeners: what they mean is for those who ask to have them kept. All SQL is here.

mod answer;
mod ban;
mod command;
mod error;
mod facts;
mod link;
mod open;
mod retention;
mod row;
mod schema;
#[cfg(test)]
pub(crate) mod tests;
mod trail;
mod transcript;
mod writer;

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

pub use answer::Answer;
pub use ban::{Ban, BanKey};
pub use command::{Beginning, Command, CommandEnd, CommandId, Recorded, Slice};
pub use error::{OpenError, Refusal, WriteError};
pub use facts::Facts;
pub use row::{Assignment, Event, Identity, Kept, Write};
pub use transcript::{Author, Dialog, Entry, Line, Lines, Of, Open, Then};

use command::Commands;
use facts::Tally;
use link::Link;
use open::{Place, connect};
use retention::Sweep;
use schema::MIGRATIONS;
use trail::Notes;
use transcript::Transcripts;
use writer::{Job, Work, Writer};

/// Writes that may wait; a commit takes up to a quarter of them.
const QUEUE: usize = 1024;

/// Bytes of a store in memory at most.
const MOST_IN_MEMORY: u64 = 64 << 20;

/// Where the store is and how much it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The file; `:memory:` keeps nothing.
    pub path: PathBuf,
    /// How long audit events, commands and transcripts are kept.
    pub retention: Duration,
    /// How large the file may grow before the oldest audit events, commands and transcripts go, whatever their age.
    pub max_bytes: u64,
}

/// A handle on the open store; clones are the same store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    /// Gone once the store is closed.
    jobs: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Closed by the thread's last act.
    ended: watch::Receiver<()>,
    tally: Arc<Tally>,
    keeps: bool,
    max_bytes: u64,
    notes: Mutex<Notes>,
    commands: Arc<Commands>,
    transcripts: Arc<Transcripts>,
}

impl Store {
    /// Opens the file, or makes it, and reads what it keeps. Blocks: up to half a second for another process to let go,
    /// and as long as reading the file takes. A file that is refused is left as it is.
    pub fn open(options: &Options) -> Result<(Self, Kept), OpenError> {
        let place = Place::prepare(&options.path)?;
        let (connection, kept) = connect(&place, MIGRATIONS, true)?;
        info!(
            store = %place.path().display(),
            schema = MIGRATIONS.len(),
            assignments = kept.assignments.len(),
            identities = kept.identities.len(),
            bans = kept.bans.len(),
            "store opened"
        );
        let tally = Arc::new(Tally::new(place.size()));
        let keeps = place != Place::Memory;
        let refused = |refusal| OpenError {
            path: options.path.clone(),
            refusal,
        };
        let commands = Commands::new(&connection, keeps, options).map_err(refused)?;
        let commands = Arc::new(commands);
        let transcripts = Arc::new(Transcripts::new(&connection).map_err(refused)?);
        let (jobs, waiting) = sync_channel(QUEUE);
        let (ending, ended) = watch::channel(());
        let writer = Writer {
            link: Link::new(place, connection),
            jobs: waiting,
            sweep: Sweep::new(options.retention, most_bytes(options, keeps)),
            tally: tally.clone(),
            commands: commands.clone(),
            transcripts: transcripts.clone(),
            due: None,
        };
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(ending))
            .map_err(|error| {
                refused(Refusal::Unusable(format!(
                    "there is no thread for it: {error}"
                )))
            })?;
        let store = Self(Arc::new(Inner {
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
            ended,
            tally,
            keeps,
            max_bytes: options.max_bytes,
            notes: Mutex::new(Notes::default()),
            commands,
            transcripts,
        }));
        Ok((store, kept))
    }

    /// Whether what is written outlives the process.
    pub fn keeps(&self) -> bool {
        self.0.keeps
    }

    /// How large the file may grow before audit events, commands and transcripts go.
    pub fn max_bytes(&self) -> u64 {
        self.0.max_bytes
    }

    /// Writes one change. Resolves once it is on the disk, or nothing of it is. Dropping the future does not undo it.
    pub async fn write(&self, write: Write) -> Result<(), WriteError> {
        self.run(move |connection| write.apply(connection)).await
    }

    /// Runs statements in a transaction of their own or of many, all or nothing.
    async fn run(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), WriteError> {
        let (answer, outcome) = oneshot::channel();
        self.send(Job::Write(Work::Any(Box::new(work)), answer))
            .inspect_err(|error| self.0.tally.failed(error))?;
        outcome.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Reads what is on the disk, between two commits. It should be a matter of a few milliseconds: nobody writes
    /// meanwhile.
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, WriteError> {
        let (answer, outcome) = oneshot::channel();
        let look = Job::Read(Box::new(move |connection| {
            let read = connection.and_then(|connection| Ok(look(connection)?));
            let _ = answer.send(read);
        }));
        self.send(look)?;
        outcome.await.unwrap_or(Err(WriteError::Closed))
    }

    fn send(&self, job: Job) -> Result<(), WriteError> {
        let jobs = lock(&self.0.jobs);
        let jobs = jobs.as_ref().ok_or(WriteError::Closed)?;
        self.0.tally.queued();
        jobs.try_send(job).map_err(|refused| {
            self.0.tally.taken(1);
            match refused {
                TrySendError::Full(_) => WriteError::Busy,
                TrySendError::Disconnected(_) => WriteError::Closed,
            }
        })
    }

    /// Takes no more writes, finishes those that wait, works off the log and lets the file go. False when that took
    /// longer than `within`; it goes on then.
    pub async fn close(&self, within: Duration) -> bool {
        drop(lock(&self.0.jobs).take());
        let mut ended = self.0.ended.clone();
        // Nothing is ever sent: the only change is the sender's end.
        if tokio::time::timeout(within, ended.changed()).await.is_err() {
            warn!("store not closed in time");
            return false;
        }
        let thread = lock(&self.0.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            warn!("the store's thread broke off");
        }
        true
    }

    /// How it fares.
    pub fn facts(&self) -> Facts {
        self.0.tally.facts()
    }
}

/// What the store may grow to: in memory that is less, however large its file might be.
fn most_bytes(options: &Options, keeps: bool) -> u64 {
    match keeps {
        true => options.max_bytes,
        false => options.max_bytes.min(MOST_IN_MEMORY),
    }
}

/// What a panic left behind is still in order: each holder changes one thing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
