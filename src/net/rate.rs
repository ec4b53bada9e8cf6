//! Token buckets: one for a peer that has a session, a table of fixed size for peers that have none.
//!
//! A bucket is one number: the moment at which it will be full again (the generic cell rate algorithm). A message moves
//! it on by one interval, unless that would put it further ahead than the burst lasts. So taking is one
//! compare-exchange, refusing writes nothing, and a clock that steps back gives nothing.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{LazyLock, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// So many a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that one message is worth.
    interval: u64,
    /// Nanoseconds that all messages of a burst are worth.
    burst: u64,
}

/// Longer than any process lives, and far from where sums overflow: 36 years.
const LONGEST: u64 = u64::MAX / 16;

impl Rate {
    /// `per_second` messages with a burst of as many; rates below one still let a single message through.
    pub fn new(per_second: f64) -> Self {
        Self::with_burst(per_second, per_second)
    }

    /// `per_second` messages with a burst of `burst`, or of one if that is more.
    pub fn with_burst(per_second: f64, burst: f64) -> Self {
        // The clock begins before anybody looks at it.
        LazyLock::force(&BEGAN);
        // Rounded so that never more than the rate get through; as integers, they end at their bounds.
        let interval = ((1e9 / per_second).ceil() as u64).min(LONGEST);
        let burst = (burst.max(1.0) * interval as f64) as u64;
        Self {
            interval,
            burst: burst.clamp(interval, LONGEST),
        }
    }

    /// When a bucket that would be full at `full` will be, if a message takes from it `now`; none if it is empty.
    /// All in nanoseconds of one clock.
    pub fn after(self, full: u64, now: u64) -> Option<u64> {
        let after = full.max(now) + self.interval;
        (after <= now + self.burst).then_some(after)
    }

    /// Takes from the bucket that is `full` then, if there is something in it.
    fn take(self, full: &AtomicU64, now: u64) -> bool {
        full.fetch_update(Relaxed, Relaxed, |full| self.after(full, now))
            .is_ok()
    }
}

/// When the first rate was made.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A moment as buckets know it, in nanoseconds.
fn moment(now: Instant) -> u64 {
    let since = now.saturating_duration_since(*BEGAN).as_nanos();
    u64::try_from(since).map_or(LONGEST, |since| since.min(LONGEST))
}

/// A bucket of its own: for a session, or for all that come to one door.
#[derive(Debug)]
pub struct TokenBucket {
    rate: Rate,
    full: AtomicU64,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            full: AtomicU64::new(0),
        }
    }

    /// Takes one token if there is one.
    pub fn take(&self, now: Instant) -> bool {
        self.rate.take(&self.full, moment(now))
    }

    /// How long until there is one.
    pub fn wait(&self, now: Instant) -> Duration {
        let after = self.full.load(Relaxed).max(moment(now)) + self.rate.interval;
        Duration::from_nanos(after.saturating_sub(moment(now) + self.rate.burst))
    }
}

/// Buckets for sources that keep no session. The table never grows: a source that it does not know takes over the
/// place of the one that has been quiet for longest, of a few, and starts with a full bucket. Whoever has just emptied
/// a bucket is the last to lose it.
#[derive(Debug)]
pub struct RateTable {
    rate: Rate,
    hasher: RandomState,
    /// Made when the first source comes.
    sets: OnceLock<Box<[Set]>>,
}

/// Sets of a [`RateTable`]: 128 KiB in all.
const SETS: usize = 2_048;

/// Places of a set.
const WAYS: usize = 4;

/// The places that a source may have: one line of the cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    full: [AtomicU64; WAYS],
    /// What the hash says of the owner, beside which set it is; 0 while there is none.
    owner: [AtomicU32; WAYS],
    /// Held by whoever takes a place over, so that nobody gets two.
    settling: Mutex<()>,
}

const _: () = assert!(size_of::<Set>() == 64);

impl RateTable {
    /// A table that gives each source a bucket of `rate`.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            hasher: RandomState::new(),
            sets: OnceLock::new(),
        }
    }

    /// What each source may send.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    fn sets(&self) -> &[Set] {
        let make = || (0..SETS).map(|_| Set::default()).collect();
        self.sets.get_or_init(make)
    }

    /// Takes one of the tokens of `key` if it has any.
    pub fn take(&self, key: RateKey, now: Instant) -> bool {
        let hash = self.hasher.hash_one(key.0);
        let set = &self.sets()[hash as usize % SETS];
        let owner = ((hash >> 32) as u32).max(1);
        let now = moment(now);
        match set.find(owner) {
            Some(full) => self.rate.take(full, now),
            None => set.settle(owner, self.rate, now),
        }
    }
}

impl Set {
    /// The bucket of `owner`. If another takes it over from now on, what is taken is that one's: no more is given out.
    fn find(&self, owner: u32) -> Option<&AtomicU64> {
        let way = self.owner.iter().position(|o| o.load(Acquire) == owner)?;
        Some(&self.full[way])
    }

    /// Takes from the bucket of an owner that was not here, or has only just come.
    fn settle(&self, owner: u32, rate: Rate, now: u64) -> bool {
        let _alone = super::lock(&self.settling);
        if let Some(full) = self.find(owner) {
            return rate.take(full, now);
        }
        let quiet = (0..WAYS).min_by_key(|&way| self.full[way].load(Relaxed));
        let way = quiet.unwrap_or_default();
        self.owner[way].store(0, Relaxed);
        self.full[way].store(now + rate.interval, Relaxed);
        self.owner[way].store(owner, Release);
        true
    }
}

/// Whose bucket it is: an address, or all of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateKey(u128);

impl RateKey {
    /// One address, in canonical form.
    pub fn address(address: IpAddr) -> Self {
        Self(bits(address))
    }

    /// Everybody of the same /24 of IPv4, or /56 of IPv6: as much as one customer has, who may forge all of it.
    pub fn network(address: IpAddr) -> Self {
        let rest = if address.is_ipv4() { 8 } else { 128 - 56 };
        Self(bits(address) >> rest << rest)
    }
}

/// Different for all addresses of both families.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
    .to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    fn source(n: u32) -> RateKey {
        RateKey::address(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let bucket = TokenBucket::new(Rate::new(10.0));
        let t0 = Instant::now();
        assert_eq!((0..20).filter(|_| bucket.take(t0)).count(), 10);
        assert_eq!(bucket.wait(t0), Duration::from_millis(100));
        assert!(!bucket.take(t0 + Duration::from_millis(99)));
        let later = t0 + Duration::from_millis(500);
        assert_eq!(bucket.wait(later), Duration::ZERO);
        assert_eq!((0..20).filter(|_| bucket.take(later)).count(), 5);
        let twice = TokenBucket::new(Rate::with_burst(200.0, 400.0));
        assert_eq!((0..999).filter(|_| twice.take(t0)).count(), 400);
    }

    #[test]
    fn the_slowest_lets_one_through_and_the_fastest_all() {
        let now = Instant::now();
        for slow in [0.5, 1e-3, 1e-12, f64::MIN_POSITIVE] {
            let bucket = TokenBucket::new(Rate::new(slow));
            assert!(bucket.take(now) && !bucket.take(now), "{slow}");
            assert!(!bucket.take(now + Duration::from_millis(1_900)), "{slow}");
        }
        let fast = TokenBucket::new(Rate::new(f64::MAX));
        assert!((0..10_000).all(|_| fast.take(now)));
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let t0 = Instant::now() + Duration::from_secs(10);
        let bucket = TokenBucket::new(Rate::new(1.0));
        assert!(bucket.take(t0));
        assert!(!bucket.take(t0 - Duration::from_secs(5)));
        assert!(bucket.take(t0 + Duration::from_secs(1)));
    }

    #[test]
    fn sources_do_not_pay_for_each_other() {
        let table = RateTable::new(Rate::new(2.0));
        // A listener that hears nothing owns nothing.
        assert!(table.sets.get().is_none());
        let now = Instant::now();
        let (a, b) = (source(1), source(2));
        assert!(table.take(a, now) && table.take(a, now) && !table.take(a, now));
        assert!(table.take(b, now));
    }

    #[test]
    fn who_has_emptied_its_bucket_does_not_lose_it_to_a_flood_of_others() {
        let table = RateTable::new(Rate::new(10.0));
        let now = Instant::now();
        assert_eq!((0..20).filter(|_| table.take(source(0), now)).count(), 10);
        assert!((1..100_000).all(|n| table.take(source(n), now)));
        assert!(!table.take(source(0), now));
        assert_eq!(table.sets().len(), SETS);
    }

    #[test]
    fn a_network_is_one_source_and_no_other_is() {
        let network = |text: &str| RateKey::network(text.parse().unwrap());
        assert_eq!(network("192.0.2.1"), network("192.0.2.255"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8::1"), network("2001:db8:0:ff:ffff::"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:100::"));
        assert_ne!(network("0.0.0.0"), network("::"));
        let mapped: Ipv6Addr = "::ffff:0:0".parse().unwrap();
        assert_ne!(RateKey::network(mapped.into()), network("0.0.0.0"));
    }

    #[test]
    fn of_two_that_bring_a_new_source_at_once_one_gets_its_token() {
        let table = RateTable::new(Rate::new(1.0));
        let (now, begin, taken) = (Instant::now(), Barrier::new(2), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for n in 0..100 {
                        begin.wait();
                        taken.fetch_add(usize::from(table.take(source(n), now)), Relaxed);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 100);
    }

    #[test]
    fn two_that_take_at_once_get_no_more_than_one_would() {
        let (per_second, burst, messages) = (1_000.0, 50.0, 40_000_u32);
        let table = RateTable::new(Rate::with_burst(per_second, burst));
        let (t0, clock, taken) = (Instant::now(), AtomicU32::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (table, clock, taken) = (&table, &clock, &taken);
                scope.spawn(move || {
                    loop {
                        // 25 µs apart, and as the threads fall out of step not even in order.
                        let tick = clock.fetch_add(1, Relaxed);
                        if tick >= messages {
                            return;
                        }
                        let now = t0 + Duration::from_micros(25) * tick;
                        taken.fetch_add(usize::from(table.take(source(7), now)), Relaxed);
                        // Others come and go meanwhile.
                        table.take(source(1_000 + tick * 2 + thread), now);
                    }
                });
            }
        });
        let taken = taken.into_inner() as f64;
        let all = burst + per_second * f64::from(messages) * 25e-6;
        assert!(taken <= all && taken >= all * 0.9, "{taken} of {all}");
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            per_second in 0.1_f64..5_000.0,
            burst in 0.0_f64..100.0,
            // Steps of the clock, a few of them back.
            steps in prop::collection::vec((-2_000_i64..20_000, 0_u32..3), 1..400),
        ) {
            let table = RateTable::new(Rate::with_burst(per_second, burst));
            let t0 = Instant::now() + Duration::from_secs(1);
            let (mut now, mut last, mut taken) = (0_i64, 0_i64, [0_u32; 3]);
            for (step, key) in steps {
                now = (now + step).max(0);
                last = last.max(now);
                let at = t0 + Duration::from_micros(now.unsigned_abs());
                taken[key as usize] += u32::from(table.take(source(key), at));
            }
            for taken in taken {
                let all = burst.max(1.0) + per_second * last as f64 * 1e-6;
                prop_assert!(f64::from(taken) <= all + 1e-6, "{} of {}", taken, all);
            }
        }

        #[test]
        fn who_keeps_to_the_rate_is_never_refused(per_second in 0.1_f64..5_000.0, messages in 1_u32..200) {
            let table = RateTable::new(Rate::new(per_second));
            // Rounded up, as a nanosecond has no half.
            let apart = Duration::from_nanos((1e9 / per_second).ceil() as u64);
            let t0 = Instant::now();
            prop_assert!((0..messages).all(|n| table.take(source(1), t0 + apart * n)));
        }
    }
}
