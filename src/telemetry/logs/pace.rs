//! How much each place in the code may log: a bucket of its own, so that a flood of one event drowns no other.
//!
//! What goes beyond is not even formatted. It is counted, and the next line of the same place that passes tells how many
//! are missing before it. The table is of one size and never locked; a place that is not in it yet takes a free row.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use tracing::{Level, Metadata};

/// Places that log, of ours and of what we are made of; if there are more, those that come last share one row.
const SITES: usize = 1_024;

/// What a place may log: so many lines at once, and then one every so many microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Budget {
    burst: u64,
    every: u64,
}

impl Budget {
    /// Errors are what a log is for. Details are only logged when somebody asks for them, who then wants to see more of
    /// them. The burst of the rest is enough for a process that starts with hundreds of listeners.
    fn of(level: Level) -> Self {
        let (burst, a_second) = match level {
            Level::ERROR => (500, 50),
            Level::WARN | Level::INFO => (250, 10),
            _ => (1_000, 1_000),
        };
        let every = 1_000_000 / a_second;
        Self { burst, every }
    }
}

/// The buckets, and what did not pass.
pub(super) struct Pace {
    began: Instant,
    sites: Box<[Site]>,
    suppressed: AtomicU64,
}

#[derive(Default)]
struct Site {
    /// The address of its metadata; 0 for a row that is free.
    key: AtomicUsize,
    /// The microsecond at which its bucket is full again.
    full: AtomicU64,
    /// What did not pass since the last line that did.
    suppressed: AtomicU64,
}

impl Pace {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            sites: (0..SITES).map(|_| Site::default()).collect(),
            suppressed: AtomicU64::new(0),
        })
    }

    /// Events that were not logged because their place had logged enough.
    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }

    /// Whether an event of this place may be logged; and then how many before it were not, which its line tells.
    pub(super) fn passes(&self, metadata: &'static Metadata<'static>) -> Option<u64> {
        let site = self.site(metadata);
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        if site.passes(Budget::of(*metadata.level()), now) {
            return Some(site.suppressed.swap(0, Ordering::Relaxed));
        }
        site.suppressed.fetch_add(1, Ordering::Relaxed);
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn site(&self, metadata: &'static Metadata<'static>) -> &Site {
        let key = std::ptr::from_ref(metadata).addr();
        // Metadata is some words long, so the lowest bits say nothing.
        let first = key >> 4;
        let row = |step: usize| &self.sites[(first + step) % SITES];
        let own = (0..SITES).map(row).find(|site| site.is_of(key));
        own.unwrap_or_else(|| row(0))
    }
}

impl Site {
    /// Whether this is the row of that place, or has become so.
    fn is_of(&self, key: usize) -> bool {
        match self.key.load(Ordering::Relaxed) {
            0 => {
                let order = (Ordering::Relaxed, Ordering::Relaxed);
                let took = self.key.compare_exchange(0, key, order.0, order.1);
                took.unwrap_or_else(|other| if other == key { 0 } else { other }) == 0
            }
            taken => taken == key,
        }
    }

    fn passes(&self, budget: Budget, now: u64) -> bool {
        let order = (Ordering::Relaxed, Ordering::Relaxed);
        let spend = |full: u64| {
            let full = full.max(now) + budget.every;
            (full <= now + budget.every * budget.burst).then_some(full)
        };
        self.full.fetch_update(order.0, order.1, spend).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_logs_its_burst_and_then_at_its_rate() {
        let site = Site::default();
        let budget = Budget {
            burst: 5,
            every: 100,
        };
        let passed = |now, asked| (0..asked).filter(|_| site.passes(budget, now)).count();
        assert_eq!(passed(1_000, 20), 5);
        assert_eq!(passed(1_099, 20), 0);
        assert_eq!(passed(1_100, 20), 1);
        assert_eq!(passed(1_350, 20), 2);
        // However long it is silent, it saves no more than its burst.
        assert_eq!(passed(1_000_000, 20), 5);
    }

    #[test]
    fn errors_have_more_room_than_news_and_details_most() {
        let rate = |level| 1_000_000 / Budget::of(level).every;
        assert!(rate(Level::ERROR) > rate(Level::INFO));
        assert!(rate(Level::DEBUG) > rate(Level::ERROR));
        assert_eq!(Budget::of(Level::WARN), Budget::of(Level::INFO));
    }

    #[test]
    fn rows_are_taken_once_each_and_shared_only_when_there_are_no_more() {
        let site = Site::default();
        assert!(site.is_of(7));
        assert!(site.is_of(7));
        assert!(!site.is_of(8));
    }
}
