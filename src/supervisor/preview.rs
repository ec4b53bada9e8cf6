//! What a change would do, before it is made.

use std::sync::Arc;

use super::asked::Asked;
use super::change::{Becomes, Change};
use super::lifecycle::{Action, Desired};
use super::listener::{Listener, Target};
use super::{ListenerName, Spec, Supervisor, View};
use crate::config::Scope;
use crate::net::{Address, Running, Transport};

/// How a listener differs from what it should be.
pub(super) struct Difference {
    /// Its socket must be closed and bound again.
    pub(super) rebind: bool,
    /// Its conversations and members cannot be kept.
    pub(super) anew: bool,
    /// Another kind of protocol, so another listener under the same name.
    pub(super) kind: bool,
}

impl Difference {
    pub(super) fn between(from: &Spec, to: &Spec) -> Self {
        let kind = from.protocol.word() != to.protocol.word();
        let rebound = |key: &str| from.scope(key) == Some(Scope::Rebind);
        let keys = from.changes(to);
        Self {
            rebind: kind || keys.iter().any(|change| rebound(&change.key)),
            anew: kind || keys.iter().any(|c| c.key != "bind" && rebound(&c.key)),
            kind,
        }
    }
}

impl Supervisor {
    /// What a change would make of a listener, for whoever asks beforehand.
    pub fn preview(&self, name: &ListenerName, target: Target) -> View {
        let fresh = || Listener::new(name.clone(), target.clone(), &self.ground(name));
        let listeners = self.lock();
        let Some(listener) = listeners.get(name) else {
            let mut listener = fresh();
            listener.life.desired = target.spec.desired_state;
            return listener.view(self.0.most_sessions);
        };
        let mut view = listener.view(self.0.most_sessions);
        view.spec = target.spec.clone();
        view.life.desired = target.spec.desired_state;
        view.origin = target.origin.clone();
        view
    }

    /// Sessions that would end if the listener became `spec`, or nothing.
    pub fn would_end(&self, name: &ListenerName, spec: Option<&Spec>) -> usize {
        let listeners = self.lock();
        let Some(listener) = listeners.get(name).filter(|l| !l.deleting) else {
            return 0;
        };
        let sessions = |run: &Arc<Running>| run.door.sessions.count();
        let all = || listener.runs().map(sessions).sum();
        let Some(spec) = spec else {
            return all();
        };
        // Those of a listener that is stopped already leave anyway, and those of former runs.
        if spec.desired_state == Desired::Stopped && listener.spec.desired_state != Desired::Stopped
        {
            return all();
        }
        let running = listener.running.as_ref();
        let rebinds = Difference::between(&listener.spec, spec).rebind;
        running.filter(|_| rebinds).map_or(0, sessions)
    }
}

/// An address of a kind of socket.
pub(super) type Held = (Transport, Address);

/// The address that a listener lets go of by this change.
pub(super) fn released(change: &Change, listener: &Listener) -> Option<Held> {
    let address = Address(listener.running.as_ref()?.address);
    let transport = listener.spec.protocol.transport();
    lets_go(change, listener).then_some((transport, address))
}

/// Whether a listener's door closes by this change.
pub(super) fn lets_go(change: &Change, listener: &Listener) -> bool {
    match &change.to {
        Becomes::Gone { .. } => true,
        Becomes::Defined { target, asked } => {
            let input = Asked::input(asked.as_ref(), target.spec.desired_state);
            let stops = matches!(listener.life.step(input), Ok((_, Action::WindDown)));
            stops || Difference::between(&listener.spec, &target.spec).rebind
        }
    }
}

/// Whether an address cannot be had while one of these is held.
pub(super) fn overlaps((transport, address): Held, held: &[Held]) -> bool {
    let clash = |other: &Held| transport == other.0 && address.overlaps(other.1);
    held.iter().any(clash)
}
