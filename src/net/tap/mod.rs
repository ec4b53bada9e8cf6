//! A live copy of what crosses one session's socket, for whoever asks to see it.
//!
//! A session that nobody taps looks at one flag for each read and each write, and keeps nothing. One
//! that is tapped puts a frame into the queue of each taker and goes on: a taker that does not keep
//! up loses frames and is told how many, and no session waits for one.

mod queue;

use std::fmt;
use std::io::IoSlice;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::door::Door;
use super::lock;
use super::session::Session;
use queue::Queue;

/// Most taps in the process, and of one session.
const MOST: (usize, usize) = (16, 4);

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the peer to us.
    Receive,
    /// From us to the peer.
    Transmit,
}

/// What one read or write, or one datagram, carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which way.
    pub direction: Direction,
    /// When.
    pub at: SystemTime,
    /// Bytes that crossed.
    pub size: usize,
    /// The first of them; none unless they were asked for.
    pub payload: Bytes,
    /// They were asked for, and are not all here.
    pub truncated: bool,
    /// Frames that were lost since the one before.
    pub dropped: u64,
}

/// How much a taker wants to see.
#[derive(Debug, Clone, Copy)]
pub struct TapBounds {
    /// The frame that makes up so many bytes is the last one. Those of frames that were lost do not
    /// count.
    pub bytes: u64,
    /// What comes later is not shown.
    pub until: Instant,
    /// What was said, not only when and how much.
    pub payload: bool,
}

/// That there are as many taps as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyTaps {
    /// Of the session, not of the process.
    pub of_session: bool,
    /// How many there may be.
    pub most: usize,
    /// When the first of them ends at the latest.
    pub free_within: Duration,
}

impl fmt::Display for TooManyTaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = if self.of_session {
            "of this session"
        } else {
            "in the process"
        };
        let (most, seconds) = (self.most, self.free_within.as_secs() + 1);
        write!(
            f,
            "there are {most} taps {of}, and no more are made; one of them ends within {seconds} s"
        )
    }
}

/// Those who tap one session.
#[derive(Debug, Default)]
pub(super) struct SessionTaps(Vec<Arc<Queue>>);

/// All taps of the process.
#[derive(Debug, Default)]
pub struct Taps(Mutex<Vec<Weak<Queue>>>);

impl Taps {
    /// Shows what crosses `session`'s socket from now on, until its end or a bound.
    ///
    /// # Errors
    /// When there are as many taps as there may be.
    pub fn open(
        &self,
        door: &Door,
        session: &Arc<Session>,
        bounds: TapBounds,
    ) -> Result<Tap, TooManyTaps> {
        let mut all = lock(&self.0);
        all.retain(|queue| queue.upgrade().is_some_and(|queue| !queue.expire()));
        refuse(all.iter().filter_map(Weak::upgrade), MOST.0, false)?;
        let mut shared = lock(&session.shared);
        let own = &mut shared.taps.get_or_insert_default().0;
        own.retain(|queue| !queue.has_ended());
        refuse(own.iter().cloned(), MOST.1, true)?;
        let queue = Arc::new(Queue::new(bounds));
        own.push(queue.clone());
        session.tapped.store(true, Ordering::Relaxed);
        all.push(Arc::downgrade(&queue));
        drop(shared);
        if door.session(session.id).is_none() {
            // It ended between our caller's finding it and now; nobody else will end this.
            session.end_taps();
        }
        let session = session.clone();
        Ok(Tap { session, queue })
    }
}

/// Refuses one more than `most`.
fn refuse(
    taps: impl Iterator<Item = Arc<Queue>>,
    most: usize,
    of_session: bool,
) -> Result<(), TooManyTaps> {
    let ends: Vec<Instant> = taps.map(|queue| queue.until).collect();
    if ends.len() < most {
        return Ok(());
    }
    let first = ends.into_iter().min().unwrap_or_else(Instant::now);
    Err(TooManyTaps {
        of_session,
        most,
        free_within: first.saturating_duration_since(Instant::now()),
    })
}

/// A taker's end. Dropping it ends the tap.
#[derive(Debug)]
pub struct Tap {
    session: Arc<Session>,
    queue: Arc<Queue>,
}

impl Tap {
    /// The next frame; none once the session has ended or a bound is reached. Cancel safe.
    pub async fn next(&mut self) -> Option<Frame> {
        let until = tokio::time::Instant::from_std(self.queue.until);
        let next = std::future::poll_fn(|cx| self.queue.poll_next(cx));
        tokio::time::timeout_at(until, next).await.unwrap_or(None)
    }

    /// Frames that were lost behind the last that [`next`](Self::next) gave; told once.
    pub fn dropped(&mut self) -> u64 {
        self.queue.take_dropped()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.queue.end();
        self.session.forget_taps();
    }
}

impl Session {
    /// Shows a datagram to whoever taps.
    pub(super) fn tell_datagram(&self, direction: Direction, data: &[u8]) {
        if self.tapped.load(Ordering::Relaxed) {
            self.show(direction, &[IoSlice::new(data)], data.len());
        }
    }

    /// The same of the first `size` bytes of `parts`, which are part of a stream: none are no frame.
    pub(super) fn tell_bytes(&self, direction: Direction, parts: &[IoSlice<'_>], size: usize) {
        if self.tapped.load(Ordering::Relaxed) && size > 0 {
            self.show(direction, parts, size);
        }
    }

    #[cold]
    fn show(&self, direction: Direction, parts: &[IoSlice<'_>], size: usize) {
        if let Some(taps) = &lock(&self.shared).taps {
            for queue in &taps.0 {
                queue.put(direction, parts, size);
            }
        }
        self.forget_taps();
    }

    /// Ends every tap: the session is over.
    pub(super) fn end_taps(&self) {
        if let Some(taps) = &lock(&self.shared).taps {
            taps.0.iter().for_each(|queue| queue.end());
        }
        self.forget_taps();
    }

    /// Lets go of the taps that have ended.
    fn forget_taps(&self) {
        let mut shared = lock(&self.shared);
        shared.taps.take_if(|taps| {
            taps.0.retain(|queue| !queue.has_ended());
            taps.0.is_empty()
        });
        self.tapped.store(shared.taps.is_some(), Ordering::Relaxed);
    }
}
