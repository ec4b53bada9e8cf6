//! Distributions: how often values lay within which bounds, counted without a lock.
//!
//! A family has one distribution for each set of attribute values that has come up; the words are from closed sets, so
//! there are few. They hang on a chain that only grows: whoever records walks it, and only who comes first with a set
//! adds a link. An idle listener has the room of a pointer for each family. A bucket remembers one of its values that a
//! trace tells more about, as its exemplar.

use super::super::Trace;
use super::super::instruments::{ATTRIBUTES, Instrument};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

/// Values of an instrument's attributes, in its definition's order; an empty one is not there.
pub(super) type Values = [&'static str; ATTRIBUTES];

/// More sets of values than any family of closed sets comes to, so that a mistake of ours cannot take all memory.
const MOST_SETS: usize = 1_024;

/// All distributions of one instrument that have one owner.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) instrument: Instrument,
    first: Next,
}

type Next = OnceLock<Box<Link>>;

#[derive(Debug)]
struct Link {
    values: Values,
    cells: Cells,
    next: Next,
}

/// One distribution as it grows.
#[derive(Debug)]
struct Cells {
    /// One for each bound and one for what is above; not cumulative.
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
    /// There from the first one on.
    exemplars: OnceLock<Box<[Mutex<Option<Exemplar>>]>>,
}

/// One distribution at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Distribution {
    /// For each bucket, the last one without a bound; not cumulative.
    pub(super) counts: Vec<u64>,
    pub(super) sum: f64,
    /// With the bucket that each is from, in their order.
    pub(super) exemplars: Vec<(usize, Exemplar)>,
}

/// A value that a sampled trace tells more about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Exemplar {
    pub(super) value: f64,
    pub(super) at: SystemTime,
    pub(super) trace: Trace,
}

impl Family {
    pub(super) const fn new(instrument: Instrument) -> Self {
        Self {
            instrument,
            first: OnceLock::new(),
        }
    }

    /// Counts one value, and remembers it when its trace is sampled.
    pub(super) fn record(&self, values: Values, value: f64, trace: &Trace) {
        let bounds = self.instrument.definition().buckets;
        let mut next = &self.first;
        for _ in 0..MOST_SETS {
            let link = next.get_or_init(|| Box::new(Link::new(values, bounds.len() + 1)));
            if link.values == values {
                link.cells.record(bounds, value, trace);
                return;
            }
            next = &link.next;
        }
        debug_assert!(false, "{:?} has too many sets: {values:?}", self.instrument);
    }

    /// Every set so far with its distribution, in the order of their first use.
    pub(super) fn read(&self) -> impl Iterator<Item = (Values, Distribution)> {
        let links = std::iter::successors(self.first.get(), |link| link.next.get());
        links.map(|link| (link.values, link.cells.read()))
    }
}

impl Link {
    fn new(values: Values, buckets: usize) -> Self {
        Self {
            values,
            cells: Cells {
                counts: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
                sum: AtomicU64::new(0f64.to_bits()),
                exemplars: OnceLock::new(),
            },
            next: OnceLock::new(),
        }
    }
}

impl Cells {
    fn record(&self, bounds: &[f64], value: f64, trace: &Trace) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // It never says no.
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        if trace.is_sampled() {
            self.remember(bucket, value, trace);
        }
    }

    fn remember(&self, bucket: usize, value: f64, trace: &Trace) {
        let exemplars = self
            .exemplars
            .get_or_init(|| self.counts.iter().map(|_| Mutex::default()).collect());
        // Whoever finds it taken has an example no better than the other's.
        if let Ok(mut place) = exemplars[bucket].try_lock() {
            *place = Some(Exemplar {
                value,
                at: SystemTime::now(),
                trace: *trace,
            });
        }
    }

    fn read(&self) -> Distribution {
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let places = self.exemplars.get().into_iter().flatten().enumerate();
        let exemplar = |(bucket, place): (usize, &Mutex<Option<Exemplar>>)| {
            let place = place.lock().unwrap_or_else(PoisonError::into_inner);
            Some((bucket, (*place)?))
        };
        Distribution {
            counts: counts.collect(),
            sum: f64::from_bits(self.sum.load(Ordering::Relaxed)),
            exemplars: places.filter_map(exemplar).collect(),
        }
    }
}

impl Distribution {
    /// How many values there are.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    const IDLE: Values = ["idle", "", "", ""];
    const LEFT: Values = ["client_closed", "", "", ""];

    fn sampled() -> Trace {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = super::super::super::trace::remote_parent(header, None).unwrap();
        Trace::from(&parent)
    }

    #[test]
    fn a_bound_is_part_of_its_bucket() {
        let family = Family::new(Instrument::SessionDuration);
        for value in [0.0, 0.01, 0.011, 86_400.0, 86_400.1] {
            family.record(IDLE, value, &Trace::default());
        }
        let (values, read) = family.read().next().unwrap();
        assert_eq!(values, IDLE);
        assert_eq!((read.counts[0], read.counts[1]), (2, 1));
        assert_eq!((read.counts[17], read.counts[18]), (1, 1));
        assert_eq!((read.count(), read.counts.len()), (5, 19));
        assert!((read.sum - 172_800.121).abs() < 1e-6);
        assert_eq!(read.exemplars, []);
    }

    #[test]
    fn every_set_has_a_distribution_of_its_own() {
        let family = Family::new(Instrument::SessionDuration);
        for values in [IDLE, LEFT, IDLE] {
            family.record(values, 1.0, &Trace::default());
        }
        let read: Vec<_> = family.read().map(|(v, d)| (v, d.count())).collect();
        assert_eq!(read, [(IDLE, 2), (LEFT, 1)]);
    }

    #[test]
    fn a_bucket_remembers_the_last_value_that_was_traced() {
        let family = Family::new(Instrument::SessionDuration);
        for (value, trace) in [
            (0.3, sampled()),
            (0.4, sampled()),
            (0.45, Trace::default()),
            (7.0, sampled()),
        ] {
            family.record(IDLE, value, &trace);
        }
        let (_, read) = family.read().next().unwrap();
        let told: Vec<_> = read.exemplars.iter().map(|(b, e)| (*b, e.value)).collect();
        assert_eq!(told, [(5, 0.4), (9, 7.0)]);
        assert_eq!(read.exemplars[0].1.trace, sampled());
    }

    #[test]
    fn recording_and_reading_at_once_loses_nothing_and_never_counts_back() {
        const EACH: u64 = 300_000;
        const THREADS: u64 = 4;
        let family = Family::new(Instrument::CommandDuration);
        let (done, together) = (AtomicBool::new(false), Barrier::new(THREADS as usize));
        let words: [Values; 3] = [IDLE, LEFT, ["0", "", "", ""]];
        thread::scope(|scope| {
            let recording: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (family, words, together) = (&family, &words, &together);
                    scope.spawn(move || {
                        together.wait();
                        for n in 0..EACH {
                            let trace = if n % 64 == 0 {
                                sampled()
                            } else {
                                Trace::default()
                            };
                            family.record(words[(n / 1_000 % 3) as usize], 1.0, &trace);
                        }
                    })
                })
                .collect();
            let reading = scope.spawn(|| {
                let mut before = 0;
                while !done.load(Ordering::Acquire) {
                    let all: Vec<_> = family.read().collect();
                    let count = all.iter().map(|(_, read)| read.count()).sum();
                    assert!(count >= before, "{count} after {before}");
                    assert!(all.len() <= 3, "a set twice");
                    before = count;
                }
            });
            for thread in recording {
                thread.join().unwrap();
            }
            done.store(true, Ordering::Release);
            reading.join().unwrap();
        });
        let all: Vec<_> = family.read().collect();
        let total: u64 = all.iter().map(|(_, read)| read.count()).sum();
        assert_eq!(total, THREADS * EACH);
        let sum: f64 = all.iter().map(|(_, read)| read.sum).sum();
        assert_eq!(sum, (THREADS * EACH) as f64);
    }
}
