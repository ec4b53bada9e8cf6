//! How listeners come up: adopted at the start, served, tried again. Each is a step of the pure life with its action
//! done under the lock.

use std::sync::Arc;
use std::time::SystemTime;

use tracing::{info, warn};

use super::bind;
use super::lifecycle::{Action, Desired, Input, State};
use super::listener::{Listener, Target};
use super::{Error, Life, ListenerName, Supervisor, View};
use crate::net::{BindError, Bound};

impl Supervisor {
    /// Enters a listener of the configuration and, if it should serve, starts it. What cannot bind is FAILED, and tried
    /// again; the others serve.
    pub fn adopt(&self, name: ListenerName, target: Target) {
        let mut listener = Listener::new(name.clone(), target, &self.ground(&name));
        self.warn_of_lowered_limit(&listener);
        // Whatever is soon to be said of it finds it there.
        let mut listeners = self.lock();
        if listener.spec.desired_state != Desired::Stopped {
            self.bring_up(&mut listener);
        }
        listeners.insert(name, listener);
        drop(listeners);
        self.announce();
    }

    /// Binds and serves; what cannot is tried again.
    pub(super) fn bring_up(&self, listener: &mut Listener) {
        let bounds = listener.bounds(self.0.most_sessions);
        let served = bind::bind(&listener.name, &listener.spec, &bounds)
            .and_then(|bound| self.serve(listener, bound));
        if let Err(error) = served {
            self.give_up_for_now(listener, error.reason(), error.to_string());
        }
    }

    /// Serves on a bound socket.
    pub(super) fn serve(&self, listener: &mut Listener, bound: Bound) -> Result<(), BindError> {
        let bans = self.0.bans.of(&listener.name);
        let (telemetry, feeds) = (&self.0.telemetry, &self.0.feeds);
        let running = listener.run(bound, bans, telemetry, feeds, self.0.most_sessions)?;
        let wanted = listener.spec.desired_state;
        info!(listener = %listener.name, address = %running.address, state = ?wanted, "listener is bound");
        listener.running = Some(Arc::new(running));
        listener.started = Some(SystemTime::now());
        listener.failure = None;
        listener.failures_in_a_row = 0;
        listener.leave_off();
        if let Ok((life, _)) = listener.life.step(Input::Define(wanted)) {
            listener.enter(life);
        }
        self.tend(listener);
        Ok(())
    }

    /// Enters a failure to serve and sees to the next try.
    pub(super) fn give_up_for_now(
        &self,
        listener: &mut Listener,
        reason: &'static str,
        message: String,
    ) {
        let wait = listener.back_off();
        warn!(listener = %listener.name, reason, failure = message, "listener failed; trying again");
        listener.fail(reason, message, Some(wait));
        self.let_rest(listener);
        let wanted = listener.spec.desired_state;
        if let Ok((life, _)) = listener.life.step(Input::BindFailed(wanted)) {
            listener.enter(life);
        }
        let (supervisor, name, uid) = (self.clone(), listener.name.clone(), listener.uid.clone());
        listener.tries += 1;
        let tries = listener.tries;
        self.0.tasks.spawn(async move {
            let fit = async {
                tokio::time::sleep(wait).await;
                supervisor.is_fit(&name, &uid, tries).await
            };
            if supervisor.0.stopping.run_until_cancelled(fit).await == Some(true) {
                supervisor.retry(&name, &uid, tries);
            }
        });
    }

    fn retry(&self, name: &ListenerName, uid: &str, tries: u64) {
        let mut listeners = self.lock();
        // It may have been deleted and made again, or failed anew, meanwhile; that one has tries of its own.
        let ours = |l: &&mut Listener| l.is_try(uid, tries);
        if let Some(listener) = listeners.get_mut(name).filter(ours)
            && let Ok((_, Action::Bind)) = listener.life.step(Input::Retry)
            && !self.is_stopping()
        {
            self.bring_up(listener);
        }
        drop(listeners);
        self.announce();
    }

    /// Notes that a listener was asked to serve and could not, for whoever looks at it later.
    pub fn note_failure(&self, name: &ListenerName, error: &BindError) {
        if let Some(listener) = self.lock().get_mut(name) {
            listener.fail(error.reason(), error.to_string(), None);
        }
    }

    /// Pauses that end by themselves: whose time has come by `now`, with their etags, and when that of the next comes.
    pub fn resumes(&self, now: SystemTime) -> (Vec<(String, String)>, Option<SystemTime>) {
        let listeners = self.lock();
        let paused = listeners.values().filter(|l| l.life.state == State::Paused);
        let (mut due, mut next) = (Vec::new(), None::<SystemTime>);
        for listener in paused {
            match listener.spec.resume_time {
                Some(at) if at.0 <= now => due.push((listener.name.to_string(), listener.etag())),
                Some(at) => next = Some(next.map_or(at.0, |next| next.min(at.0))),
                None => {}
            }
        }
        (due, next)
    }

    /// One listener, if it is still what the caller knows.
    ///
    /// # Errors
    /// There is none, or it has another etag.
    pub fn current(&self, name: &str, etag: &str) -> Result<View, Error> {
        let view = self.get(name)?;
        if view.deleting {
            return Err(Error::NoListener(name.to_owned()));
        }
        if !etag.is_empty() && etag != view.etag {
            return Err(Error::Etag {
                given: etag.to_owned(),
                current: view.etag,
            });
        }
        Ok(view)
    }
}

/// The life after `input`, or why it is refused.
pub(super) fn step(listener: &Listener, input: Input) -> Result<(Life, Action), Error> {
    listener.life.step(input).map_err(|denied| Error::Denied {
        listener: listener.name.to_string(),
        state: listener.life.state,
        denied,
        sessions: listener
            .running
            .as_ref()
            .map_or(0, |r| r.door.sessions.count()),
    })
}
