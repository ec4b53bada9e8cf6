//! Watches: the state as it is, then every change as it happens, in a stream that a client can take up again.
//!
//! A watch is a cursor in a feed and a state machine that the client itself drives: it makes the next answer when
//! HTTP/2 has room for one. Whoever does not read costs a cursor that falls behind; there is no queue and no task.
//!
//! ```text
//!  pages of what is there ──▶ what changed meanwhile ──▶ SYNCED ──▶ changes, BOOKMARKs ──▶ end at its age
//!        EXISTING              CREATED, DELETED …                        ▲
//!                                                       resume_token ────┘
//! ```

mod conversations;
mod listeners;
mod marks;
mod places;
mod sessions;
mod token;
mod wait;

pub use places::Watches;
pub(super) use places::{Method, Place};

pub(super) use conversations::watch as conversations;
pub(super) use listeners::watch as listeners;
pub(super) use sessions::watch as sessions;
pub(super) use wait::wait;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use futures_util::stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::BoxStream;

use super::api::ChangeType;
use super::listeners::refused;
use crate::net::{Follower, Numbered};
use crate::supervisor::Error;
use token::Tokens;

/// What is watched.
trait Subject: Send + 'static {
    /// What its feed tells.
    type Event: Clone + Send + 'static;
    /// One of what is there, not yet looked at.
    type Found: Send + 'static;
    /// As the API shows it.
    type Shown: Send + 'static;
    /// Whether its answers can say how many events were missed; if not, a watch that missed any is over.
    const TELLS_MISSED: bool;

    /// More of what is there, or nothing when that was all.
    fn page(&mut self, follower: &Follower<Self::Event>) -> Option<Vec<Self::Found>>;

    /// Shows what was found, if it is wanted.
    fn show(&mut self, found: Self::Found) -> Option<Self::Shown>;

    /// The snapshot is complete.
    fn synced(&mut self) {}

    /// What an event means to this watch, if it means anything.
    fn change(&mut self, event: Numbered<Self::Event>) -> Option<Change<Self::Shown>>;

    /// How often it looks for what no event tells.
    fn look_every(&self) -> Option<Duration> {
        None
    }

    /// What may have changed without an event.
    fn look(&mut self, _follower: &Follower<Self::Event>) -> Vec<Self::Found> {
        Vec::new()
    }
}

/// What happened, to what, and when.
type Change<T> = (ChangeType, T, SystemTime);

/// One answer of a watch.
struct Told<T> {
    change: ChangeType,
    shown: Option<T>,
    token: String,
    time: SystemTime,
    missed: u64,
}

/// Nothing was said for so long: a sign of life is due.
const QUIET: Duration = Duration::from_secs(10);

/// After so many events that mean nothing to a watch others get their turn, and it a fresh token.
const PASSED_OVER: usize = 256;

/// How old a stream gets: half an hour, and up to five minutes more or less so that not all end at once.
const AGE: (Duration, Duration) = (Duration::from_secs(25 * 60), Duration::from_secs(10 * 60));

/// A watch under way.
struct Watch<S: Subject> {
    subject: S,
    follower: Follower<S::Event>,
    tokens: Tokens,
    place: Place,
    closing: CancellationToken,
    found: VecDeque<S::Found>,
    /// The snapshot, and what changed while it was sent, is over at this event; unset while there may be more pages.
    until: Option<u64>,
    synced: bool,
    /// Events missed since the last answer.
    missed: u64,
    said_at: Instant,
    look_at: Option<Instant>,
    ends_at: Instant,
    over: bool,
}

/// What a look without waiting came to.
enum Ready<T> {
    Say(Told<T>),
    /// It was not wanted; there may be more.
    PassedOver,
    Nothing,
}

impl<S: Subject> Watch<S> {
    /// A watch that begins with what is there or, `resumed`, with what has changed since.
    fn new(
        subject: S,
        (follower, resumed): (Follower<S::Event>, bool),
        tokens: Tokens,
        (place, closing): (Place, CancellationToken),
    ) -> Self {
        let now = Instant::now();
        Self {
            look_at: subject.look_every().map(|often| now + often),
            subject,
            follower,
            tokens,
            place,
            closing,
            found: VecDeque::new(),
            until: resumed.then_some(0),
            synced: resumed,
            missed: 0,
            said_at: now,
            ends_at: now + age(),
            over: false,
        }
    }

    /// The stream of its answers.
    fn stream<A: From<Told<S::Shown>> + Send + 'static>(self) -> BoxStream<A> {
        Box::pin(stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            let said = watch.next().await;
            let goes_on = said.is_ok() && !watch.over;
            Some((said.map(A::from), goes_on.then_some(watch)))
        }))
    }

    /// The next answer, once there is one. Events that have happened go before the end of the control plane, so that
    /// whoever watches a drain sees it to its end.
    async fn next(&mut self) -> Result<Told<S::Shown>, Status> {
        let mut passed_over = 0;
        loop {
            if self.synced && Instant::now() >= self.ends_at {
                self.over = true;
                return Ok(self.bookmark());
            }
            if !self.synced && self.closing.is_cancelled() {
                return Err(refused(Error::Stopping));
            }
            match self.ready()? {
                Ready::Say(told) => return Ok(told),
                Ready::PassedOver => {
                    passed_over += 1;
                    if passed_over % PASSED_OVER == 0 {
                        tokio::task::yield_now().await;
                        if self.synced && self.found.is_empty() {
                            return Ok(self.bookmark());
                        }
                    }
                }
                Ready::Nothing => {
                    if let Some(told) = self.wait().await? {
                        return Ok(told);
                    }
                }
            }
        }
    }

    /// Goes one step without waiting.
    fn ready(&mut self) -> Result<Ready<S::Shown>, Status> {
        if let Some(found) = self.found.pop_front() {
            let change = if self.synced {
                ChangeType::Updated
            } else {
                ChangeType::Existing
            };
            let shown = self.subject.show(found);
            return Ok(shown.map_or(Ready::PassedOver, |shown| {
                self.say(change, Some(shown), SystemTime::now())
            }));
        }
        let Some(until) = self.until else {
            match self.subject.page(&self.follower) {
                Some(page) => self.found.extend(page),
                None => self.until = Some(self.follower.feed().next()),
            }
            return Ok(Ready::PassedOver);
        };
        if !self.synced && self.follower.next() >= until {
            self.synced = true;
            self.subject.synced();
            return Ok(self.say(ChangeType::Synced, None, SystemTime::now()));
        }
        let Some(event) = self.follower.take() else {
            return Ok(Ready::Nothing);
        };
        if event.missed > 0 {
            self.place.missed(event.missed);
            self.missed += event.missed;
            if !S::TELLS_MISSED {
                return Err(self.tokens.expired(Some(event.number)));
            }
        }
        Ok(match self.subject.change(event) {
            Some((change, shown, time)) => self.say(change, Some(shown), time),
            None => Ready::PassedOver,
        })
    }

    /// Waits for something to say; a sign of life is something too.
    async fn wait(&mut self) -> Result<Option<Told<S::Shown>>, Status> {
        let quiet = self.said_at + QUIET;
        let look = self.look_at.unwrap_or(quiet);
        let until = quiet.min(look).min(self.ends_at);
        tokio::select! {
            biased;
            () = self.follower.published() => return Ok(None),
            () = self.closing.cancelled() => return Err(refused(Error::Stopping)),
            () = tokio::time::sleep_until(until) => {}
        }
        let now = Instant::now();
        if let (Some(often), true) = (self.subject.look_every(), now >= look) {
            self.look_at = Some(now + often);
            self.found.extend(self.subject.look(&self.follower));
        }
        Ok((now >= quiet).then(|| self.bookmark()))
    }

    fn bookmark(&mut self) -> Told<S::Shown> {
        self.told(ChangeType::Bookmark, None, SystemTime::now())
    }

    fn say(
        &mut self,
        change: ChangeType,
        shown: Option<S::Shown>,
        time: SystemTime,
    ) -> Ready<S::Shown> {
        Ready::Say(self.told(change, shown, time))
    }

    fn told(
        &mut self,
        change: ChangeType,
        shown: Option<S::Shown>,
        time: SystemTime,
    ) -> Told<S::Shown> {
        self.said_at = Instant::now();
        // Before it is synced there is no place that a client could go on from.
        let place = self.synced.then(|| self.tokens.of(self.follower.next()));
        Told {
            change,
            shown,
            token: place.unwrap_or_default(),
            time,
            missed: std::mem::take(&mut self.missed),
        }
    }
}

/// An age for a new stream.
fn age() -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let spread = u64::try_from(AGE.1.as_millis()).unwrap_or(1);
    let jitter = RandomState::new().hash_one(Instant::now()) % spread;
    AGE.0 + Duration::from_millis(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Feed;
    use std::sync::Arc;
    use tonic::Code;

    /// Numbers: those up to 3 are there, odd events are wanted.
    struct Numbers<const TELLS: bool>(Option<Vec<u64>>);

    impl<const TELLS: bool> Subject for Numbers<TELLS> {
        type Event = u64;
        type Found = u64;
        type Shown = u64;
        const TELLS_MISSED: bool = TELLS;

        fn page(&mut self, _follower: &Follower<u64>) -> Option<Vec<u64>> {
            self.0.take()
        }

        fn show(&mut self, found: u64) -> Option<u64> {
            Some(found)
        }

        fn change(&mut self, event: Numbered<u64>) -> Option<Change<u64>> {
            let wanted = event.event % 2 == 1;
            wanted.then_some((ChangeType::Created, event.event, SystemTime::now()))
        }
    }

    fn watch<const TELLS: bool>(feed: &Arc<Feed<u64>>) -> Watch<Numbers<TELLS>> {
        let place = Arc::<Watches>::default().take(None, places::Method::WatchSessions);
        Watch::new(
            Numbers(Some(vec![1, 2, 3])),
            (feed.follow(), false),
            Tokens::new("numbers", "a1"),
            (place.unwrap(), CancellationToken::new()),
        )
    }

    async fn kinds<S: Subject>(watch: &mut Watch<S>, count: usize) -> Vec<ChangeType> {
        let mut kinds = Vec::new();
        for _ in 0..count {
            kinds.push(watch.next().await.unwrap().change);
        }
        kinds
    }

    #[tokio::test]
    async fn the_snapshot_comes_before_synced_with_what_changed_meanwhile_and_tokens_after() {
        use ChangeType::{Bookmark, Created, Existing, Synced};
        let feed = Feed::new(8);
        let mut watch = watch::<true>(&feed);
        assert_eq!(kinds(&mut watch, 1).await, [Existing]);
        feed.publish(|| 5);
        assert_eq!(kinds(&mut watch, 2).await, [Existing, Existing]);
        let during = watch.next().await.unwrap();
        assert_eq!((during.change, &*during.token), (Created, ""));
        feed.publish(|| 6);
        feed.publish(|| 7);
        let synced = watch.next().await.unwrap();
        assert_eq!(synced.change, Synced);
        assert_eq!(watch.tokens.read(&synced.token).unwrap(), Some(3));
        let after = watch.next().await.unwrap();
        assert_eq!((after.change, after.shown), (Created, Some(7)));
        // Nothing was said for long.
        watch.said_at = Instant::now().checked_sub(QUIET).unwrap();
        assert_eq!(kinds(&mut watch, 1).await, [Bookmark]);
    }

    #[tokio::test]
    async fn a_stream_ends_at_its_age_with_a_place_to_go_on_from() {
        let feed = Feed::new(8);
        let mut watch = watch::<true>(&feed);
        let left = watch.ends_at - Instant::now();
        assert!(left > Duration::from_secs(24 * 60) && left < Duration::from_secs(36 * 60));
        kinds(&mut watch, 4).await;
        feed.publish(|| 1);
        watch.ends_at = Instant::now();
        let last = watch.next().await.unwrap();
        assert!(watch.over && last.change == ChangeType::Bookmark);
        assert_eq!(watch.tokens.read(&last.token).unwrap(), Some(2));
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_of_it_or_sent_away() {
        let feed = Feed::new(2);
        let (mut told, mut sent_away) = (watch::<true>(&feed), watch::<false>(&feed));
        kinds(&mut told, 4).await;
        kinds(&mut sent_away, 4).await;
        (0..4).for_each(|n| feed.publish(|| 2 * n + 1));
        let next = told.next().await.unwrap();
        assert_eq!((next.shown, next.missed), (Some(5), 2));
        assert_eq!(told.next().await.unwrap().missed, 0);
        let over = sent_away.next().await.err().unwrap();
        assert_eq!(over.code(), Code::OutOfRange);
    }

    #[tokio::test]
    async fn what_has_happened_is_told_before_the_control_plane_goes() {
        let feed = Feed::new(8);
        let mut watch = watch::<true>(&feed);
        kinds(&mut watch, 4).await;
        feed.publish(|| 1);
        watch.closing.cancel();
        assert_eq!(kinds(&mut watch, 1).await, [ChangeType::Created]);
        let over = watch.next().await.err().unwrap();
        assert_eq!(over.code(), Code::Unavailable);
    }
}
