//! What is sent to a session's peer from any task: queued for its own task to write, within a bound.
//!
//! What is queued shows before anybody is woken, and only the first piece in an empty outbox wakes: whoever
//! writes goes on until nothing is left, so that a burst costs its receivers one turn each.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Route, Session};
use crate::net::close::{Ask, CloseReason};
use crate::net::lock;
use crate::net::stream::Wire;
use crate::net::tap::Direction;

/// Framed messages that came together and are sent as one piece, which all who get it share.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// What is left to be sent of it, frames and all.
    pub bytes: Bytes,
    /// How many messages it holds.
    pub messages: u32,
}

/// What a parcel takes of an outbox at least, however short it is: about what it costs to keep.
const PLACE: usize = 128;

impl Session {
    /// Sends one framed message to the peer from any task, without waiting. False when the message
    /// did not fit the outbox (the session is then on its way out) or could not be sent.
    pub fn deliver(&self, message: Bytes) -> bool {
        let now = Instant::now();
        match &self.route {
            Route::Datagram(socket) => {
                let sent = socket.send(self.peer, &message);
                if sent {
                    self.note_sent(1, message.len(), now);
                    self.tell_datagram(Direction::Transmit, &message);
                }
                sent
            }
            Route::Stream(_) => {
                let parcel = Parcel {
                    bytes: message,
                    messages: 1,
                };
                let fits = self.queue(&parcel, now);
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
    pub fn deliver_in_turn(&self, parcel: &Parcel, now: Instant) -> bool {
        if self.queue(parcel, now) {
            return true;
        }
        if self.wire().is_some_and(Wire::is_blocked) {
            self.ask(Ask::Cut(CloseReason::SlowConsumer));
        }
        // Whoever is on its way out takes no more, and nobody waits for it.
        self.is_ending() || matches!(self.asked(), Some(Ask::Cut(_)))
    }

    /// Puts a parcel into the outbox, if there is room, of which each that waits there takes its own place too: many
    /// short ones must not need a multiple of what is allowed. One that finds the queue empty always fits,
    /// however long: a slow peer is one that lets things gather.
    pub(in crate::net) fn queue(&self, parcel: &Parcel, now: Instant) -> bool {
        let bytes = parcel.bytes.len();
        // Whoever sees the bytes counted finds the parcel, once the lock is free.
        let mut shared = lock(&self.shared);
        let (most, places) = (self.outbox_bytes as usize, shared.outbox.len() * PLACE);
        let claimed = self
            .queued
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
                if before == 0 {
                    // Before the bytes count: a sweep in between must not see them with an old clock.
                    self.moved.store(self.age_ms(now), Ordering::Relaxed);
                } else if bytes + before.max(places) > most {
                    return None;
                }
                Some(before + bytes)
            });
        let Ok(before) = claimed else { return false };
        shared.outbox.push_back(parcel.clone());
        drop(shared);
        self.note_sent(parcel.messages, bytes, now);
        if before == 0 {
            self.waker.wake();
        }
        true
    }

    /// Bytes that wait for the peer to read.
    pub fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Messages that wait for the peer to read, in the outbox and with its task. Those that are
    /// sent as one piece count until the last of it is with the kernel.
    pub fn queued_messages(&self) -> usize {
        let held = self.wire().map_or(0, Wire::held);
        messages(&lock(&self.shared).outbox) + held
    }

    /// Unsent bytes that it may have; none over UDP, where nothing waits.
    pub fn most_queued_bytes(&self) -> Option<usize> {
        self.wire().map(|_| self.outbox_bytes as usize)
    }

    /// Its own task keeps `bytes` that the kernel did not take now.
    pub(in crate::net) fn note_kept(&self, bytes: usize, now: Instant) {
        self.moved.store(self.age_ms(now), Ordering::Relaxed);
        self.queued.fetch_add(bytes, Ordering::AcqRel);
    }

    /// `bytes` of those that waited are with the kernel now.
    pub(in crate::net) fn note_moved(&self, bytes: usize) {
        if self.queued.fetch_sub(bytes, Ordering::AcqRel) > bytes {
            let now = self.age_ms(Instant::now());
            self.moved.store(now, Ordering::Relaxed);
        }
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

/// How many messages are in `parcels`.
pub(in crate::net) fn messages<'a>(parcels: impl IntoIterator<Item = &'a Parcel>) -> usize {
    parcels
        .into_iter()
        .map(|parcel| parcel.messages as usize)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Trace;

    fn parcel(bytes: &'static [u8]) -> Parcel {
        Parcel {
            bytes: Bytes::from_static(bytes),
            messages: 1,
        }
    }

    fn room_for(outbox_bytes: usize) -> std::sync::Arc<Session> {
        let address = "127.0.0.1:1".parse().unwrap();
        Session::new(
            crate::net::SessionId(7),
            (address, address),
            Route::Stream(Wire::default()),
            Trace::default(),
            outbox_bytes,
        )
    }

    #[test]
    fn whatever_finds_it_empty_fits_and_what_gathers_is_bounded() {
        let (session, now) = (room_for(10), Instant::now());
        assert!(session.queue(&parcel(b"longer than ten"), now));
        assert!(!session.queue(&parcel(b"x"), now));
        assert_eq!((session.queued_bytes(), session.queued_messages()), (15, 1));
    }

    #[test]
    fn short_messages_take_no_more_memory_than_long_ones() {
        let (session, now) = (room_for(10 * PLACE), Instant::now());
        let fitting = (0..100).take_while(|_| session.queue(&parcel(b"x"), now));
        assert_eq!(fitting.count(), 10);
    }
}
