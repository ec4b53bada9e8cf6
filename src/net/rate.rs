//! Token buckets: one for a peer that has a session, a fixed-size table for peers that have none.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Instant;

/// So many a second, with a burst of the same size.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: f64,
    tokens: f64,
    last: Instant,
}

impl TokenBucket {
    /// A full bucket of `per_second` tokens; rates below one still let a single message through.
    pub fn new(per_second: f64, now: Instant) -> Self {
        Self {
            per_second,
            tokens: per_second.max(1.0),
            last: now,
        }
    }

    /// Takes one token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.last).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(self.per_second.max(1.0));
        self.last = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// Buckets for sources that keep no session. The table never grows: a hostile sender of many
/// addresses can only take over slots, and a source that loses its slot starts with a full bucket.
#[derive(Debug)]
pub struct RateTable {
    per_second: f64,
    hasher: RandomState,
    slots: Mutex<Vec<Option<(IpAddr, TokenBucket)>>>,
}

/// Slots of a [`RateTable`]: about 200 KiB, made only where a rate is set.
const SLOTS: usize = 4096;

impl RateTable {
    /// A table that lets each source send `per_second` messages.
    pub fn new(per_second: f64) -> Self {
        Self {
            per_second,
            hasher: RandomState::new(),
            slots: Mutex::new(vec![None; SLOTS]),
        }
    }

    /// Takes one of `source`'s tokens if it has any.
    pub fn take(&self, source: IpAddr, now: Instant) -> bool {
        let slot = self.hasher.hash_one(source) as usize % SLOTS;
        let mut slots = super::lock(&self.slots);
        match &mut slots[slot] {
            Some((owner, bucket)) if *owner == source => bucket.take(now),
            entry => {
                let mut bucket = TokenBucket::new(self.per_second, now);
                let taken = bucket.take(now);
                *entry = Some((source, bucket));
                taken
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let t0 = Instant::now();
        let mut bucket = TokenBucket::new(10.0, t0);
        assert_eq!((0..20).filter(|_| bucket.take(t0)).count(), 10);
        let later = t0 + Duration::from_millis(500);
        assert_eq!((0..20).filter(|_| bucket.take(later)).count(), 5);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let t0 = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(1.0, t0);
        assert!(bucket.take(t0));
        assert!(!bucket.take(t0 - Duration::from_secs(5)));
    }

    #[test]
    fn sources_do_not_pay_for_each_other() {
        let table = RateTable::new(2.0);
        let now = Instant::now();
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        assert!(table.take(a, now) && table.take(a, now) && !table.take(a, now));
        assert!(table.take(b, now));
    }
}
