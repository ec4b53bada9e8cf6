//! What changes listeners, in two halves: [`prepare`](Supervisor::prepare) checks everything and binds, and changes
//! nothing; [`commit`](Supervisor::commit) cannot fail. Between them the change is put on disk, so that what was
//! answered outlives the process and what was refused has left no trace.
//!
//! One caller at a time: whoever owns the configuration. Only the world (a drain that ends, a retry) comes between.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::commands::step;
use super::lifecycle::{Desired, Input, State};
use super::listener::{self, Listener, Retiring, Target};
use super::preview::{Difference, Held, overlaps, released};
use super::{Error, ListenerName, Supervisor};
use crate::net::{Bound, Running};

/// What is to become of one listener.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which; there need be none of the name yet.
    pub name: ListenerName,
    /// What it becomes.
    pub to: Becomes,
    /// How long sessions that have to leave may take; unset for the process's own.
    pub grace: Option<Duration>,
    /// Why, for whoever looks at the drain.
    pub reason: String,
}

/// What a listener becomes.
#[derive(Debug, Clone)]
pub enum Becomes {
    /// This; made when there is none of the name.
    Defined {
        /// What it should be.
        target: Box<Target>,
        /// Somebody waits for it to serve: that it cannot is then a refusal, whatever else has changed.
        start: bool,
    },
    /// Nothing.
    Gone {
        /// Also when it is not stopped.
        force: bool,
    },
}

/// Changes that are checked, with the sockets that they need. Dropping it gives them back.
#[derive(Debug)]
pub struct Prepared(Vec<Step>);

#[derive(Debug)]
struct Step {
    change: Change,
    socket: Socket,
}

/// Where a listener's socket comes from.
#[derive(Debug)]
enum Socket {
    /// It needs none, or keeps its own.
    None,
    /// Bound already.
    Bound(Bound),
    /// Bound once another listener of ours has let go of the address.
    Later,
}

impl Supervisor {
    /// Checks changes and binds what they need. Nothing has changed afterwards.
    ///
    /// # Errors
    /// The first refusal of each listener: its state, or its address. None at all when the process is on its way out.
    pub fn prepare(&self, changes: Vec<Change>) -> Result<Prepared, Vec<(ListenerName, Error)>> {
        if self.is_stopping() {
            return Err(Vec::new());
        }
        let listeners = self.lock();
        let released: Vec<_> = changes
            .iter()
            .filter_map(|change| released(change, listeners.get(&change.name)?))
            .collect();
        let (mut steps, mut refused) = (Vec::new(), Vec::new());
        for change in changes {
            match self.socket(&change, listeners.get(&change.name), &released) {
                Ok(socket) => steps.push(Step { change, socket }),
                Err(error) => refused.push((change.name, error)),
            }
        }
        if refused.is_empty() {
            Ok(Prepared(steps))
        } else {
            Err(refused)
        }
    }

    /// Checks one change against the listener as it is, and binds for it.
    fn socket(
        &self,
        change: &Change,
        listener: Option<&Listener>,
        released: &[Held],
    ) -> Result<Socket, Error> {
        let listener = listener.filter(|l| !l.deleting);
        let (target, start) = match (&change.to, listener) {
            (Becomes::Gone { .. }, None) => return Ok(Socket::None),
            (Becomes::Gone { force }, Some(listener)) => {
                step(listener, Input::Delete { force: *force })?;
                return Ok(Socket::None);
            }
            (Becomes::Defined { target, start }, _) => (target, *start),
        };
        if target.spec.desired_state == Desired::Stopped {
            return Ok(Socket::None);
        }
        let mut vital = true;
        if let Some(listener) = listener {
            let difference = Difference::between(&listener.spec, &target.spec);
            match listener.life.state {
                State::Active if !difference.rebind => return Ok(Socket::None),
                State::Draining if listener.life.desired == Desired::Stopped => {
                    step(listener, Input::Start)?;
                }
                State::Failed => vital = start || difference.rebind,
                _ => {}
            }
        }
        let bounds = listener::bounds(&target.spec, self.0.most_sessions);
        let wanted = (target.spec.protocol.transport(), target.spec.bind);
        match listener::bind(&target.spec, &bounds) {
            Ok(bound) => Ok(Socket::Bound(bound)),
            Err(error) if error.is_in_use() && overlaps(wanted, released) => Ok(Socket::Later),
            Err(error) if vital => Err(Error::Bind(error)),
            // It goes on trying, as before.
            Err(_) => Ok(Socket::None),
        }
    }

    /// Makes the changes. Resolves once all doors are as they should be; sessions that have to leave may take longer,
    /// see [`settled`](Supervisor::settled).
    pub async fn commit(&self, prepared: Prepared) {
        let leaving = self.open_up(&prepared.0);
        if prepared.0.iter().any(|s| matches!(s.socket, Socket::Later)) {
            for running in leaving {
                running.address_let_go().await;
            }
        }
        {
            let mut listeners = self.lock();
            for Step { change, socket } in prepared.0 {
                match change.to {
                    Becomes::Gone { .. } => {}
                    Becomes::Defined { target, .. } => {
                        let entry = listeners.remove(&change.name);
                        let (name, reason) = (change.name.clone(), change.reason);
                        let (mut listener, rebind) =
                            self.become_target(entry, change.name, *target);
                        let end = (change.grace, &*reason);
                        self.bring_about(&mut listener, rebind, socket, end);
                        listeners.insert(name, listener);
                    }
                }
            }
        }
        self.announce();
    }

    /// First half of a commit: every door that has to close is closed, and listeners that go are on their way.
    fn open_up(&self, steps: &[Step]) -> Vec<Arc<Running>> {
        let mut leaving = Vec::new();
        let mut listeners = self.lock();
        for Step { change, .. } in steps {
            let Some(listener) = listeners.get_mut(&change.name) else {
                continue;
            };
            match &change.to {
                Becomes::Gone { .. } => {
                    leaving.extend(listener.running.clone());
                    listener.deleting = true;
                    self.wind_down(listener, change.grace, &change.reason);
                    if listener.life.state != State::Draining {
                        listeners.remove(&change.name);
                    }
                    info!(listener = %change.name, "listener deleted");
                }
                Becomes::Defined { target, .. } => {
                    let difference = Difference::between(&listener.spec, &target.spec);
                    let leaves = difference.rebind || target.spec.desired_state == Desired::Stopped;
                    if let Some(running) = listener.running.clone().filter(|_| leaves) {
                        running.close_door();
                        leaving.push(running);
                    }
                }
            }
        }
        leaving
    }

    /// The listener with its new definition, and whatever of the old one lives on in it; and whether its run has to be
    /// replaced.
    fn become_target(
        &self,
        entry: Option<Listener>,
        name: ListenerName,
        target: Target,
    ) -> (Listener, bool) {
        let Some(mut old) = entry else {
            info!(listener = %name, protocol = target.spec.protocol.word(), "listener created");
            return (Listener::new(name, target), false);
        };
        let difference = Difference::between(&old.spec, &target.spec);
        if difference.kind || old.deleting {
            let mut listener = Listener::new(name, target);
            // What is left of the old one is told and closed under its name.
            listener.retiring = old.retiring;
            if old.deleting {
                // It drains already.
                let insist = old.draining.take().map(|draining| draining.insist);
                let insist = insist.unwrap_or_default();
                let running = old.running.take();
                let retiring = running.map(|running| Retiring { running, insist });
                listener.retiring.extend(retiring);
            } else if let Some(running) = old.running.take() {
                self.retire(&mut listener, running, self.grace(), "replaced");
            }
            return (listener, false);
        }
        let changed = old.spec != target.spec;
        old.built = if difference.anew {
            target.spec.protocol.build()
        } else {
            target.spec.protocol.rebuild(&old.built)
        };
        old.labels.transport = target.spec.protocol.transport().word();
        old.labels.network = target.spec.bind.network();
        if changed {
            // A call's own time, which is kept with it; a change of the files has none.
            let by_call = target.updated.filter(|at| *at > old.updated);
            old.updated = by_call.unwrap_or_else(SystemTime::now);
        }
        old.take(target);
        (old, difference.rebind)
    }

    /// Makes a listener do what its definition says.
    fn bring_about(
        &self,
        listener: &mut Listener,
        rebind: bool,
        socket: Socket,
        (grace, reason): (Option<Duration>, &str),
    ) {
        // A process that is on its way out opens no door; what was decided holds for the next one.
        if listener.spec.desired_state == Desired::Stopped || self.is_stopping() {
            return self.wind_down(listener, grace, reason);
        }
        if let Some(running) = &listener.running
            && !rebind
            && listener.life.state == State::Active
        {
            let bounds = listener.bounds(self.0.most_sessions);
            if let Err(fault) = running.set_terms(bounds, listener.built.handler.clone()) {
                warn!(listener = %listener.name, %fault, "its new terms could not be obeyed");
            }
            return;
        }
        let bound = match socket {
            Socket::Bound(bound) => Ok(bound),
            Socket::Later => {
                let bounds = listener.bounds(self.0.most_sessions);
                listener::bind(&listener.spec, &bounds)
            }
            Socket::None => return,
        };
        if let Some(running) = listener.running.take() {
            let grace = grace.unwrap_or_else(|| self.grace());
            self.retire(listener, running, grace, reason);
            // Nothing serves until the next run does; if that cannot, it is tried again.
            listener.life.state = State::Stopped;
        }
        match bound.and_then(|bound| self.serve(listener, bound)) {
            Ok(()) => {}
            Err(error) => self.give_up_for_now(listener, &error),
        }
        self.warn_of_lowered_limit(listener);
    }

    pub(super) fn warn_of_lowered_limit(&self, listener: &Listener) {
        if let Some(lowered) = listener::lowered(&listener.spec, self.0.most_sessions) {
            warn!(listener = %listener.name, "{lowered}");
        }
    }
}
