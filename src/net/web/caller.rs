//! Who makes a request, and how that connection behaves.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::net::{Rate, TokenBucket};

/// Requests a second that one connection may make, with a burst of as many: twice what a client
/// reaches that asks one behind the other (10,000 were measured).
const REQUESTS: f64 = 20_000.0;

/// Requests a second that it may take back before they are answered, with a burst of as many.
/// Whoever asks only to hang up costs work that nobody wants.
const TAKEN_BACK: f64 = 500.0;

/// Who makes a request; every request has it among its extensions.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Conduct>);

#[derive(Debug)]
struct Conduct {
    origin: Origin,
    /// Calls begun, and those of them whose answer has not wholly left.
    begun: AtomicU64,
    underway: AtomicUsize,
    requests: TokenBucket,
    taken_back: TokenBucket,
    /// Cancelled when it has taken back too many.
    unwanted: CancellationToken,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The network.
    Tcp(SocketAddr),
    /// A process of this machine, as the kernel vouches.
    Unix {
        /// Its effective user.
        uid: u32,
        /// Its id, where that can be told.
        pid: Option<i32>,
    },
}

/// What connections, and what they ask for, are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// An address of the network.
    Address(IpAddr),
    /// A user of this machine.
    User(u32),
}

impl Origin {
    pub(super) fn source(self) -> Source {
        match self {
            Self::Tcp(peer) => Source::Address(peer.ip().to_canonical()),
            Self::Unix { uid, .. } => Source::User(uid),
        }
    }
}

/// `127.0.0.1:40312`, or `unix:uid=1000,pid=4711`.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.origin {
            Origin::Tcp(peer) => peer.fmt(f),
            Origin::Unix { uid, pid: None } => write!(f, "unix:uid={uid}"),
            Origin::Unix {
                uid,
                pid: Some(pid),
            } => write!(f, "unix:uid={uid},pid={pid}"),
        }
    }
}

impl Caller {
    pub(super) fn new(origin: Origin) -> Self {
        Self(Arc::new(Conduct {
            origin,
            begun: AtomicU64::new(0),
            underway: AtomicUsize::new(0),
            requests: TokenBucket::new(Rate::new(REQUESTS)),
            taken_back: TokenBucket::new(Rate::new(TAKEN_BACK)),
            unwanted: CancellationToken::new(),
        }))
    }

    /// Who it is, whichever connection it comes over.
    pub fn source(&self) -> Source {
        self.0.origin.source()
    }

    /// Whether this connection asks no faster than it may. To be asked once a request, before any
    /// work is done for it.
    pub fn may_ask(&self) -> bool {
        self.0.requests.take(Instant::now())
    }

    /// A call begins.
    pub(super) fn begin(&self) -> Underway {
        self.0.begun.fetch_add(1, Relaxed);
        self.0.underway.fetch_add(1, Relaxed);
        Underway {
            caller: self.clone(),
            answered: false,
        }
    }

    /// Once it has taken back more calls than it may.
    pub(super) async fn unwanted(&self) {
        self.0.unwanted.cancelled().await;
    }

    /// Once there has been no call for so long, and at most twice that.
    pub(super) async fn lull(&self, quiet: Duration) {
        loop {
            let begun = self.0.begun.load(Relaxed);
            tokio::time::sleep(quiet).await;
            if self.0.underway.load(Relaxed) == 0 && self.0.begun.load(Relaxed) == begun {
                return;
            }
        }
    }
}

/// A call, from its first byte until its answer has left.
#[derive(Debug)]
pub(super) struct Underway {
    caller: Caller,
    answered: bool,
}

impl Underway {
    pub(super) fn answered(mut self) -> Self {
        self.answered = true;
        self
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let conduct = &self.caller.0;
        conduct.underway.fetch_sub(1, Relaxed);
        if !self.answered && !conduct.taken_back.take(Instant::now()) {
            conduct.unwanted.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix() -> Caller {
        Caller::new(Origin::Unix {
            uid: 1000,
            pid: Some(7),
        })
    }

    #[test]
    fn callers_are_named() {
        assert_eq!(unix().to_string(), "unix:uid=1000,pid=7");
        let peer = ([127, 0, 0, 1], 9).into();
        assert_eq!(Caller::new(Origin::Tcp(peer)).to_string(), "127.0.0.1:9");
    }

    #[test]
    fn a_burst_is_answered_and_a_flood_is_not() {
        let caller = unix();
        let asked = (0..200_000).filter(|_| caller.may_ask()).count();
        assert!((20_000..100_000).contains(&asked), "{asked}");
    }

    #[test]
    fn who_takes_back_what_it_asks_is_shown_out() {
        let caller = unix();
        (0..10_000).for_each(|_| drop(caller.begin().answered()));
        assert!(!caller.0.unwanted.is_cancelled());
        (0..10_000).for_each(|_| drop(caller.begin()));
        assert!(caller.0.unwanted.is_cancelled());
    }

    #[tokio::test]
    async fn a_lull_begins_behind_the_last_call() {
        let caller = unix();
        let call = caller.begin();
        let quiet = Duration::from_millis(5);
        let early = tokio::time::timeout(quiet * 10, caller.lull(quiet)).await;
        assert!(early.is_err());
        drop(call.answered());
        caller.lull(quiet).await;
    }
}
