//! The socket of one run over UDP: what the kernel dropped there, and the way back to each peer.

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::UdpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::counters::Counters;
use super::kernel::{self, Departure, Local};
use super::loops::Place;

/// The socket, which sessions keep open, to be answered from it.
#[derive(Debug)]
pub(super) struct DatagramSocket {
    socket: UdpSocket,
    /// Where it is, and that it is ours.
    pub(super) place: Place,
    /// What the kernel has dropped here, as far as that is counted.
    counted: AtomicU32,
    /// Tells that it is closed: dropped behind it.
    _closed: DropGuard,
}

impl DatagramSocket {
    /// Must be called within the runtime. `closed` is cancelled once the socket is closed.
    pub(super) fn new(socket: std::net::UdpSocket, closed: CancellationToken) -> io::Result<Self> {
        let place = Place::of(socket.local_addr()?);
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            place,
            counted: AtomicU32::new(0),
            _closed: closed.drop_guard(),
        })
    }

    /// Adds to `counters` what the kernel has dropped here since that was last done, by whomever.
    pub(super) fn count_drops(&self, counters: &Counters) -> io::Result<()> {
        let now = kernel::dropped_datagrams(&self.socket)?;
        // Of two who ask at once, the one that was told less may come later: that is no step back.
        let newer = |old: u32| (now.wrapping_sub(old).cast_signed() > 0).then_some(now);
        let order = Ordering::Relaxed;
        if let Ok(old) = self.counted.fetch_update(order, order, newer) {
            let more = now.wrapping_sub(old);
            counters.kernel_drops.fetch_add(more.into(), order);
        }
        Ok(())
    }
}

impl Deref for DatagramSocket {
    type Target = UdpSocket;

    fn deref(&self) -> &UdpSocket {
        &self.socket
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket and the address of ours that one peer knows: its answers come from there.
#[derive(Debug, Clone)]
pub struct PeerSocket {
    pub(super) socket: Arc<DatagramSocket>,
    pub(super) from: Option<Local>,
}

impl PeerSocket {
    /// A way that the kernel chooses our address for.
    pub(super) fn any(socket: &Arc<DatagramSocket>) -> Self {
        Self {
            socket: socket.clone(),
            from: None,
        }
    }

    /// Where the socket is bound.
    pub(super) fn address(&self) -> SocketAddr {
        self.socket.place.address()
    }

    /// Sends one datagram now; false when the kernel does not take it.
    pub fn send(&self, peer: SocketAddr, data: &[u8]) -> bool {
        let departure = Departure {
            peer,
            local: self.from,
            data,
            segment: None,
        };
        kernel::send(&*self.socket, [departure]).is_ok_and(|sent| sent == 1)
    }
}
