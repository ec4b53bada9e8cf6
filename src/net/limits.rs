//! What a listener allows its peers: as written in files and calls, and as obeyed.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::networks;
use crate::config::{Scope, duration, scope_of, size};

/// Which kind of socket a listener has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// `tcp` or `udp`, as metrics and logs have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Descriptors that are not for sessions: our own files, pipes of commands, the control plane.
const RESERVED_DESCRIPTORS: u64 = 1_024;

/// The sessions that so many descriptors carry.
pub fn most_sessions(descriptors: u64) -> usize {
    let carried = descriptors.saturating_sub(RESERVED_DESCRIPTORS.min(descriptors / 2));
    usize::try_from(carried).unwrap_or(usize::MAX)
}

/// The connections to the control plane, and to the HTTP side, that so many descriptors carry:
/// half and an eighth of those that are not for sessions.
pub fn most_connections(descriptors: u64) -> (usize, usize) {
    let reserved = usize::try_from(RESERVED_DESCRIPTORS.min(descriptors / 2)).unwrap_or(usize::MAX);
    (reserved / 2, reserved / 8)
}

/// Limits as asked for; zero or empty means the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sessions at once. Default 10,000.
    pub max_sessions: u32,
    /// Sessions at once from one source address. Default 256 on TCP, 1,024 on UDP.
    pub max_sessions_per_source: u32,
    /// New sessions a second. Default unlimited.
    pub max_accepts_per_second: f64,
    /// Connections that the kernel queues before they are accepted. Default 1,024.
    pub accept_backlog: u32,
    /// How long a session may say nothing while it is owed nothing. Default 5 min.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// How long a session may last. Default for ever.
    #[serde(with = "duration")]
    pub max_session_age: Duration,
    /// Longest message in bytes. Default 64 KiB on TCP, 65,507 on UDP.
    #[serde(with = "size")]
    pub max_message_bytes: u32,
    /// Messages a second from one peer, with a burst of the same size. Default unlimited. A session over TCP is slowed
    /// down to it before it is closed, and those of one source may say ten times as much together; over UDP a peer is a
    /// source address.
    pub max_message_rate: f64,
    /// Datagrams a second from one network, a /24 of IPv4 or a /56 of IPv6, with a burst of twice as many; only where
    /// peers have no sessions. Default 200 from beyond this machine where any network may come in, else unlimited.
    pub max_prefix_rate: f64,
    /// Unsent bytes past which a peer is closed as a slow consumer. Default 256 KiB.
    #[serde(with = "size")]
    pub outbox_bytes: u32,
    /// Networks whose peers may come in; empty means any.
    #[serde(with = "written")]
    pub allow_cidrs: Vec<IpNet>,
}

/// Limits as obeyed: every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Sessions at once.
    pub max_sessions: usize,
    /// Sessions at once from one source.
    pub max_sessions_per_source: usize,
    /// New sessions a second, if limited.
    pub max_accepts_per_second: Option<f64>,
    /// The kernel's accept queue.
    pub accept_backlog: i32,
    /// Longest silence of a session that is owed nothing.
    pub idle_timeout: Duration,
    /// Longest life of a session, if limited.
    pub max_session_age: Option<Duration>,
    /// Longest message.
    pub max_message_bytes: usize,
    /// Messages a second from one peer, if limited.
    pub max_message_rate: Option<f64>,
    /// Datagrams a second from one network whose peers have no sessions, if it was asked for.
    pub max_prefix_rate: Option<f64>,
    /// Longest backlog of unsent bytes.
    pub outbox_bytes: usize,
    /// Networks let in; empty means any.
    pub allow_cidrs: Vec<IpNet>,
}

impl Limits {
    /// Fills in the defaults of `transport`.
    pub fn bounds(&self, transport: Transport) -> Bounds {
        let or = |asked: u32, default: usize| if asked == 0 { default } else { asked as usize };
        let tcp = transport == Transport::Tcp;
        Bounds {
            max_sessions: or(self.max_sessions, 10_000),
            max_sessions_per_source: or(
                self.max_sessions_per_source,
                if tcp { 256 } else { 1_024 },
            ),
            max_accepts_per_second: positive(self.max_accepts_per_second),
            accept_backlog: i32::try_from(or(self.accept_backlog, 1_024)).unwrap_or(i32::MAX),
            idle_timeout: if self.idle_timeout.is_zero() {
                Duration::from_secs(300)
            } else {
                self.idle_timeout
            },
            max_session_age: (!self.max_session_age.is_zero()).then_some(self.max_session_age),
            max_message_bytes: or(
                self.max_message_bytes,
                if tcp { 64 << 10 } else { super::MAX_DATAGRAM },
            ),
            max_message_rate: positive(self.max_message_rate),
            max_prefix_rate: positive(self.max_prefix_rate),
            outbox_bytes: or(self.outbox_bytes, 256 << 10),
            allow_cidrs: self.allow_cidrs.clone(),
        }
    }

    /// The same limits with every default of `transport` written out. What is unlimited stays 0.
    pub fn resolved(&self, transport: Transport) -> Self {
        let bounds = self.bounds(transport);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            max_sessions: count(bounds.max_sessions),
            max_sessions_per_source: count(bounds.max_sessions_per_source),
            max_accepts_per_second: bounds.max_accepts_per_second.unwrap_or_default(),
            accept_backlog: u32::try_from(bounds.accept_backlog).unwrap_or_default(),
            idle_timeout: bounds.idle_timeout,
            max_session_age: bounds.max_session_age.unwrap_or_default(),
            max_message_bytes: count(bounds.max_message_bytes),
            max_message_rate: bounds.max_message_rate.unwrap_or_default(),
            max_prefix_rate: bounds.max_prefix_rate.unwrap_or_default(),
            outbox_bytes: count(bounds.outbox_bytes),
            allow_cidrs: bounds.allow_cidrs,
        }
    }

    /// When a change of each limit takes effect over TCP.
    pub const SCOPES: &[(&str, Scope)] = &[
        ("max_sessions", Scope::NewSessions),
        ("max_sessions_per_source", Scope::NewSessions),
        ("max_accepts_per_second", Scope::NewSessions),
        ("accept_backlog", Scope::Live),
        ("idle_timeout", Scope::Live),
        ("max_session_age", Scope::Live),
        ("max_message_bytes", Scope::NewSessions),
        ("max_message_rate", Scope::NewSessions),
        ("max_prefix_rate", Scope::Live),
        ("outbox_bytes", Scope::NewSessions),
        ("allow_cidrs", Scope::NewSessions),
    ];

    /// When a change of the limit `key` takes effect; `None` when it is none. Datagrams are held
    /// against what is allowed one by one, whoever's session they belong to.
    pub fn scope(transport: Transport, key: &str) -> Option<Scope> {
        match (transport, key) {
            (Transport::Udp, "max_message_bytes" | "max_message_rate" | "allow_cidrs") => {
                Some(Scope::Live)
            }
            _ => scope_of(Self::SCOPES, key),
        }
    }

    /// Every limit that cannot be obeyed: its key and what is wrong with it.
    pub fn check(&self, transport: Transport) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for (key, rate) in [
            ("max_accepts_per_second", self.max_accepts_per_second),
            ("max_message_rate", self.max_message_rate),
            ("max_prefix_rate", self.max_prefix_rate),
        ] {
            if !rate.is_finite() || rate < 0.0 {
                problems.push((
                    key,
                    format!("{rate} is not a rate; a number of 0 or more is (0: as by default)"),
                ));
            }
        }
        if transport == Transport::Udp && self.max_message_bytes as usize > super::MAX_DATAGRAM {
            problems.push((
                "max_message_bytes",
                format!(
                    "{} is more than a datagram carries ({})",
                    self.max_message_bytes,
                    super::MAX_DATAGRAM
                ),
            ));
        }
        if self.max_message_bytes > MESSAGE_CEILING {
            problems.push((
                "max_message_bytes",
                format!(
                    "{} is more than the {MESSAGE_CEILING} bytes that one message may have",
                    self.max_message_bytes
                ),
            ));
        }
        for network in &self.allow_cidrs {
            if network.addr() != network.network() {
                problems.push((
                    "allow_cidrs",
                    format!("{network} has host bits set; {} is meant", network.trunc()),
                ));
            }
        }
        problems
    }
}

/// No message is ever gathered past this: 16 MiB.
const MESSAGE_CEILING: u32 = 16 << 20;

fn positive(rate: f64) -> Option<f64> {
    (rate > 0.0).then_some(rate)
}

mod written {
    use ipnet::IpNet;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(list: &[IpNet], out: S) -> Result<S::Ok, S::Error> {
        list.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
        Vec::<String>::deserialize(from)?
            .iter()
            .map(|text| {
                super::parse_network(text)
                    .map_err(|message| Error::custom(format_args!("{message}")))
            })
            .collect()
    }
}

/// Reads `10.0.0.0/8`, `fd00::/8`, or a bare address, which stands for itself alone. What is written in the IPv6 form
/// of IPv4 is of IPv4.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(networks::canonical)
        .map_err(|_| format!("`{text}` is not a network; `10.0.0.0/8` or `fd00::/8` is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_the_default_of_the_transport() {
        let tcp = Limits::default().bounds(Transport::Tcp);
        let udp = Limits::default().bounds(Transport::Udp);
        assert_eq!(
            (tcp.max_sessions_per_source, udp.max_sessions_per_source),
            (256, 1_024)
        );
        assert_eq!(
            (tcp.max_message_bytes, udp.max_message_bytes),
            (65_536, 65_507)
        );
        assert_eq!(tcp.max_session_age, None);
    }

    #[test]
    fn what_is_written_out_is_obeyed_as_what_was_left_out() {
        let some = Limits {
            max_sessions: 7,
            max_message_rate: 0.5,
            max_session_age: Duration::from_secs(9),
            accept_backlog: u32::MAX,
            ..Limits::default()
        };
        for transport in [Transport::Tcp, Transport::Udp] {
            for limits in [&some, &Limits::default()] {
                let resolved = limits.resolved(transport);
                assert_eq!(resolved.bounds(transport), limits.bounds(transport));
                assert_eq!(resolved.resolved(transport), resolved);
            }
        }
        let resolved = Limits::default().resolved(Transport::Tcp);
        assert_eq!(
            (resolved.max_sessions, resolved.idle_timeout),
            (10_000, Duration::from_secs(300))
        );
    }

    #[test]
    fn every_limit_has_its_scope() {
        let written = serde_json::to_value(Limits::default()).unwrap();
        let keys: Vec<_> = written.as_object().unwrap().keys().collect();
        let rows: Vec<_> = Limits::SCOPES.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, rows);
        let tcp = |key| Limits::scope(Transport::Tcp, key);
        assert_eq!(tcp("max_message_bytes"), Some(Scope::NewSessions));
        assert_eq!(tcp("max_message"), None);
        assert_eq!(
            Limits::scope(Transport::Udp, "max_message_bytes"),
            Some(Scope::Live)
        );
    }

    #[test]
    fn every_wrong_limit_is_named_at_once() {
        let limits = Limits {
            max_message_rate: -1.0,
            max_accepts_per_second: f64::NAN,
            max_message_bytes: 70_000,
            allow_cidrs: vec!["10.1.2.3/8".parse().unwrap()],
            ..Limits::default()
        };
        let keys: Vec<_> = limits
            .check(Transport::Udp)
            .into_iter()
            .map(|p| p.0)
            .collect();
        assert_eq!(
            keys,
            [
                "max_accepts_per_second",
                "max_message_rate",
                "max_message_bytes",
                "allow_cidrs"
            ]
        );
    }

    #[test]
    fn a_network_of_ipv4_is_one_however_it_is_spelled() {
        for (text, meant) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::/0", "::/0"),
            ("fd00::1", "fd00::1/128"),
        ] {
            assert_eq!(parse_network(text).unwrap().to_string(), meant);
        }
        // Half of this is not IPv4, so it is none of its networks; and it is refused for its host bits.
        let wide = Limits {
            allow_cidrs: vec![parse_network("::ffff:0:0/95").unwrap()],
            ..Limits::default()
        };
        assert!(wide.check(Transport::Udp)[0].1.contains("host bits set"));
    }
}
