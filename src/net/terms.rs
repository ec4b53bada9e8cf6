//! What a running listener obeys: its bounds and its protocol, exchanged as one while it runs.
//!
//! Nothing on a hot path waits for an exchange: a TCP session takes the terms that it will keep when
//! it opens, datagrams are taken a batch at a time and clocks a sweep at a time.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::ban::Bans;
use super::datagram::Datagram;
use super::handler::Handler;
use super::limits::Bounds;
use super::rate::{RateTable, TokenBucket};

/// What a listener obeys, until it is exchanged.
pub struct Terms {
    /// What is allowed.
    pub bounds: Bounds,
    /// The running protocol.
    pub handler: Handler,
    /// The rate of new sessions.
    accepts: Option<Arc<Mutex<TokenBucket>>>,
    /// Rates of peers without a session.
    peers: Option<Arc<RateTable>>,
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl Terms {
    /// Terms that follow those `before`: a rate that stays goes on where it was, for else every
    /// change of anything would give each peer a new burst.
    pub(super) fn new(bounds: Bounds, handler: Handler, before: Option<&Self>) -> Self {
        let peerless = matches!(handler, Handler::Datagram(_));
        let accepts = match before {
            Some(old) if old.bounds.max_accepts_per_second == bounds.max_accepts_per_second => {
                old.accepts.clone()
            }
            _ => bounds
                .max_accepts_per_second
                .map(|rate| Arc::new(Mutex::new(TokenBucket::new(rate, Instant::now())))),
        };
        let peers = match before {
            Some(old) if old.bounds.max_message_rate == bounds.max_message_rate => {
                old.peers.clone()
            }
            _ => bounds
                .max_message_rate
                .filter(|_| peerless)
                .map(|rate| Arc::new(RateTable::new(rate))),
        };
        Self {
            bounds,
            handler,
            accepts,
            peers,
        }
    }

    /// Whether anybody may come from this address; else the word for why not.
    pub(super) fn welcome(&self, bans: &Bans, source: IpAddr) -> Result<(), &'static str> {
        if bans.hold(source) {
            return Err("banned");
        }
        if !self.bounds.allows(source) {
            return Err("denied");
        }
        Ok(())
    }

    /// Whether a peer may come in now, as far as its address and the rate say; else the limit's
    /// word.
    pub(super) fn permit(&self, bans: &Bans, peer: IpAddr) -> Result<(), &'static str> {
        self.welcome(bans, peer)?;
        match &self.accepts {
            Some(bucket) if !super::lock(bucket).take(Instant::now()) => Err("accept_rate"),
            _ => Ok(()),
        }
    }

    /// Whether a datagram may reach its protocol, by its size and its sender's rate; else the limit's word.
    pub(super) fn pass(&self, datagram: &Datagram<'_>, now: Instant) -> Result<(), &'static str> {
        if datagram.data.len() > self.bounds.max_message_bytes {
            return Err("message_too_large");
        }
        match &self.peers {
            Some(rates) if !rates.take(datagram.peer.ip(), now) => Err("rate_limited"),
            _ => Ok(()),
        }
    }

    /// Whether peers of the protocol have sessions.
    pub(super) fn has_sessions(&self) -> bool {
        match &self.handler {
            Handler::Stream(_) => true,
            Handler::Datagram(handler) => handler.has_sessions(),
        }
    }

    /// How often clocks are looked at: a tenth of the shortest time that must be noticed, from
    /// 10 ms to 1 s.
    pub(super) fn sweep_interval(&self) -> Duration {
        let age = self.bounds.max_session_age.unwrap_or(Duration::MAX);
        let beat = self.handler.beat().unwrap_or(Duration::MAX);
        let shortest = self.bounds.idle_timeout.min(age).min(beat);
        (shortest / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}
