//! A command that runs: what its worker tells, what it says, and what ends it.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::exec::{Rules, spawn_refusal};
use super::frame::Outcome;
use super::launcher::Launcher;
use super::output::{self, Collector};
use super::policy::Refusal;
use super::worker::Worker;
use crate::cage::message::{Exit, Step, What};

/// From being asked to end until being killed.
const GRACE: Duration = Duration::from_secs(1);

/// From being killed until being gone: a worker that takes longer is given up.
const DEATH: Duration = Duration::from_secs(3);

/// A command that a worker runs. Dropped before it is over, all of it is killed.
pub(super) struct Running {
    worker: Worker,
    collector: Collector,
    /// Its worker has not said that it could not be.
    was_run: bool,
    /// How the command exited.
    end: Option<Exit>,
    /// Nothing that it started runs any more.
    over: bool,
    ending: Ending,
    /// What happens next if nothing else does: it is ended, or given up.
    until: Instant,
    failure: Option<Refusal>,
}

/// How far its end has been asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Asked,
    Killed,
}

impl Running {
    /// One that `worker` has just begun to run, with our ends of its outputs.
    pub(super) fn new(worker: Worker, outputs: [OwnedFd; 2], rules: &Rules) -> Self {
        let mut running = Self {
            worker,
            collector: Collector::new(outputs, rules.max_output),
            was_run: true,
            end: None,
            over: false,
            ending: Ending::No,
            until: later(Instant::now(), rules.timeout),
            failure: None,
        };
        if rules.verbose.load(Ordering::Relaxed) {
            running.watch();
        }
        running
    }

    /// Reads until nothing of the command runs and its outputs are drained, or a limit has ended it. Returns what
    /// `gone` came to, if it did.
    pub(super) async fn collect<G>(
        &mut self,
        rules: &Rules,
        mut gone: Pin<&mut impl Future<Output = G>>,
        outcome: &mut Outcome,
    ) -> Option<G> {
        let mut left = None;
        loop {
            tokio::select! {
                what = self.worker.report(), if !self.over => {
                    self.note(what, rules);
                }
                () = self.collector.read() => {}
                () = tokio::time::sleep_until(self.until) => self.fall_due(rules, outcome),
                value = &mut gone, if left.is_none() => {
                    left = Some(value);
                    self.stop(GRACE);
                }
            }
            if self.over {
                // Nobody is left to write.
                self.collector.take_what_is_there();
            }
            if self.over || self.failure.is_some() {
                return left;
            }
            let drained = self.end.is_some() && self.collector.is_drained();
            if drained || self.collector.is_cut() {
                self.stop(Duration::ZERO);
            }
        }
    }

    /// Notes what the worker tells.
    fn note(&mut self, what: Option<What>, rules: &Rules) {
        match what {
            Some(What::Exited(exit)) => {
                self.over = !exit.left;
                self.end = Some(exit);
                if exit.left {
                    self.watch();
                    if !rules.wait_for_background && self.ending == Ending::No {
                        self.until = self.until.min(later(Instant::now(), rules.linger));
                    }
                }
            }
            // What a short one says waits in the pipes, and nobody is woken for each of it.
            Some(What::Lasts) => self.watch(),
            Some(What::Gone) => self.over = true,
            Some(What::Failed { errno, step }) => {
                self.was_run = false;
                self.over = true;
                self.failure = Some(failure(errno, step));
            }
            None => {
                let message = "what keeps commands broke off, and the command with it";
                self.failure = Some(Refusal::new("launcher_lost", message));
            }
        }
    }

    /// Does what is to be done when nothing else has happened for so long.
    fn fall_due(&mut self, rules: &Rules, outcome: &mut Outcome) {
        if self.ending != Ending::No {
            let message = "the command did not end when it was killed";
            self.failure = Some(Refusal::new("launcher_lost", message));
            return;
        }
        outcome.timed_out = self.end.is_none() || rules.wait_for_background;
        self.stop(if outcome.timed_out {
            GRACE
        } else {
            Duration::ZERO
        });
    }

    /// Has all of it ended. Once it was asked to, it is only asked again to do so at once.
    fn stop(&mut self, grace: Duration) {
        let ending = if grace.is_zero() {
            Ending::Killed
        } else {
            Ending::Asked
        };
        if self.ending == Ending::Killed || self.ending == ending {
            return;
        }
        self.worker.end(grace);
        self.ending = ending;
        self.until = Instant::now() + grace + DEATH;
        self.watch();
    }

    /// Has the runtime watch the outputs of a command that is not short.
    fn watch(&mut self) {
        if let Err(error) = self.collector.watch() {
            self.failure.get_or_insert_with(|| spawn_refusal(&error));
        }
    }

    /// What the exit comes to, once nothing runs any more or the worker is given up. Whether it was run at all.
    pub(super) fn conclude(
        self,
        rules: &Rules,
        launcher: &Launcher,
        outcome: &mut Outcome,
    ) -> bool {
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
        let verbose = outcome.stdout.is_long() || outcome.stderr.is_long();
        // Others read what they do not change.
        if rules.verbose.load(Ordering::Relaxed) != verbose {
            rules.verbose.store(verbose, Ordering::Relaxed);
        }
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
        self.was_run
    }
}

/// `duration` after `moment`; a year for whoever asks for ages.
fn later(moment: Instant, duration: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    moment + duration.min(YEAR)
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
