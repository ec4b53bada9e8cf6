//! Named listeners and their lives: the one vocabulary that gRPC, HTTP and start-up translate into.
//!
//! One lock guards the map of listeners. It is held for short steps that never wait, binding
//! included, so two creates of one name or one address cannot both win. Every change is announced
//! by a counter that watchers wait on.

mod error;
mod lifecycle;
mod listener;
mod measure;
mod sessions;
mod spec;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use error::Error;
pub use lifecycle::{Denied, Desired, Life, State};
pub use listener::{Draining, Failure, Status, TURNED_AWAY, View};
pub use sessions::{SessionPage, SessionView, split_session_name};
pub use spec::{ListenerName, Spec, Violation};

use crate::config::Origin;
use crate::net::BindError;
use crate::protocol::Protocol;
use crate::protocol::chat::Desk;
use crate::telemetry::Telemetry;
use lifecycle::{Action, Input};
use listener::{Listener, over};

/// Owns the listeners. A cheap handle.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    node: String,
    grace: Duration,
    most_sessions: usize,
    telemetry: Telemetry,
    listeners: Mutex<BTreeMap<ListenerName, Listener>>,
    changes: watch::Sender<u64>,
    /// The process is on its way out: nothing new begins.
    stopping: CancellationToken,
    /// The whole process no longer waits for anybody.
    cut: CancellationToken,
    tasks: TaskTracker,
}

/// What a supervisor needs to know.
pub struct Parts {
    /// The first part of every session's name.
    pub node: String,
    /// How long a drain waits unless its caller says otherwise.
    pub grace: Duration,
    /// Sessions that the descriptor limit carries.
    pub most_sessions: usize,
    /// Where events are told.
    pub telemetry: Telemetry,
}

/// How a whole drain went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainedAll {
    /// Sessions that were open when it began.
    pub sessions: usize,
    /// Sessions that were cut.
    pub cut: usize,
}

impl Supervisor {
    /// A supervisor without listeners.
    pub fn new(parts: Parts) -> Self {
        let supervisor = Self(Arc::new(Inner {
            node: parts.node,
            grace: parts.grace,
            most_sessions: parts.most_sessions,
            telemetry: parts.telemetry.clone(),
            listeners: Mutex::new(BTreeMap::new()),
            changes: watch::channel(0).0,
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        let source: std::sync::Weak<Inner> = Arc::downgrade(&supervisor.0);
        parts.telemetry.observe(source);
        supervisor
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ListenerName, Listener>> {
        crate::net::lock(&self.0.listeners)
    }

    fn announce(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Resolves to a new value after every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The first part of every session's name.
    pub fn node(&self) -> &str {
        &self.0.node
    }

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
        if asked > most && listener.spec.protocol.transport() == crate::net::Transport::Tcp {
            warn!(
                listener = %listener.name, asked, lowered_to = most,
                "max_sessions is more than the descriptor limit carries"
            );
        }
    }

    /// Every listener, by name.
    pub fn list(&self) -> Vec<View> {
        self.lock()
            .values()
            .map(|listener| listener.view(self.0.most_sessions))
            .collect()
    }

    /// One listener.
    pub fn get(&self, name: &str) -> Result<View, Error> {
        self.find(name, |listener| listener.view(self.0.most_sessions))
    }

    fn find<T>(&self, name: &str, look: impl FnOnce(&Listener) -> T) -> Result<T, Error> {
        let missing = || Error::NoListener(name.to_owned());
        let parsed: ListenerName = name.parse().map_err(|_| missing())?;
        self.lock().get(&parsed).map(look).ok_or_else(missing)
    }

    /// The desk of a chat listener.
    pub fn desk(&self, name: &str) -> Result<Arc<Desk>, Error> {
        self.find(name, |listener| listener.built.desk.clone())?
            .ok_or_else(|| Error::NoDesk(name.to_owned()))
    }

    /// Every desk, with its listener's name.
    pub fn desks(&self) -> Vec<(ListenerName, Arc<Desk>)> {
        let with_desk = |l: &Listener| Some((l.name.clone(), l.built.desk.clone()?));
        self.lock().values().filter_map(with_desk).collect()
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
            if start {
                let bounds = listener.bounds(self.0.most_sessions);
                listener::bind(&listener.spec, &bounds).map_err(Error::Bind)?;
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
        let (life, action) = step(listener, input)?;
        if action == Action::Bind {
            let running = listener
                .run(&self.0.telemetry, self.0.most_sessions)
                .map_err(Error::Bind)?;
            info!(listener = %listener.name, address = %running.address, "listener serves");
            listener.running = Some(Arc::new(running));
            listener.started = Some(std::time::SystemTime::now());
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
    fn wind_down(
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
        if let Some(draining) = &mut listener.draining {
            let insist = draining.insist.clone();
            draining.deadline = draining.deadline.min(std::time::SystemTime::now() + grace);
            let cut = self.0.cut.clone();
            self.0.tasks.spawn(async move {
                over(after(grace), insist.clone(), cut).await;
                insist.cancel();
            });
        }
    }

    async fn drain(
        self,
        name: ListenerName,
        running: Arc<crate::net::Running>,
        deadline: impl Future<Output = ()>,
    ) {
        let began = Instant::now();
        let drained = running.drain(deadline).await;
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
    async fn settled(&self, name: &ListenerName, uid: &str) {
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
                Ok(())
            } else {
                self.wind_down(listener, Duration::ZERO, "deleted")
            }
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

    fn change(
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

    /// Whether the process is on its way out.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.is_cancelled()
    }

    /// Says that the process is on its way out: from now on nothing new begins.
    pub fn begin_stopping(&self) {
        self.0.stopping.cancel();
        self.announce();
    }

    fn refuse_while_stopping(&self) -> Result<(), Error> {
        if self.is_stopping() {
            Err(Error::Stopping)
        } else {
            Ok(())
        }
    }

    /// Drains every listener: all doors close before any session is asked. After `grace`, or once
    /// `cut` is cancelled, what is left is cut.
    pub async fn drain_all(&self, grace: Duration, cut: CancellationToken) -> DrainedAll {
        self.begin_stopping();
        let mut drained = DrainedAll::default();
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
        let deadline = Instant::now() + grace;
        self.0.tasks.close();
        let all_cut = self.0.cut.clone();
        tokio::select! {
            () = self.0.tasks.wait() => return drained,
            () = over(deadline, cut, all_cut.clone()) => {}
        }
        drained.cut = self
            .list()
            .iter()
            .map(|view| view.status.active_sessions)
            .sum();
        all_cut.cancel();
        self.0.tasks.wait().await;
        drained
    }
}

/// Far enough away for whoever asks for centuries.
fn after(grace: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(grace)
        .unwrap_or_else(|| now + Duration::from_secs(86_400 * 365))
}

fn step(listener: &Listener, input: Input) -> Result<(Life, Action), Error> {
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
fn enter(listener: &mut Listener, life: Life) {
    if listener.life.desired != life.desired {
        listener.revision += 1;
        listener.updated = std::time::SystemTime::now();
    }
    listener.life = life;
}
