//! Datagrams: a batch in, a batch of answers out, no allocation for either.

mod answers;
mod receive;

pub(super) use answers::Answers;
pub(super) use receive::serve_datagrams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::door::canonical;
use super::kernel::{Arrival, Local, SLOT};
use super::networks::Bans;
use super::terms::Terms;
use super::udp::{DatagramSocket, PeerSocket};

/// The largest datagram that UDP over IPv4 carries.
pub const MAX_DATAGRAM: usize = 65_507;

/// One datagram that came.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Who sent it, in canonical form.
    pub peer: SocketAddr,
    /// What it says.
    pub data: &'a [u8],
    local: Option<Local>,
}

impl Datagram<'_> {
    /// Whether many hear it, and each of our sockets that has its port.
    pub(super) fn is_broadcast(&self) -> bool {
        self.local.is_some_and(|local| !local.alone)
    }
}

/// Datagrams that came together, and the answers to them.
pub struct Batch<'a> {
    /// What all of them obey.
    pub terms: &'a Terms,
    /// When they were received; all clocks of the batch are this one.
    pub now: Instant,
    pub(super) bans: &'a Bans,
    pub(super) socket: &'a Arc<DatagramSocket>,
    buffer: &'a [u8],
    arrivals: &'a [Arrival],
    /// Where answers are gathered.
    pub answers: &'a mut Answers,
}

impl<'a> Batch<'a> {
    /// The datagrams, in the order of their coming.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'a>> + use<'a> {
        let slots = self.buffer.chunks_exact(SLOT);
        self.arrivals
            .iter()
            .zip(slots)
            .map(|(arrival, slot)| Datagram {
                peer: canonical(arrival.peer),
                data: &slot[..arrival.length.min(SLOT)],
                local: arrival.local,
            })
    }

    /// The way back to the sender of `datagram`, for answers that come later.
    pub fn route(&self, datagram: &Datagram<'_>) -> PeerSocket {
        PeerSocket {
            socket: self.socket.clone(),
            from: datagram.local,
        }
    }

    /// The address of ours that `datagram` was sent to.
    pub fn local(&self, datagram: &Datagram<'_>) -> SocketAddr {
        let mut local = self.socket.place.address();
        if let Some(known) = datagram.local {
            local.set_ip(known.ip);
        }
        local
    }
}
