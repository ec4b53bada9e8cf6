//! Sessions across listeners: found by name, shown, closed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::listener::Listener;
use super::{Error, ListenerName, Supervisor};
use crate::net::{Ask, CloseReason, Closed, Door, Running, Session, SessionId, Totals};
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
    /// On its way out, and why.
    pub closing: Option<CloseReason>,
    /// What it sent and got.
    pub totals: Totals,
    /// Bytes that wait for the peer to read.
    pub queued_bytes: usize,
    /// The trace of its set-up.
    pub trace: Trace,
}

/// Splits `listeners/L/sessions/NODE-ULID` into the listener and the rest.
pub fn split_session_name(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("listeners/")?.split_once("/sessions/")
}

impl SessionView {
    pub(super) fn open(listener: &ListenerName, session: &Session) -> Self {
        Self {
            listener: listener.clone(),
            id: session.id,
            peer: session.peer,
            local: session.local,
            opened: session.opened,
            last_receive: session.last_receive(),
            last_send: session.last_send(),
            closed: None,
            closing: session.ending(),
            totals: session.traffic.totals(),
            queued_bytes: session.queued_bytes(),
            trace: session.trace,
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
            closing: None,
            totals: closed.totals,
            queued_bytes: 0,
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
            let open = open(listener, id).map(|(_, s)| SessionView::open(&listener.name, &s));
            open.or_else(|| {
                listener
                    .closures
                    .get(id)
                    .map(|c| SessionView::closed(&listener.name, c))
            })
        })?;
        found.ok_or_else(|| Error::NoSession(name.to_owned()))
    }

    fn locate(&self, name: &str) -> Result<(String, SessionId), Error> {
        let missing = || Error::NoSession(name.to_owned());
        let (listener, label) = split_session_name(name).ok_or_else(missing)?;
        let id = self.parse_session_label(label).ok_or_else(missing)?;
        Ok((listener.to_owned(), id))
    }

    /// Closes a session. Without a grace it ends at once, with one it may finish what it owes
    /// first and is then reset, and a grace of zero resets it now. One that closed lately succeeds.
    pub fn close_session(&self, name: &str, grace: Option<Duration>) -> Result<SessionView, Error> {
        let (listener, id) = self.locate(name)?;
        let found = self.find(&listener, |listener| open(listener, id))?;
        let Some((door, session)) = found else {
            return self.session(name);
        };
        match grace {
            None => door.ask(&session, Ask::Cut(CloseReason::Kicked)),
            Some(Duration::ZERO) => door.abort(&session, CloseReason::Kicked),
            Some(grace) => {
                door.ask(&session, Ask::Finish(CloseReason::Kicked));
                let stopping = self.0.stopping.clone();
                self.0.tasks.spawn(async move {
                    // When the process stops, its drain sees to every session.
                    let waited = stopping
                        .run_until_cancelled(outstayed(&door, id, grace))
                        .await;
                    if waited == Some(true) {
                        door.abort(&session, CloseReason::Kicked);
                    }
                });
            }
        }
        self.session(name)
    }
}

/// True when the session is still there after `grace`; false soon after it has gone.
async fn outstayed(door: &Door, id: SessionId, grace: Duration) -> bool {
    let mut left = grace;
    while !left.is_zero() && door.session(id).is_some() {
        let nap = left.min(Duration::from_secs(1));
        tokio::time::sleep(nap).await;
        left -= nap;
    }
    door.session(id).is_some()
}

fn open(listener: &Listener, id: SessionId) -> Option<(Arc<Door>, Arc<Session>)> {
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
