//! One visit: a TCP connection or a UDP peer, as everyone but its own task sees it.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::counters::Traffic;
use super::datagram::PeerSocket;
use crate::telemetry::Trace;

/// Names a session: sorts by the time it opened, and is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; ulid::ULID_LEN];
        let text = Ulid(self.0).array_to_str(&mut text);
        text.make_ascii_lowercase();
        f.write_str(text)
    }
}

impl FromStr for SessionId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ulid::from_string(text).map(|id| Self(id.0)).map_err(|_| ())
    }
}

/// Why a session ended: one word, the same in the log, the metric and the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum CloseReason {
    /// The peer ended its side.
    ClientClosed = 1,
    /// The peer reset the connection.
    ClientReset,
    /// Silent for longer than `idle_timeout`.
    Idle,
    /// Older than `max_session_age`.
    MaxAge,
    /// Something that the framing or the protocol cannot read.
    BadFrame,
    /// A message over `max_message_bytes`.
    MessageTooLarge,
    /// Did not read what it was sent.
    SlowConsumer,
    /// More messages than `max_message_rate`.
    RateLimited,
    /// From a network that is not let in.
    Denied,
    /// Over a limit on sessions.
    Limit,
    /// Closed through the control plane.
    Kicked,
    /// Its listener, or the process, drained.
    Drained,
    /// Its work is done.
    Completed,
    /// A fault of ours.
    Internal,
}

impl CloseReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 14] = [
        Self::ClientClosed,
        Self::ClientReset,
        Self::Idle,
        Self::MaxAge,
        Self::BadFrame,
        Self::MessageTooLarge,
        Self::SlowConsumer,
        Self::RateLimited,
        Self::Denied,
        Self::Limit,
        Self::Kicked,
        Self::Drained,
        Self::Completed,
        Self::Internal,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ClientReset => "client_reset",
            Self::Idle => "idle",
            Self::MaxAge => "max_age",
            Self::BadFrame => "bad_frame",
            Self::MessageTooLarge => "message_too_large",
            Self::SlowConsumer => "slow_consumer",
            Self::RateLimited => "rate_limited",
            Self::Denied => "denied",
            Self::Limit => "limit",
            Self::Kicked => "kicked",
            Self::Drained => "drained",
            Self::Completed => "completed",
            Self::Internal => "internal",
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// What a session is asked to do. It is asked first and made to later: see `drain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// End once nothing is owed; take no further message.
    Finish(CloseReason),
    /// End now, whatever is owed.
    Cut(CloseReason),
}

impl Ask {
    /// The word that it will end with.
    pub fn reason(self) -> CloseReason {
        match self {
            Self::Finish(reason) | Self::Cut(reason) => reason,
        }
    }
}

const CUT: u8 = 0x80;

/// How bytes reach a session's peer from any task.
#[derive(Debug)]
pub enum Route {
    /// Through the outbox, which the session's own task writes out.
    Stream,
    /// As one datagram, at once.
    Datagram(PeerSocket),
}

/// The part of a session that its listener, the control plane and other sessions share.
#[derive(Debug)]
pub struct Session {
    /// Its name within the process.
    pub id: SessionId,
    /// Who visits, in canonical form.
    pub peer: SocketAddr,
    /// The address that was visited.
    pub local: SocketAddr,
    /// When it opened, for people.
    pub opened: SystemTime,
    /// When it opened, for clocks.
    pub since: Instant,
    /// The trace of its set-up: what its commands and messages link to.
    pub trace: Trace,
    /// What it sent and got.
    pub traffic: Traffic,
    /// Messages without an answer so far. A session that is owed one is not idle.
    pub owed: AtomicU32,
    /// Messages that wait for its own task to write them.
    pub(super) outbox: Mutex<VecDeque<Bytes>>,
    /// Bytes that wait for the peer to read, in the outbox and with its task.
    pub(super) queued: AtomicUsize,
    /// Set once it is on its way out.
    pub closing: AtomicBool,
    /// Whether its end is a reset, without a flush.
    pub(super) abort: AtomicBool,
    route: Route,
    moved: AtomicU64,
    last_receive: AtomicU64,
    last_send: AtomicU64,
    asked: AtomicU8,
    waker: AtomicWaker,
}

impl Session {
    /// A session that opened now.
    pub(super) fn new(
        id: SessionId,
        (peer, local): (SocketAddr, SocketAddr),
        route: Route,
        trace: Trace,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer,
            local,
            opened: SystemTime::now(),
            since: Instant::now(),
            trace,
            traffic: Traffic::default(),
            owed: AtomicU32::new(0),
            outbox: Mutex::new(VecDeque::new()),
            queued: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            abort: AtomicBool::new(false),
            route,
            moved: AtomicU64::new(0),
            last_receive: AtomicU64::new(0),
            last_send: AtomicU64::new(0),
            asked: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        })
    }

    /// Asks it to end. The first reason stays; only a cut outranks a finish.
    pub(super) fn ask(&self, ask: Ask) {
        let (reason, cut) = match ask {
            Ask::Finish(reason) => (reason as u8, 0),
            Ask::Cut(reason) => (reason as u8, CUT),
        };
        // Cannot fail: the closure always has an answer.
        let _ = self
            .asked
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                Some(if old == 0 { reason | cut } else { old | cut })
            });
        self.waker.wake();
    }

    /// What it has been asked, if anything.
    pub fn asked(&self) -> Option<Ask> {
        let asked = self.asked.load(Ordering::Acquire);
        let reason = CloseReason::from_number(asked & !CUT)?;
        Some(if asked & CUT == 0 {
            Ask::Finish(reason)
        } else {
            Ask::Cut(reason)
        })
    }

    /// Ready when it has been asked to end. Also wakes for new bytes in the outbox.
    pub(super) fn poll_asked(&self, cx: &Context<'_>) -> Poll<Ask> {
        self.waker.register(cx.waker());
        self.asked().map_or(Poll::Pending, Poll::Ready)
    }

    /// Where its bytes go.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Sends one framed message to the peer from any task, without waiting. False when the message
    /// did not fit the outbox (the session is then on its way out) or could not be sent.
    pub fn deliver(&self, message: Bytes, outbox_bytes: usize) -> bool {
        match &self.route {
            Route::Datagram(socket) => {
                let sent = socket.send(self.peer, &message);
                if sent {
                    self.note_sent(message.len());
                }
                sent
            }
            Route::Stream => {
                let fits = self.reserve(message.len(), outbox_bytes);
                if fits {
                    self.note_sent(message.len());
                    super::lock(&self.outbox).push_back(message);
                    self.waker.wake();
                } else {
                    self.ask(Ask::Cut(CloseReason::SlowConsumer));
                }
                fits
            }
        }
    }

    /// Claims room for `bytes` among those that wait. A message that finds the queue empty always
    /// fits, however long: a slow peer is one that lets things gather.
    pub(super) fn reserve(&self, bytes: usize, outbox_bytes: usize) -> bool {
        let before = self.queued.fetch_add(bytes, Ordering::AcqRel);
        if before == 0 {
            self.moved.store(self.age_ms(), Ordering::Relaxed);
        } else if before + bytes > outbox_bytes {
            self.queued.fetch_sub(bytes, Ordering::AcqRel);
            return false;
        }
        true
    }

    /// Bytes that wait for the peer to read.
    pub fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// A message of `bytes` came.
    pub fn note_received(&self, bytes: usize) {
        self.traffic.received(bytes);
        self.last_receive.store(self.age_ms(), Ordering::Relaxed);
    }

    /// A message of `bytes` was handed to the kernel, or queued for it.
    pub fn note_sent(&self, bytes: usize) {
        self.traffic.sent(bytes);
        self.last_send.store(self.age_ms(), Ordering::Relaxed);
    }

    /// `bytes` of those that waited are with the kernel now.
    pub(super) fn note_moved(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::AcqRel);
        self.moved.store(self.age_ms(), Ordering::Relaxed);
    }

    fn age_ms(&self) -> u64 {
        // Never 0, which stands for "not yet".
        u64::try_from(self.since.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// When the last message came, if one did.
    pub fn last_receive(&self) -> Option<SystemTime> {
        self.moment(&self.last_receive)
    }

    /// When the last bytes left, if any did.
    pub fn last_send(&self) -> Option<SystemTime> {
        self.moment(&self.last_send)
    }

    fn moment(&self, ms: &AtomicU64) -> Option<SystemTime> {
        match ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(self.opened + Duration::from_millis(ms)),
        }
    }

    /// How long nothing has moved either way.
    pub(super) fn quiet_for(&self) -> Duration {
        let last = self
            .last_receive
            .load(Ordering::Relaxed)
            .max(self.last_send.load(Ordering::Relaxed));
        self.since
            .elapsed()
            .saturating_sub(Duration::from_millis(last))
    }

    /// How long bytes have waited without one moving; zero while none wait.
    pub(super) fn stalled_for(&self) -> Duration {
        if self.queued_bytes() == 0 {
            return Duration::ZERO;
        }
        let moved = self.moved.load(Ordering::Relaxed);
        self.since
            .elapsed()
            .saturating_sub(Duration::from_millis(moved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Arc<Session> {
        let address = "127.0.0.1:1".parse().unwrap();
        Session::new(
            SessionId(7),
            (address, address),
            Route::Stream,
            Trace::default(),
        )
    }

    #[test]
    fn ids_are_read_back_as_they_are_shown() {
        let id = SessionId(0x0193_5a2b_3c4d_0000_0000_0123_4567_89ab);
        let text = id.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(text, text.to_lowercase());
        assert_eq!(text.parse(), Ok(id));
        assert_eq!("nonsense".parse::<SessionId>(), Err(()));
    }

    #[test]
    fn the_first_reason_stays_and_a_cut_outranks_a_finish() {
        let session = session();
        assert_eq!(session.asked(), None);
        session.ask(Ask::Finish(CloseReason::Drained));
        session.ask(Ask::Finish(CloseReason::Idle));
        assert_eq!(session.asked(), Some(Ask::Finish(CloseReason::Drained)));
        session.ask(Ask::Cut(CloseReason::Kicked));
        assert_eq!(session.asked(), Some(Ask::Cut(CloseReason::Drained)));
    }

    #[test]
    fn every_reason_has_a_number_and_a_word_of_its_own() {
        for (i, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i + 1);
            assert_eq!(CloseReason::from_number(reason as u8), Some(reason));
        }
        assert_eq!(CloseReason::from_number(15), None);
    }
}
