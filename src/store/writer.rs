//! The one thread that writes, and reads: it takes what waits, commits once, and answers all.
//!
//! A commit costs a wait for the disk, however much is in it. Each job runs in a savepoint of its own, so that one
//! which fails takes nobody along.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::error::WriteError;
use super::facts::Tally;
use super::link::Link;
use super::retention::Sweep;

/// Jobs in one commit: about a millisecond's worth, so that the first does not wait long for the last.
const BATCH: usize = 256;

/// Statements to run in a transaction.
pub(super) type Work = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()> + Send>;

/// Whether they are on the disk.
pub(super) type Outcome = Result<(), WriteError>;

/// Whether the connection may be read, and what from.
pub(super) type Look = Box<dyn FnOnce(Result<&Connection, WriteError>) + Send>;

/// What waits for its turn.
pub(super) enum Job {
    /// A change, and who waits until it is on the disk.
    Write(Work, oneshot::Sender<Outcome>),
    /// Reads what is there, and says so itself. It waits for the writes before it, and delays those behind it.
    Read(Look),
}

pub(super) struct Writer {
    pub(super) link: Link,
    pub(super) jobs: Receiver<Job>,
    pub(super) sweep: Sweep,
    pub(super) tally: Arc<Tally>,
}

impl Writer {
    /// Until nobody can send any more and all that was sent is done. `ended` is dropped once the file is let go.
    pub(super) fn run(mut self, ended: watch::Sender<()>) {
        loop {
            match self.jobs.recv_timeout(self.sweep.wait()) {
                Ok(first) => {
                    let waiting = self.jobs.try_iter().take(BATCH - 1);
                    let batch = std::iter::once(first).chain(waiting).collect();
                    self.work_off(batch);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.sweep();
            self.tally.resized(self.link.place.size());
        }
        self.link.close();
        drop(ended);
    }

    fn work_off(&mut self, batch: Vec<Job>) {
        self.tally.taken(batch.len());
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for job in batch {
            match job {
                Job::Write(work, answer) => writes.push((work, answer)),
                Job::Read(look) => reads.push(look),
            }
        }
        if !writes.is_empty() {
            self.commit(writes);
        }
        for look in reads {
            let read = AssertUnwindSafe(|| look(self.link.connection()));
            // Who waits for it is told by what the panic drops.
            let _ = catch_unwind(read);
        }
    }

    fn commit(&mut self, writes: Vec<(Work, oneshot::Sender<Outcome>)>) {
        let (work, answers): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        let outcomes = self
            .attempt(work)
            .unwrap_or_else(|error| vec![Err(error); answers.len()]);
        self.report(&outcomes);
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Who no longer waits for it does not undo it.
            let _ = answer.send(outcome);
        }
    }

    fn attempt(&mut self, work: Vec<Work>) -> Result<Vec<Outcome>, WriteError> {
        let connection = self.link.connection()?;
        let result = together(connection, work);
        match &result {
            Ok(_) => self.tally.committed(),
            Err(error) => self.link.failed(error),
        }
        result
    }

    /// Counts, and tells the log of the first failure and of the recovery.
    fn report(&self, outcomes: &[Outcome]) {
        let errors = || outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        errors().for_each(|error| self.tally.failed(error));
        self.tally.written(outcomes.len() - errors().count());
        // One that was rejected says nothing about the store.
        let trouble = errors().find(|error| !matches!(error, WriteError::Rejected(_)));
        let was_healthy = self.tally.set_healthy(trouble.is_none());
        let path = self.link.place.path().display();
        match trouble {
            Some(error) if was_healthy => {
                warn!(store = %path, reason = error.reason(), %error, "store fails");
            }
            None if !was_healthy => info!(store = %path, "store works again"),
            _ => {}
        }
    }

    /// One step of the retention, which no write waits longer for than for another write.
    fn sweep(&mut self) {
        self.sweep.note(self.tally.commits());
        if !self.sweep.wait().is_zero() {
            return;
        }
        let Err(error) = self.step() else {
            return;
        };
        self.sweep.pause();
        let path = self.link.place.path().display();
        warn!(store = %path, reason = error.reason(), %error, "retention waits");
    }

    fn step(&mut self) -> Result<(), WriteError> {
        let connection = self.link.connection()?;
        let swept = self.sweep.step(connection).map_err(WriteError::from);
        swept.inspect_err(|error| self.link.failed(error))
    }
}

/// One transaction; an error is one of all of them.
fn together(connection: &Connection, work: Vec<Work>) -> Result<Vec<Outcome>, WriteError> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let alone = |work| alone(connection, work);
    let outcomes = work.into_iter().map(alone).collect::<Result<_, _>>()?;
    connection.execute_batch("COMMIT")?;
    Ok(outcomes)
}

/// One job. The error within is its own; the one without ends the transaction for all.
fn alone(connection: &Connection, work: Work) -> Result<Outcome, WriteError> {
    connection.execute_batch("SAVEPOINT job")?;
    let outcome = match catch_unwind(AssertUnwindSafe(|| work(connection))) {
        Ok(result) => result.map_err(WriteError::from),
        Err(_) => Err(WriteError::Rejected("the write broke off".to_owned())),
    };
    match outcome {
        Ok(()) => connection.execute_batch("RELEASE job")?,
        // SQLite has ended the whole transaction by itself.
        Err(error) if error.discredits() || connection.is_autocommit() => return Err(error),
        Err(_) => connection.execute_batch("ROLLBACK TO job; RELEASE job")?,
    }
    Ok(outcome)
}
