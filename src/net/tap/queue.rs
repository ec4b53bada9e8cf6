//! What waits for one taker: bounded, and filled by a session that never waits for it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use atomic_waker::AtomicWaker;
use bytes::Bytes;

use super::{Direction, Frame, TapBounds};
use crate::net::lock;

/// Frames that wait for a taker, and bytes of each that are kept: together 1 MiB.
const DEPTH: usize = 64;
const MOST_PAYLOAD: usize = 16 << 10;

/// What one taker is still to be shown.
#[derive(Debug)]
pub(super) struct Queue {
    /// What comes later is not shown.
    pub(super) until: Instant,
    payload: bool,
    state: Mutex<State>,
    waker: AtomicWaker,
}

#[derive(Debug)]
struct State {
    frames: VecDeque<Frame>,
    /// Bytes that may still be shown.
    left: u64,
    dropped: u64,
    ended: bool,
}

impl Queue {
    pub(super) fn new(bounds: TapBounds) -> Self {
        let state = State {
            frames: VecDeque::new(),
            left: bounds.bytes,
            dropped: 0,
            ended: false,
        };
        Self {
            until: bounds.until,
            payload: bounds.payload,
            state: Mutex::new(state),
            waker: AtomicWaker::new(),
        }
    }

    /// Puts in what crossed: the first `size` bytes of `parts`.
    pub(super) fn put(&self, direction: Direction, parts: &[IoSlice<'_>], size: usize) {
        let mut state = lock(&self.state);
        if state.ended {
            return;
        }
        if Instant::now() >= self.until {
            state.ended = true;
        } else if state.frames.len() == DEPTH {
            state.dropped += 1;
            return;
        } else {
            let left = usize::try_from(state.left).unwrap_or(usize::MAX);
            let kept = if self.payload { size.min(left) } else { 0 };
            let payload = beginning(parts, kept.min(MOST_PAYLOAD));
            let frame = Frame {
                direction,
                at: SystemTime::now(),
                size,
                truncated: self.payload && payload.len() < size,
                payload,
                dropped: std::mem::take(&mut state.dropped),
            };
            state.frames.push_back(frame);
            state.left = state.left.saturating_sub(size as u64);
            state.ended = state.left == 0;
        }
        drop(state);
        self.waker.wake();
    }

    /// The next frame; none once it has ended and is empty.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Frame>> {
        self.waker.register(cx.waker());
        let mut state = lock(&self.state);
        match state.frames.pop_front() {
            None if !state.ended => Poll::Pending,
            frame => Poll::Ready(frame),
        }
    }

    /// Frames that were lost and are not told yet.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut lock(&self.state).dropped)
    }

    /// Nothing more is put here; what is here is still shown.
    pub(super) fn end(&self) {
        lock(&self.state).ended = true;
        self.waker.wake();
    }

    pub(super) fn has_ended(&self) -> bool {
        lock(&self.state).ended
    }

    /// Whether its time is over. What a taker has not taken by then is lost, so that one that does
    /// not take at all holds nothing.
    pub(super) fn expire(&self) -> bool {
        let over = Instant::now() >= self.until;
        if over {
            let mut state = lock(&self.state);
            state.dropped += std::mem::take(&mut state.frames).len() as u64;
            state.ended = true;
        }
        over
    }
}

/// The first `length` bytes of `parts`.
fn beginning(parts: &[IoSlice<'_>], length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length);
    for part in parts {
        let room = length - bytes.len();
        bytes.extend_from_slice(&part[..part.len().min(room)]);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_what_is_in_parts_is_kept() {
        let parts = [&b"one"[..], b"", b"two", b"three"].map(IoSlice::new);
        for (length, kept) in [(0, &b""[..]), (2, b"on"), (3, b"one"), (7, b"onetwot")] {
            assert_eq!(beginning(&parts, length), kept);
        }
    }
}
