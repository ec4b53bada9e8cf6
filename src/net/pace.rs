//! When each of many sessions is asked to leave, so that their peers do not all come back at once.
//!
//! Pure: no clock and no session, only moments. Each has a slot of its own, all slots are equally long, and the moment
//! lies anywhere within it; so the moments are jittered, and no stretch of time holds many more than its share.

use std::time::Duration;

/// Moments in time, spread evenly and jittered: as many as there are slots.
#[derive(Debug, Clone)]
pub struct Pace {
    next: usize,
    count: usize,
    span: Duration,
    seed: u64,
}

impl Pace {
    /// `count` offsets from the start, none smaller than the one before and none past `span`. The same for the same
    /// seed. A stretch that is due `n` of them on the average holds at most `n + 2`.
    pub fn over(count: usize, span: Duration, seed: u64) -> Self {
        Self {
            next: 0,
            count,
            span,
            seed,
        }
    }
}

impl Iterator for Pace {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.next == self.count {
            return None;
        }
        let slot = self.next as f64 + fraction(self.seed.wrapping_add(self.next as u64));
        self.next += 1;
        // Rounding keeps the order, and ends at the span at the latest.
        Some(self.span.mul_f64((slot / self.count as f64).min(1.0)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.count - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Pace {}

/// From 0 to below 1, by the finalizer of SplitMix64: neighbours have nothing in common.
fn fraction(number: u64) -> f64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SLICE: Duration = Duration::from_millis(100);

    /// The most that any 100 ms hold, wherever they begin.
    fn fullest(moments: &[Duration]) -> usize {
        let (mut from, mut most) = (0, 0);
        for (to, moment) in moments.iter().enumerate() {
            while *moment - moments[from] >= SLICE {
                from += 1;
            }
            most = most.max(to + 1 - from);
        }
        most
    }

    #[test]
    fn five_thousand_over_five_seconds_leave_evenly_and_not_in_step() {
        let moments: Vec<_> = Pace::over(5_000, Duration::from_secs(5), 7).collect();
        assert!(fullest(&moments) <= 102, "{}", fullest(&moments));
        let gaps: std::collections::BTreeSet<_> =
            moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.len() > 4_000, "{}", gaps.len());
        assert!(moments[0] < SLICE && moments[4_999] > Duration::from_millis(4_900));
    }

    proptest! {
        #[test]
        fn no_stretch_holds_many_more_than_its_share(
            count in 0_usize..5_000,
            ms in prop_oneof![Just(0_u64), 1..20_000_u64, Just(u64::MAX)],
            seed in any::<u64>(),
        ) {
            let span = Duration::from_millis(ms);
            let moments: Vec<_> = Pace::over(count, span, seed).collect();
            prop_assert_eq!(moments.len(), count);
            prop_assert!(moments.is_sorted() && moments.last().is_none_or(|last| *last <= span));
            let mean = count as f64 / (span.as_secs_f64() / SLICE.as_secs_f64());
            // Of none in no time the mean is no number.
            prop_assert!(fullest(&moments) as f64 <= mean.max(0.0).ceil() + 2.0);
        }
    }
}
