//! Which of many like events get a span.
//!
//! A span that the SDK's sampler drops still costs about 90 ns, so the decision is made here first, for about 2 ns. It is
//! random, not every n-th: traffic has rhythms of its own.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// A share of events, decided one by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share(u64);

impl Share {
    /// `ratio` from 0 (never) to 1 (always).
    pub(super) fn new(ratio: f64) -> Self {
        // The cast saturates, so that 1 becomes the largest threshold, which every draw is under or at.
        Self((ratio * u64::MAX as f64) as u64)
    }

    /// Whether this event is one of them.
    pub(super) fn hit(self) -> bool {
        self.0 != 0 && random() <= self.0
    }
}

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0) | 1);
}

/// Xorshift64* (Vigna, 2014): good enough to sample by, for no lock and no system call.
fn random() -> u64 {
    STATE.with(|state| {
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(ratio: f64) -> usize {
        let share = Share::new(ratio);
        (0..100_000).filter(|_| share.hit()).count()
    }

    #[test]
    fn the_share_is_kept() {
        assert_eq!(hits(0.0), 0);
        assert_eq!(hits(1.0), 100_000);
        // Six standard deviations of a binomial of 100,000 at 1 % are 189.
        assert!((811..1189).contains(&hits(0.01)));
    }
}
