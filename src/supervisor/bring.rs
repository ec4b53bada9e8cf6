//! How listeners become what they should be: steps under the lock that never wait and cannot fail.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::asked::Asked;
use super::bind;
use super::change::{Becomes, Socket, Step};
use super::lifecycle::{Action, Desired, Input, State};
use super::listener::{Listener, Retiring, Target};
use super::preview::{Difference, lets_go};
use super::{ListenerName, Supervisor};
use crate::net::{BindError, Bound, Gate, Running};

/// What a listener is brought to, and how.
pub(super) struct End<'a> {
    pub(super) asked: Option<Asked>,
    pub(super) grace: Option<Duration>,
    pub(super) reason: &'a str,
}

impl Supervisor {
    /// First half of a commit: every door that has to close is closed, and listeners that go are on their way.
    pub(super) fn open_up(&self, steps: &[Step]) -> Vec<Arc<Running>> {
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
                    self.forget_bans(&change.name);
                    self.wind_down(listener, change.grace, &change.reason);
                    if !listener.life.winds_down() {
                        listeners.remove(&change.name);
                    }
                    info!(listener = %change.name, "listener deleted");
                }
                Becomes::Defined { .. } => {
                    let leaves = lets_go(change, listener);
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
    pub(super) fn become_target(
        &self,
        entry: Option<Listener>,
        name: ListenerName,
        target: Target,
    ) -> (Listener, bool) {
        let ground = self.ground(&name);
        let Some(mut old) = entry else {
            info!(listener = %name, protocol = target.spec.protocol.word(), "listener created");
            return (Listener::new(name, target, &ground), false);
        };
        let difference = Difference::between(&old.spec, &target.spec);
        if difference.kind || old.deleting {
            let mut listener = Listener::new(name, target, &ground);
            // What is left of the old one is told and closed under its name.
            listener.retiring = std::mem::take(&mut old.retiring);
            if old.deleting {
                // It drains already.
                let insist = old.draining.take().map(|draining| draining.insist);
                let insist = insist.unwrap_or_default();
                let running = old.running.take();
                let retiring = running.map(|running| Retiring { running, insist });
                listener.retiring.extend(retiring);
            } else if let Some(running) = old.running.take() {
                old.leave_off();
                self.retire(&mut listener, running, self.grace(), "replaced");
            }
            return (listener, false);
        }
        let changed = old.spec != target.spec;
        old.built = if difference.anew {
            target.spec.protocol.build(&ground)
        } else {
            target.spec.protocol.rebuild(&ground, &old.built)
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

    /// Makes a listener do what its definition says, and what was asked.
    pub(super) fn bring_about(
        &self,
        listener: &mut Listener,
        rebind: bool,
        socket: Socket,
        end: &End<'_>,
    ) {
        let desired = listener.spec.desired_state;
        // A process that is on its way out opens no door; what was decided holds for the next one.
        if self.is_stopping() {
            return self.wind_down(listener, end.grace, end.reason);
        }
        // What was refused has not come this far. Since then a drain may have ended: then its definition is what counts,
        // and one that stops comes up again once it has stopped.
        let input = Asked::input(end.asked.as_ref(), desired);
        let step = listener.life.step(input);
        let Ok((life, action)) = step.or_else(|_| listener.life.step(Input::Define(desired)))
        else {
            return;
        };
        match (action, end.asked) {
            (Action::ThinOut, Some(Asked::Drain(drain))) => {
                return self.thin_out(listener, drain, desired, end.reason);
            }
            // One that has to have another socket ends its sessions at once instead.
            (Action::None, _) if life.state == State::Draining && !rebind => {
                return self.obey_terms(listener);
            }
            _ if desired == Desired::Stopped => {
                return self.wind_down(listener, end.grace, end.reason);
            }
            (Action::Bind, _) => {}
            _ if rebind => {}
            _ => {
                listener.enter(life);
                self.obey_terms(listener);
                return self.turn(listener);
            }
        }
        let bound = match socket {
            Socket::Bound(bound) => Ok(bound),
            Socket::None if listener.life.state == State::Failed => {
                // It goes on trying to be what is wanted now.
                if let Ok((life, _)) = listener.life.step(Input::BindFailed(desired)) {
                    listener.enter(life);
                }
                return;
            }
            Socket::Later | Socket::None => {
                let bounds = listener.bounds(self.0.most_sessions);
                bind::bind(&listener.name, &listener.spec, &bounds)
            }
        };
        self.serve_anew(listener, bound, end);
    }

    /// Serves on a socket in the place of the one that there may be.
    fn serve_anew(&self, listener: &mut Listener, bound: Result<Bound, BindError>, end: &End<'_>) {
        if let Some(running) = listener.running.take() {
            let grace = end.grace.unwrap_or_else(|| self.grace());
            listener.leave_off();
            self.retire(listener, running, grace, end.reason);
            // Nothing serves until the next run does; if that cannot, it is tried again.
            listener.life.state = State::Stopped;
        }
        match bound.and_then(|bound| self.serve(listener, bound)) {
            Ok(()) => {}
            Err(error) => self.give_up_for_now(listener, error.reason(), error.to_string()),
        }
        self.warn_of_lowered_limit(listener);
    }

    /// Exchanges what a run obeys.
    fn obey_terms(&self, listener: &mut Listener) {
        if listener.running.is_some() {
            self.tend(listener);
        }
        let Some(running) = &listener.running else {
            return;
        };
        let bounds = listener.bounds(self.0.most_sessions);
        if let Err(fault) = running.set_terms(bounds, listener.built.handler.clone()) {
            warn!(listener = %listener.name, %fault, "its new terms could not be obeyed");
        }
    }

    /// Opens the door of a run, or shuts it.
    fn turn(&self, listener: &mut Listener) {
        let gate = bind::gate(&listener.spec);
        if gate == Gate::Open
            || listener
                .draining
                .as_ref()
                .is_some_and(|d| d.ended.is_none())
        {
            listener.leave_off();
        }
        if let Some(running) = &listener.running {
            running.set_gate(gate);
        }
    }

    pub(super) fn warn_of_lowered_limit(&self, listener: &Listener) {
        if let Some(lowered) = bind::lowered(&listener.spec, self.0.most_sessions) {
            warn!(listener = %listener.name, "{lowered}");
        }
    }
}
