//! What a listener needs from the protocol that it speaks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::close::CloseReason;
use super::datagram::Batch;
use super::door::Door;
use super::session::Session;
use super::stream::Stream;
use super::udp::PeerSocket;

/// A future that a handler returns for one session.
pub type Serving<'a> = Pin<Box<dyn Future<Output = CloseReason> + Send + 'a>>;

/// A running protocol over TCP: serves one session at a time, each in its own task.
pub trait StreamHandler: Send + Sync {
    /// Serves one session until it ends, and says why. Returns soon after the session is asked to
    /// end, and at once after it is cut.
    fn serve<'a>(&'a self, stream: &'a mut Stream) -> Serving<'a>;

    /// What a peer is told that comes while nobody is served, as its framing has it.
    fn unavailable(&self) -> Bytes;

    /// The shortest time that passes until [`tick`](Self::tick) has something to notice of what comes up now.
    fn beat(&self) -> Option<Duration> {
        None
    }

    /// When [`tick`](Self::tick) has something to notice, as far as that is known now.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Looks at what has waited too long.
    fn tick(&self, _now: Instant) {}
}

/// The same to every peer, whatever it speaks.
pub const UNAVAILABLE: &str = "unavailable: nobody is let in now; try again later";

/// A running protocol over UDP: answers a batch of datagrams at a time.
pub trait DatagramHandler: Send + Sync {
    /// Takes every datagram of the batch; must not block.
    fn batch(&self, door: &Arc<Door>, batch: &mut Batch<'_>);

    /// Whether its peers have sessions. Those go on while their listener is paused; who has none is always a new peer.
    fn has_sessions(&self) -> bool {
        false
    }

    /// A session of this door has been asked to end; UDP sessions have no task of their own.
    fn asked(&self, _door: &Door, _session: &Arc<Session>) {}

    /// A socket of this door is about to be read: whoever is to be answered from it, though they came to an earlier one,
    /// gets a session.
    fn open(&self, _door: &Arc<Door>, _way: &PeerSocket) {}

    /// As [`StreamHandler::beat`].
    fn beat(&self) -> Option<Duration> {
        None
    }

    /// As [`StreamHandler::due`].
    fn due(&self) -> Option<Instant> {
        None
    }

    /// As [`StreamHandler::tick`].
    fn tick(&self, _now: Instant) {}
}

/// A running protocol. Which socket kind it wants is its own decision.
#[derive(Clone)]
pub enum Handler {
    /// Over TCP.
    Stream(Arc<dyn StreamHandler>),
    /// Over UDP.
    Datagram(Arc<dyn DatagramHandler>),
}

impl Handler {
    pub(super) fn beat(&self) -> Option<Duration> {
        match self {
            Self::Stream(handler) => handler.beat(),
            Self::Datagram(handler) => handler.beat(),
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Stream(handler) => handler.due(),
            Self::Datagram(handler) => handler.due(),
        }
    }

    pub(super) fn tick(&self, now: Instant) {
        match self {
            Self::Stream(handler) => handler.tick(now),
            Self::Datagram(handler) => handler.tick(now),
        }
    }
}
