//! What a running listener obeys: its bounds and its protocol, exchanged as one while it runs.
//!
//! Nothing on a hot path waits for an exchange: a TCP session takes the terms that it will keep when
//! it opens, datagrams are taken a batch at a time and clocks a sweep at a time.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::datagram::Datagram;
use super::handler::Handler;
use super::limits::Bounds;
use super::networks::{Bans, Networks};
use super::rate::{Rate, RateKey, RateTable, TokenBucket};

/// What a listener obeys, until it is exchanged.
pub struct Terms {
    /// What is allowed.
    pub bounds: Bounds,
    /// The running protocol.
    pub handler: Handler,
    /// The networks that may come in; any, where there are none.
    allowed: Option<Arc<Networks>>,
    /// The rate of new sessions.
    accepts: Option<Arc<TokenBucket>>,
    /// Rates of source addresses: of all that each sends over UDP, and of all its sessions together over TCP.
    peers: Option<Arc<RateTable>>,
    /// Rates of their networks.
    prefixes: Option<Arc<PrefixRates>>,
}

/// As many sessions of one source address may speak at their full rate at once: many people come from one address,
/// but whoever opens a session more for each message that it was not let say is one.
const SESSIONS_OF_SOURCE: f64 = 10.0;

/// What each network of peers without sessions may send: any of them may forge the addresses of all the others.
struct PrefixRates {
    table: RateTable,
    /// Whether it holds for loopback too, whose addresses nobody forges from outside.
    everywhere: bool,
}

/// Datagrams a second from one network that a listener open to all answers, unless told otherwise: enough for whoever
/// asks, and nothing to reflect.
const OPEN_PREFIX_RATE: f64 = 200.0;

/// Clocks are not looked at more often, nor less.
const SHORTEST_SWEEP: Duration = Duration::from_millis(10);
const LONGEST_SWEEP: Duration = Duration::from_secs(1);

impl PrefixRates {
    fn of(bounds: &Bounds) -> Option<Self> {
        let open = || bounds.allow_cidrs.is_empty().then_some(OPEN_PREFIX_RATE);
        let rate = bounds.max_prefix_rate.or_else(open)?;
        Some(Self {
            table: RateTable::new(Rate::with_burst(rate, 2.0 * rate)),
            everywhere: bounds.max_prefix_rate.is_some(),
        })
    }

    fn take(&self, peer: IpAddr, public: bool, now: Instant) -> bool {
        let spared = !self.everywhere && (!public || peer.is_loopback());
        spared || self.table.take(RateKey::network(peer), now)
    }

    fn is_as(&self, other: &Self) -> bool {
        (self.table.rate(), self.everywhere) == (other.table.rate(), other.everywhere)
    }
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
        let sessionless = match &handler {
            Handler::Stream(_) => false,
            Handler::Datagram(handler) => !handler.has_sessions(),
        };
        let same = |what: fn(&Bounds) -> Option<f64>| {
            before.filter(|old| what(&old.bounds) == what(&bounds))
        };
        let accepts = match same(|bounds| bounds.max_accepts_per_second) {
            Some(old) => old.accepts.clone(),
            None => bounds
                .max_accepts_per_second
                .map(|rate| Arc::new(TokenBucket::new(Rate::new(rate)))),
        };
        let peers = match same(|bounds| bounds.max_message_rate) {
            Some(old) => old.peers.clone(),
            None => bounds
                .max_message_rate
                .map(|rate| match handler {
                    Handler::Stream(_) => rate * SESSIONS_OF_SOURCE,
                    Handler::Datagram(_) => rate,
                })
                .map(|rate| Arc::new(RateTable::new(Rate::new(rate)))),
        };
        let prefixes = PrefixRates::of(&bounds).filter(|_| sessionless);
        let former = before.and_then(|old| old.prefixes.clone());
        let prefixes = prefixes.map(|new| {
            former
                .filter(|old| old.is_as(&new))
                .unwrap_or_else(|| Arc::new(new))
        });
        let networks = &bounds.allow_cidrs;
        let allowed = match before.filter(|old| old.bounds.allow_cidrs == *networks) {
            Some(old) => old.allowed.clone(),
            None => (!networks.is_empty()).then(|| Arc::new(networks.iter().copied().collect())),
        };
        Self {
            bounds,
            handler,
            allowed,
            accepts,
            peers,
            prefixes,
        }
    }

    /// Whether anybody may come from this address; else the word for why not.
    pub(super) fn welcome(&self, bans: &Bans, source: IpAddr) -> Result<(), &'static str> {
        if bans.hold(source) {
            return Err("banned");
        }
        match &self.allowed {
            Some(networks) if !networks.hold(source) => Err("denied"),
            _ => Ok(()),
        }
    }

    /// Whether a peer may come in now, as far as its address and the rate say; else the limit's
    /// word.
    pub(super) fn permit(&self, bans: &Bans, peer: IpAddr) -> Result<(), &'static str> {
        self.welcome(bans, peer)?;
        match &self.accepts {
            Some(bucket) if !bucket.take(Instant::now()) => Err("accept_rate"),
            _ => Ok(()),
        }
    }

    /// Whether a datagram may reach its protocol, by its size and the rates of its sender and the sender's network; else
    /// the limit's word. It came to a public place, or none.
    pub(super) fn pass(
        &self,
        datagram: &Datagram<'_>,
        public: bool,
        now: Instant,
    ) -> Result<(), &'static str> {
        if datagram.data.len() > self.bounds.max_message_bytes {
            return Err("message_too_large");
        }
        let source = datagram.peer.ip();
        // Its own first: what one sends too fast is not taken from the others of its network.
        if let Some(rates) = &self.peers
            && !rates.take(RateKey::address(source), now)
        {
            return Err("rate_limited");
        }
        match &self.prefixes {
            Some(rates) if !rates.take(source, public, now) => Err("prefix_rate_limited"),
            _ => Ok(()),
        }
    }

    /// Whether one more message over TCP is within the rate of its source address.
    pub(super) fn takes_from(&self, source: IpAddr, now: Instant) -> bool {
        let within = |rates: &Arc<RateTable>| rates.take(RateKey::address(source), now);
        self.peers.as_ref().is_none_or(within)
    }

    /// Whether peers of the protocol have sessions.
    pub(super) fn has_sessions(&self) -> bool {
        match &self.handler {
            Handler::Stream(_) => true,
            Handler::Datagram(handler) => handler.has_sessions(),
        }
    }

    /// How long until clocks are looked at again: a tenth of the shortest time that must be noticed, from 10 ms to 1 s, or
    /// less when the protocol has something due.
    pub(super) fn sweep_interval(&self) -> Duration {
        let age = self.bounds.max_session_age.unwrap_or(Duration::MAX);
        let shortest = self.bounds.idle_timeout.min(age) / 10;
        // What is due by now; what comes up later is so after a beat at the soonest.
        let due = self.handler.due();
        let due = due.map(|due| due.saturating_duration_since(Instant::now()));
        let beats = due.into_iter().chain(self.handler.beat());
        let interval = beats.fold(shortest, Duration::min);
        interval.clamp(SHORTEST_SWEEP, LONGEST_SWEEP)
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::{Limits, Transport};
    use super::*;

    fn rates(limits: &Limits) -> Option<PrefixRates> {
        PrefixRates::of(&limits.bounds(Transport::Udp))
    }

    /// How many of a thousand datagrams that come at once from a network get through.
    fn passed(rates: &PrefixRates, public: bool, network: [u8; 3]) -> usize {
        let (now, [a, b, c]) = (Instant::now(), network);
        let peers = (0..1_000_u32).map(|n| IpAddr::from([a, b, c, n as u8]));
        peers.filter(|peer| rates.take(*peer, public, now)).count()
    }

    #[test]
    fn a_place_that_is_open_to_all_answers_each_network_so_much() {
        let open = rates(&Limits::default()).unwrap();
        assert_eq!(passed(&open, false, [192, 0, 2]), 1_000);
        assert_eq!(passed(&open, true, [127, 0, 0]), 1_000);
        assert_eq!(passed(&open, true, [192, 0, 2]), 400);
        assert_eq!(passed(&open, true, [192, 0, 3]), 400);
        let chosen = Limits {
            allow_cidrs: vec!["192.0.2.0/24".parse().unwrap()],
            ..Limits::default()
        };
        assert!(rates(&chosen).is_none());
        let asked = Limits {
            max_prefix_rate: 50.0,
            ..chosen
        };
        let asked = rates(&asked).unwrap();
        assert_eq!(passed(&asked, true, [192, 0, 2]), 100);
        assert_eq!(passed(&asked, false, [127, 0, 0]), 100);
    }
}
