//! What no safe crate asks of the kernel: batches of datagrams with the address that each was sent
//! to, what a socket is faring like, readiness of any descriptor, sockets that others opened, and the
//! descriptor limit. The only folder with `unsafe`.
#![expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg, IP_PKTINFO, UDP_SEGMENT, TCP_INFO, SO_MEMINFO and descriptors by number have no safe wrapper"
)]

mod control;
mod datagram;
mod option;

pub(super) use control::{Local, tell_destination};
pub(super) use datagram::{Arrival, BATCH, Departure, SLOT, receive, send};
pub use option::{AcceptQueue, TcpInfo};
pub(super) use option::{Lent, accept_queue, dropped_datagrams};

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the runtime watch a descriptor for something to read.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch_for(descriptor, Interest::READABLE)
}

/// The same, for something else.
pub fn watch_for(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays open, and the same, for as long as the AsyncFd owns it.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(Into::into)
}

/// Takes over a socket that this process was started with, and keeps it from whatever this process starts.
pub(super) fn inherited_socket(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only asked what it is, while nothing else of this process opens or closes descriptors.
    let there = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::net::sockopt::socket_type(there)?;
    rustix::io::fcntl_setfd(there, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and it is a socket, of which this process has not made one yet: whoever started it has passed
    // it, and nobody owns it here.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Raises the descriptor limit to what the system allows; returns it.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let won = setrlimit(Resource::Nofile, raised).is_ok();
    let now = if won { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

/// Descriptors in use and their limit; 0 in use where the system does not tell.
pub fn descriptors() -> (u64, u64) {
    let used = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    (used, limit.unwrap_or(u64::MAX))
}
