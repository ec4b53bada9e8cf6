//! Runs one command: gives it to a worker, reads both its outputs at once, and has all that it started ended.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::fs::{Gid, Uid, fchown};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::time::Instant;

use super::frame::Outcome;
use super::launcher::Launcher;
use super::policy::{Plan, Refusal};
use super::running::Running;
use super::trail::Entry;
use super::worker::Worker;

/// A command that ends before this has been read when it ends: what it says waits in the pipes, and nobody is woken for
/// each of it. One that says more than they hold waits so long, once; four times as long at most where many run at once.
const SHORT: Duration = Duration::from_millis(4);

/// How commands are run here.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) timeout: Duration,
    pub(super) max_output: u64,
    pub(super) linger: Duration,
    pub(super) wait_for_background: bool,
    pub(super) queue_timeout: Duration,
    /// The last command said more than its pipes hold: so may the next, and it is not made to wait for us.
    pub(super) verbose: AtomicBool,
}

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
    let (mut running, mut entry) = match started {
        Ok(started) => started,
        Err(refusal) => return Ok(Answer::from(Outcome::refused(refusal))),
    };
    let began = Instant::now();
    let mut outcome = Outcome::default();
    let left = running.collect(rules, gone, &mut outcome).await;
    outcome.duration = began.elapsed();
    let was_run = running.conclude(rules, launcher, &mut outcome);
    if let Some(error) = outcome.error.as_ref().filter(|_| !was_run) {
        entry.refuse(error.code);
        return left.map_or(Ok(Answer::from(outcome)), Err);
    }
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

/// Why a command was not run that the system had nothing for.
pub(super) fn spawn_refusal(error: &io::Error) -> Refusal {
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
    let mut entry = permit.await?;
    let mut worker = hire().await;
    loop {
        let mut hired = match worker {
            Ok(worker) => worker,
            Err(refusal) => {
                entry.refuse(refusal.code);
                return Err(refusal);
            }
        };
        match give(plan, &mut hired, launcher) {
            Ok(pipes) => {
                entry.start();
                let running = Running::new(hired, pipes, rules);
                return Ok((running, entry));
            }
            // It has ended since it was last used, and nothing was started: the next may do.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => worker = hire().await,
            Err(error) => worker = Err(spawn_refusal(&error)),
        }
    }
}

/// Makes the outputs, which a command must own to open them anew, and has it started.
fn give(plan: &Plan, worker: &mut Worker, launcher: &Launcher) -> io::Result<[OwnedFd; 2]> {
    let owner = launcher.owner();
    let make = || {
        let (ours, its) = pipe_with(PipeFlags::CLOEXEC)?;
        if let Some((user, group)) = owner {
            fchown(&its, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
        }
        rustix::io::ioctl_fionbio(&ours, true)?;
        io::Result::Ok((ours, its))
    };
    let ((output, its_output), (errors, its_errors)) = (make()?, make()?);
    // Those that run beside it take their share of its time.
    let beside = u32::try_from(launcher.busy()).unwrap_or(u32::MAX);
    let short = SHORT * beside.clamp(1, 4);
    worker.run(plan, short, [its_output.as_fd(), its_errors.as_fd()])?;
    Ok([output, errors])
}
