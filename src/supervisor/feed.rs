//! What watchers follow: a feed of each kind of change, and the lock on the listeners that sees to it that no change of
//! one is passed over.
//!
//! Whoever changed listeners lets go of the lock, and in that moment each is held against what was last told of it. So a
//! transition is told even if the next one comes before anybody looks, and no place that changes a listener has to
//! remember to tell. While nobody follows, nothing is compared and nothing is remembered.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use super::listener::Listener;
use super::view::View;
use super::{Error, ListenerName, SessionView, Supervisor};
use crate::net::{Door, Feed, Follower, SessionEvent, lock};
use crate::protocol::chat::ConversationEvent;

/// A listener came, changed or went: what it was, and what it is. `None` on the side where there is none.
#[derive(Debug, Clone)]
pub struct ListenerEvent {
    /// As it was told last.
    pub before: Option<Arc<View>>,
    /// As it is now.
    pub after: Option<Arc<View>>,
    /// When.
    pub time: SystemTime,
}

/// Events that are kept for those who follow: with listeners at most two views each, with sessions some 250 bytes, with
/// conversations what was said too.
const LISTENER_EVENTS: usize = 8_192;
const SESSION_EVENTS: usize = 16_384;
const CONVERSATION_EVENTS: usize = 16_384;
const CONVERSATION_BYTES: usize = 16 << 20;

/// Every feed of a process.
pub(super) struct Feeds {
    pub(super) sessions: Arc<Feed<SessionEvent>>,
    pub(super) conversations: Arc<Feed<ConversationEvent>>,
    listeners: Arc<Feed<ListenerEvent>>,
    /// Every listener as it was told last; empty while nobody follows.
    told: Mutex<Told>,
}

type Told = BTreeMap<ListenerName, Arc<View>>;
type Map = BTreeMap<ListenerName, Listener>;

impl Feeds {
    pub(super) fn new() -> Self {
        Self {
            sessions: Feed::new(SESSION_EVENTS),
            conversations: Feed::weighing(CONVERSATION_EVENTS, CONVERSATION_BYTES, |event| {
                event.said.as_ref().map_or(0, |said| said.raw.len())
            }),
            listeners: Feed::new(LISTENER_EVENTS),
            told: Mutex::default(),
        }
    }

    /// Tells what has changed since the last time.
    fn tell(&self, listeners: &Map, most_sessions: usize) {
        let mut told = lock(&self.told);
        if !self.listeners.is_kept() {
            return told.clear();
        }
        let time = SystemTime::now();
        let publish = |before, after| {
            let event = || ListenerEvent {
                before,
                after,
                time,
            };
            self.listeners.publish(event);
        };
        for (name, listener) in listeners {
            let before = told.get(name);
            if before.is_some_and(|view| is_told(view, listener)) {
                continue;
            }
            let now = Arc::new(listener.view(most_sessions));
            let mut before = told.insert(name.clone(), now.clone());
            // Another one of the same name.
            if let Some(gone) = before.take_if(|before| before.uid != now.uid) {
                publish(Some(gone), None);
            }
            publish(before, Some(now));
        }
        if told.len() > listeners.len() {
            told.retain(|name, view| {
                let is_there = listeners.contains_key(name);
                if !is_there {
                    publish(Some(view.clone()), None);
                }
                is_there
            });
        }
    }
}

/// Whether all is told of a listener that is worth an event: everything but what it counts.
fn is_told(view: &View, listener: &Listener) -> bool {
    let failed = |failure: &super::Failure| (failure.at, failure.next_try);
    let drains = |d: &super::Draining| (d.began, d.deadline, d.ended, d.mode);
    view.uid == listener.uid
        && view.life == listener.life
        && view.deleting == listener.deleting
        && view.bound == listener.running.as_ref().map(|running| running.address)
        && view.started == listener.started
        && view.failure.as_ref().map(failed) == listener.failure.as_ref().map(failed)
        && view.draining.as_ref().map(drains) == listener.draining.as_ref().map(drains)
        && view.offer == listener.cage.offer
        && view.ailing == listener.cage.is_broken()
        && view.why == listener.why
        && view.origin == listener.origin
        && view.updated == listener.updated
        && view.spec == listener.spec
}

/// The listeners, locked. What was changed is told when it is dropped.
pub(super) struct Listeners<'a> {
    map: MutexGuard<'a, Map>,
    feeds: &'a Feeds,
    most_sessions: usize,
    touched: bool,
}

impl Deref for Listeners<'_> {
    type Target = Map;

    fn deref(&self) -> &Map {
        &self.map
    }
}

impl DerefMut for Listeners<'_> {
    fn deref_mut(&mut self) -> &mut Map {
        self.touched = true;
        &mut self.map
    }
}

impl Drop for Listeners<'_> {
    fn drop(&mut self) {
        if self.touched {
            self.feeds.tell(&self.map, self.most_sessions);
        }
    }
}

impl Supervisor {
    pub(super) fn lock(&self) -> Listeners<'_> {
        Listeners {
            map: lock(&self.0.listeners),
            feeds: &self.0.feeds,
            most_sessions: self.0.most_sessions,
            touched: false,
        }
    }

    /// Follows the listeners, from what there is now on.
    pub fn follow_listeners(&self) -> (Vec<Arc<View>>, Follower<ListenerEvent>) {
        let listeners = self.lock();
        let mut told = lock(&self.0.feeds.told);
        if !self.0.feeds.listeners.is_kept() {
            let view = |l: &Listener| Arc::new(l.view(self.0.most_sessions));
            *told = listeners
                .iter()
                .map(|(n, l)| (n.clone(), view(l)))
                .collect();
        }
        let there = told.values().cloned().collect();
        (there, self.0.feeds.listeners.follow())
    }

    /// Goes on following the listeners.
    ///
    /// # Errors
    /// As [`Feed::resume`].
    pub fn resume_listeners(&self, next: u64) -> Result<Follower<ListenerEvent>, Option<u64>> {
        self.0.feeds.listeners.resume(next)
    }

    /// Every listener as it was told last, if that is all that `follower` has taken: else changes come first.
    pub fn told_listeners(&self, follower: &Follower<ListenerEvent>) -> Vec<Arc<View>> {
        let told = lock(&self.0.feeds.told);
        if follower.next() < follower.feed().next() {
            return Vec::new();
        }
        told.values().cloned().collect()
    }

    /// The same with what it counts now, if it is still there.
    pub fn recounted(&self, told: &View) -> View {
        let listeners = self.lock();
        let listener = listeners.get(&told.name).filter(|l| l.uid == told.uid);
        let counted = listener.map(|l| l.status(self.0.most_sessions));
        View {
            status: counted.unwrap_or_else(|| told.status.clone()),
            ..told.clone()
        }
    }

    /// What tells of sessions.
    pub fn session_feed(&self) -> &Arc<Feed<SessionEvent>> {
        &self.0.feeds.sessions
    }

    /// What tells of conversations.
    pub fn conversation_feed(&self) -> &Arc<Feed<ConversationEvent>> {
        &self.0.feeds.conversations
    }

    /// Every run of one listener, or of all, that may have sessions.
    ///
    /// # Errors
    /// There is no such listener.
    pub fn doors(&self, listener: Option<&str>) -> Result<Vec<(ListenerName, Arc<Door>)>, Error> {
        let of = |listener: &Listener| {
            let runs = listener.runs();
            runs.map(|run| (listener.name.clone(), run.door.clone()))
                .collect::<Vec<_>>()
        };
        match listener {
            Some(name) => self.find(name, of),
            None => Ok(self.lock().values().flat_map(of).collect()),
        }
    }
}

impl SessionView {
    /// The session that an event tells of, as it came or went.
    pub fn told(event: SessionEvent) -> Option<Self> {
        let name = event.listener().parse().ok()?;
        Some(match event {
            SessionEvent::Opened(_, opened) => Self::opened(&name, &opened),
            SessionEvent::Closed(_, closed) => Self::closed(&name, closed),
        })
    }
}
