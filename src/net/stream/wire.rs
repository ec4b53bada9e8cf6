//! What others may know of a TCP session's connection, though its own task alone has the socket.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpStream;

use crate::net::kernel::{Lent, TcpInfo};

/// The connection of a session, seen from outside its task.
#[derive(Debug, Default)]
pub struct Wire {
    socket: Lent,
    /// Messages with the session's task that the kernel did not take at the last try.
    held: AtomicU32,
    stalls: AtomicU32,
}

impl Wire {
    /// Lets others ask the kernel about the socket, until [`close`](Self::close).
    pub(super) fn open(&self, tcp: &TcpStream) {
        self.socket.lend(tcp);
    }

    /// Nobody may ask any more.
    pub(super) fn close(&self) {
        self.socket.take_back();
    }

    /// Notes how many messages the kernel did not take at this try: none when it took something.
    pub(super) fn note_held(&self, messages: usize) {
        let held = u32::try_from(messages).unwrap_or(u32::MAX);
        // Only its own task writes here, so nothing comes in between.
        if held > 0 && self.held.load(Ordering::Relaxed) == 0 {
            self.stalls.fetch_add(1, Ordering::Relaxed);
        }
        self.held.store(held, Ordering::Release);
    }

    /// Messages that the kernel did not take at the last try.
    pub(in crate::net) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire) as usize
    }

    /// The kernel took no more at the last try: it is the peer that does not read.
    pub(in crate::net) fn is_blocked(&self) -> bool {
        self.held() > 0
    }

    /// How often the kernel took no more.
    pub(in crate::net) fn stalls(&self) -> u32 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// How the connection fares; none when it is closed.
    pub(in crate::net) fn tcp_info(&self) -> Option<TcpInfo> {
        self.socket.tcp_info()
    }
}
