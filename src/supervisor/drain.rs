//! How listeners stop: one of them, or all with the process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::commands::{enter, step};
use super::lifecycle::{Action, Input};
use super::listener::{Draining, LONGEST_GRACE, Listener, over};
use super::{Error, ListenerName, State, Supervisor, View};
use crate::net::Running;

/// How a whole drain went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainedAll {
    /// Sessions that were open when it began.
    pub sessions: usize,
    /// Sessions that were cut.
    pub cut: usize,
}

impl Supervisor {
    /// Has a listener stop: its door closes at once, its sessions have `grace`. Resolves when it
    /// has stopped. Dropping the future does not undo it.
    pub async fn stop(
        &self,
        name: &str,
        etag: &str,
        grace: Option<Duration>,
        reason: &str,
    ) -> Result<View, Error> {
        self.refuse_while_stopping()?;
        let view = self.change(name, etag, |listener| {
            self.wind_down(listener, grace.unwrap_or(self.0.grace), reason)
        })?;
        self.announce();
        self.settled(&view.name, &view.uid).await;
        self.get(name)
    }

    /// The step towards STOPPED, and the task that drains.
    pub(super) fn wind_down(
        &self,
        listener: &mut Listener,
        grace: Duration,
        reason: &str,
    ) -> Result<(), Error> {
        let (life, action) = step(listener, Input::Stop)?;
        match (action, &listener.running) {
            (Action::Drain, Some(running)) => {
                running.close_door();
                let sessions = running.door.sessions.count();
                let draining = Draining::new(grace, sessions, reason.to_owned());
                let deadline = over(after(grace), draining.insist.clone(), self.0.cut.clone());
                listener.draining = Some(draining);
                let drain = self
                    .clone()
                    .drain(listener.name.clone(), running.clone(), deadline);
                self.0.tasks.spawn(drain);
                info!(listener = %listener.name, sessions, "listener drains");
            }
            _ => self.hasten(listener, grace),
        }
        enter(listener, life);
        Ok(())
    }

    /// A drain that is under way ends no later than `grace` from now.
    fn hasten(&self, listener: &mut Listener, grace: Duration) {
        let Some(draining) = &mut listener.draining else {
            return;
        };
        let deadline = SystemTime::now() + grace.min(LONGEST_GRACE);
        if deadline < draining.deadline {
            draining.deadline = deadline;
            let (insist, cut) = (draining.insist.clone(), self.0.cut.clone());
            self.0.tasks.spawn(async move {
                over(after(grace), insist.clone(), cut).await;
                insist.cancel();
            });
        }
    }

    async fn drain(
        self,
        name: ListenerName,
        running: Arc<Running>,
        deadline: impl Future<Output = ()>,
    ) {
        let began = Instant::now();
        let drained = running.drain(deadline).await;
        self.0
            .cut_sessions
            .fetch_add(drained.cut, Ordering::Relaxed);
        let outcome = if drained.cut == 0 {
            "completed"
        } else {
            "deadline"
        };
        self.0
            .telemetry
            .drain_ended(&running.door.labels, outcome, began.elapsed());
        info!(listener = %name, finished = drained.finished, cut = drained.cut, "listener drained");
        if let Some(listener) = self.lock().get_mut(&name) {
            if let Ok((life, _)) = listener.life.step(Input::Drained) {
                listener.life = life;
            }
            listener.running = None;
            if let Some(draining) = listener.draining.take() {
                // Whoever waits to insist need not any more.
                draining.insist.cancel();
            }
        }
        self.announce();
    }

    /// Resolves when the listener no longer drains.
    pub(super) async fn settled(&self, name: &ListenerName, uid: &str) {
        let drains = || {
            let listeners = self.lock();
            listeners
                .get(name)
                .is_some_and(|l| l.uid == uid && l.life.state == State::Draining)
        };
        let mut changes = self.changes();
        // It only fails when the supervisor is gone, and we hold it.
        let _ = changes.wait_for(|_| !drains()).await;
    }

    /// Drains every listener: all doors close before any session is asked. After `grace`, or once
    /// `cut` is cancelled, what is left is cut.
    pub async fn drain_all(&self, grace: Duration, cut: CancellationToken) -> DrainedAll {
        self.begin_stopping();
        let mut drained = DrainedAll::default();
        let cut_before = self.0.cut_sessions.load(Ordering::Relaxed);
        {
            let mut listeners = self.lock();
            for running in listeners.values().filter_map(|l| l.running.as_ref()) {
                running.close_door();
            }
            for listener in listeners.values_mut() {
                drained.sessions += listener.status(self.0.most_sessions).active_sessions;
                if let Err(error) = self.wind_down(listener, grace, "shutdown") {
                    warn!(listener = %listener.name, %error, "cannot drain");
                }
            }
        }
        self.announce();
        let deadline = after(grace);
        self.0.tasks.close();
        let all_cut = self.0.cut.clone();
        tokio::select! {
            () = self.0.tasks.wait() => {}
            () = over(deadline, cut, all_cut.clone()) => {
                all_cut.cancel();
                self.0.tasks.wait().await;
            }
        }
        drained.cut = self.0.cut_sessions.load(Ordering::Relaxed) - cut_before;
        drained
    }
}

/// So long from now.
fn after(grace: Duration) -> Instant {
    Instant::now() + grace.min(LONGEST_GRACE)
}
