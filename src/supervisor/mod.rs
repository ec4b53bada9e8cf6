//! Named listeners and their lives: the one vocabulary that gRPC, HTTP and start-up translate into.
//!
//! One lock guards the map of listeners. It is held for short steps that never wait, binding
//! included, so two creates of one name or one address cannot both win. Every change is announced
//! by a counter that others wait on, and told one by one to those who follow (see `feed`).

mod asked;
mod bans;
mod bind;
mod bring;
mod cage;
mod change;
mod close;
mod commands;
mod drain;
mod error;
mod feed;
mod lifecycle;
mod listener;
mod listing;
mod measure;
mod preview;
mod sessions;
mod spec;
mod state_change;
mod tap;
mod thin;
mod view;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use asked::{Asked, Drain};
pub use bind::lowered;
pub use change::{Becomes, Change, Prepared};
pub use close::{Closing, Visit};
pub use drain::DrainedAll;
pub use error::Error;
pub use feed::ListenerEvent;
pub use lifecycle::{Denied, Desired, Life, State};
pub use listener::{Target, etag, fresh_uid};
pub use listing::SessionPage;
pub use sessions::{SessionView, split_session_name};
pub use spec::{ListenerName, Moment, SCOPES, Spec, Violation, shown};
pub use view::{Draining, Failure, Status, TURNED_AWAY, Tally, View};

use crate::net::Taps;
use crate::protocol::Ground;
use crate::protocol::chat::Desk;
use crate::store::{Ban, Store};
use crate::telemetry::Telemetry;
use bans::BanBook;
use feed::Feeds;
use listener::Listener;

/// Owns the listeners. A cheap handle.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    node: String,
    grace_ms: AtomicU64,
    most_sessions: usize,
    telemetry: Telemetry,
    store: Store,
    bans: BanBook,
    listeners: Mutex<BTreeMap<ListenerName, Listener>>,
    changes: watch::Sender<u64>,
    feeds: Feeds,
    /// The process is on its way out: nothing new begins.
    stopping: CancellationToken,
    /// The whole process no longer waits for anybody.
    cut: CancellationToken,
    tasks: TaskTracker,
    /// Sessions that drains have cut so far.
    cut_sessions: AtomicUsize,
    taps: Taps,
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
    /// Where bans are kept, and what protocols must not forget.
    pub store: Store,
    /// Those that were kept.
    pub bans: Vec<Ban>,
}

impl Supervisor {
    /// A supervisor without listeners.
    pub fn new(parts: Parts) -> Self {
        let supervisor = Self(Arc::new(Inner {
            node: parts.node,
            grace_ms: AtomicU64::new(u64::try_from(parts.grace.as_millis()).unwrap_or(u64::MAX)),
            most_sessions: parts.most_sessions,
            telemetry: parts.telemetry.clone(),
            store: parts.store.clone(),
            bans: BanBook::new(parts.store, parts.bans),
            listeners: Mutex::new(BTreeMap::new()),
            changes: watch::channel(0).0,
            feeds: Feeds::new(),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            cut_sessions: AtomicUsize::new(0),
            taps: Taps::default(),
        }));
        let source: std::sync::Weak<Inner> = Arc::downgrade(&supervisor.0);
        parts.telemetry.observe(source);
        supervisor
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

    /// Every listener, by name.
    pub fn list(&self) -> Vec<View> {
        self.lock()
            .values()
            .map(|listener| listener.view(self.0.most_sessions))
            .collect()
    }

    /// How many there are, counted under the lock: who gets an answer knows that listeners can be changed.
    pub fn tally(&self) -> Tally {
        let listeners = self.lock();
        let mut tally = Tally::default();
        for listener in listeners.values() {
            tally.listeners += 1;
            tally.serving += usize::from(listener.life.state == State::Active);
            let sessions = listener.runs().map(|run| run.door.sessions.count());
            tally.sessions += sessions.sum::<usize>();
        }
        tally
    }

    /// One listener.
    pub fn get(&self, name: &str) -> Result<View, Error> {
        self.find(name, |listener| listener.view(self.0.most_sessions))
    }

    /// What the protocol of the listener of this name stands on.
    fn ground(&self, name: &ListenerName) -> Ground {
        Ground {
            listener: name.to_string(),
            node: self.0.node.clone(),
            store: Some(self.0.store.clone()),
        }
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

    /// Whether the process is on its way out.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.is_cancelled()
    }

    /// Says that the process is on its way out: from now on nothing new begins.
    pub fn begin_stopping(&self) {
        self.0.stopping.cancel();
        self.announce();
    }

    /// Sessions that the descriptor limit carries.
    pub fn most_sessions(&self) -> usize {
        self.0.most_sessions
    }
}
