//! The trail of commands: what was asked for before it is run, and afterwards what became of it.
//!
//! ```text
//! begin ──▶ a job of the writer: on the disk before it is answered
//! end, refusal ──▶ late: nobody waits; they go with the next commit, or in a tenth of a second
//! ```
//!
//! With the store in memory there is no disk to wait for: all of it goes into a ring, at once, and nobody is woken.

mod late;
mod ring;
mod row;

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{Refusal, WriteError};
use super::trail::Notes;
use super::writer::{Job, Work};
use super::{Options, Store, lock};

pub(super) use late::{Late, LatePart, PAUSE};
pub(super) use row::insert;

use ring::Ring;

/// Bytes of a refused command that are kept: what nobody ran need not be whole, and may be a flood.
const REFUSED_BYTES: usize = 1 << 10;

/// What somebody sent to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The listener that it was sent to.
    pub listener: String,
    /// The session that it came by: `NODE-ULID`.
    pub session: String,
    /// The address that it came from.
    pub peer: String,
    /// Its bytes as they came.
    pub text: Vec<u8>,
    /// When it was to be run, or was refused.
    pub time: SystemTime,
    /// 32 hexadecimal digits.
    pub trace_id: String,
}

/// What became of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandEnd {
    /// From its start to its end; none when it was not run.
    pub duration: Option<Duration>,
    /// What it exited with, if it did.
    pub exit_code: Option<i32>,
    /// The name of the signal that ended it; empty when none did.
    pub signal: String,
    /// Bytes of its stdout that were sent.
    pub stdout_bytes: u64,
    /// Bytes of its stderr that were sent.
    pub stderr_bytes: u64,
    /// Whether its output was cut.
    pub truncated: bool,
    /// Whether its time was up.
    pub timed_out: bool,
    /// The word for why it was not run; empty when it was.
    pub refused: String,
}

/// A command of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What was asked for.
    pub command: Command,
    /// None while it runs, and for ever when the process ended first.
    pub end: Option<CommandEnd>,
}

/// Names a command of the trail. Later ones have greater numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandId(i64);

/// A command that is being entered.
#[derive(Debug)]
#[must_use = "it is kept once `kept` says so"]
pub struct Beginning {
    /// Its number, whether or not it is kept.
    pub id: CommandId,
    state: State,
}

#[derive(Debug)]
enum State {
    Kept,
    UnderWay(oneshot::Receiver<Result<(), WriteError>>),
    Refused(WriteError),
}

impl Beginning {
    /// Resolves once the command is on the disk, or is not going to be. Once this is dropped it may be there or not.
    ///
    /// # Errors
    /// Why it is not kept.
    pub async fn kept(self) -> Result<(), WriteError> {
        match self.state {
            State::Kept => Ok(()),
            State::UnderWay(outcome) => outcome.await.unwrap_or(Err(WriteError::Closed)),
            State::Refused(error) => Err(error),
        }
    }
}

/// A slice of the trail, newest first, each with its number.
pub type Slice = Vec<(i64, Recorded)>;

/// Where commands are entered.
pub(super) struct Commands {
    kept: Kept,
    notes: Mutex<Notes>,
}

enum Kept {
    Memory(Mutex<Ring>),
    File { last: AtomicI64, late: LatePart },
}

impl Commands {
    /// Goes on behind what the file holds.
    pub(super) fn new(
        connection: &Connection,
        keeps: bool,
        options: &Options,
    ) -> Result<Self, Refusal> {
        let kept = if keeps {
            let last = row::last(connection)?.into();
            let late = LatePart::default();
            Kept::File { last, late }
        } else {
            Kept::Memory(Mutex::new(Ring::new(options.max_bytes)))
        };
        Ok(Self {
            kept,
            notes: Mutex::default(),
        })
    }

    /// What waits for the next commit, where there are commits.
    pub(super) fn late(&self) -> Option<&LatePart> {
        match &self.kept {
            Kept::Memory(_) => None,
            Kept::File { late, .. } => Some(late),
        }
    }

    /// Forgets what is in memory and older than `cutoff`; no more than a tenth, as clocks jump.
    pub(super) fn forget_before(&self, cutoff: SystemTime) {
        if let Kept::Memory(ring) = &self.kept {
            lock(ring).forget_before(cutoff);
        }
    }
}

impl Store {
    /// Enters a command that is about to be run. It is under way at once, whether or not anybody waits for it yet.
    pub fn begin_command(&self, command: Command) -> Beginning {
        let last = match &self.0.commands.kept {
            Kept::Memory(ring) => {
                return Beginning {
                    id: CommandId(lock(ring).push(command, None)),
                    state: State::Kept,
                };
            }
            Kept::File { last, .. } => last,
        };
        let id = last.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, outcome) = oneshot::channel();
        let work = Work::Command(Box::new((id, command)));
        let state = match self.send(Job::Write(work, answer)) {
            Ok(()) => State::UnderWay(outcome),
            Err(error) => {
                self.0.tally.failed(&error);
                State::Refused(error)
            }
        };
        Beginning {
            id: CommandId(id),
            state,
        }
    }

    /// Enters what became of a command. Nobody waits for it; it is on the disk within about a tenth of a second, and
    /// when the store has been closed.
    pub fn end_command(&self, id: CommandId, end: CommandEnd) {
        match &self.0.commands.kept {
            Kept::Memory(ring) => lock(ring).end(id.0, end),
            Kept::File { late, .. } => self.leave(late, Late::End(id.0, end)),
        }
    }

    /// Enters a command that was not run, with the word for why, if there is room to spare: a flood of refusals must
    /// not take the place of what was done. Nobody waits for it.
    pub fn refuse_command(&self, mut command: Command, why: &str) {
        if !lock(&self.0.commands.notes).admit(Instant::now()) {
            return self.0.tally.event_lost();
        }
        command.text.truncate(REFUSED_BYTES);
        command.text.shrink_to_fit();
        let end = CommandEnd {
            refused: why.to_owned(),
            ..CommandEnd::default()
        };
        match &self.0.commands.kept {
            Kept::Memory(ring) => {
                lock(ring).push(command, Some(end));
            }
            Kept::File { last, late } => {
                let id = last.fetch_add(1, Ordering::Relaxed) + 1;
                self.leave(late, Late::Refused(Box::new((id, command, end))));
            }
        }
    }

    /// Says that a command was run, or is, without being in the trail.
    pub fn command_lost(&self) {
        self.0.tally.event_lost();
    }

    /// At most `most` commands, newest first, or fewer when they are long: those before the one of this number, or the
    /// newest; and whether there are more. All that was begun, ended or refused before is among them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn commands(
        &self,
        before: Option<i64>,
        most: usize,
    ) -> Result<(Slice, bool), WriteError> {
        let before = before.unwrap_or(i64::MAX);
        match &self.0.commands.kept {
            Kept::Memory(ring) => Ok(lock(ring).slice(before, most)),
            Kept::File { .. } => {
                self.read(move |connection| row::slice(connection, before, most))
                    .await
            }
        }
    }

    /// Leaves something to the writer, and wakes it only when it does not come by soon anyway.
    fn leave(&self, late: &LatePart, what: Late) {
        match late.push(what) {
            Ok(true) => {}
            // Too many jobs wait for there to be room for this one: then it is going to come by.
            Ok(false) => drop(self.send(Job::Attend)),
            Err(_) => self.0.tally.event_lost(),
        }
    }
}
