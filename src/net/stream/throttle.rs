//! How fast a peer may speak. Whoever is over its rate is read no faster than that, and whoever keeps on is closed: the
//! first costs a peer that has said a lot at once nothing but time.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::{Event, Stream};
use crate::net::rate::{Rate, TokenBucket};
use crate::net::terms::Terms;

/// A peer of which always more waits than its rate lets in is closed after this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// No timer is shorter: sources share a bucket that has a token at no foreseeable moment.
const SHORTEST: Duration = Duration::from_millis(1);

/// What becomes of a message that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is taken.
    Now,
    /// It waits, and it is the first since the peer was last heard out.
    First,
    /// It waits, as others did just before.
    Later,
    /// The peer has been held back for too long.
    Never,
}

/// The rate of one session.
#[derive(Debug)]
pub(super) struct Throttle {
    bucket: TokenBucket,
    /// Until when nothing is taken.
    pause: Option<Pin<Box<Sleep>>>,
    /// Since when more has waited than was let in.
    behind: Option<Instant>,
}

impl Throttle {
    /// What holds under `terms`, if anything does.
    pub(super) fn of(terms: &Terms) -> Option<Box<Self>> {
        let rate = terms.bounds.max_message_rate?;
        Some(Box::new(Self {
            bucket: TokenBucket::new(Rate::new(rate)),
            pause: None,
            behind: None,
        }))
    }

    /// Whether a message of a session of `source` is taken now; if it is to wait, [`poll`](Self::poll) says until when.
    fn turn(&mut self, terms: &Terms, source: IpAddr, now: Instant) -> Turn {
        if self.is_waiting() {
            return Turn::Later;
        }
        // Its own first: what one session sends too fast is not taken from the others of its source.
        if self.bucket.take(now) && terms.takes_from(source, now) {
            return Turn::Now;
        }
        let first = self.behind.is_none();
        let until = *self.behind.get_or_insert(now) + PATIENCE;
        if now >= until {
            return Turn::Never;
        }
        let wait = self.bucket.wait(now).max(SHORTEST).min(until - now);
        self.pause = Some(Box::pin(tokio::time::sleep(wait)));
        if first { Turn::First } else { Turn::Later }
    }

    /// Whether nothing is taken for now.
    fn is_waiting(&self) -> bool {
        self.pause.is_some()
    }

    /// Ready when the next message may be asked about again.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

impl Stream {
    /// Whether a message that is here may be taken.
    pub(super) fn turn(&mut self) -> Turn {
        let Some(throttle) = &mut self.throttle else {
            return Turn::Now;
        };
        let turn = throttle.turn(&self.terms, self.session.peer.ip(), Instant::now());
        if turn == Turn::First {
            self.door.counters.refuse("rate_delayed");
        }
        turn
    }

    /// Ready when the message that is held back may be asked about again; none if none is.
    pub(super) fn hold_back(&mut self, cx: &mut Context<'_>) -> Option<Poll<()>> {
        let waiting = self
            .throttle
            .as_mut()
            .filter(|throttle| throttle.is_waiting());
        waiting.map(|throttle| throttle.poll(cx))
    }

    /// Waits with the message, without reading on: what the peer says meanwhile fills its own buffers.
    pub(super) fn poll_held_back(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.session.wake_with(cx);
        match (self.poll_flush(cx), self.session.asked()) {
            (_, Some(ask)) => Poll::Ready(Event::Asked(ask)),
            (Poll::Ready(Err(_)), None) => Poll::Ready(Event::Reset),
            _ => Poll::Pending,
        }
    }

    /// All that the peer has said so far is taken.
    pub(super) fn is_heard_out(&mut self) {
        if let Some(throttle) = &mut self.throttle {
            throttle.behind = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Limits;
    use crate::net::limits::Transport;
    use crate::net::tests::over_tcp;

    fn terms(rate: f64) -> Terms {
        let limits = Limits {
            max_message_rate: rate,
            ..Limits::default()
        };
        Terms::new(limits.bounds(Transport::Tcp), over_tcp("a"), None)
    }

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn who_is_too_fast_waits_then_goes() {
        let terms = terms(2.0);
        let mut throttle = Throttle::of(&terms).unwrap();
        let began = Instant::now();
        let mut at = |after_ms| {
            let turn = throttle.turn(&terms, SOURCE, began + Duration::from_millis(after_ms));
            throttle.pause = None;
            turn
        };
        assert_eq!(
            [at(0), at(0), at(0), at(100)],
            [Turn::Now, Turn::Now, Turn::First, Turn::Later]
        );
        assert_eq!(
            [at(500), at(500), at(4_999)],
            [Turn::Now, Turn::Later, Turn::Now]
        );
        // A bucket that is full again does not save who was behind all the time.
        assert_eq!(
            [at(4_999), at(4_999), at(5_000)],
            [Turn::Now, Turn::Later, Turn::Never]
        );
    }

    #[tokio::test]
    async fn who_was_heard_out_begins_anew() {
        let terms = terms(1.0);
        let mut throttle = Throttle::of(&terms).unwrap();
        let now = Instant::now();
        assert_eq!(throttle.turn(&terms, SOURCE, now), Turn::Now);
        assert_eq!(throttle.turn(&terms, SOURCE, now), Turn::First);
        throttle.pause = None;
        throttle.behind = None;
        let late = now + PATIENCE * 2;
        assert_eq!(throttle.turn(&terms, SOURCE, late), Turn::Now);
        assert_eq!(throttle.turn(&terms, SOURCE, late), Turn::First);
    }

    #[tokio::test]
    async fn many_sessions_of_one_source_share_a_rate() {
        let terms = terms(1.0);
        let now = Instant::now();
        let taken = |source: [u8; 4]| {
            let turn = Throttle::of(&terms)
                .unwrap()
                .turn(&terms, source.into(), now);
            turn == Turn::Now
        };
        assert_eq!((0..100).filter(|_| taken([192, 0, 2, 1])).count(), 10);
        assert!(taken([192, 0, 2, 2]));
    }
}
