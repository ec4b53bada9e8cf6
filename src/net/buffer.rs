//! Read buffers that exist only while there is something to read.
//!
//! An idle session owns none: a thread lends one when bytes come and takes it back when they have
//! been dealt with, so memory follows the traffic and not the number of peers.

use std::cell::RefCell;

/// Capacity of a lent buffer. One read takes at most this.
const CAPACITY: usize = 64 << 10;

/// Buffers that a thread keeps for the next reader.
const KEPT: usize = 4;

/// A partial message up to this size is moved to a buffer of its own size while it waits.
const SMALL: usize = 4 << 10;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes read and not yet consumed. Empty, it owns no memory.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// What waits to be consumed.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Drops the first `count` bytes, and the memory with the last of them.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.bytes.len() {
            self.release();
        }
    }

    /// Makes room for at least one more byte behind what is unread, and hands the vector over to
    /// be read into; its length afterwards is what counts.
    pub fn fill(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() < CAPACITY {
            let mut lent = FREE
                .take_one()
                .unwrap_or_else(|| Vec::with_capacity(CAPACITY));
            lent.extend_from_slice(self.unread());
            self.bytes = lent;
            self.start = 0;
        } else if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        if self.bytes.len() == self.bytes.capacity() {
            self.bytes.reserve(CAPACITY);
        }
        &mut self.bytes
    }

    /// Gives the lent buffer back while the peer is waited for; a short partial message moves to
    /// memory of its own size.
    pub fn park(&mut self) {
        if self.bytes.capacity() >= CAPACITY && self.unread().len() <= SMALL {
            let rest = self.unread().to_vec();
            self.release();
            self.bytes = rest;
        }
    }

    fn release(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        self.start = 0;
        if bytes.capacity() == CAPACITY {
            bytes.clear();
            FREE.keep(bytes);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

trait FreeList {
    fn take_one(&'static self) -> Option<Vec<u8>>;
    fn keep(&'static self, bytes: Vec<u8>);
}

impl FreeList for std::thread::LocalKey<RefCell<Vec<Vec<u8>>>> {
    fn take_one(&'static self) -> Option<Vec<u8>> {
        self.try_with(|free| free.borrow_mut().pop()).ok().flatten()
    }

    fn keep(&'static self, bytes: Vec<u8>) {
        // A thread that is ending has no list any more; the buffer is then simply freed.
        let _ = self.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_buffer_owns_nothing_and_a_partial_message_its_own_size() {
        let mut buffer = Buffer::default();
        buffer.fill().extend_from_slice(b"one two");
        buffer.consume(4);
        buffer.park();
        assert_eq!(buffer.unread(), b"two");
        assert!(buffer.bytes.capacity() < 64);
        buffer.fill().extend_from_slice(b"!");
        assert_eq!(buffer.unread(), b"two!");
        buffer.consume(4);
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    #[test]
    fn a_long_message_grows_past_one_read() {
        let mut buffer = Buffer::default();
        for _ in 0..5 {
            let bytes = buffer.fill();
            let room = bytes.capacity() - bytes.len();
            bytes.extend(std::iter::repeat_n(7, room));
        }
        assert!(buffer.unread().len() >= 5 * CAPACITY);
    }
}
