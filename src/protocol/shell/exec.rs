//! Runs one command: gives it to a worker, reads both its outputs at once, and has all that it started ended.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::fs::{Gid, Uid, fchown};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::time::Instant;

use super::frame::Outcome;
use super::launcher::Launcher;
use super::output::{self, Collector};
use super::policy::{Plan, Refusal};
use super::trail::Entry;
use super::worker::Worker;
use crate::cage::message::{Exit, Step, What};

/// How commands are run here.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) timeout: Duration,
    pub(super) max_output: u64,
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
) -> Result<Answer, G> {
    tokio::pin!(gone);
    let started = tokio::select! {
        biased;
        started = start(&plan, rules, launcher, permit) => started,
        gone = &mut gone => return Err(gone),
    };
    let (mut running, entry) = match started {
        Ok(started) => started,
        Err(refusal) => return Ok(Answer::from(Outcome::refused(refusal))),
    };
    let began = Instant::now();
    let mut outcome = Outcome::default();
    let left = running
        .collect(rules, later(began, rules.timeout), gone, &mut outcome)
        .await;
    outcome.duration = began.elapsed();
    running.conclude(rules, launcher, &mut outcome);
    if let Some(left) = left {
        entry.end(&outcome);
        return Err(left);
    }
    let entry = Some(entry);
    Ok(Answer { outcome, entry })
}

/// What a command came to, and its entry in the trail, which is to be ended.
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) entry: Option<Entry>,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        let entry = None;
        Self { outcome, entry }
    }
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
            Ok(pipes) => {
                entry.start();
                let running = Running {
                    worker: hired,
                    collector: Collector::new(pipes, rules.max_output),
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
fn give(plan: &Plan, worker: &mut Worker, owner: Option<(u32, u32)>) -> io::Result<[OwnedFd; 2]> {
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
    Ok([output, errors])
}

struct Running {
    worker: Worker,
    collector: Collector,
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
                () = self.collector.read() => {}
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
                self.collector.take_what_is_there();
                return left;
            }
            let drained = self.end.is_some() && self.collector.is_drained();
            if drained || self.collector.is_cut() {
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
        if let Err(error) = self.collector.watch() {
            self.failure.get_or_insert_with(|| spawn_refusal(&error));
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
        let said = self.collector.finish();
        (outcome.stdout, outcome.stderr) = (said.stdout, said.stderr);
        outcome.truncated = said.truncated;
        if let Some(refusal) = self.failure {
            outcome.fail(refusal);
        } else if said.full {
            outcome.fail(output::refusal());
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
