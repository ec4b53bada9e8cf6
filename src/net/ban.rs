//! Networks that are kept away, as a door looks them up: for every connection, and every datagram.
//!
//! Nobody waits for a change: whoever makes one makes another set, and what a door obeys is exchanged. A look costs one
//! search for each prefix length that occurs, however many networks there are. Time is the wall's, read anew at each
//! look that finds something, so that a ban ends when it should though the clock was set.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

/// Networks, each until a time of its own or for good.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    until: HashMap<IpNet, Option<SystemTime>>,
    /// How many there are of each prefix length: of IPv4, and of IPv6.
    lengths: [BTreeMap<u8, usize>; 2],
}

impl Networks {
    /// Adds a network, or gives it another time. It has no host bits.
    pub fn insert(&mut self, network: IpNet, until: Option<SystemTime>) {
        if self.until.insert(network, until).is_none() {
            let lengths = &mut self.lengths[family(network.addr())];
            *lengths.entry(network.prefix_len()).or_insert(0) += 1;
        }
    }

    /// Takes a network out, if it is in.
    pub fn remove(&mut self, network: &IpNet) {
        if self.until.remove(network).is_none() {
            return;
        }
        let lengths = &mut self.lengths[family(network.addr())];
        if let Some(count) = lengths.get_mut(&network.prefix_len()) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&network.prefix_len());
            }
        }
    }

    /// Whether an address, in canonical form, is in one whose time is not over.
    pub fn hold(&self, source: IpAddr) -> bool {
        let holds = |length: &u8| {
            let network = IpNet::new(source, *length).ok().map(|net| net.trunc());
            let until = network.and_then(|network| self.until.get(&network));
            until.is_some_and(|until| until.is_none_or(|until| SystemTime::now() < until))
        };
        self.lengths[family(source)].keys().any(holds)
    }
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

/// Who is kept away from one listener. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Bans {
    /// What all listeners keep away.
    pub all: Arc<Networks>,
    /// What this one does besides.
    pub own: Arc<Networks>,
}

impl Bans {
    pub(super) fn hold(&self, source: IpAddr) -> bool {
        self.all.hold(source) || self.own.hold(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    fn networks(list: &[&str]) -> Networks {
        let mut networks = Networks::default();
        for text in list {
            networks.insert(text.parse().unwrap(), None);
        }
        networks
    }

    #[test]
    fn a_network_holds_its_own_and_no_other_family() {
        let networks = networks(&["10.0.0.0/8", "192.0.2.7/32", "fd00::/8", "0.0.0.0/32"]);
        for (source, held) in [
            ("10.255.0.1", true),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("fd12::1", true),
            ("fe80::1", false),
            ("::", false),
        ] {
            assert_eq!(networks.hold(source.parse().unwrap()), held, "{source}");
        }
        let every = super::tests::networks(&["0.0.0.0/0"]);
        assert!(every.hold([203, 0, 113, 9].into()) && !every.hold("::1".parse().unwrap()));
    }

    #[test]
    fn what_is_over_holds_nothing_and_hides_nothing() {
        let now = SystemTime::now();
        let mut networks = networks(&["10.0.0.0/8"]);
        let inner: IpNet = "10.1.0.0/16".parse().unwrap();
        let source = IpAddr::from([10, 1, 0, 1]);
        networks.insert(inner, Some(now - Duration::from_secs(1)));
        assert!(networks.hold(source));
        networks.remove(&"10.0.0.0/8".parse().unwrap());
        assert!(!networks.hold(source));
        networks.insert(inner, Some(now + Duration::from_secs(3_600)));
        assert!(networks.hold(source));
        networks.remove(&inner);
        networks.remove(&inner);
        assert!(!networks.hold(source) && networks.lengths.iter().all(BTreeMap::is_empty));
    }

    /// The shortest time of five.
    fn best(look: impl Fn(IpAddr) -> bool) -> Duration {
        let round = || {
            let began = Instant::now();
            let sources = (0..100_u32).map(|n| IpAddr::from((u32::MAX - n * 1_000).to_be_bytes()));
            assert_eq!(sources.filter(|source| look(*source)).count(), 0);
            began.elapsed()
        };
        (0..5).map(|_| round()).min().unwrap()
    }

    #[test]
    fn ten_thousand_of_all_lengths_are_no_walk() {
        let network = |n: u32| {
            let length = 9 + u8::try_from(n % 24).unwrap();
            let address = IpAddr::from((n << 12).to_be_bytes());
            IpNet::new(address, length).unwrap().trunc()
        };
        let all: Vec<IpNet> = (0..10_000).map(network).collect();
        let mut networks = Networks::default();
        all.iter()
            .for_each(|network| networks.insert(*network, None));
        let walk = best(|source| all.iter().any(|network| network.contains(&source)));
        let look = best(|source| networks.hold(source));
        assert!(look * 3 < walk, "{look:?} for 100, and by a walk {walk:?}");
    }

    proptest! {
        #[test]
        fn the_same_as_asking_each_network(
            list in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..40),
            sources in prop::collection::vec(any::<u32>(), 1..20),
        ) {
            let list: Vec<_> = list
                .iter()
                .map(|(bits, length)| IpNet::new(IpAddr::from(bits.to_be_bytes()), *length).unwrap().trunc())
                .collect();
            let mut networks = Networks::default();
            list.iter().for_each(|network| networks.insert(*network, None));
            // Half of the sources are near the networks.
            let near = list.iter().map(|network| network.addr());
            for source in sources.iter().map(|bits| IpAddr::from(bits.to_be_bytes())).chain(near) {
                let held = list.iter().any(|network| network.contains(&source));
                prop_assert_eq!(networks.hold(source), held);
            }
        }
    }
}
