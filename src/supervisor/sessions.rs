//! Sessions across listeners: found by name, and shown.

use std::sync::Arc;
use std::time::SystemTime;

use super::listener::Listener;
use super::{Error, ListenerName, Supervisor};
use crate::net::{CloseReason, Closed, Door, Opened, Running, Session, SessionId, Totals};
use crate::telemetry::Trace;

/// A session, open or lately closed, as callers see it.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Whose.
    pub listener: ListenerName,
    /// Its id.
    pub id: SessionId,
    /// Who visits.
    pub peer: std::net::SocketAddr,
    /// The address that was visited.
    pub local: std::net::SocketAddr,
    /// When it opened.
    pub opened: SystemTime,
    /// When its last message came.
    pub last_receive: Option<SystemTime>,
    /// When its last bytes left.
    pub last_send: Option<SystemTime>,
    /// When and why it closed, if it has.
    pub closed: Option<(SystemTime, CloseReason)>,
    /// What the caller said of it who closed it, once it has.
    pub close_detail: Option<Arc<str>>,
    /// On its way out, and why.
    pub closing: Option<CloseReason>,
    /// What it sent and got.
    pub totals: Totals,
    /// Messages and bytes that wait for the peer to read.
    pub queued: (usize, usize),
    /// How often sending had to wait for the peer to read.
    pub stalls: u32,
    /// Itself while it is open, for what only the kernel knows.
    pub live: Option<Arc<Session>>,
    /// The trace of its set-up.
    pub trace: Trace,
}

/// Splits `listeners/L/sessions/NODE-ULID` into the listener and the rest.
pub fn split_session_name(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("listeners/")?.split_once("/sessions/")
}

impl SessionView {
    /// One that lives, as it is now.
    pub fn open(listener: &ListenerName, session: Arc<Session>) -> Self {
        Self {
            listener: listener.clone(),
            id: session.id,
            peer: session.peer,
            local: session.local,
            opened: session.opened,
            last_receive: session.last_receive(),
            last_send: session.last_send(),
            closed: None,
            close_detail: None,
            closing: session.ending(),
            totals: session.traffic.totals(),
            queued: (session.queued_messages(), session.queued_bytes()),
            stalls: session.stalls(),
            trace: session.trace,
            live: Some(session),
        }
    }

    pub(super) fn opened(listener: &ListenerName, opened: &Opened) -> Self {
        Self {
            listener: listener.clone(),
            id: opened.id,
            peer: opened.peer,
            local: opened.local,
            opened: opened.opened,
            last_receive: None,
            last_send: None,
            closed: None,
            close_detail: None,
            closing: None,
            totals: Totals::default(),
            queued: (0, 0),
            stalls: 0,
            live: None,
            trace: opened.trace,
        }
    }

    pub(super) fn closed(listener: &ListenerName, closed: Closed) -> Self {
        Self {
            listener: listener.clone(),
            id: closed.id,
            peer: closed.peer,
            local: closed.local,
            opened: closed.opened,
            last_receive: closed.last_receive,
            last_send: closed.last_send,
            closed: Some((closed.closed, closed.reason)),
            close_detail: closed.detail,
            closing: None,
            totals: closed.totals,
            queued: (0, 0),
            stalls: closed.stalls,
            live: None,
            trace: closed.trace,
        }
    }
}

impl Supervisor {
    /// A session's id as people see it: `NODE-ULID`.
    pub fn session_label(&self, id: SessionId) -> String {
        format!("{}-{id}", self.0.node)
    }

    /// Reads such an id.
    pub fn parse_session_label(&self, text: &str) -> Option<SessionId> {
        text.strip_prefix(&self.0.node)?
            .strip_prefix('-')?
            .parse()
            .ok()
    }

    /// One session, open or lately closed.
    pub fn session(&self, name: &str) -> Result<SessionView, Error> {
        let (listener, id) = self.locate(name)?;
        let found = self.find(&listener, |listener| {
            let open = open(listener, id).map(|(_, s)| SessionView::open(&listener.name, s));
            open.or_else(|| {
                listener
                    .closures
                    .get(id)
                    .map(|c| SessionView::closed(&listener.name, c))
            })
        })?;
        found.ok_or_else(|| Error::NoSession(name.to_owned()))
    }

    /// Where the set-up of the session was traced that a name is about: its own, or that of its conversation. None when
    /// nothing is known of it, or it is the name of something else.
    pub fn trace_of(&self, name: &str) -> Option<Trace> {
        let name = name.replacen("/conversations/", "/sessions/", 1);
        self.session(&name).ok().map(|view| view.trace)
    }

    pub(super) fn locate(&self, name: &str) -> Result<(String, SessionId), Error> {
        let missing = || Error::NoSession(name.to_owned());
        let (listener, label) = split_session_name(name).ok_or_else(missing)?;
        let id = self.parse_session_label(label).ok_or_else(missing)?;
        Ok((listener.to_owned(), id))
    }

    /// One session that is open, with its door.
    pub(super) fn open_session(&self, name: &str) -> Result<Option<Open>, Error> {
        let (listener, id) = self.locate(name)?;
        self.find(&listener, |listener| open(listener, id))
    }
}

/// A session that is open, with its door.
pub(super) type Open = (Arc<Door>, Arc<Session>);

pub(super) fn open(listener: &Listener, id: SessionId) -> Option<Open> {
    let in_run = |running: &Arc<Running>| Some((running.door.clone(), running.door.session(id)?));
    listener.runs().find_map(in_run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_name_has_both_parts() {
        let name = "listeners/ack/sessions/local-01jd";
        assert_eq!(split_session_name(name), Some(("ack", "local-01jd")));
        for wrong in [
            "ack",
            "listeners/ack",
            "sessions/x",
            "listeners/ack/session/x",
        ] {
            assert_eq!(split_session_name(wrong), None);
        }
    }
}
