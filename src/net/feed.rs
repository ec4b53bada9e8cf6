//! Numbered events for whoever follows them: one bounded ring that all followers share, and a cursor for each.
//!
//! A follower has no queue and no task. One that is slow falls behind, is told how many events it missed, and goes on
//! from the oldest that is kept. While nobody follows, nothing is kept and publishing costs one atomic load.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::lock;

/// Events of one kind, the newest `most` of them.
#[derive(Debug)]
pub struct Feed<E> {
    most: usize,
    /// Bytes that events may hold on to besides, and how many one of them does.
    most_bytes: usize,
    weigh: fn(&E) -> usize,
    /// Somebody follows, or did lately: only then are events kept.
    kept: AtomicBool,
    ring: Mutex<Ring<E>>,
    published: Notify,
}

#[derive(Debug)]
struct Ring<E> {
    events: VecDeque<E>,
    bytes: usize,
    /// The number of the event to come.
    next: u64,
    followers: usize,
    /// When the last follower left.
    left: Option<Instant>,
}

/// How long events are kept for a follower that has left and may come back.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// An event as a follower gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered<E> {
    /// Counts up by one, within this process.
    pub number: u64,
    /// Events before this one that the follower should have got, and came too late for.
    pub missed: u64,
    /// What happened.
    pub event: E,
}

impl<E: Clone> Feed<E> {
    /// A feed that keeps at most `most` events.
    pub fn new(most: usize) -> Arc<Self> {
        Self::weighing(most, usize::MAX, |_| 0)
    }

    /// A feed that keeps at most `most` events, and as many bytes as `weigh` says that they hold on to.
    pub fn weighing(most: usize, most_bytes: usize, weigh: fn(&E) -> usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_bytes,
            weigh,
            kept: AtomicBool::new(false),
            ring: Mutex::new(Ring {
                events: VecDeque::new(),
                bytes: 0,
                next: 1,
                followers: 0,
                left: None,
            }),
            published: Notify::new(),
        })
    }

    /// Whether events are kept at all.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// Tells all followers; `event` is only made when somebody follows. Whoever also shows what is there publishes
    /// under the lock that guards it, so that the two can be held against each other.
    pub fn publish(&self, event: impl FnOnce() -> E) {
        if !self.is_kept() {
            return;
        }
        {
            let mut ring = lock(&self.ring);
            if ring.left.is_some_and(|left| left.elapsed() > KEPT_FOR) {
                ring.events = VecDeque::new();
                ring.bytes = 0;
                self.kept.store(false, Ordering::Release);
                return;
            }
            let event = event();
            ring.bytes = ring.bytes.saturating_add((self.weigh)(&event));
            ring.events.push_back(event);
            // The newest stays, whatever it weighs.
            while ring.events.len() > self.most
                || (ring.bytes > self.most_bytes && ring.events.len() > 1)
            {
                let Some(oldest) = ring.events.pop_front() else {
                    break;
                };
                ring.bytes -= (self.weigh)(&oldest);
            }
            ring.next += 1;
        }
        self.published.notify_waiters();
    }

    /// Follows from now on.
    pub fn follow(self: &Arc<Self>) -> Follower<E> {
        let mut ring = lock(&self.ring);
        if !self.is_kept() {
            // What was not kept is a gap that no former follower can go on over.
            ring.next += 1;
            self.kept.store(true, Ordering::Release);
        }
        let next = ring.next;
        self.follower(&mut ring, next)
    }

    /// Goes on where an earlier follower was to take `next`.
    ///
    /// # Errors
    /// It is kept no more; the number of the oldest event that is, if any are.
    pub fn resume(self: &Arc<Self>, next: u64) -> Result<Follower<E>, Option<u64>> {
        let mut ring = lock(&self.ring);
        if !self.is_kept() {
            return Err(None);
        }
        if (ring.oldest()..=ring.next).contains(&next) {
            Ok(self.follower(&mut ring, next))
        } else {
            Err(Some(ring.oldest()))
        }
    }

    fn follower(self: &Arc<Self>, ring: &mut Ring<E>, next: u64) -> Follower<E> {
        ring.followers += 1;
        ring.left = None;
        Follower {
            feed: self.clone(),
            next,
        }
    }

    /// The number of the event to come.
    pub fn next(&self) -> u64 {
        lock(&self.ring).next
    }
}

impl<E> Ring<E> {
    /// The number of the oldest event that is kept; that of the one to come when none are.
    fn oldest(&self) -> u64 {
        self.next - self.events.len() as u64
    }
}

/// A place in a feed.
#[derive(Debug)]
pub struct Follower<E> {
    feed: Arc<Feed<E>>,
    next: u64,
}

impl<E: Clone> Follower<E> {
    /// The number of the event that it takes next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What it follows.
    pub fn feed(&self) -> &Feed<E> {
        &self.feed
    }

    /// The next event, if it has happened.
    pub fn take(&mut self) -> Option<Numbered<E>> {
        let ring = lock(&self.feed.ring);
        let oldest = ring.oldest();
        let number = self.next.max(oldest);
        let missed = number - self.next;
        let event = ring.events.get(usize::try_from(number - oldest).ok()?)?;
        self.next = number + 1;
        Some(Numbered {
            number,
            missed,
            event: event.clone(),
        })
    }

    /// Resolves once there is an event to take.
    pub async fn published(&self) {
        loop {
            // Made before the look: an event in between wakes it.
            let published = self.feed.published.notified();
            if self.feed.next() > self.next {
                return;
            }
            published.await;
        }
    }
}

impl<E> Drop for Follower<E> {
    fn drop(&mut self) {
        let mut ring = lock(&self.feed.ring);
        ring.followers -= 1;
        if ring.followers == 0 {
            ring.left = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(follower: &mut Follower<u64>) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| follower.take().map(|e| (e.missed, e.event))).collect()
    }

    #[test]
    fn every_follower_gets_every_event_in_order() {
        let feed = Feed::new(8);
        let (mut a, mut b) = (feed.follow(), feed.follow());
        (0..5).for_each(|n| feed.publish(|| n));
        assert_eq!(taken(&mut a), [0, 1, 2, 3, 4].map(|n| (0, n)));
        feed.publish(|| 5);
        assert_eq!(taken(&mut b), [0, 1, 2, 3, 4, 5].map(|n| (0, n)));
        assert_eq!(taken(&mut a), [(0, 5)]);
    }

    #[test]
    fn who_falls_behind_learns_how_far_and_goes_on_from_the_oldest() {
        let feed = Feed::new(4);
        let mut slow = feed.follow();
        (0..10).for_each(|n| feed.publish(|| n));
        assert_eq!(taken(&mut slow), [(6, 6), (0, 7), (0, 8), (0, 9)]);
    }

    #[test]
    fn what_weighs_much_is_kept_for_less_long() {
        let feed = Feed::weighing(4, 10, |n: &u64| usize::try_from(*n).unwrap());
        let mut slow = feed.follow();
        [6, 4].into_iter().for_each(|n| feed.publish(|| n));
        let mut late = feed.follow();
        [3, 3].into_iter().for_each(|n| feed.publish(|| n));
        assert_eq!(taken(&mut slow), [(1, 4), (0, 3), (0, 3)]);
        feed.publish(|| 100);
        assert_eq!(taken(&mut late), [(2, 100)]);
    }

    #[test]
    fn a_place_is_taken_up_again_while_it_is_kept() {
        let feed = Feed::new(4);
        let mut first = feed.follow();
        (0..2).for_each(|n| feed.publish(|| n));
        first.take();
        let place = first.next();
        drop(first);
        feed.publish(|| 2);
        let mut second = feed.resume(place).unwrap();
        assert_eq!(taken(&mut second), [(0, 1), (0, 2)]);
        (3..9).for_each(|n| feed.publish(|| n));
        let oldest = feed.resume(place).unwrap_err().unwrap();
        let mut again = feed.resume(oldest).unwrap();
        assert_eq!(taken(&mut again), [5, 6, 7, 8].map(|n| (0, n)));
        assert!(feed.resume(feed.next() + 1).is_err());
    }

    #[test]
    fn nothing_is_made_or_kept_while_nobody_follows() {
        let feed = Feed::<u64>::new(4);
        feed.publish(|| unreachable!("nobody follows"));
        assert!(feed.resume(1).unwrap_err().is_none());
        let place = feed.follow().next();
        lock(&feed.ring).left = Instant::now().checked_sub(2 * KEPT_FOR);
        feed.publish(|| unreachable!("nobody has followed for long"));
        assert!(!feed.is_kept());
        // What happened since then is lost, so the old place is too.
        assert_eq!(feed.follow().next(), place + 1);
        assert!(feed.resume(place).unwrap_err().is_some());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let feed = Feed::new(4);
        let mut follower = feed.follow();
        let publish = async {
            tokio::task::yield_now().await;
            feed.publish(|| 1);
        };
        tokio::join!(follower.published(), publish);
        assert_eq!(taken(&mut follower), [(0, 1)]);
    }
}
