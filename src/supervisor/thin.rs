//! Drains that can be taken back: the door is shut and not closed, and sessions are asked to leave one after the other,
//! or not at all before the deadline.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::info;

use super::asked::Drain;
use super::drain::after;
use super::lifecycle::{Desired, Input};
use super::listener::{Listener, over};
use super::view::Draining;
use super::{ListenerName, Supervisor};
use crate::net::{Ask, CloseReason, Gate, Pace, Running, Session, Why};
use crate::telemetry::{current_trace, traced};

/// How long sessions that were cut may take to leave.
const CUT_PATIENCE: Duration = Duration::from_secs(5);

/// One drain that is under way.
struct Thinning {
    name: ListenerName,
    running: Arc<Running>,
    drain: Drain,
    draining: Draining,
    deadline: Instant,
}

impl Supervisor {
    /// The step into DRAINING, and the task that sees to it. One that is under way begins anew.
    pub(super) fn thin_out(&self, listener: &mut Listener, drain: Drain, to: Desired, why: &str) {
        let Ok((life, _)) = listener.life.step(Input::Drain { to }) else {
            return;
        };
        listener.enter(life);
        listener.leave_off();
        let Some(running) = listener.running.clone() else {
            return;
        };
        running.set_gate(Gate::Shut(drain.mode, Why::Draining));
        let sessions = running.door.sessions.count();
        info!(listener = %listener.name, sessions, "listener drains");
        let draining = Draining::new(drain.deadline, sessions, why.to_owned(), Some(drain.mode));
        listener.draining = Some(draining.clone());
        let thinning = Thinning {
            name: listener.name.clone(),
            running,
            drain,
            draining,
            deadline: after(drain.deadline),
        };
        let thin = self.clone().thin(thinning);
        self.0.tasks.spawn(traced(current_trace(), thin));
    }

    async fn thin(self, thinning: Thinning) {
        let leave_off = thinning.draining.leave_off.clone();
        let done = leave_off
            .run_until_cancelled(self.have_leave(&thinning))
            .await;
        if done.is_none() {
            let (labels, since) = (&thinning.running.door.labels, thinning.draining.since);
            self.0
                .telemetry
                .drain_ended(labels, "cancelled", since.elapsed());
            return;
        }
        let mut listeners = self.lock();
        // Once this is looked at under the lock, nobody can take the drain back any more.
        let listener = listeners.get_mut(&thinning.name);
        if let Some(listener) = listener.filter(|_| !leave_off.is_cancelled()) {
            match listener.life.desired {
                Desired::Stopped => self.wind_down(listener, Some(Duration::ZERO), ""),
                _ => {
                    self.end_of_drain(listener);
                    // Who comes now is kept away by the pause.
                    let paused = Gate::Shut(thinning.drain.mode, Why::Paused);
                    thinning.running.set_gate(paused);
                }
            }
        }
        drop(listeners);
        self.announce();
    }

    /// Resolves when the last session has left, or was cut.
    async fn have_leave(&self, thinning: &Thinning) {
        let Thinning { running, drain, .. } = thinning;
        // Whoever is still coming in is inside before anybody is asked.
        running.arranged().await;
        let leave = async {
            if let Some(span) = drain.pace_over {
                ask_one_by_one(running, span, drain.idle_first).await;
            }
            running.door.sessions.emptied().await;
        };
        let insist = thinning.draining.insist.clone();
        tokio::select! {
            biased;
            () = leave => {}
            () = over(thinning.deadline, insist, self.0.cut.clone()) => self.cut(thinning).await,
        }
    }

    async fn cut(&self, thinning: &Thinning) {
        let door = &thinning.running.door;
        let left = door.sessions.count();
        thinning.draining.cut.fetch_add(left, Ordering::Relaxed);
        self.count_cut(left);
        door.ask_all(Ask::Cut(CloseReason::Drained));
        // A session past this holds nothing of its peer's any more; its task is on its own.
        let _ = tokio::time::timeout(CUT_PATIENCE, door.sessions.emptied()).await;
    }
}

/// Asks those who are inside to leave, spread over `span`.
async fn ask_one_by_one(running: &Running, span: Duration, idle_first: bool) {
    let began = Instant::now();
    let mut sessions = running.door.sessions.all();
    if idle_first {
        sessions.sort_by_cached_key(|session| std::cmp::Reverse(session.quiet_for()));
    }
    let seed = super::listener::fresh_seed();
    for (offset, session) in Pace::over(sessions.len(), span, seed).zip(sessions) {
        tokio::time::sleep_until((began + offset).into()).await;
        ask(running, &session);
    }
}

fn ask(running: &Running, session: &Arc<Session>) {
    running.door.ask(session, Ask::Finish(CloseReason::Drained));
}
