//! What is sent to a session's peer from any task: queued for its own task to write, within a bound.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::{Route, Session};
use crate::net::close::{Ask, CloseReason};
use crate::net::lock;
use crate::net::stream::Wire;
use crate::net::tap::Direction;

impl Session {
    /// Sends one framed message to the peer from any task, without waiting. False when the message
    /// did not fit the outbox (the session is then on its way out) or could not be sent.
    pub fn deliver(&self, message: Bytes) -> bool {
        match &self.route {
            Route::Datagram(socket) => {
                let sent = socket.send(self.peer, &message);
                if sent {
                    self.note_sent(message.len());
                    self.tell_datagram(Direction::Transmit, &message);
                }
                sent
            }
            Route::Stream(_) => {
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
        if self.wire().is_some_and(Wire::is_blocked) {
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
            lock(&self.shared).outbox.push_back(message.clone());
            self.waker.wake();
        }
        fits
    }

    /// Claims room for `bytes` among those that wait. A message that finds the queue empty always
    /// fits, however long: a slow peer is one that lets things gather.
    pub(in crate::net) fn reserve(&self, bytes: usize) -> bool {
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

    /// Bytes that wait for the peer to read.
    pub fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Messages that wait for the peer to read, in the outbox and with its task.
    pub fn queued_messages(&self) -> usize {
        let held = self.wire().map_or(0, Wire::held);
        lock(&self.shared).outbox.len() + held
    }

    /// Unsent bytes that it may have; none over UDP, where nothing waits.
    pub fn most_queued_bytes(&self) -> Option<usize> {
        self.wire().map(|_| self.outbox_bytes as usize)
    }

    /// `bytes` of those that waited are with the kernel now.
    pub(in crate::net) fn note_moved(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::AcqRel);
        self.moved.store(self.age_ms(), Ordering::Relaxed);
    }

    /// How long bytes have waited without one moving; zero while none wait.
    pub(in crate::net) fn stalled_for(&self) -> Duration {
        if self.queued_bytes() == 0 {
            return Duration::ZERO;
        }
        let moved = self.moved.load(Ordering::Relaxed);
        self.since
            .elapsed()
            .saturating_sub(Duration::from_millis(moved))
    }
}
