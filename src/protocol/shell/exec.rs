//! Runs one command: gives it to a worker, reads both its outputs at once, and has all that it started ended.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::fs::{Gid, Uid, fchown};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

use super::frame::Outcome;
use super::launcher::Launcher;
use super::policy::{Plan, Refusal};
use super::worker::Worker;
use crate::cage::message::{Exit, Step, What};

/// How commands are run here.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) timeout: Duration,
    pub(super) max_output: usize,
    pub(super) linger: Duration,
    pub(super) wait_for_background: bool,
}

/// From being asked to end until being killed.
const GRACE: Duration = Duration::from_secs(1);

/// From being killed until being gone: a worker that takes longer is given up.
const DEATH: Duration = Duration::from_secs(5);

/// Runs `plan` to its end. When `gone` resolves first, everything is ended and its value returned.
pub(super) async fn run<G>(
    plan: Plan,
    rules: &Rules,
    launcher: &Launcher,
    gone: impl Future<Output = G>,
) -> Result<Outcome, G> {
    let began = Instant::now();
    let mut running = match start(&plan, launcher).await {
        Ok(running) => running,
        Err(refusal) => return Ok(Outcome::refused(refusal)),
    };
    let mut outcome = Outcome::default();
    let deadline = later(began, rules.timeout);
    let left = running.collect(rules, deadline, gone, &mut outcome).await;
    let over = running.over;
    match running.end {
        Some(exit) => {
            let status = ExitStatus::from_raw(exit.status);
            outcome.exit_code = status.code();
            outcome.signal = status.signal();
        }
        // It was killed with the whole of its namespace.
        None if over => outcome.signal = Some(libc::SIGKILL),
        None => {}
    }
    if over {
        launcher.release(running.worker);
    }
    if let Some(gone) = left {
        return Err(gone);
    }
    outcome.duration = began.elapsed();
    if let Some(refusal) = running.failure {
        outcome.fail(refusal);
    } else if outcome.timed_out {
        let limit = rules.timeout;
        let message = format!("the command was ended after {limit:?}");
        outcome.fail(Refusal::new("timed_out", message));
    }
    Ok(outcome)
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

/// Gives the command to a worker.
async fn start(plan: &Plan, launcher: &Launcher) -> Result<Running, Refusal> {
    loop {
        let mut worker = launcher.hire().await?;
        let started = give(plan, &mut worker, launcher.owner());
        match started {
            Ok([output, errors]) => {
                return Ok(Running {
                    worker,
                    output,
                    errors,
                    end: None,
                    over: false,
                    failure: None,
                });
            }
            // It has ended since it was last used, and nothing was started: the next may do.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(spawn_refusal(&error)),
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
    Ok([Pipe::new(output)?, Pipe::new(errors)?])
}

struct Running {
    worker: Worker,
    output: Pipe,
    errors: Pipe,
    /// How the command exited.
    end: Option<Exit>,
    /// Nothing that it started runs any more.
    over: bool,
    failure: Option<Refusal>,
}

impl Running {
    /// Reads until nothing of the command runs and its outputs are drained, or a limit has ended it. Returns what
    /// `gone` came to, if it did.
    async fn collect<G>(
        &mut self,
        rules: &Rules,
        deadline: Instant,
        gone: impl Future<Output = G>,
        outcome: &mut Outcome,
    ) -> Option<G> {
        let mut left = None;
        let mut until = deadline;
        let mut ending = false;
        tokio::pin!(gone);
        loop {
            let room = rules
                .max_output
                .saturating_sub(outcome.stdout.len() + outcome.stderr.len());
            // None: go on.
            let mut end = None;
            tokio::select! {
                read = self.output.read(&mut outcome.stdout, room), if self.output.is_open() => {
                    outcome.truncated |= read > room;
                }
                read = self.errors.read(&mut outcome.stderr, room), if self.errors.is_open() => {
                    outcome.truncated |= read > room;
                }
                what = self.worker.report(), if !self.over => {
                    if !self.note(what) {
                        return left;
                    }
                    if self.end.is_some() && !self.over && !rules.wait_for_background && !ending {
                        until = deadline.min(later(Instant::now(), rules.linger));
                    }
                }
                () = tokio::time::sleep_until(until) => {
                    if ending {
                        self.failure = Some(Refusal::new("lost", "the command did not end when it was killed"));
                        return left;
                    }
                    outcome.timed_out = self.end.is_none() || rules.wait_for_background;
                    self.take_what_is_there(rules.max_output, outcome);
                    end = Some(if outcome.timed_out { GRACE } else { Duration::ZERO });
                }
                value = &mut gone, if left.is_none() => {
                    left = Some(value);
                    end = Some(GRACE);
                }
            }
            let drained = !self.output.is_open() && !self.errors.is_open();
            if self.over && (drained || outcome.truncated || left.is_some()) {
                return left;
            }
            if outcome.truncated || (self.end.is_some() && drained) {
                end = end.or(Some(Duration::ZERO));
            }
            if let Some(grace) = end.filter(|_| !ending || outcome.truncated) {
                self.worker.end(grace);
                until = Instant::now() + grace + DEATH;
                ending = true;
            }
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
    fn take_what_is_there(&mut self, most: usize, outcome: &mut Outcome) {
        loop {
            let room = most.saturating_sub(outcome.stdout.len() + outcome.stderr.len());
            let read = match self.output.try_read(&mut outcome.stdout, room) {
                None => self.errors.try_read(&mut outcome.stderr, room),
                read => read,
            };
            match read {
                None => return,
                Some(read) => outcome.truncated |= read > room,
            }
            if outcome.truncated {
                return;
            }
        }
    }
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
struct Pipe(Option<Receiver>);

/// Read at once; as much as a pipe holds.
const CHUNK: usize = 64 << 10;

impl Pipe {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        Receiver::from_owned_fd_unchecked(fd).map(Some).map(Self)
    }

    fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for more and appends it to `into`, `room` bytes at most; returns how many came, which
    /// is more than `room` when some were left out. Cancel safe.
    async fn read(&mut self, into: &mut Vec<u8>, room: usize) -> usize {
        loop {
            let Some(receiver) = &self.0 else {
                return 0;
            };
            if receiver.readable().await.is_err() {
                self.0 = None;
            }
            if let Some(read) = self.try_read(into, room) {
                return read;
            }
        }
    }

    /// The same without waiting; none when there is nothing, now or for ever.
    fn try_read(&mut self, into: &mut Vec<u8>, room: usize) -> Option<usize> {
        let receiver = self.0.as_ref()?;
        into.reserve(CHUNK);
        let before = into.len();
        match receiver.try_read_buf(into) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            Ok(0) | Err(_) => {
                self.0 = None;
                None
            }
            Ok(count) => {
                into.truncate(before + room);
                Some(count)
            }
        }
    }
}
