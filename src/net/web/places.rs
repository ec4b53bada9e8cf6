//! Who is in: so many at once, so many of them from one source. A newcomer has a place only until
//! the next ones need it; who has begun to speak keeps it.
//!
//! A flood of connections that say nothing so pushes itself out, and who speaks at once gets in.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::caller::Source;
use crate::net::lock;

#[derive(Debug)]
pub(super) struct Places {
    most: Most,
    taken: Mutex<Taken>,
}

/// Most connections.
#[derive(Debug, Clone, Copy)]
struct Most {
    newcomers: usize,
    settled: usize,
    of_one_source: usize,
}

#[derive(Debug, Default)]
struct Taken {
    settled: usize,
    sources: HashMap<Source, usize>,
    /// Oldest first.
    newcomers: VecDeque<(u64, CancellationToken)>,
    arrived: u64,
}

/// Why somebody who speaks has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// So many are in.
    Connections(usize),
    /// So many are in from there.
    Source(usize),
}

impl Places {
    /// Of so many a quarter is for newcomers.
    pub(super) fn new(connections: usize) -> Self {
        let newcomers = (connections / 4).max(1);
        Self {
            most: Most {
                newcomers,
                settled: (connections - newcomers).max(1),
                of_one_source: (connections / 2).max(1),
            },
            taken: Mutex::default(),
        }
    }

    /// One more; the oldest that has not spoken yet goes when there are too many.
    pub(super) fn arrive(self: &Arc<Self>, source: Source) -> Newcomer {
        let crowded_out = CancellationToken::new();
        let mut taken = lock(&self.taken);
        if taken.newcomers.len() == self.most.newcomers
            && let Some((_, oldest)) = taken.newcomers.pop_front()
        {
            oldest.cancel();
        }
        taken.arrived += 1;
        let number = taken.arrived;
        taken.newcomers.push_back((number, crowded_out.clone()));
        Newcomer {
            places: self.clone(),
            number,
            source,
            crowded_out,
        }
    }
}

/// A connection that has said nothing yet.
#[derive(Debug)]
pub(super) struct Newcomer {
    places: Arc<Places>,
    number: u64,
    source: Source,
    pub(super) crowded_out: CancellationToken,
}

impl Newcomer {
    /// A place for as long as it wants.
    ///
    /// # Errors
    /// When there is none for it; while it hears so it is a newcomer still.
    pub(super) fn settle(&self) -> Result<Place, Full> {
        let most = self.places.most;
        let mut taken = lock(&self.places.taken);
        if taken.settled >= most.settled {
            return Err(Full::Connections(most.settled));
        }
        let from_there = taken.sources.entry(self.source).or_default();
        if *from_there >= most.of_one_source {
            return Err(Full::Source(most.of_one_source));
        }
        *from_there += 1;
        taken.settled += 1;
        drop(taken);
        Ok(Place {
            places: self.places.clone(),
            source: self.source,
        })
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        taken.newcomers.retain(|(number, _)| *number != self.number);
    }
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    source: Source,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        taken.settled -= 1;
        let from_there = taken.sources.entry(self.source).or_default();
        *from_there -= 1;
        if *from_there == 0 {
            taken.sources.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Source = Source::User(1);
    const THERE: Source = Source::User(2);

    #[test]
    fn silent_newcomers_push_each_other_out() {
        let places = Arc::new(Places::new(16));
        let silent: Vec<_> = (0..5).map(|_| places.arrive(HERE)).collect();
        let out: Vec<_> = silent
            .iter()
            .map(|n| n.crowded_out.is_cancelled())
            .collect();
        assert_eq!(out, [true, false, false, false, false]);
        let mut silent = silent.into_iter().rev();
        let place = silent.next().unwrap().settle().unwrap();
        let next = places.arrive(HERE);
        assert!(silent.all(|n| n.number == 1 || !n.crowded_out.is_cancelled()));
        drop((place, next));
        assert!(lock(&places.taken).newcomers.is_empty());
    }

    #[test]
    fn one_source_leaves_room_for_others() {
        let places = Arc::new(Places::new(16));
        let settle = |source| places.arrive(source).settle();
        let mut mine: Vec<_> = (0..8).map(|_| settle(HERE).unwrap()).collect();
        assert_eq!(settle(HERE).unwrap_err(), Full::Source(8));
        let theirs: Vec<_> = (0..4).map(|_| settle(THERE).unwrap()).collect();
        assert_eq!(settle(THERE).unwrap_err(), Full::Connections(12));
        mine.pop();
        drop(settle(HERE).unwrap());
        drop((mine, theirs));
        let taken = lock(&places.taken);
        assert_eq!((taken.settled, taken.sources.len()), (0, 0));
    }
}
