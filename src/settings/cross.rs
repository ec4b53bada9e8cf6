//! What can only be checked across listeners, and what a host does not carry.

use super::Settings;
use crate::grpc::Warning;
use crate::net::{Address, Transport};
use crate::supervisor::{Desired, lowered};

/// A key whose address cannot be had beside another's.
pub(super) struct Clash {
    /// The later of the two.
    pub(super) key: String,
    /// The earlier.
    pub(super) other: String,
    pub(super) address: Address,
}

impl Clash {
    pub(super) fn message(&self) -> String {
        let Self { address, other, .. } = self;
        format!(
            "{address} overlaps with {other}; every socket needs an address or a port of its own"
        )
    }
}

/// Addresses that exclude each other, among what serves.
pub(super) fn clashes(settings: &Settings) -> Vec<Clash> {
    let tcp = Transport::Tcp;
    let mut taken = vec![
        ("grpc.address".to_owned(), tcp, settings.grpc.address),
        ("http.address".to_owned(), tcp, settings.http.address),
    ];
    let serving = settings.listeners.iter();
    let serving = serving.filter(|(_, spec)| spec.desired_state != Desired::Stopped);
    taken.extend(serving.map(|(name, spec)| {
        let key = format!("listeners.{name}.bind");
        (key, spec.protocol.transport(), spec.bind)
    }));
    let mut clashes = Vec::new();
    for (index, (key, transport, address)) in taken.iter().enumerate() {
        let earlier = taken[..index].iter();
        let other = earlier
            .filter(|(_, t, a)| t == transport && a.overlaps(*address))
            .map(|(other, ..)| other);
        clashes.extend(other.take(1).map(|other| Clash {
            key: key.clone(),
            other: other.clone(),
            address: *address,
        }));
    }
    clashes
}

/// What can be obeyed here and may not be what was meant: limits that this host lowers, and what listeners doubt.
pub(super) fn doubts(settings: &Settings, most_sessions: usize) -> Vec<Warning> {
    let listeners = settings.listeners.iter();
    let doubts = listeners.clone().flat_map(|(name, spec)| {
        let warning = |(key, message)| Warning {
            key: format!("listeners.{name}.{key}"),
            reason: "DOUBTFUL",
            message,
            pinned_by: None,
        };
        spec.protocol
            .doubts()
            .into_iter()
            .map(warning)
            .collect::<Vec<_>>()
    });
    listeners
        .filter_map(|(name, spec)| {
            Some(Warning {
                key: format!("listeners.{name}.limits.max_sessions"),
                reason: "LIMIT_LOWERED",
                message: lowered(spec, most_sessions)?,
                pinned_by: None,
            })
        })
        .chain(doubts)
        .collect()
}
