//! Networks that are let in or kept away, as a door looks them up: for every connection, and every datagram.
//!
//! Nobody waits for a change: whoever makes one makes another set, and what a door obeys is exchanged. A look costs one
//! search for each prefix length that occurs, however many networks there are. Time is the wall's, read anew at each
//! look that finds something, so that a ban ends when it should though the clock was set.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::{IpNet, Ipv4Net};

/// Networks, each until a time of its own or for good.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    /// Of IPv4, and of IPv6.
    families: [Vec<OfOneLength>; 2],
}

/// Networks of one prefix length, by their first address.
#[derive(Debug, Clone)]
struct OfOneLength {
    mask: u128,
    until: HashMap<u128, Option<SystemTime>>,
}

impl Networks {
    /// Adds a network, or gives it another time. It has no host bits, and is in canonical form.
    pub fn insert(&mut self, network: IpNet, until: Option<SystemTime>) {
        let (family, bits) = place(network.addr());
        let (lengths, mask) = (&mut self.families[family], mask(network));
        let known = lengths.iter().position(|of| of.mask == mask);
        let index = known.unwrap_or_else(|| {
            lengths.push(OfOneLength {
                mask,
                until: HashMap::new(),
            });
            lengths.len() - 1
        });
        lengths[index].until.insert(bits, until);
    }

    /// Takes a network out, if it is in.
    pub fn remove(&mut self, network: &IpNet) {
        let (family, bits) = place(network.addr());
        let (lengths, mask) = (&mut self.families[family], mask(*network));
        if let Some(of) = lengths.iter_mut().find(|of| of.mask == mask) {
            of.until.remove(&bits);
        }
        lengths.retain(|of| !of.until.is_empty());
    }

    /// Whether an address, in canonical form, is in one whose time is not over.
    pub fn hold(&self, source: IpAddr) -> bool {
        let (family, bits) = place(source);
        self.families[family].iter().any(|of| {
            let until = of.until.get(&(bits & of.mask));
            until.is_some_and(|until| until.is_none_or(|until| SystemTime::now() < until))
        })
    }
}

impl FromIterator<IpNet> for Networks {
    /// All of them, for good.
    fn from_iter<I: IntoIterator<Item = IpNet>>(list: I) -> Self {
        let mut networks = Self::default();
        list.into_iter()
            .for_each(|network| networks.insert(network, None));
        networks
    }
}

/// The family, and the address from the highest bit on.
fn place(address: IpAddr) -> (usize, u128) {
    match address {
        IpAddr::V4(v4) => (0, u128::from(v4.to_bits()) << 96),
        IpAddr::V6(v6) => (1, v6.to_bits()),
    }
}

fn mask(network: IpNet) -> u128 {
    let rest = 128 - u32::from(network.prefix_len());
    u128::MAX.checked_shl(rest).unwrap_or_default()
}

/// A network of IPv4 that is written as one of IPv6 (`::ffff:10.0.0.0/104`) is the one of IPv4, as its addresses are.
pub(super) fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let v4 = v6.addr().to_ipv4_mapped();
    let length = v6.prefix_len().checked_sub(96);
    let v4 = v4
        .zip(length)
        .and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    v4.map_or(network, IpNet::V4)
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
        list.iter()
            .map(|text| text.parse::<IpNet>().unwrap())
            .collect()
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
        assert!(!networks.hold(source) && networks.families.iter().all(Vec::is_empty));
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
        let networks: Networks = all.iter().copied().collect();
        let walk = best(|source| all.iter().any(|network| network.contains(&source)));
        let look = best(|source| networks.hold(source));
        assert!(look * 3 < walk, "{look:?} for 100, and by a walk {walk:?}");
    }

    /// An address as the kernel may have it: of IPv4 as such, or as one of IPv6.
    fn spelled(address: IpAddr, mapped: bool) -> IpAddr {
        match address {
            IpAddr::V4(v4) if mapped => v4.to_ipv6_mapped().into(),
            other => other,
        }
    }

    /// A network of either family; few of the bits vary, so that many are within each other.
    fn network() -> impl Strategy<Value = (IpNet, bool)> {
        let v4 =
            (any::<[bool; 32]>(), 0_u8..=32, any::<bool>()).prop_map(|(bits, length, mapped)| {
                let address = bits
                    .iter()
                    .fold(0_u32, |all, bit| all << 1 | u32::from(*bit))
                    & 0xf000_0f03;
                (
                    IpNet::new(IpAddr::from(address.to_be_bytes()), length)
                        .unwrap()
                        .trunc(),
                    mapped,
                )
            });
        let v6 = (any::<u128>(), 0_u8..=128).prop_map(|(bits, length)| {
            let address = bits & (0xf000 << 112 | 0xff << 64 | 3);
            (
                IpNet::new(IpAddr::from(address.to_be_bytes()), length)
                    .unwrap()
                    .trunc(),
                false,
            )
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn the_same_as_asking_each_network_however_it_and_the_peer_are_spelled(
            list in prop::collection::vec(network(), 0..40),
            sources in prop::collection::vec((network(), any::<bool>()), 1..40),
        ) {
            let written = list.iter().map(|(network, mapped)| {
                let address = spelled(network.addr(), *mapped);
                let more = if address.is_ipv4() == network.addr().is_ipv4() { 0 } else { 96 };
                IpNet::new(address, network.prefix_len() + more).unwrap()
            });
            let networks: Networks = written.map(canonical).collect();
            for ((near, _), mapped) in sources {
                let source = spelled(near.addr(), mapped);
                let held = list.iter().any(|(network, _)| network.contains(&near.addr()));
                prop_assert_eq!(networks.hold(source.to_canonical()), held);
            }
        }
    }
}
