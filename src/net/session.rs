//! One visit: a TCP connection or a UDP peer, as everyone but its own task sees it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use atomic_waker::AtomicWaker;
use bytes::Bytes;

use super::close::{Ask, CloseReason};
use super::counters::Traffic;
use super::datagram::PeerSocket;
use super::id::SessionId;
use crate::telemetry::Trace;

/// Set in what was asked: the session is cut.
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
    /// Unsent bytes past which it is a slow consumer: what held when it opened.
    outbox_bytes: u32,
    /// Messages that wait for its own task to write them.
    pub(super) outbox: Mutex<VecDeque<Bytes>>,
    /// Bytes that wait for the peer to read, in the outbox and with its task.
    pub(super) queued: AtomicUsize,
    /// The kernel took no more at the last try: it is the peer that does not read.
    pub(super) blocked: AtomicBool,
    /// Whether its end is a reset, without a flush.
    pub(super) abort: AtomicBool,
    route: Route,
    /// The number of the reason that it is ending with, while its last bytes go out.
    ending: AtomicU8,
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
        outbox_bytes: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer,
            local,
            opened: SystemTime::now(),
            since: Instant::now(),
            trace,
            outbox_bytes: u32::try_from(outbox_bytes).unwrap_or(u32::MAX),
            traffic: Traffic::default(),
            owed: AtomicU32::new(0),
            outbox: Mutex::new(VecDeque::new()),
            queued: AtomicUsize::new(0),
            ending: AtomicU8::new(0),
            blocked: AtomicBool::new(false),
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

    /// Its work is over; its last bytes go out.
    pub(super) fn note_ending(&self, reason: CloseReason) {
        self.ending.store(reason as u8, Ordering::Release);
    }

    /// Whether its work is over.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire) != 0
    }

    /// Why it is on its way out, if it is.
    pub fn ending(&self) -> Option<CloseReason> {
        let ending = CloseReason::from_number(self.ending.load(Ordering::Acquire));
        ending.or_else(|| self.asked().map(Ask::reason))
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
    pub fn deliver(&self, message: Bytes) -> bool {
        match &self.route {
            Route::Datagram(socket) => {
                let sent = socket.send(self.peer, &message);
                if sent {
                    self.note_sent(message.len());
                }
                sent
            }
            Route::Stream => {
                let fits = self.queue(&message);
                if !fits {
                    self.ask(Ask::Cut(CloseReason::SlowConsumer));
                }
                fits
            }
        }
    }

    /// As [`deliver`](Self::deliver) on a stream, but false when the outbox is full through no
    /// fault of the peer: its task has not yet got round to handing to the kernel what is there.
    /// Try again then, when other tasks have had their turn.
    pub fn deliver_in_turn(&self, message: &Bytes) -> bool {
        if self.queue(message) {
            return true;
        }
        if self.blocked.load(Ordering::Acquire) {
            self.ask(Ask::Cut(CloseReason::SlowConsumer));
        }
        // Whoever is on its way out takes no more, and nobody waits for it.
        self.is_ending() || matches!(self.asked(), Some(Ask::Cut(_)))
    }

    /// Puts a message into the outbox, if there is room.
    fn queue(&self, message: &Bytes) -> bool {
        let fits = self.reserve(message.len());
        if fits {
            self.note_sent(message.len());
            super::lock(&self.outbox).push_back(message.clone());
            self.waker.wake();
        }
        fits
    }

    /// Claims room for `bytes` among those that wait. A message that finds the queue empty always
    /// fits, however long: a slow peer is one that lets things gather.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        if self.queued.load(Ordering::Acquire) == 0 {
            // Before the bytes count: a sweep in between must not see them with an old clock.
            self.moved.store(self.age_ms(), Ordering::Relaxed);
        }
        let before = self.queued.fetch_add(bytes, Ordering::AcqRel);
        if before > 0 && before + bytes > self.outbox_bytes as usize {
            self.queued.fetch_sub(bytes, Ordering::AcqRel);
            return false;
        }
        true
    }

    /// Something is done for it just now: it is not idle.
    pub fn touch(&self) {
        self.last_send.store(self.age_ms(), Ordering::Relaxed);
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
    pub fn quiet_for(&self) -> Duration {
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
            1,
        )
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
}
