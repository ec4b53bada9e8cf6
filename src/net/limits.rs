//! What a listener allows its peers: as written in files and calls, and as obeyed.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

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
    /// Messages a second from one peer, with a burst of the same size. Default unlimited.
    pub max_message_rate: f64,
    /// Unsent bytes past which a peer is closed as a slow consumer. Default 256 KiB.
    #[serde(with = "size")]
    pub outbox_bytes: u32,
    /// Networks whose peers may come in; empty means any.
    #[serde(with = "networks")]
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
        ] {
            if !rate.is_finite() || rate < 0.0 {
                problems.push((
                    key,
                    format!("{rate} is not a rate; a number of 0 or more is (0: unlimited)"),
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

impl Bounds {
    /// Whether a peer of this (canonical) address may come in.
    pub fn allows(&self, source: IpAddr) -> bool {
        self.allow_cidrs.is_empty() || self.allow_cidrs.iter().any(|n| n.contains(&source))
    }
}

mod networks {
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

/// Reads `10.0.0.0/8`, `fd00::/8`, or a bare address, which stands for itself alone.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
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
    fn an_allow_list_lets_in_its_networks_alone() {
        let limits = Limits {
            allow_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..Limits::default()
        };
        let bounds = limits.bounds(Transport::Tcp);
        assert!(bounds.allows([10, 9, 8, 7].into()));
        assert!(!bounds.allows([11, 9, 8, 7].into()));
        assert!(bounds.allows("fd12::1".parse().unwrap()));
    }
}
