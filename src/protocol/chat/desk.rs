//! The desk: the book behind one lock, and the way from an operator's words to a peer's socket.
//!
//! The lock is held while what is said is handed to the transcript, so that it stands there in the order of the book,
//! and while an answer is handed to its session's outbox, so that answers leave in the order in which the book let them
//! out; neither ever waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::answers::{Delivery, PATIENCE};
use super::book::{Book, Heard};
use super::inbox::{Happened, Reported};
use super::manner::Manner;
use super::message::{Author, Message};
use super::table::Table;
use super::{Pace, Settings};
use crate::net::{Door, Framing, Session, SessionId, Transport};
use crate::protocol::Ground;
use crate::store::Entry;

/// Where the conversations of one listener are answered. Outlives its runs.
pub struct Desk {
    pub(super) state: Mutex<State>,
    pub(super) reported: OnceLock<Reported>,
    /// Who is here over UDP.
    pub(super) table: Table,
    pub(super) ground: Ground,
    /// Itself, for what is done when something is on the disk.
    pub(super) own: Weak<Self>,
    /// Something was let out.
    pub(super) released: Notify,
    pub(super) tally: Tally,
    manner: Mutex<Arc<Manner>>,
    pub(super) transport: Transport,
    pub(super) framing: Framing,
    pub(super) lockstep: bool,
}

pub(super) struct State {
    pub(super) book: Book,
    pub(super) peers: HashMap<SessionId, Peer>,
}

/// A session and the door that it came by.
pub(super) type Peer = (Arc<Session>, Arc<Door>);

/// What a desk counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) unattended: AtomicU64,
    pub(super) unanswered: AtomicU64,
    pub(super) not_kept: AtomicU64,
}

/// What a desk has counted so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that the listener answered itself, since nobody did.
    pub unattended: u64,
    /// Messages whose peer left without an answer.
    pub unanswered: u64,
    /// Messages and answers that could not be entered in a transcript.
    pub not_kept: u64,
}

impl Desk {
    /// `settings` have every default written out.
    pub(super) fn new(settings: &Settings, ground: &Ground) -> Arc<Self> {
        let lockstep = settings.pace == Pace::Lockstep;
        let desk = Arc::new_cyclic(|own| Self {
            state: Mutex::new(State {
                book: Book::new(lockstep),
                peers: HashMap::new(),
            }),
            reported: OnceLock::new(),
            table: Table::new(),
            ground: ground.clone(),
            own: own.clone(),
            released: Notify::new(),
            tally: Tally::default(),
            manner: Mutex::new(Arc::new(Manner::new(settings))),
            transport: settings.transport,
            framing: settings.framing(),
            lockstep,
        });
        if settings.transport == Transport::Tcp {
            // Those of datagrams come back with a socket.
            desk.come_back();
        }
        desk
    }

    /// Whether those who are at it could be served by these settings too.
    pub(super) fn suits(&self, settings: &Settings) -> bool {
        (self.transport, self.framing, self.lockstep)
            == (
                settings.transport,
                settings.framing(),
                settings.pace == Pace::Lockstep,
            )
    }

    /// Changes what may change while clients wait; for them too.
    pub(super) fn set_manner(&self, settings: &Settings) {
        *crate::net::lock(&self.manner) = Arc::new(Manner::new(settings));
    }

    pub(super) fn manner(&self) -> Arc<Manner> {
        crate::net::lock(&self.manner).clone()
    }

    /// The shortest time until what comes up now is for [`expire`](Self::expire) to notice.
    pub(super) fn beat(&self) -> Duration {
        let manner = self.manner();
        manner.unattended_after.min(manner.claim_lease)
    }

    /// When [`expire`](Self::expire) has something to do, as far as that is known now.
    pub(super) fn due(&self) -> Option<Instant> {
        let patience = self.manner().unattended_after;
        let then = Instant::now() + PATIENCE / 4;
        crate::net::lock(&self.state).book.due(patience, then)
    }

    /// A session of which messages may come, so that it hears what is said to all.
    pub(super) fn arrive(&self, session: &Arc<Session>, door: &Arc<Door>) {
        let mut state = crate::net::lock(&self.state);
        let peer = (session.clone(), door.clone());
        state.peers.insert(session.id, peer);
    }

    /// Enters a message of a client; false when too many of its wait already.
    pub(super) fn hear(&self, session: &Arc<Session>, door: &Arc<Door>, raw: &[u8]) -> bool {
        let mut state = crate::net::lock(&self.state);
        let now = (Instant::now(), SystemTime::now());
        let said = match state.book.hear(session.id, session.peer, raw, now) {
            Heard::Said(said) => said,
            Heard::Muted { waits } => {
                door.counters.refuse("muted");
                session.owed.fetch_add(waits.into(), Ordering::AcqRel);
                return true;
            }
            Heard::TooMany => return false,
        };
        session.owed.fetch_add(1, Ordering::AcqRel);
        state
            .peers
            .entry(session.id)
            .or_insert_with(|| (session.clone(), door.clone()));
        // One that cannot be kept is still answered at its time.
        let _ = self.enter(&mut state, said, None);
        true
    }

    /// Something is in the transcript, or is not going to be: what hangs on it is done.
    pub(super) fn written(&self, state: &mut State, said: &Arc<Message>, kept: bool) -> Delivery {
        if !kept {
            self.tally.not_kept.fetch_add(1, Ordering::Relaxed);
        }
        let id = said.conversation;
        if said.author == Author::Peer {
            if let Some(happened) = state.book.kept(said, kept) {
                self.tell(&mut state.book, id, happened, Some(said.clone()));
            }
            return Delivery::default();
        }
        let is_new = state.book.get(id).is_none();
        let released = state.book.settle(said, kept);
        let delivery = self.deliver(state, id, &released);
        if kept || !released.ready.is_empty() {
            let happened = if is_new {
                Happened::Began
            } else {
                Happened::Changed
            };
            self.tell(&mut state.book, id, happened, kept.then(|| said.clone()));
        }
        delivery
    }

    /// The peer is gone.
    pub(super) fn close(&self, id: SessionId) {
        let mut state = crate::net::lock(&self.state);
        state.peers.remove(&id);
        let dialog = state.book.any(id).and_then(|entry| entry.dialog.clone());
        let Some(unanswered) = state.book.close(id) else {
            return;
        };
        let unanswered = unanswered as u64;
        self.tally
            .unanswered
            .fetch_add(unanswered, Ordering::Relaxed);
        if let Some(dialog) = dialog {
            self.note(Entry::Ended(dialog.id, SystemTime::now()));
        }
        self.tell(&mut state.book, id, Happened::Changed, None);
    }

    /// Whether there is, or lately was, such a conversation.
    pub fn knows(&self, id: SessionId) -> bool {
        crate::net::lock(&self.state).book.get(id).is_some()
    }

    /// What a message says, every control and direction character made visible.
    pub fn text(&self, raw: &[u8]) -> String {
        self.manner().text(raw)
    }

    /// How many conversations wait, and the longest wait.
    pub fn waiting(&self) -> (usize, Duration) {
        crate::net::lock(&self.state).book.waiting(Instant::now())
    }

    /// What it has counted.
    pub fn counts(&self) -> Counts {
        let Tally {
            unattended,
            unanswered,
            not_kept,
        } = &self.tally;
        let [unattended, unanswered, not_kept] =
            [unattended, unanswered, not_kept].map(|count| count.load(Ordering::Relaxed));
        Counts {
            unattended,
            unanswered,
            not_kept,
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let state = crate::net::lock(&self.state);
        for (id, entry) in state.book.entries(None) {
            self.publish(id, entry.peer, Happened::Forgotten, None);
        }
    }
}
