//! Lists of sessions, a page at a time, in the order of their opening.
//!
//! The lock on the listeners is held while their doors are gathered, a door's while a page of handles is taken, and no
//! session is looked at under either: who comes and goes does not wait for who reads.

use std::sync::Arc;
use std::time::SystemTime;

use super::listener::Listener;
use super::sessions::SessionView;
use super::{Error, ListenerName, Supervisor};
use crate::net::{Closed, Closures, Running, Session, SessionId};

/// Some of a list.
#[derive(Debug)]
pub struct SessionPage {
    /// In the order of their opening.
    pub sessions: Vec<SessionView>,
    /// The last one, when there are more behind it.
    pub next: Option<SessionId>,
    /// How many there are in all.
    pub total: usize,
    /// Sessions that closed before this may be forgotten.
    pub horizon: Option<SystemTime>,
}

/// Where the sessions of a listener are.
struct Source {
    listener: ListenerName,
    runs: Vec<Arc<Running>>,
    closures: Arc<Closures>,
}

/// A session before it is looked at.
enum Found {
    Open(Arc<Session>),
    Closed(Box<Closed>),
}

impl Source {
    fn of(listener: &Listener) -> Self {
        Self {
            listener: listener.name.clone(),
            runs: listener.runs().cloned().collect(),
            closures: listener.closures.clone(),
        }
    }

    /// At most `limit` of those that opened after `after`.
    fn page(
        &self,
        after: Option<SessionId>,
        limit: usize,
        show_closed: bool,
    ) -> Vec<(SessionId, Found)> {
        let open = |running: &Arc<Running>| running.door.sessions.page(after, limit);
        let open = self.runs.iter().flat_map(open);
        let mut page: Vec<_> = open.map(|s| (s.id, Found::Open(s))).collect();
        if show_closed {
            // Behind the open ones, so that one that closes meanwhile is found, here or there.
            let closed = self.closures.page(after, limit).into_iter();
            page.extend(closed.map(|c| (c.id, Found::Closed(Box::new(c)))));
        }
        page
    }
}

impl Supervisor {
    /// The names of all listeners.
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().map(ToString::to_string).collect()
    }

    /// Sessions of one listener, or of all, that opened after `after`; at most `limit`.
    pub fn sessions(
        &self,
        listener: Option<&str>,
        after: Option<SessionId>,
        limit: usize,
        show_closed: bool,
    ) -> Result<SessionPage, Error> {
        let sources = match listener {
            Some(name) => vec![self.find(name, Source::of)?],
            None => self.lock().values().map(Source::of).collect(),
        };
        let (mut total, mut horizon, mut found) = (0, None, Vec::new());
        for source in &sources {
            total += source
                .runs
                .iter()
                .map(|r| r.door.sessions.count())
                .sum::<usize>();
            if show_closed {
                total += source.closures.count();
                horizon = horizon.max(source.closures.horizon());
            }
            // One more than the limit tells that there are more.
            let page = source.page(after, limit.saturating_add(1), show_closed);
            found.extend(
                page.into_iter()
                    .map(|(id, found)| (id, &source.listener, found)),
            );
            first(&mut found, limit.saturating_add(1));
        }
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().map(|(id, ..)| *id).filter(|_| more);
        let sessions = found.into_iter().map(|(_, listener, found)| match found {
            Found::Open(session) => SessionView::open(listener, session),
            Found::Closed(closed) => SessionView::closed(listener, *closed),
        });
        Ok(SessionPage {
            sessions: sessions.collect(),
            next,
            total,
            horizon,
        })
    }
}

/// Keeps the first `limit`, each once: of one that closed while it was looked for, as it closed.
fn first(found: &mut Vec<(SessionId, &ListenerName, Found)>, limit: usize) {
    found.sort_by_key(|(id, ..)| *id);
    found.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            std::mem::swap(later, earlier);
        }
        same
    });
    found.truncate(limit);
}
