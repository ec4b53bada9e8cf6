//! Who is in: so many at once, so many of them from one source. A newcomer has a place only until
//! the next ones need it; who has begun to speak keeps it.
//!
//! A flood of connections that say nothing so pushes itself out, and who speaks at once gets in.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::caller::Source;
use crate::net::lock;

/// What a newcomer has in any case to begin to speak. The next ones wait in the kernel's queue.
const MOMENT: Duration = Duration::from_millis(100);

/// Those who speak.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_of_one_source: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    sources: HashMap<Source, usize>,
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
    /// Of so many connections three quarters have a place, and a source has at most half. The rest
    /// is for the newcomers in two lobbies.
    pub(super) fn new(connections: usize) -> Self {
        Self {
            most: (connections * 3 / 4).max(1),
            most_of_one_source: (connections / 2).max(1),
            taken: Mutex::default(),
        }
    }

    fn settle(self: &Arc<Self>, source: Source) -> Result<Place, Full> {
        let mut taken = lock(&self.taken);
        if taken.all >= self.most {
            return Err(Full::Connections(self.most));
        }
        let from_there = taken.sources.entry(source).or_default();
        if *from_there >= self.most_of_one_source {
            return Err(Full::Source(self.most_of_one_source));
        }
        *from_there += 1;
        taken.all += 1;
        Ok(Place {
            places: self.clone(),
            source,
        })
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
        taken.all -= 1;
        let from_there = taken.sources.entry(self.source).or_default();
        *from_there -= 1;
        if *from_there == 0 {
            taken.sources.remove(&self.source);
        }
    }
}

/// Those who have come in one way and said nothing yet.
#[derive(Debug)]
pub(super) struct Lobby {
    places: Arc<Places>,
    most: usize,
    waiting: Mutex<Waiting>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    arrived: u64,
    /// Oldest first.
    newcomers: VecDeque<(u64, Instant, CancellationToken)>,
}

impl Lobby {
    /// To what has room for so many connections.
    pub(super) fn new(places: Arc<Places>, connections: usize) -> Self {
        Self {
            places,
            most: (connections / 8).max(1),
            waiting: Mutex::default(),
            left: Notify::new(),
        }
    }

    /// One more. When there are too many it waits until one has spoken, or the oldest has had its
    /// moment and goes.
    pub(super) async fn arrive(self: &Arc<Self>, source: Source) -> Newcomer {
        loop {
            match self.admit(source) {
                Ok(newcomer) => return newcomer,
                Err(wait) => {
                    let _ = tokio::time::timeout(wait, self.left.notified()).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, source: Source) -> Result<Newcomer, Duration> {
        let mut waiting = lock(&self.waiting);
        if waiting.newcomers.len() >= self.most
            && let Some((_, since, oldest)) = waiting.newcomers.front()
        {
            let left = MOMENT.saturating_sub(since.elapsed());
            if !left.is_zero() {
                return Err(left);
            }
            oldest.cancel();
            waiting.newcomers.pop_front();
        }
        waiting.arrived += 1;
        let (number, crowded_out) = (waiting.arrived, CancellationToken::new());
        let entry = (number, Instant::now(), crowded_out.clone());
        waiting.newcomers.push_back(entry);
        Ok(Newcomer {
            lobby: self.clone(),
            number,
            source,
            crowded_out,
        })
    }
}

/// A connection that has said nothing yet.
#[derive(Debug)]
pub(super) struct Newcomer {
    lobby: Arc<Lobby>,
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
        self.lobby.places.settle(self.source)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let mut waiting = lock(&self.lobby.waiting);
        waiting.newcomers.retain(|(n, ..)| *n != self.number);
        self.lobby.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Source = Source::User(1);
    const THERE: Source = Source::User(2);

    #[tokio::test]
    async fn newcomers_have_a_moment_and_then_push_each_other_out() {
        let lobby = Arc::new(Lobby::new(Arc::new(Places::new(32)), 32));
        let began = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(lobby.arrive(HERE).await);
        }
        assert!(lobby.admit(HERE).is_err());
        silent.push(lobby.arrive(HERE).await);
        assert!(began.elapsed() >= MOMENT);
        let out = silent.iter().filter(|n| n.crowded_out.is_cancelled());
        assert_eq!(out.map(|n| n.number).collect::<Vec<_>>(), [1]);
        // Who speaks makes room at once.
        let place = silent.pop().unwrap().settle().unwrap();
        drop((lobby.admit(HERE).unwrap(), place, silent));
        assert!(lock(&lobby.waiting).newcomers.is_empty());
    }

    #[test]
    fn one_source_leaves_room_for_others() {
        let places = Arc::new(Places::new(16));
        let mut mine: Vec<_> = (0..8).map(|_| places.settle(HERE).unwrap()).collect();
        assert_eq!(places.settle(HERE).unwrap_err(), Full::Source(8));
        let theirs: Vec<_> = (0..4).map(|_| places.settle(THERE).unwrap()).collect();
        assert_eq!(places.settle(THERE).unwrap_err(), Full::Connections(12));
        mine.pop();
        drop(places.settle(HERE).unwrap());
        drop((mine, theirs));
        let taken = lock(&places.taken);
        assert_eq!((taken.all, taken.sources.len()), (0, 0));
    }
}
