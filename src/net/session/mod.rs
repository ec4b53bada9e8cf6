//! One visit: a TCP connection or a UDP peer, as everyone but its own task sees it.

mod outbox;

pub use outbox::Parcel;
pub(super) use outbox::messages;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use super::close::{Ask, CloseReason};
use super::counters::Traffic;
use super::id::SessionId;
use super::kernel::TcpInfo;
use super::stream::Wire;
use super::tap::{Direction, SessionTaps};
use super::udp::PeerSocket;
use crate::telemetry::Trace;
use atomic_waker::AtomicWaker;

/// Set in what was asked: the session is cut.
const CUT: u8 = 0x80;

/// How bytes reach a session's peer from any task.
#[derive(Debug)]
pub enum Route {
    /// Through the outbox, which the session's own task writes out.
    Stream(Wire),
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
    pub(super) shared: Mutex<Shared>,
    /// Bytes that wait for the peer to read, in the outbox and with its task.
    pub(super) queued: AtomicUsize,
    /// Whether anybody is shown what crosses its socket.
    pub(super) tapped: AtomicBool,
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

/// What is behind one lock, which its own task and others take for moments.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Messages that wait for its own task to write them.
    pub(super) outbox: VecDeque<Parcel>,
    /// Those who are shown what crosses its socket; mostly nobody is, and that takes no room.
    pub(super) taps: Option<Box<SessionTaps>>,
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
            shared: Mutex::default(),
            queued: AtomicUsize::new(0),
            ending: AtomicU8::new(0),
            tapped: AtomicBool::new(false),
            abort: AtomicBool::new(false),
            route,
            moved: AtomicU64::new(0),
            last_receive: AtomicU64::new(0),
            last_send: AtomicU64::new(0),
            asked: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        })
    }

    /// A session that goes nowhere, for those that keep sessions in order.
    #[cfg(test)]
    pub fn unrouted(id: SessionId, peer: SocketAddr) -> Arc<Self> {
        let route = Route::Stream(Wire::default());
        Self::new(id, (peer, peer), route, Trace::default(), 1)
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
        self.wake_with(cx);
        self.asked().map_or(Poll::Pending, Poll::Ready)
    }

    /// Who is woken when it is asked to end, or when its empty outbox gets something. What came
    /// before woke nobody: look once more.
    pub(super) fn wake_with(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Where its bytes go.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Its connection, unless it is over UDP.
    pub(super) fn wire(&self) -> Option<&Wire> {
        match &self.route {
            Route::Stream(wire) => Some(wire),
            Route::Datagram(_) => None,
        }
    }

    /// How often sending had to wait for the peer to read.
    pub fn stalls(&self) -> u32 {
        self.wire().map_or(0, Wire::stalls)
    }

    /// How its connection fares, asked of the kernel now: two system calls. None over UDP, and once
    /// it is closed.
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        self.wire()?.tcp_info()
    }

    /// Something is done for it just now: it is not idle.
    pub fn touch(&self) {
        self.last_send
            .store(self.age_ms(Instant::now()), Ordering::Relaxed);
    }

    /// A datagram came.
    pub fn receive_datagram(&self, data: &[u8]) {
        self.note_received(data.len());
        self.tell_datagram(Direction::Receive, data);
    }

    /// A message of `bytes` came.
    pub fn note_received(&self, bytes: usize) {
        self.traffic.received(bytes);
        self.last_receive
            .store(self.age_ms(Instant::now()), Ordering::Relaxed);
    }

    /// So many messages, of `bytes` together, were handed to the kernel now, or queued for it.
    pub(super) fn note_sent(&self, messages: u32, bytes: usize, now: Instant) {
        self.traffic.sent(messages, bytes);
        self.last_send.store(self.age_ms(now), Ordering::Relaxed);
    }

    fn age_ms(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.since);
        // Never 0, which stands for "not yet".
        (age.as_secs() * 1_000 + u64::from(age.subsec_millis())).max(1)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Arc<Session> {
        let address = "127.0.0.1:1".parse().unwrap();
        Session::new(
            SessionId(7),
            (address, address),
            Route::Stream(Wire::default()),
            Trace::default(),
            1,
        )
    }

    #[test]
    fn an_idle_session_owns_little() {
        // With the counts of its Arc this is as much as the allocator gives for a byte less or more.
        assert!(size_of::<Session>() <= 320, "{}", size_of::<Session>());
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
