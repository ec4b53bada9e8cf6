//! Read buffers that exist only while there is something to read.
//!
//! An idle session owns none: a thread lends one when bytes come and takes it back when they have
//! been dealt with, so memory follows the traffic and not the number of peers.

use std::cell::RefCell;

/// Capacity of a lent buffer. One read takes at most this.
const CAPACITY: usize = 64 << 10;

/// Buffers that a thread keeps for the next reader.
const KEPT: usize = 4;

/// A partial message up to this size is moved to a buffer of its own size while it waits, so that what a peer has us keep
/// is never many times what it sent.
const SMALL: usize = 16 << 10;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes read and not yet consumed. Empty, it owns no memory.
#[derive(Debug, Default)]
pub struct Buffer {
    /// All of it is initialised, so that a read need not clear what it overwrites.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// What waits to be consumed.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Drops the first `count` bytes, and the memory with the last of them.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.end {
            self.release();
        }
    }

    /// Room for at least one byte, and at most `most`, behind what is unread. What was put there is
    /// entered with [`filled`](Self::filled).
    pub fn room(&mut self, most: usize) -> &mut [u8] {
        if self.bytes.len() < CAPACITY {
            let mut lent = FREE.take_one().unwrap_or_else(|| vec![0; CAPACITY]);
            let unread = self.unread().len();
            lent[..unread].copy_from_slice(self.unread());
            (self.bytes, self.start, self.end) = (lent, 0, unread);
        } else if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.bytes.len() {
                self.bytes.resize(self.end + CAPACITY, 0);
            }
        }
        let room = &mut self.bytes[self.end..];
        let most = most.min(room.len());
        &mut room[..most]
    }

    /// `count` bytes of the room hold something now.
    pub fn filled(&mut self, count: usize) {
        self.end += count;
        if self.start == self.end {
            self.release();
        }
    }

    /// Gives the lent buffer back while the peer is waited for; a short partial message moves to
    /// memory of its own size.
    pub fn park(&mut self) {
        if self.bytes.len() >= CAPACITY && self.unread().len() <= SMALL {
            let rest = self.unread().to_vec();
            self.release();
            self.end = rest.len();
            self.bytes = rest;
        }
    }

    fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        (self.start, self.end) = (0, 0);
        if bytes.len() == CAPACITY {
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

    fn put(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.room(usize::MAX)[..bytes.len()].copy_from_slice(bytes);
        buffer.filled(bytes.len());
    }

    #[test]
    fn an_idle_buffer_owns_nothing_and_a_partial_message_its_own_size() {
        let mut buffer = Buffer::default();
        put(&mut buffer, b"one two");
        buffer.consume(4);
        buffer.park();
        assert_eq!(buffer.unread(), b"two");
        assert!(buffer.bytes.capacity() < 64);
        put(&mut buffer, b"!");
        assert_eq!(buffer.unread(), b"two!");
        buffer.consume(4);
        assert_eq!(buffer.bytes.capacity(), 0);
        buffer.room(10);
        buffer.filled(0);
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    #[test]
    fn a_long_message_grows_past_one_read() {
        let mut buffer = Buffer::default();
        for _ in 0..5 {
            let room = buffer.room(usize::MAX);
            room.fill(7);
            let count = room.len();
            buffer.filled(count);
        }
        assert!(buffer.unread().len() >= 5 * CAPACITY);
        assert!(buffer.unread().iter().all(|b| *b == 7));
        assert_eq!(buffer.room(3).len(), 3);
    }

    #[test]
    fn a_thread_keeps_few_buffers_for_the_next_reader() {
        let mut crowd: Vec<Buffer> = (0..10 * KEPT).map(|_| Buffer::default()).collect();
        for buffer in &mut crowd {
            put(buffer, &[b'x'; SMALL + 1]);
        }
        drop(crowd);
        assert_eq!(FREE.with_borrow(Vec::len), KEPT);
    }
}
