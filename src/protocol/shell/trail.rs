//! The trail of a listener's commands: what was asked for, by whom, and what became of it.
//!
//! A command is entered before it is run and not run when that fails, unless the listener is told to run it all the same.
//! This is the only place besides the command itself that its text goes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

use super::super::Ground;
use super::frame::{Outcome, signal_name};
use super::policy::Refusal;
use crate::net::Session;
use crate::store::{Beginning, Command, CommandEnd, CommandId, Store};
use crate::telemetry::Trace;

/// How long a command waits for a disk that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The word for a command that could not be entered.
const UNAVAILABLE: &str = "audit_unavailable";

/// The word for a command whose peer left before it was run.
const GONE: &str = "peer_gone";

/// Keeps the trail of one listener's commands.
#[derive(Clone)]
pub(super) struct Trail(Arc<Inner>);

struct Inner {
    ground: Ground,
    best_effort: bool,
    /// Commands run, and are not entered.
    troubled: AtomicBool,
}

impl Trail {
    pub(super) fn new(ground: &Ground, best_effort: bool) -> Self {
        Self(Arc::new(Inner {
            ground: ground.clone(),
            best_effort,
            troubled: AtomicBool::new(false),
        }))
    }

    /// Enters a command that is to be run. It is on its way to the disk at once; whoever runs it asks whether it is
    /// there, see [`Intent::kept`].
    pub(super) fn begin(&self, session: &Session, trace: &Trace, text: &[u8]) -> Intent {
        self.enter(|| self.command(session, trace, text))
    }

    fn enter(&self, command: impl FnOnce() -> Command) -> Intent {
        let begun = self.0.ground.store.as_ref().map(|store| {
            let begun = store.begin_command(command());
            let entry = Entered {
                store: store.clone(),
                id: begun.id,
            };
            (begun, entry)
        });
        let (begun, entered) = begun.unzip();
        let entry = Entry {
            entered,
            since: None,
        };
        Intent {
            trail: self.clone(),
            begun,
            entry,
        }
    }

    /// Enters a command that is not run, if there is room to spare.
    pub(super) fn refuse(&self, session: &Session, trace: &Trace, text: &[u8], why: &str) {
        if let Some(store) = &self.0.ground.store {
            store.refuse_command(self.command(session, trace, text), why);
        }
    }

    fn command(&self, session: &Session, trace: &Trace, text: &[u8]) -> Command {
        let Ground { listener, node, .. } = &self.0.ground;
        Command {
            listener: listener.clone(),
            session: format!("{node}-{}", session.id),
            peer: session.peer.to_string(),
            text: text.to_vec(),
            time: SystemTime::now(),
            trace_id: trace.to_string(),
        }
    }

    /// Tells the log when commands begin to run without being entered, and when that is over.
    fn tell(&self, trouble: Option<&str>) {
        // Nothing is written in the usual case, which all commands share.
        if self.0.troubled.load(Ordering::Relaxed) == trouble.is_some() {
            return;
        }
        let was_troubled = self.0.troubled.swap(trouble.is_some(), Ordering::Relaxed);
        let listener = &self.0.ground.listener;
        match trouble {
            Some(why) if !was_troubled => {
                warn!(
                    listener,
                    why, "commands run without being in the audit trail"
                );
            }
            None if was_troubled => info!(listener, "commands are in the audit trail again"),
            _ => {}
        }
    }
}

/// A command on its way into the trail. Dropped before it is run, it is entered as one whose peer left.
pub(super) struct Intent {
    trail: Trail,
    begun: Option<Beginning>,
    entry: Entry,
}

impl Intent {
    /// Resolves once the command may be run.
    ///
    /// # Errors
    /// It is not in the trail, and must not be run.
    pub(super) async fn kept(self) -> Result<Entry, Refusal> {
        let Self {
            trail,
            begun,
            mut entry,
        } = self;
        let Some(begun) = begun else {
            return Ok(entry);
        };
        let why = match tokio::time::timeout(PATIENCE, begun.kept()).await {
            Ok(Ok(())) => {
                if trail.0.best_effort {
                    trail.tell(None);
                }
                return Ok(entry);
            }
            // Nothing of it is there.
            Ok(Err(error)) => {
                entry.entered = None;
                error.to_string()
            }
            // It may come to be there yet.
            Err(_) => "the store's disk does not answer".to_owned(),
        };
        if let Some(store) = &trail.0.ground.store {
            store.command_lost();
        }
        if !trail.0.best_effort {
            entry.refuse(UNAVAILABLE);
            let message = format!("the command was not run, as it cannot be audited: {why}");
            return Err(Refusal::new(UNAVAILABLE, message));
        }
        trail.tell(Some(&why));
        Ok(entry)
    }
}

/// A command in the trail. Dropped before [`end`](Self::end), it was ended with its session.
pub(super) struct Entry {
    entered: Option<Entered>,
    /// When it began to run.
    since: Option<Instant>,
}

struct Entered {
    store: Store,
    id: CommandId,
}

impl Entry {
    /// It is run from now on.
    pub(super) fn start(&mut self) {
        self.since = Some(Instant::now());
    }

    /// Enters what became of it when it was run.
    pub(super) fn end(mut self, outcome: &Outcome) {
        // Of one that was lost it is only known that it was killed with its worker.
        let lost = outcome.exit_code.is_none().then_some(libc::SIGKILL);
        self.enter(|| CommandEnd {
            duration: Some(outcome.duration),
            exit_code: outcome.exit_code,
            signal: outcome.signal.or(lost).map(signal_name).unwrap_or_default(),
            stdout_bytes: outcome.stdout.len(),
            stderr_bytes: outcome.stderr.len(),
            truncated: outcome.truncated,
            timed_out: outcome.timed_out,
            refused: String::new(),
        });
    }

    /// Enters why it was not run after all.
    pub(super) fn refuse(&mut self, why: &str) {
        self.enter(|| CommandEnd {
            refused: why.to_owned(),
            ..CommandEnd::default()
        });
    }

    fn enter(&mut self, end: impl FnOnce() -> CommandEnd) {
        if let Some(Entered { store, id }) = self.entered.take() {
            store.end_command(id, end());
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        match self.since {
            None => self.refuse(GONE),
            Some(since) => self.enter(|| CommandEnd {
                duration: Some(since.elapsed()),
                signal: signal_name(libc::SIGKILL),
                ..CommandEnd::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::shell::output::Output;
    use crate::store::tests::failures::hold;
    use crate::store::{Options, Recorded};

    fn open(path: &std::path::Path) -> Store {
        let options = Options {
            path: path.to_owned(),
            retention: Duration::from_secs(86_400),
            max_bytes: 1 << 20,
        };
        Store::open(&options).unwrap().0
    }

    fn trail(store: &Store, best_effort: bool) -> Trail {
        let ground = Ground {
            listener: "shell".into(),
            node: "node".into(),
            store: Some(store.clone()),
        };
        Trail::new(&ground, best_effort)
    }

    fn intent(trail: &Trail, text: &str) -> Intent {
        trail.enter(|| Command {
            listener: "shell".into(),
            session: "node-1".into(),
            peer: "127.0.0.1:9".into(),
            text: text.into(),
            time: SystemTime::now(),
            trace_id: String::new(),
        })
    }

    async fn entered(store: &Store) -> Vec<CommandEnd> {
        let (slice, _) = store.commands(None, 100).await.unwrap();
        let end = |Recorded { end, .. }| end.unwrap_or_default();
        slice.into_iter().map(|(_, row)| end(row)).collect()
    }

    #[tokio::test]
    async fn a_command_ends_as_it_did_or_with_its_session() {
        let store = open(":memory:".as_ref());
        let trail = trail(&store, false);
        let mut ran = intent(&trail, "ran").kept().await.unwrap();
        ran.start();
        let outcome = Outcome {
            stdout: Output::from(&b"12"[..]),
            exit_code: Some(3),
            duration: Duration::from_millis(5),
            ..Outcome::default()
        };
        ran.end(&outcome);
        let mut failed = intent(&trail, "failed").kept().await.unwrap();
        failed.refuse("spawn_failed");
        let mut lost = intent(&trail, "lost").kept().await.unwrap();
        lost.start();
        lost.end(&Outcome::refused(Refusal::new("launcher_lost", "no")));
        let mut left = intent(&trail, "left").kept().await.unwrap();
        left.start();
        drop(left);
        drop(intent(&trail, "left before"));
        let ends = entered(&store).await;
        assert_eq!(ends[0].refused, "peer_gone");
        assert_eq!(ends[1].signal, "SIGKILL");
        assert!(ends[1].duration.is_some());
        assert_eq!(ends[2].signal, "SIGKILL");
        assert_eq!(ends[3].refused, "spawn_failed");
        assert_eq!((ends[4].exit_code, ends[4].stdout_bytes), (Some(3), 2));
        assert_eq!(ends[4].duration, Some(outcome.duration));
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_is_not_waited_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("s.db"));
        let (go, held) = hold(&store).await;
        let (strict, lax) = (trail(&store, false), trail(&store, true));
        let (refused, run, another) = tokio::join!(
            intent(&strict, "refused").kept(),
            intent(&lax, "run").kept(),
            intent(&lax, "another").kept(),
        );
        let refusal = refused.err().unwrap();
        assert_eq!(refusal.code, "audit_unavailable");
        assert!(refusal.message.contains("disk"), "{}", refusal.message);
        assert!(run.is_ok() && another.is_ok());
        assert_eq!(store.facts().lost_events, 3);
        assert!(lax.0.troubled.load(Ordering::Relaxed));
        drop(go);
        held.await.unwrap();
        assert!(intent(&lax, "again").kept().await.is_ok());
        assert!(!lax.0.troubled.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn without_a_store_commands_run() {
        let trail = Trail::new(&Ground::default(), false);
        assert!(intent(&trail, "run").kept().await.is_ok());
    }
}
