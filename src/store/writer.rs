//! The one thread that writes, and reads: it takes what waits, commits once, and answers all.
//!
//! A commit costs a wait for the disk, however much is in it. Each job runs in a savepoint of its own, so that one
//! which fails takes nobody along. What nobody waits for goes with the next commit, whatever that is for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::command::{self, Command, Commands, Late, PAUSE};
use super::error::WriteError;
use super::facts::Tally;
use super::link::Link;
use super::retention::Sweep;
use super::transcript::{Entry, Then, Transcripts};

/// Jobs in one commit: about a millisecond's worth, so that the first does not wait long for the last.
const BATCH: usize = 256;

/// Statements to run in a transaction, whatever they are.
pub(super) type Statements = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()> + Send>;

/// What a write does.
pub(super) enum Work {
    /// Whatever is asked for, in a savepoint of its own.
    Any(Statements),
    /// One row: a command of this number is about to be run.
    Command(Box<(i64, Command)>),
}

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
    /// Something came late; it is seen to in time.
    Attend,
    /// Transcripts wait to be written.
    Transcribe,
}

pub(super) struct Writer {
    pub(super) link: Link,
    pub(super) jobs: Receiver<Job>,
    pub(super) sweep: Sweep,
    pub(super) tally: Arc<Tally>,
    pub(super) commands: Arc<Commands>,
    pub(super) transcripts: Arc<Transcripts>,
    /// When to look for what came late, unless a commit is first.
    pub(super) due: Option<Instant>,
}

type Waiting = (Work, oneshot::Sender<Outcome>);

impl Writer {
    /// Until nobody can send any more and all that was sent is done. `ended` is dropped once the file is let go.
    pub(super) fn run(mut self, ended: watch::Sender<()>) {
        loop {
            match self.jobs.recv_timeout(self.wait()) {
                Ok(first) => {
                    let waiting = self.jobs.try_iter().take(BATCH - 1);
                    let batch = std::iter::once(first).chain(waiting).collect();
                    self.work_off(batch);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.due.is_some_and(|due| due <= Instant::now()) && self.commit(Vec::new(), false) {
                // Others have their turn first.
                self.due = Some(Instant::now());
            }
            self.sweep();
            self.tally.resized(self.link.place.size());
        }
        self.transcripts.queue.close();
        while self.commit(Vec::new(), false) {}
        self.link.close();
        drop(ended);
    }

    fn wait(&self) -> Duration {
        let late = self
            .due
            .map(|due| due.saturating_duration_since(Instant::now()));
        let sweep = self.sweep.wait();
        late.map_or(sweep, |late| late.min(sweep))
    }

    fn work_off(&mut self, batch: Vec<Job>) {
        self.tally.taken(batch.len());
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        let (mut comes_again, mut transcribes) = (false, false);
        for job in batch {
            match job {
                Job::Write(work, answer) => {
                    // What was begun is going to end.
                    comes_again |= matches!(work, Work::Command(_));
                    writes.push((work, answer));
                }
                Job::Read(look) => reads.push(look),
                // More may come in the meantime.
                Job::Attend => self.due = Some(Instant::now() + PAUSE),
                Job::Transcribe => transcribes = true,
            }
        }
        let wanted = transcribes || !writes.is_empty() || !reads.is_empty();
        if wanted && self.commit(writes, comes_again) {
            self.due = Some(Instant::now());
        }
        for look in reads {
            let read = AssertUnwindSafe(|| look(self.link.connection()));
            // Who waits for it is told by what the panic drops.
            let _ = catch_unwind(read);
        }
    }

    /// Writes all that is given, and with it all that came late and what waits of the transcripts; if more of what came
    /// late is to come, so is the next look. Tells whether more of the transcripts waits.
    fn commit(&mut self, mut writes: Vec<Waiting>, comes_again: bool) -> bool {
        // A command whose asker has given up is not going to be run.
        writes.retain(|(work, answer)| matches!(work, Work::Any(_)) || !answer.is_closed());
        let late = self.take_late(comes_again);
        let (said, more) = self.transcripts.queue.take();
        if writes.is_empty() && late.is_empty() && said.is_empty() {
            return more;
        }
        let (work, answers): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        let (said, thens): (Vec<_>, Vec<Then>) = said.into_iter().unzip();
        let attempt = self.attempt(work, &late, &said);
        let failure = attempt.as_ref().err().cloned();
        if failure.is_some() {
            self.put_back(late);
        }
        let all = answers.len() + thens.len();
        let mut outcomes = attempt.unwrap_or_else(|error| vec![Err(error); all]);
        self.report(&outcomes, failure.as_ref());
        let of_said = outcomes.split_off(answers.len());
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Who no longer waits for it does not undo it.
            let _ = answer.send(outcome);
        }
        for (then, outcome) in thens.into_iter().zip(of_said) {
            // One that breaks off takes nobody along.
            let _ = catch_unwind(AssertUnwindSafe(|| then(outcome)));
        }
        more
    }

    fn take_late(&mut self, comes_again: bool) -> Vec<Late> {
        let Some(late) = self.commands.late() else {
            return Vec::new();
        };
        let taken = late.take(comes_again);
        let comes_again = comes_again || !taken.is_empty();
        self.due = comes_again.then(|| Instant::now() + PAUSE);
        taken
    }

    fn put_back(&self, late: Vec<Late>) {
        if let Some(part) = self.commands.late() {
            let lost = part.put_back(late);
            (0..lost).for_each(|_| self.tally.event_lost());
        }
    }

    /// The outcomes of all work, and behind them those of all entries.
    fn attempt(
        &mut self,
        work: Vec<Work>,
        late: &[Late],
        said: &[Entry],
    ) -> Result<Vec<Outcome>, WriteError> {
        let connection = self.link.connection()?;
        let tally = &self.tally;
        let result = together(connection, work, |outcomes| {
            for entry in said {
                outcomes.push(in_its_own_right(connection, entry.apply(connection))?);
            }
            for one in late {
                match in_its_own_right(connection, one.apply(connection))? {
                    Ok(()) => {}
                    Err(WriteError::Rejected(_)) => tally.event_lost(),
                    // It can be kept once there is room.
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        match &result {
            Ok(_) => self.tally.committed(),
            Err(error) => self.link.failed(error),
        }
        result
    }

    /// Counts, and tells the log of the first failure and of the recovery.
    fn report(&self, outcomes: &[Outcome], failure: Option<&WriteError>) {
        let errors = || outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        errors().for_each(|error| self.tally.failed(error));
        self.tally.written(outcomes.len() - errors().count());
        // One that was rejected says nothing about the store.
        let trouble = errors()
            .chain(failure)
            .find(|error| !matches!(error, WriteError::Rejected(_)));
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
        if let Some(cutoff) = self.sweep.cutoff() {
            self.commands.forget_before(cutoff);
        }
        let connection = self.link.connection()?;
        let swept = self.sweep.step(connection).map_err(WriteError::from);
        swept.inspect_err(|error| self.link.failed(error))
    }
}

/// One transaction; an error is one of all of them. `rest` is what is not work, and adds its own outcomes.
fn together(
    connection: &Connection,
    work: Vec<Work>,
    rest: impl FnOnce(&mut Vec<Outcome>) -> Result<(), WriteError>,
) -> Result<Vec<Outcome>, WriteError> {
    run(connection, "BEGIN IMMEDIATE")?;
    let alone = |work| alone(connection, work);
    let mut outcomes = work.into_iter().map(alone).collect::<Result<_, _>>()?;
    rest(&mut outcomes)?;
    run(connection, "COMMIT")?;
    Ok(outcomes)
}

/// One job. The error within is its own; the one without ends the transaction for all.
fn alone(connection: &Connection, work: Work) -> Result<Outcome, WriteError> {
    let work = match work {
        // One statement is a savepoint of its own.
        Work::Command(row) => {
            let (id, command) = *row;
            let inserted = command::insert(connection, id, &command);
            return in_its_own_right(connection, inserted);
        }
        Work::Any(work) => work,
    };
    run(connection, "SAVEPOINT job")?;
    let result = catch_unwind(AssertUnwindSafe(|| work(connection)));
    let outcome = match result {
        Ok(result) => in_its_own_right(connection, result)?,
        Err(_) => Err(WriteError::Rejected("the write broke off".to_owned())),
    };
    if outcome.is_err() {
        run(connection, "ROLLBACK TO job")?;
    }
    run(connection, "RELEASE job")?;
    Ok(outcome)
}

/// Whether an error is that of one job, or ends the transaction for all.
fn in_its_own_right(
    connection: &Connection,
    result: rusqlite::Result<()>,
) -> Result<Outcome, WriteError> {
    match result.map_err(WriteError::from) {
        // SQLite has ended the whole transaction by itself.
        Err(error) if error.discredits() || connection.is_autocommit() => Err(error),
        outcome => Ok(outcome),
    }
}

/// A statement without parameters or rows, which stays prepared.
fn run(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}
