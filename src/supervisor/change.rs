//! What changes listeners, in two halves: [`prepare`](Supervisor::prepare) checks everything and binds, and changes
//! nothing; [`commit`](Supervisor::commit) cannot fail. Between them the change is put on disk, so that what was
//! answered outlives the process and what was refused has left no trace.
//!
//! One caller at a time: whoever owns the configuration. Only the world (a drain that ends, a retry) comes between.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::commands::step;
use super::lifecycle::{Action, Desired, Input, State};
use super::listener::{self, Listener, Retiring, Target};
use super::preview::{Difference, Held, lets_go, overlaps, released};
use super::{Error, ListenerName, Supervisor};
use crate::net::{Bound, Gate, PauseMode, Running};

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
        /// What somebody asked for, and waits for: that it cannot be is then a refusal, whatever else has changed.
        asked: Option<Asked>,
    },
    /// Nothing.
    Gone {
        /// Also when it is not stopped.
        force: bool,
    },
}

/// What a caller asks of a listener besides its definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To serve.
    Start,
    /// To let nobody new in.
    Pause,
    /// To take a pause or a drain back.
    Resume,
    /// To stop.
    Stop,
    /// To have its sessions leave, and then be as it is defined.
    Drain(Drain),
}

/// How sessions are made to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Who has not left by then is cut.
    pub deadline: Duration,
    /// Sessions are asked one after the other, spread over this long; without it nobody is asked.
    pub pace_over: Option<Duration>,
    /// Those that have been silent for longest are asked first; else those that have been here for longest.
    pub idle_first: bool,
    /// How new peers are kept away.
    pub mode: PauseMode,
}

impl Asked {
    /// What it is to the life of a listener that should be `desired`.
    pub(super) fn input(asked: Option<&Self>, desired: Desired) -> Input {
        match asked {
            None => Input::Define(desired),
            Some(Self::Start) => Input::Start,
            Some(Self::Pause) => Input::Pause,
            Some(Self::Resume) => Input::Resume,
            Some(Self::Stop) => Input::Stop,
            Some(Self::Drain(_)) => Input::Drain { to: desired },
        }
    }
}

/// Changes that are checked, with the sockets that they need. Dropping it gives them back.
#[derive(Debug)]
pub struct Prepared(Vec<Step>);

#[derive(Debug)]
struct Step {
    change: Change,
    socket: Socket,
}

/// What a listener is brought to, and how.
struct End<'a> {
    asked: Option<Asked>,
    grace: Option<Duration>,
    reason: &'a str,
}

/// How long a change waits for doors to open or shut.
const DOOR_PATIENCE: Duration = Duration::from_secs(2);

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
        let (target, asked) = match (&change.to, listener) {
            (Becomes::Gone { .. }, None) => return Ok(Socket::None),
            (Becomes::Gone { force }, Some(listener)) => {
                step(listener, Input::Delete { force: *force })?;
                return Ok(Socket::None);
            }
            (Becomes::Defined { target, asked }, _) => (target, asked.as_ref()),
        };
        let desired = target.spec.desired_state;
        let mut vital = true;
        if let Some(listener) = listener {
            let (_, action) = step(listener, Asked::input(asked, desired))?;
            let rebind = Difference::between(&listener.spec, &target.spec).rebind;
            if action != Action::Bind && !rebind {
                return Ok(Socket::None);
            }
            let waits = asked == Some(&Asked::Start);
            vital = listener.life.state != State::Failed || waits || rebind;
        }
        if desired == Desired::Stopped {
            return Ok(Socket::None);
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
        let mut doors = Vec::new();
        {
            let mut listeners = self.lock();
            for Step { change, socket } in prepared.0 {
                let Becomes::Defined { target, asked } = change.to else {
                    continue;
                };
                let entry = listeners.remove(&change.name);
                let (name, reason) = (change.name.clone(), change.reason);
                let (mut listener, rebind) = self.become_target(entry, change.name, *target);
                let end = End {
                    asked,
                    grace: change.grace,
                    reason: &reason,
                };
                self.bring_about(&mut listener, rebind, socket, &end);
                doors.extend(listener.running.clone());
                listeners.insert(name, listener);
            }
        }
        self.announce();
        let turned = async {
            for running in doors {
                running.arranged().await;
            }
        };
        // One that cannot open goes on trying, and says so.
        let _ = tokio::time::timeout(DOOR_PATIENCE, turned).await;
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
        if changed {
            // A call's own time, which is kept with it; a change of the files has none.
            let by_call = target.updated.filter(|at| *at > old.updated);
            old.updated = by_call.unwrap_or_else(SystemTime::now);
        }
        old.take(target);
        (old, difference.rebind)
    }

    /// Makes a listener do what its definition says, and what was asked.
    fn bring_about(&self, listener: &mut Listener, rebind: bool, socket: Socket, end: &End<'_>) {
        let desired = listener.spec.desired_state;
        // A process that is on its way out opens no door; what was decided holds for the next one.
        if self.is_stopping() {
            return self.wind_down(listener, end.grace, end.reason);
        }
        // What was refused has not come this far; a drain that ended meanwhile asks for nothing.
        let input = Asked::input(end.asked.as_ref(), desired);
        let Ok((life, action)) = listener.life.step(input) else {
            return;
        };
        match (action, end.asked) {
            (Action::ThinOut, Some(Asked::Drain(drain))) => {
                return self.thin_out(listener, drain, desired, end.reason);
            }
            (Action::None, _) if life.state == State::Draining => return self.obey_terms(listener),
            _ if desired == Desired::Stopped => {
                return self.wind_down(listener, end.grace, end.reason);
            }
            (Action::Bind, _) => {}
            _ if rebind => {}
            _ => {
                listener.life = life;
                self.obey_terms(listener);
                return self.turn(listener);
            }
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
            let grace = end.grace.unwrap_or_else(|| self.grace());
            listener.leave_off();
            self.retire(listener, running, grace, end.reason);
            // Nothing serves until the next run does; if that cannot, it is tried again.
            listener.life.state = State::Stopped;
        }
        match bound.and_then(|bound| self.serve(listener, bound)) {
            Ok(()) => {}
            Err(error) => self.give_up_for_now(listener, &error),
        }
        self.warn_of_lowered_limit(listener);
    }

    /// Exchanges what a run obeys.
    fn obey_terms(&self, listener: &Listener) {
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
        let gate = listener::gate(&listener.spec);
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
        if let Some(lowered) = listener::lowered(&listener.spec, self.0.most_sessions) {
            warn!(listener = %listener.name, "{lowered}");
        }
    }
}
