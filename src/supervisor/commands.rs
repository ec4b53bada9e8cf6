//! What changes a listener: adopted, created, started, tried again, deleted. Each is a step of the
//! pure life with its action done under the lock.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::lifecycle::{Action, Input};
use super::listener::{self, Listener};
use super::{Desired, Error, Life, ListenerName, Spec, Supervisor, View};
use crate::config::Origin;
use crate::net::{BindError, Transport};
use crate::protocol::Protocol;

impl Supervisor {
    /// Enters a listener of the configuration and starts it. What cannot bind is FAILED, and tried
    /// again; the others serve.
    pub fn adopt(&self, name: ListenerName, spec: Spec, origin: Option<Arc<Origin>>) {
        let mut listener = Listener::new(name.clone(), spec, origin);
        self.warn_of_lowered_limit(&listener);
        // A new listener is stopped: only its address can keep it from starting.
        if let Err(Error::Bind(error)) = self.bring_up(&mut listener, Input::Start) {
            self.give_up_for_now(&mut listener, &error);
        }
        self.lock().insert(name, listener);
        self.announce();
    }

    fn warn_of_lowered_limit(&self, listener: &Listener) {
        let (asked, most) = (
            listener.spec.limits.max_sessions as usize,
            self.0.most_sessions,
        );
        if asked > most && listener.spec.protocol.transport() == Transport::Tcp {
            warn!(
                listener = %listener.name, asked, lowered_to = most,
                "max_sessions is more than the descriptor limit carries"
            );
        }
    }

    /// Makes a listener and, if `start`, has it serve. With `validate_only` everything is checked,
    /// the address by a trial bind, and nothing changes.
    pub fn create(
        &self,
        name: ListenerName,
        spec: Spec,
        start: bool,
        (validate_only, shell_allowed): (bool, bool),
    ) -> Result<View, Error> {
        self.refuse_while_stopping()?;
        if matches!(spec.protocol, Protocol::Shell(_)) && !shell_allowed {
            return Err(Error::ShellForbidden);
        }
        let violations = spec.check();
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let mut listeners = self.lock();
        if listeners.contains_key(&name) {
            return Err(Error::Exists(name.to_string()));
        }
        let mut listener = Listener::new(name.clone(), spec, None);
        if validate_only {
            let bounds = listener.bounds(self.0.most_sessions);
            listener::bind(&listener.spec, &bounds).map_err(Error::Bind)?;
            if start {
                listener.life.desired = Desired::Active;
            }
            return Ok(listener.view(self.0.most_sessions));
        }
        if start {
            self.bring_up(&mut listener, Input::Start)?;
        }
        let view = listener.view(self.0.most_sessions);
        listeners.insert(name, listener);
        drop(listeners);
        info!(listener = %view.name, protocol = view.spec.protocol.word(), "listener created");
        self.announce();
        Ok(view)
    }

    /// Has a listener serve.
    pub fn start(&self, name: &str, etag: &str) -> Result<View, Error> {
        self.refuse_while_stopping()?;
        let view = self.change(name, etag, |listener| {
            self.bring_up(listener, Input::Start).inspect_err(|error| {
                if let Error::Bind(error) = error {
                    listener.fail(error, None);
                }
            })
        })?;
        self.announce();
        Ok(view)
    }

    /// One step that binds and serves where the life says so.
    fn bring_up(&self, listener: &mut Listener, input: Input) -> Result<(), Error> {
        if listener.deleting || self.is_stopping() {
            let name = listener.name.to_string();
            return Err(if listener.deleting {
                Error::NoListener(name)
            } else {
                Error::Stopping
            });
        }
        let (life, action) = step(listener, input)?;
        if action == Action::Bind {
            let running = listener
                .run(&self.0.telemetry, self.0.most_sessions)
                .map_err(Error::Bind)?;
            info!(listener = %listener.name, address = %running.address, "listener serves");
            listener.running = Some(Arc::new(running));
            listener.started = Some(SystemTime::now());
            listener.failure = None;
            listener.failures_in_a_row = 0;
        }
        enter(listener, life);
        Ok(())
    }

    /// Enters a failure to bind and sees to the next try.
    fn give_up_for_now(&self, listener: &mut Listener, error: &BindError) {
        let wait = listener.back_off();
        listener.fail(error, Some(wait));
        if let Ok((life, _)) = listener.life.step(Input::BindFailed) {
            enter(listener, life);
        }
        warn!(listener = %listener.name, reason = error.reason(), %error, "listener failed; trying again");
        let (supervisor, name, uid) = (self.clone(), listener.name.clone(), listener.uid.clone());
        self.0.tasks.spawn(async move {
            let waited = supervisor
                .0
                .stopping
                .run_until_cancelled(tokio::time::sleep(wait))
                .await;
            if waited.is_some() {
                supervisor.retry(&name, &uid);
            }
        });
    }

    fn retry(&self, name: &ListenerName, uid: &str) {
        let mut listeners = self.lock();
        // It may have been deleted and made again meanwhile; that one has tries of its own.
        if let Some(listener) = listeners.get_mut(name).filter(|l| l.uid == uid)
            && let Err(Error::Bind(error)) = self.bring_up(listener, Input::Retry)
        {
            self.give_up_for_now(listener, &error);
        }
        drop(listeners);
        self.announce();
    }

    /// Forgets a listener. Unless it is stopped or failed it takes `force`, which cuts its sessions.
    pub async fn delete(
        &self,
        name: &str,
        etag: &str,
        force: bool,
        validate_only: bool,
    ) -> Result<(), Error> {
        self.refuse_while_stopping()?;
        let view = self.change(name, etag, |listener| {
            step(listener, Input::Delete { force })?;
            if validate_only {
                return Ok(());
            }
            listener.deleting = true;
            self.wind_down(listener, Duration::ZERO, "deleted")
        })?;
        if validate_only {
            return Ok(());
        }
        self.settled(&view.name, &view.uid).await;
        let mut listeners = self.lock();
        if listeners.get(&view.name).is_some_and(|l| l.uid == view.uid) {
            listeners.remove(&view.name);
        }
        drop(listeners);
        info!(listener = %view.name, "listener deleted");
        self.announce();
        Ok(())
    }

    pub(super) fn change(
        &self,
        name: &str,
        etag: &str,
        change: impl FnOnce(&mut Listener) -> Result<(), Error>,
    ) -> Result<View, Error> {
        let missing = || Error::NoListener(name.to_owned());
        let parsed: ListenerName = name.parse().map_err(|_| missing())?;
        let mut listeners = self.lock();
        let listener = listeners.get_mut(&parsed).ok_or_else(missing)?;
        let current = listener.etag();
        if !etag.is_empty() && etag != current {
            return Err(Error::Etag {
                given: etag.to_owned(),
                current,
            });
        }
        change(listener)?;
        Ok(listener.view(self.0.most_sessions))
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

/// Enters a new life; a new wish is a new revision.
pub(super) fn enter(listener: &mut Listener, life: Life) {
    if listener.life.desired != life.desired {
        listener.revision += 1;
        listener.updated = SystemTime::now();
    }
    listener.life = life;
}
