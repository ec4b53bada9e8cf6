//! What a listener counts over all its runs.
//!
//! Sessions count their own traffic, where no other core touches the line, and hand it over when
//! they end; so a total is these sums plus a walk of the sessions that live.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Distinct reasons that one listener may count. All reasons are words of the code, never of a peer.
const REASONS: usize = 40;

/// Sums of one listener.
#[derive(Debug)]
pub struct Counters {
    /// Connections accepted, refused ones included.
    pub accepted: AtomicU64,
    /// Failed calls of accept.
    pub accept_errors: AtomicU64,
    /// Times that a peer let bytes wait until it was closed for it.
    pub stalls: AtomicU64,
    /// Traffic of sessions that ended, and of datagrams without a session.
    pub ended: Traffic,
    /// Datagrams that the kernel dropped before they were read.
    pub kernel_drops: AtomicU64,
    refused: [(OnceLock<&'static str>, AtomicU64); REASONS],
}

/// Messages and bytes, both ways.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Messages that came.
    pub received_messages: AtomicU64,
    /// Bytes that came.
    pub received_bytes: AtomicU64,
    /// Messages that left.
    pub sent_messages: AtomicU64,
    /// Bytes that left.
    pub sent_bytes: AtomicU64,
}

/// [`Traffic`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages that came.
    pub received_messages: u64,
    /// Bytes that came.
    pub received_bytes: u64,
    /// Messages that left.
    pub sent_messages: u64,
    /// Bytes that left.
    pub sent_bytes: u64,
}

impl Traffic {
    /// One message of `bytes` came.
    pub fn received(&self, bytes: usize) {
        self.received_messages.fetch_add(1, Relaxed);
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// So many messages left, of `bytes` together.
    pub fn sent(&self, messages: u32, bytes: usize) {
        self.sent_messages.fetch_add(messages.into(), Relaxed);
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The sums now.
    pub fn totals(&self) -> Totals {
        Totals {
            received_messages: self.received_messages.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            sent_messages: self.sent_messages.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
        }
    }

    /// Takes over the sums of something that ended.
    pub fn absorb(&self, other: Totals) {
        self.received_messages
            .fetch_add(other.received_messages, Relaxed);
        self.received_bytes.fetch_add(other.received_bytes, Relaxed);
        self.sent_messages.fetch_add(other.sent_messages, Relaxed);
        self.sent_bytes.fetch_add(other.sent_bytes, Relaxed);
    }
}

impl std::ops::Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            received_messages: self.received_messages + other.received_messages,
            received_bytes: self.received_bytes + other.received_bytes,
            sent_messages: self.sent_messages + other.sent_messages,
            sent_bytes: self.sent_bytes + other.sent_bytes,
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            ended: Traffic::default(),
            kernel_drops: AtomicU64::new(0),
            refused: std::array::from_fn(|_| (OnceLock::new(), AtomicU64::new(0))),
        }
    }
}

impl Counters {
    /// Counts one refusal or drop under its reason, without a lock: the flood that a limit holds
    /// off must not queue up at its counter.
    pub fn refuse(&self, reason: &'static str) {
        for (word, count) in &self.refused {
            if *word.get_or_init(|| reason) == reason {
                count.fetch_add(1, Relaxed);
                return;
            }
        }
        debug_assert!(
            false,
            "more than {REASONS} reasons, `{reason}` is not counted"
        );
    }

    /// Every reason so far with its count, in the order of their first use.
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        self.refused
            .iter()
            .map_while(|(word, count)| Some((*word.get()?, count.load(Relaxed))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason() {
        let counters = Counters::default();
        for reason in ["denied", "max_sessions", "denied"] {
            counters.refuse(reason);
        }
        assert_eq!(counters.refusals(), [("denied", 2), ("max_sessions", 1)]);
    }

    #[test]
    fn what_ended_is_kept() {
        let traffic = Traffic::default();
        traffic.received(10);
        traffic.sent(1, 15);
        let sum = Traffic::default();
        sum.absorb(traffic.totals());
        sum.absorb(traffic.totals());
        assert_eq!(sum.totals(), traffic.totals() + traffic.totals());
    }
}
