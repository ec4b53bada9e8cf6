//! Runs one command: starts it, reads both its outputs at once, and ends all that it started.
//!
//! The command leads a process group of its own. Its exit is seen through a pidfd and it is only
//! reaped after the group has been killed, so the group's number cannot have become another's.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

use super::PATH;
use super::frame::Outcome;
use super::policy::{Plan, Refusal};

/// How commands are run here.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) timeout: Duration,
    pub(super) max_output: usize,
    pub(super) linger: Duration,
    pub(super) wait_for_background: bool,
    pub(super) directory: PathBuf,
    pub(super) environment: Vec<(String, String)>,
}

/// Runs `plan` to its end; `started` learns its process id. When `gone` resolves first, everything
/// is killed and its value returned.
pub(super) async fn run<G>(
    plan: Plan,
    rules: &Rules,
    started: impl FnOnce(u32),
    gone: impl Future<Output = G>,
) -> Result<Outcome, G> {
    let began = Instant::now();
    let mut running = match start(plan, rules).await {
        Ok(running) => running,
        Err(error) => return Ok(Outcome::refused(spawn_refusal(&error))),
    };
    started(running.group.child.id());
    let mut outcome = Outcome::default();
    tokio::select! {
        biased;
        () = running.collect(rules, later(began, rules.timeout), &mut outcome) => {}
        gone = gone => return Err(gone),
    }
    match running.finish(rules, &outcome) {
        Ok(status) => {
            outcome.exit_code = status.code();
            outcome.signal = status.signal();
        }
        Err(error) => outcome.fail(spawn_refusal(&error)),
    }
    outcome.duration = began.elapsed();
    if outcome.timed_out {
        let limit = rules.timeout;
        outcome.fail(Refusal::new(
            "timed_out",
            format!("the command was ended after {limit:?}"),
        ));
    }
    Ok(outcome)
}

/// `duration` after `moment`; a year for whoever asks for ages.
fn later(moment: Instant, duration: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    moment + duration.min(YEAR)
}

fn spawn_refusal(error: &io::Error) -> Refusal {
    Refusal::new(
        "spawn_failed",
        format!("the command could not be run: {}", error.kind()),
    )
}

/// Starts the command off the runtime's threads: the call lasts until the new program is loaded.
async fn start(plan: Plan, rules: &Rules) -> io::Result<Running> {
    let mut command = Command::new(&plan.program);
    command
        .args(&plan.arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(rules.environment.iter().map(|(k, v)| (k, v)))
        .current_dir(&rules.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let spawned = tokio::task::spawn_blocking(move || {
        command.spawn().map(|child| Group {
            child,
            reaped: false,
        })
    });
    let mut group = spawned.await.map_err(io::Error::other)??;
    let output = Pipe::new(group.child.stdout.take().map(OwnedFd::from))?;
    let errors = Pipe::new(group.child.stderr.take().map(OwnedFd::from))?;
    let pidfd = crate::net::watch(pidfd_open(group.pid()?, PidfdFlags::NONBLOCK)?)?;
    Ok(Running {
        group,
        pidfd,
        output,
        errors,
    })
}

struct Running {
    group: Group,
    pidfd: AsyncFd<OwnedFd>,
    output: Pipe,
    errors: Pipe,
}

impl Running {
    /// Reads until the command has exited and its outputs are drained, or a limit ends it.
    async fn collect(&mut self, rules: &Rules, deadline: Instant, outcome: &mut Outcome) {
        let mut exited = false;
        let mut until = deadline;
        loop {
            let room = rules
                .max_output
                .saturating_sub(outcome.stdout.len() + outcome.stderr.len());
            tokio::select! {
                read = self.output.read(&mut outcome.stdout, room), if self.output.is_open() => {
                    outcome.truncated = read > room;
                }
                read = self.errors.read(&mut outcome.stderr, room), if self.errors.is_open() => {
                    outcome.truncated = read > room;
                }
                // Readable once the process has exited; it stays so.
                _ = self.pidfd.readable(), if !exited => {
                    exited = true;
                    if !rules.wait_for_background {
                        until = deadline.min(later(Instant::now(), rules.linger));
                    }
                }
                () = tokio::time::sleep_until(until) => {
                    outcome.timed_out = !exited || rules.wait_for_background;
                    self.take_what_is_there(rules.max_output, outcome);
                    return;
                }
            }
            let drained = !self.output.is_open() && !self.errors.is_open();
            if outcome.truncated || (exited && drained) {
                return;
            }
        }
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
                Some(read) => outcome.truncated = read > room,
            }
            if outcome.truncated {
                return;
            }
        }
    }

    /// Ends what is left of the group and reaps the command.
    fn finish(mut self, rules: &Rules, outcome: &Outcome) -> io::Result<ExitStatus> {
        if outcome.timed_out || outcome.truncated || !rules.wait_for_background {
            self.group.kill();
        }
        self.group.reap()
    }
}

/// One of a command's outputs.
struct Pipe(Option<Receiver>);

/// Read at once; as much as a pipe holds.
const CHUNK: usize = 64 << 10;

impl Pipe {
    fn new(fd: Option<OwnedFd>) -> io::Result<Self> {
        fd.map(Receiver::from_owned_fd).transpose().map(Self)
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

/// A command and all that it started. Dropped before it was reaped, all of it is killed.
struct Group {
    child: Child,
    reaped: bool,
}

impl Group {
    fn pid(&self) -> io::Result<Pid> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| io::Error::other("the command has no process number"))
    }

    /// Kills whoever is left. Until it is reaped the command holds its number, so that this is
    /// nobody else's group, even when the command itself has exited.
    fn kill(&self) {
        if let Ok(pid) = self.pid() {
            // It fails when nobody is left, which is what was wanted.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// It has exited, or was killed just now: this does not wait for long.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.reap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            timeout: Duration::from_secs(10),
            max_output: 1 << 20,
            linger: Duration::from_millis(100),
            wait_for_background: false,
            directory: "/".into(),
            environment: Vec::new(),
        }
    }

    async fn sh(command: &str, rules: &Rules) -> Outcome {
        let plan = Plan {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), command.into()],
        };
        run(plan, rules, |_| {}, std::future::pending::<()>())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn both_outputs_and_the_exit_code_come_back() {
        let outcome = sh("echo out; echo err >&2; exit 3", &rules()).await;
        assert_eq!(
            (&*outcome.stdout, &*outcome.stderr),
            (&b"out\n"[..], &b"err\n"[..])
        );
        assert_eq!((outcome.exit_code, outcome.signal), (Some(3), None));
    }

    #[tokio::test]
    async fn a_signal_is_not_an_exit_code() {
        let outcome = sh("kill -TERM $$", &rules()).await;
        assert_eq!(
            (outcome.exit_code, outcome.signal),
            (None, Some(libc::SIGTERM))
        );
    }

    #[tokio::test]
    async fn a_background_child_does_not_hold_the_answer() {
        let outcome = sh("sleep 100 & echo done", &rules()).await;
        assert_eq!(outcome.stdout, b"done\n");
        assert!(
            outcome.duration < Duration::from_secs(5),
            "{:?}",
            outcome.duration
        );
    }

    #[tokio::test]
    async fn who_is_left_by_a_command_that_has_exited_is_ended_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let rules = Rules {
            wait_for_background: true,
            ..rules()
        };
        let plan = Plan {
            program: "/bin/sh".into(),
            arguments: vec![
                "-c".into(),
                format!("sleep 1000 & echo $! > {}", file.display()),
            ],
        };
        let written = async {
            while !std::fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n')) {
                tokio::task::yield_now().await;
            }
        };
        let gone = run(plan, &rules, |_| {}, written).await;
        assert_eq!(gone, Err(()));
        let pid: i32 = std::fs::read_to_string(&file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let over = |stat: String| stat.is_empty() || stat.contains(") Z ");
        let until = Instant::now() + Duration::from_secs(5);
        while !over(state()) && Instant::now() < until {
            tokio::task::yield_now().await;
        }
        assert!(over(state()), "{}", state());
    }

    #[tokio::test]
    async fn without_a_linger_what_was_written_is_still_read() {
        let rules = Rules {
            linger: Duration::ZERO,
            ..rules()
        };
        for _ in 0..50 {
            let outcome = sh("head -c 60000 /dev/zero", &rules).await;
            assert_eq!(outcome.stdout.len(), 60_000);
        }
    }

    #[tokio::test]
    async fn output_past_the_limit_is_cut_and_the_command_ended() {
        let rules = Rules {
            max_output: 1000,
            ..rules()
        };
        let outcome = sh("yes", &rules).await;
        assert!(outcome.truncated && outcome.stdout.len() == 1000);
        assert_eq!(outcome.signal, Some(libc::SIGKILL));
        let exact = sh("head -c 1000 /dev/zero", &rules).await;
        assert!(!exact.truncated && exact.stdout.len() == 1000);
    }

    #[tokio::test]
    async fn a_time_out_keeps_what_came() {
        let rules = Rules {
            timeout: Duration::from_millis(200),
            ..rules()
        };
        let outcome = sh("echo early; sleep 100", &rules).await;
        assert!(outcome.timed_out);
        assert_eq!(outcome.stdout, b"early\n");
        assert_eq!(outcome.error.unwrap().code, "timed_out");
    }
}
