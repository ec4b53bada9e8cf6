//! Datagrams that are not answered because of where they come from: whoever forges the address of somebody that answers
//! everything would have the two answer each other for ever (CVE-2024-2169).
//!
//! Such are the ports of services, and every UDP socket of ours. Whether a port is one of ours is one bit to look at,
//! and only where it is, is the address looked for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::door::canonical;

/// Ports below this are services': nobody who asks something has one, unless it is a service itself.
const FIRST_OF_CLIENTS: u16 = 1024;

/// A bit for each port that a UDP socket of ours is bound to.
static PORTS: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

/// What those sockets are bound to, in canonical form.
static OWN: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());

/// The place of one UDP socket of ours, known as such until it is dropped.
#[derive(Debug)]
pub(super) struct Place(SocketAddr);

impl Place {
    pub(super) fn of(bound: SocketAddr) -> Self {
        let place = Self(canonical(bound));
        let mut own = super::lock(&OWN);
        own.push(place.0);
        let (word, bit) = at(place.0.port());
        PORTS[word].fetch_or(bit, Release);
        place
    }

    /// Where it is bound.
    pub(super) fn address(&self) -> SocketAddr {
        self.0
    }

    /// Whether peers may come from beyond this machine.
    pub(super) fn is_public(&self) -> bool {
        !self.0.ip().is_loopback()
    }

    /// Whether a datagram of `peer` (canonical), which was sent to `asked` of ours, may be answered; else the word for
    /// why not.
    pub(super) fn answers(
        &self,
        peer: SocketAddr,
        asked: impl FnOnce() -> IpAddr,
    ) -> Result<(), &'static str> {
        if self.is_public() && peer.port() < FIRST_OF_CLIENTS {
            return Err("low_source_port");
        }
        let (word, bit) = at(peer.port());
        let own = PORTS[word].load(Acquire) & bit != 0
            && is_own(&super::lock(&OWN), peer, asked().to_canonical());
        if own { Err("own_address") } else { Ok(()) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut own = super::lock(&OWN);
        if let Some(index) = own.iter().position(|place| *place == self.0) {
            own.swap_remove(index);
        }
        if own.iter().all(|place| place.port() != self.0.port()) {
            let (word, bit) = at(self.0.port());
            PORTS[word].fetch_and(!bit, Release);
        }
    }
}

fn at(port: u16) -> (usize, u64) {
    (usize::from(port / 64), 1 << (port % 64))
}

/// Whether `peer` is one of the sockets `own`, as far as an address tells. A socket on a wildcard has every address of
/// this machine: those of loopback, and certainly the one that was `asked`. All are in canonical form.
fn is_own(own: &[SocketAddr], peer: SocketAddr, asked: IpAddr) -> bool {
    own.iter().any(|place| {
        let every = place.ip().is_unspecified() && place.is_ipv4() == peer.is_ipv4();
        let here = || peer.ip().is_loopback() || peer.ip() == asked;
        place.port() == peer.port() && (place.ip() == peer.ip() || every && here())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_sockets_are_told_from_their_neighbours() {
        let own = ["127.0.0.1:700", "0.0.0.0:701", "[::]:702", "192.0.2.1:703"];
        let own = own.map(|place| place.parse().unwrap());
        for (peer, asked, is) in [
            ("127.0.0.1:700", "127.0.0.1", true),
            ("127.0.0.2:700", "127.0.0.1", false),
            ("127.0.0.1:699", "127.0.0.1", false),
            ("127.0.0.9:701", "127.0.0.1", true),
            ("192.0.2.1:701", "192.0.2.1", true),
            ("192.0.2.2:701", "192.0.2.1", false),
            ("[::1]:701", "::1", false),
            ("[::1]:702", "::1", true),
            ("127.0.0.1:702", "127.0.0.1", false),
            ("[2001:db8::1]:702", "2001:db8::1", true),
            ("[2001:db8::2]:702", "2001:db8::1", false),
            ("192.0.2.1:703", "192.0.2.2", true),
            ("192.0.2.2:703", "192.0.2.2", false),
        ] {
            let (peer, asked) = (peer.parse().unwrap(), asked.parse().unwrap());
            assert_eq!(is_own(&own, peer, asked), is, "{peer} asks {asked}");
        }
    }

    #[test]
    fn a_socket_is_ours_for_as_long_as_it_is_there() {
        // Of a network that no test has a socket in.
        let address: SocketAddr = "198.51.100.7:50123".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:198.51.100.7]:50123".parse().unwrap();
        let other = Place::of("198.51.100.8:50124".parse().unwrap());
        let answers = || other.answers(address, || address.ip());
        assert_eq!(answers(), Ok(()));
        // Two may share it: one for each core.
        let both = [Place::of(address), Place::of(mapped)];
        assert_eq!(answers(), Err("own_address"));
        let [first, second] = both;
        drop(first);
        assert_eq!(answers(), Err("own_address"));
        drop(second);
        assert_eq!(answers(), Ok(()));
    }

    #[test]
    fn services_get_no_answer_from_a_public_place() {
        let local = Place::of("127.0.0.77:50125".parse().unwrap());
        let public = Place::of("198.51.100.9:50126".parse().unwrap());
        for (port, word) in [
            (0, Err("low_source_port")),
            (53, Err("low_source_port")),
            (1_023, Err("low_source_port")),
            (1_024, Ok(())),
            (u16::MAX, Ok(())),
        ] {
            let peer = SocketAddr::from(([203, 0, 113, 1], port));
            assert_eq!(public.answers(peer, || peer.ip()), word, "{port}");
            assert_eq!(local.answers(peer, || peer.ip()), Ok(()), "{port}");
        }
    }
}
