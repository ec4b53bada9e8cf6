//! How listeners stop: one of them, or all with the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::lifecycle::{Action, Desired, Input, State};
use super::listener::{Listener, Retiring, over};
use super::view::{Draining, LONGEST_GRACE};
use super::{ListenerName, Supervisor};
use crate::net::Running;
use crate::telemetry::{current_trace, traced};

/// How a whole drain went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainedAll {
    /// Sessions that were open when it began.
    pub sessions: usize,
    /// Sessions that were cut.
    pub cut: usize,
}

impl Supervisor {
    /// The step towards STOPPED, and the task that drains. What stops already is only hurried when somebody says how
    /// long it may still take.
    pub(super) fn wind_down(&self, listener: &mut Listener, grace: Option<Duration>, why: &str) {
        // To stop is never refused.
        let Ok((life, action)) = listener.life.step(Input::Stop) else {
            return;
        };
        if let (Action::WindDown, Some(running)) = (action, listener.running.clone()) {
            running.close_door();
            let grace = grace.unwrap_or_else(|| self.grace());
            let sessions = running.door.sessions.count();
            let mut draining = Draining::new(grace, sessions, why.to_owned(), None);
            if let Some(before) = listener.draining.take().filter(|d| d.ended.is_none()) {
                // It goes on as what it was, and ends sooner.
                before.leave_off.cancel();
                (draining.began, draining.since) = (before.began, before.since);
                draining.is_told = before.is_told;
                draining.sessions_at_start = before.sessions_at_start;
                (draining.cut, draining.reason) = (before.cut, before.reason);
            }
            self.stop_run(listener, running, draining, grace);
        } else if let Some(grace) = grace {
            self.hasten(listener, grace);
        }
        listener.enter(life);
        if let Some(failure) = &mut listener.failure {
            failure.next_try = None;
        }
    }

    /// Spawns the task that ends a run whose door is closed.
    fn stop_run(
        &self,
        listener: &mut Listener,
        running: Arc<Running>,
        draining: Draining,
        grace: Duration,
    ) {
        info!(listener = %listener.name, sessions = draining.sessions_at_start, "listener stops");
        for former in &listener.retiring {
            self.insist_after(grace, former.insist.clone());
        }
        let deadline = over(after(grace), draining.insist.clone(), self.0.cut.clone());
        let cut = draining.cut.clone();
        listener.draining = Some(draining);
        let whose = (listener.name.clone(), listener.uid.clone());
        let stop = self.clone().stop(whose, running, cut, deadline);
        self.0.tasks.spawn(traced(current_trace(), stop));
    }

    /// Has a run of a listener end beside the one that takes its place.
    pub(super) fn retire(
        &self,
        listener: &mut Listener,
        running: Arc<Running>,
        grace: Duration,
        why: &str,
    ) {
        running.close_door();
        let sessions = running.door.sessions.count();
        info!(listener = %listener.name, sessions, reason = why, "its former run drains");
        let insist = CancellationToken::new();
        listener.retiring.push(Retiring {
            running: running.clone(),
            insist: insist.clone(),
        });
        let (supervisor, name, cut) = (self.clone(), listener.name.clone(), self.0.cut.clone());
        self.0.tasks.spawn(async move {
            let deadline = over(after(grace), insist.clone(), cut);
            let drained = running.drain(deadline).await;
            // Whoever waits to insist need not any more.
            insist.cancel();
            supervisor.count_cut(drained.cut);
            if let Some(listener) = supervisor.lock().get_mut(&name) {
                listener.forget_run(&running);
            }
            supervisor.announce();
        });
    }

    /// Drains that are under way, those of former runs too, end no later than `grace` from now.
    fn hasten(&self, listener: &mut Listener, grace: Duration) {
        let former = listener.retiring.iter();
        let mut insists: Vec<_> = former.map(|former| former.insist.clone()).collect();
        if let Some(draining) = listener.draining.as_mut().filter(|d| d.ended.is_none()) {
            let deadline = SystemTime::now() + grace.min(LONGEST_GRACE);
            draining.deadline = draining.deadline.min(deadline);
            insists.push(draining.insist.clone());
        }
        for insist in insists {
            self.insist_after(grace, insist);
        }
    }

    fn insist_after(&self, grace: Duration, insist: CancellationToken) {
        let cut = self.0.cut.clone();
        self.0.tasks.spawn(async move {
            over(after(grace), insist.clone(), cut).await;
            insist.cancel();
        });
    }

    async fn stop(
        self,
        (name, uid): (ListenerName, String),
        running: Arc<Running>,
        cut: Arc<AtomicUsize>,
        deadline: impl Future<Output = ()>,
    ) {
        let drained = running.drain(deadline).await;
        cut.fetch_add(drained.cut, Ordering::Relaxed);
        self.count_cut(drained.cut);
        info!(listener = %name, finished = drained.finished, cut = drained.cut, "listener stopped");
        let mut listeners = self.lock();
        if let Some(listener) = listeners.get_mut(&name) {
            listener.forget_run(&running);
        }
        let ours = |l: &&mut Listener| l.uid == uid && l.running.is_none();
        if let Some(listener) = listeners.get_mut(&name).filter(ours) {
            self.end_of_drain(listener);
            if listener.deleting {
                listeners.remove(&name);
            } else if listener.spec.desired_state != Desired::Stopped && !self.is_stopping() {
                // It was taken back too late for the drain, and not for good.
                self.bring_up(listener);
            }
        }
        drop(listeners);
        self.announce();
    }

    /// The step out of a drain, with what it came to.
    pub(super) fn end_of_drain(&self, listener: &mut Listener) {
        if let Ok((life, _)) = listener.life.step(Input::Drained) {
            listener.enter(life);
        }
        if listener.life.state == State::Stopped {
            self.let_rest(listener);
        }
        if let Some(draining) = &mut listener.draining {
            draining.ended = Some(SystemTime::now());
            // Whoever waits to insist need not any more.
            draining.insist.cancel();
            let (outcome, took) = (draining.outcome(), draining.since.elapsed());
            self.0
                .telemetry
                .drain_ended(&listener.labels, outcome, took);
            listener.draining.take_if(|draining| !draining.is_told);
        }
    }

    pub(super) fn count_cut(&self, sessions: usize) {
        self.0.cut_sessions.fetch_add(sessions, Ordering::Relaxed);
    }

    /// How long a drain takes unless its caller says otherwise.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.0.grace_ms.load(Ordering::Relaxed))
    }

    /// Another one from now on.
    pub fn set_grace(&self, grace: Duration) {
        let ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.0.grace_ms.store(ms, Ordering::Relaxed);
    }

    /// Resolves when the listener no longer drains.
    pub async fn settled(&self, name: &ListenerName, uid: &str) {
        let drains = || {
            let listeners = self.lock();
            listeners
                .get(name)
                .is_some_and(|l| l.uid == uid && l.life.winds_down())
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
                self.wind_down(listener, Some(grace), "shutdown");
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
pub(super) fn after(grace: Duration) -> Instant {
    Instant::now() + grace.min(LONGEST_GRACE)
}
