//! The socket of a listener: what it obeys, and how it begins.

use super::lifecycle::Desired;
use super::spec::{ListenerName, Spec};
use crate::net::{
    BindError, Bounds, Gate, PauseMode, Transport, Why, bind_datagram, bind_reserved, bind_stream,
    passed,
};

/// What is obeyed: never more sessions than there are descriptors.
pub(super) fn bounds(spec: &Spec, most_sessions: usize) -> Bounds {
    let transport = spec.protocol.transport();
    let mut bounds = spec.limits.bounds(transport);
    if transport == Transport::Tcp {
        bounds.max_sessions = bounds.max_sessions.min(most_sessions);
    }
    bounds
}

/// That fewer sessions are let in than were asked for, when it is so.
pub fn lowered(spec: &Spec, most_sessions: usize) -> Option<String> {
    let asked = spec.limits.max_sessions as usize;
    let over = asked > most_sessions && spec.protocol.transport() == Transport::Tcp;
    over.then(|| {
        format!(
            "limits.max_sessions is {asked}, and the descriptor limit of the process carries {most_sessions}: so many \
             are let in"
        )
    })
}

/// The door of a listener that is as it should be.
pub(super) fn gate(spec: &Spec) -> Gate {
    match spec.desired_state {
        Desired::Paused => Gate::Shut(spec.pause_mode, Why::Paused),
        _ => Gate::Open,
    }
}

/// Binds as `spec` asks, or takes what was passed to the process for the listener of this name.
pub(super) fn bind(
    name: &ListenerName,
    spec: &Spec,
    bounds: &Bounds,
) -> Result<crate::net::Bound, BindError> {
    let transport = spec.protocol.transport();
    if let Some(passed) = passed(name.as_str(), spec.bind, transport, bounds.accept_backlog) {
        return passed;
    }
    let refuses = matches!(gate(spec), Gate::Shut(PauseMode::Refuse, _));
    match transport {
        Transport::Tcp if refuses => bind_reserved(spec.bind),
        Transport::Tcp => bind_stream(spec.bind, bounds.accept_backlog),
        Transport::Udp => bind_datagram(spec.bind),
    }
}
