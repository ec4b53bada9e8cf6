//! Which of many like events get a span.
//!
//! A span that the SDK's sampler drops still costs about 90 ns, so the decision is made here first, for about 2 ns. It is
//! random, not every n-th: traffic has rhythms of its own.

use super::settings::{Plan, Settings};
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// The share of messages whose processing is timed: two looks at a clock and a record for each of them would be a tenth
/// of what a datagram takes.
const TIMED: f64 = 0.01;

/// Of what there is, what gets a span.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampling {
    pub(super) sessions: Share,
    pub(super) commands: Share,
    pub(super) messages: Share,
    pub(super) datagrams: Share,
    /// Of messages and datagrams, those whose processing is timed, with a span or without one.
    pub(super) timed: Share,
    /// Of TCP sessions, those whose round-trip time is measured.
    pub(super) round_trips: Share,
    pub(super) reads: Share,
    pub(super) changes: Share,
    /// Whether a caller's decision is ours too.
    pub(super) heeds_callers: bool,
    /// Whether callers' traces are continued.
    pub(super) continues: bool,
}

impl Sampling {
    /// As is set, thinned out by the plan.
    pub(super) fn new(settings: &Settings, plan: &Plan) -> Self {
        let share = |ratio: f64| Share::new(ratio * plan.share);
        Self {
            sessions: share(settings.sample_sessions),
            commands: share(settings.sample_commands),
            messages: share(settings.sample_messages),
            datagrams: share(settings.sample_datagrams),
            timed: Share::new(TIMED),
            round_trips: Share::new(settings.sample_tcp_rtt),
            reads: share(settings.sample_reads),
            changes: share(1.0),
            heeds_callers: plan.heeds_callers,
            continues: plan.continues,
        }
    }

    /// Everything, or nothing.
    #[cfg(test)]
    pub(super) fn all(ratio: f64) -> Self {
        let share = Share::new(ratio);
        Self {
            sessions: share,
            commands: share,
            messages: share,
            datagrams: share,
            timed: share,
            round_trips: share,
            reads: share,
            changes: share,
            heeds_callers: true,
            continues: true,
        }
    }
}

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
        self.0 != 0 && self.holds(random())
    }

    /// Whether the event that this was drawn for is one of them: of two shares, the smaller is part of the larger.
    pub(super) fn holds(self, draw: u64) -> bool {
        self.0 != 0 && draw <= self.0
    }
}

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0) | 1);
}

/// Xorshift64* (Vigna, 2014): good enough to sample and to jitter by, for no lock and no system call.
pub(super) fn random() -> u64 {
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
