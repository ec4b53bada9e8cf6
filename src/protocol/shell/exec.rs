//! Runs one command: gives it to a worker, reads both its outputs at once, and has all that it started ended.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::frame::Outcome;
use super::launcher::Launcher;
use super::policy::{Plan, Refusal};
use super::trail::Entry;
use super::worker::Worker;
use crate::cage::message::{Exit, Step, What};

/// How commands are run here.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) timeout: Duration,
    pub(super) max_output: usize,
    pub(super) linger: Duration,
    pub(super) wait_for_background: bool,
    pub(super) queue_timeout: Duration,
}

/// A command that ends before this has been read when it ends: what it says waits in the pipes, and nobody is woken for
/// each of it. One that says more than they hold waits so long, once.
const SHORT: Duration = Duration::from_millis(4);

/// From being asked to end until being killed.
const GRACE: Duration = Duration::from_secs(1);

/// From being killed until being gone: a worker that takes longer is given up.
const DEATH: Duration = Duration::from_secs(5);

/// Runs `plan` to its end, once `permit` resolves. When `gone` resolves first, everything is ended and its value returned.
pub(super) async fn run<G>(
    plan: Plan,
    rules: &Rules,
    launcher: &Launcher,
    permit: impl Future<Output = Result<Entry, Refusal>>,
    gone: impl Future<Output = G>,
) -> Result<Outcome, G> {
    tokio::pin!(gone);
    let started = tokio::select! {
        biased;
        started = start(&plan, rules, launcher, permit) => started,
        gone = &mut gone => return Err(gone),
    };
    let (mut running, entry) = match started {
        Ok(started) => started,
        Err(refusal) => return Ok(Outcome::refused(refusal)),
    };
    let began = Instant::now();
    let mut outcome = Outcome::default();
    let left = running
        .collect(rules, later(began, rules.timeout), gone, &mut outcome)
        .await;
    outcome.duration = began.elapsed();
    running.conclude(rules, launcher, &mut outcome);
    entry.end(&outcome);
    left.map_or(Ok(outcome), Err)
}

/// `duration` after `moment`; a year for whoever asks for ages.
fn later(moment: Instant, duration: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    moment + duration.min(YEAR)
}

fn spawn_refusal(error: &io::Error) -> Refusal {
    let message = format!("the command could not be run: {}", error.kind());
    Refusal::new("spawn_failed", message)
}

/// Gives the command to a worker, once it may run.
async fn start(
    plan: &Plan,
    rules: &Rules,
    launcher: &Launcher,
    permit: impl Future<Output = Result<Entry, Refusal>>,
) -> Result<(Running, Entry), Refusal> {
    let hire = async || {
        let hired = tokio::time::timeout(rules.queue_timeout, launcher.hire());
        hired.await.unwrap_or_else(|_| {
            let message = "what keeps commands does not run; it is started again";
            Err(Refusal::new("launcher_unavailable", message))
        })
    };
    let mut worker = hire().await;
    let mut entry = permit.await?;
    loop {
        let mut hired = match worker {
            Ok(worker) => worker,
            Err(refusal) => {
                entry.refuse(refusal.code);
                return Err(refusal);
            }
        };
        match give(plan, &mut hired, launcher.owner()) {
            Ok([output, errors]) => {
                entry.start();
                let running = Running {
                    worker: hired,
                    output,
                    errors,
                    end: None,
                    over: false,
                    killed: false,
                    failure: None,
                };
                return Ok((running, entry));
            }
            // It has ended since it was last used, and nothing was started: the next may do.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => worker = hire().await,
            Err(error) => worker = Err(spawn_refusal(&error)),
        }
    }
}

/// Makes the outputs, which a command must own to open them anew, and has it started.
fn give(plan: &Plan, worker: &mut Worker, owner: Option<(u32, u32)>) -> io::Result<[Pipe; 2]> {
    let make = || {
        let (ours, its) = pipe_with(PipeFlags::CLOEXEC)?;
        if let Some((user, group)) = owner {
            fchown(&its, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
        }
        rustix::io::ioctl_fionbio(&ours, true)?;
        io::Result::Ok((ours, its))
    };
    let ((output, its_output), (errors, its_errors)) = (make()?, make()?);
    worker.run(plan, [its_output.as_fd(), its_errors.as_fd()])?;
    Ok([output, errors].map(Pipe::Quiet))
}

struct Running {
    worker: Worker,
    output: Pipe,
    errors: Pipe,
    /// How the command exited.
    end: Option<Exit>,
    /// Nothing that it started runs any more.
    over: bool,
    /// It was told to end at once.
    killed: bool,
    failure: Option<Refusal>,
}

impl Running {
    /// Reads until nothing of the command runs and its outputs are drained, or a limit has ended it. Returns what
    /// `gone` came to, if it did.
    async fn collect<G>(
        &mut self,
        rules: &Rules,
        deadline: Instant,
        mut gone: Pin<&mut impl Future<Output = G>>,
        outcome: &mut Outcome,
    ) -> Option<G> {
        let mut left = None;
        let mut until = deadline;
        let mut ending = false;
        let mut watch_at = Some(Instant::now() + SHORT);
        loop {
            let room = room(rules, outcome);
            let mut end = None;
            tokio::select! {
                what = self.worker.report(), if !self.over => {
                    if !self.note(what) {
                        return left;
                    }
                    if !self.over {
                        watch_at = None;
                        self.watch();
                        if self.end.is_some() && !rules.wait_for_background && !ending {
                            until = deadline.min(later(Instant::now(), rules.linger));
                        }
                    }
                }
                read = self.output.read(&mut outcome.stdout, room), if self.output.is_watched() => {
                    outcome.truncated |= read > room;
                }
                read = self.errors.read(&mut outcome.stderr, room), if self.errors.is_watched() => {
                    outcome.truncated |= read > room;
                }
                () = tokio::time::sleep_until(watch_at.map_or(until, |at| at.min(until))) => {
                    if watch_at.take().is_some_and(|at| at < until) {
                        self.watch();
                        continue;
                    }
                    if ending {
                        let message = "the command did not end when it was killed";
                        self.failure = Some(Refusal::new("launcher_lost", message));
                        return left;
                    }
                    outcome.timed_out = self.end.is_none() || rules.wait_for_background;
                    end = Some(if outcome.timed_out { GRACE } else { Duration::ZERO });
                }
                value = &mut gone, if left.is_none() => {
                    left = Some(value);
                    end = Some(GRACE);
                }
            }
            if self.over {
                // Nobody is left to write.
                self.take_what_is_there(rules, outcome);
                return left;
            }
            let drained = !self.output.is_open() && !self.errors.is_open();
            if outcome.truncated || (self.end.is_some() && drained) {
                end = Some(Duration::ZERO);
            }
            // Once asked to end it is only asked again to do so at once.
            if let Some(grace) = end.filter(|grace| !ending || (grace.is_zero() && !self.killed)) {
                self.worker.end(grace);
                self.killed = grace.is_zero();
                until = Instant::now() + grace + DEATH;
                ending = true;
            }
        }
    }

    /// Has the runtime watch the outputs of a command that is not short.
    fn watch(&mut self) {
        for pipe in [&mut self.output, &mut self.errors] {
            if let Err(error) = pipe.watch() {
                self.failure.get_or_insert_with(|| spawn_refusal(&error));
            }
        }
    }

    /// What the exit comes to, once nothing runs any more or the worker is given up.
    fn conclude(self, rules: &Rules, launcher: &Launcher, outcome: &mut Outcome) {
        match self.end {
            Some(exit) => {
                let status = ExitStatus::from_raw(exit.status);
                outcome.exit_code = status.code();
                outcome.signal = status.signal();
            }
            // It was killed with all that it had started.
            None if self.over && self.failure.is_none() => outcome.signal = Some(libc::SIGKILL),
            None => {}
        }
        if let Some(refusal) = self.failure {
            outcome.fail(refusal);
        } else if outcome.timed_out {
            let limit = rules.timeout;
            let message = format!("the command was ended after {limit:?}");
            outcome.fail(Refusal::new("timed_out", message));
        }
        if self.over {
            launcher.release(self.worker);
        }
    }

    /// Notes what the worker tells; false when it tells no more.
    fn note(&mut self, what: Option<What>) -> bool {
        match what {
            Some(What::Exited(exit)) => {
                self.over = !exit.left;
                self.end = Some(exit);
            }
            Some(What::Gone) => self.over = true,
            Some(What::Failed { errno, step }) => {
                self.over = true;
                self.failure = Some(failure(errno, step));
                return false;
            }
            None => {
                let message = "what keeps commands broke off, and the command with it";
                self.failure = Some(Refusal::new("launcher_lost", message));
                return false;
            }
        }
        true
    }

    /// Takes what was written by now, however late we came to read it.
    fn take_what_is_there(&mut self, rules: &Rules, outcome: &mut Outcome) {
        while !outcome.truncated {
            let room = room(rules, outcome);
            let read = match self.output.try_read(&mut outcome.stdout, room) {
                None => self.errors.try_read(&mut outcome.stderr, room),
                read => read,
            };
            match read {
                None => return,
                Some(read) => outcome.truncated |= read > room,
            }
        }
    }
}

fn room(rules: &Rules, outcome: &Outcome) -> usize {
    let taken = outcome.stdout.len() + outcome.stderr.len();
    rules.max_output.saturating_sub(taken)
}

fn failure(errno: i32, step: Step) -> Refusal {
    let error = io::Error::from_raw_os_error(errno);
    let at = match step {
        Step::Process => "no process for it",
        Step::Outputs => "its outputs",
        Step::Limits => "its limits",
        Step::User => "its user",
        Step::Directory => "its working directory",
        Step::Program => "its program",
    };
    let message = format!("the command could not be run: {at}: {error}");
    Refusal::new("spawn_failed", message)
}

/// One of a command's outputs.
enum Pipe {
    /// Whatever comes waits in it.
    Quiet(OwnedFd),
    /// Readers are woken by what comes.
    Watched(AsyncFd<OwnedFd>),
    /// At its end.
    Closed,
}

/// Read at once; as much as a pipe holds.
const CHUNK: usize = 64 << 10;

impl Pipe {
    fn watch(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Quiet(pipe) => Self::Watched(crate::net::watch(pipe)?),
            other => other,
        };
        Ok(())
    }

    fn is_open(&self) -> bool {
        !matches!(self, Self::Closed)
    }

    fn is_watched(&self) -> bool {
        matches!(self, Self::Watched(_))
    }

    /// Waits for more and appends it to `into`, `room` bytes at most; returns how many came, which is more than `room`
    /// when some were left out, and 0 at the end. Cancel safe.
    async fn read(&mut self, into: &mut Vec<u8>, room: usize) -> usize {
        while let Self::Watched(pipe) = self {
            let Ok(mut ready) = pipe.readable().await else {
                break;
            };
            match append(&*pipe, into, room) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Ok(count @ 1..) => return count,
                Ok(0) | Err(_) => break,
            }
        }
        *self = Self::Closed;
        0
    }

    /// The same without waiting; none when there is nothing, now or for ever.
    fn try_read(&mut self, into: &mut Vec<u8>, room: usize) -> Option<usize> {
        let read = match self {
            Self::Quiet(pipe) => append(&*pipe, into, room),
            Self::Watched(pipe) => append(&*pipe, into, room),
            Self::Closed => return None,
        };
        match read {
            Ok(count @ 1..) => return Some(count),
            Err(Errno::AGAIN) => {}
            Ok(0) | Err(_) => *self = Self::Closed,
        }
        None
    }
}

fn append(pipe: impl AsFd, into: &mut Vec<u8>, room: usize) -> Result<usize, Errno> {
    into.reserve(CHUNK);
    let before = into.len();
    let count = rustix::io::read(pipe, spare_capacity(into))?;
    into.truncate(before.saturating_add(room));
    Ok(count)
}
