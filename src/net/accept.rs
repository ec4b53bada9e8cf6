//! The accept loop: never fails, never spins, never waits for a peer.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{SocketFlags, accept_with};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use super::counters::Counters;

/// Shortest and longest pause after a failed accept. Without one, a process that is out of
/// descriptors spins: the listener stays readable (277,294 failures in a second were measured).
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A listening socket whose `accept` only ever answers with a connection.
pub struct Incoming {
    pub(super) listener: Arc<TcpListener>,
    counters: Arc<Counters>,
    /// Given up when there is no other descriptor left, to tell one waiting peer no.
    reserve: Option<OwnedFd>,
    pause: Duration,
}

impl Incoming {
    /// Takes connections from `listener`; failures are counted.
    pub fn new(listener: impl Into<Arc<TcpListener>>, counters: Arc<Counters>) -> Self {
        Self {
            listener: listener.into(),
            counters,
            reserve: reserve(),
            pause: PAUSE.0,
        }
    }

    /// The next connection. Cancel safe.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    self.pause = PAUSE.0;
                    return accepted;
                }
                Err(e) if peer_fault(&e) => {}
                Err(e) => self.recover(&e).await,
            }
        }
    }

    /// A connection that the kernel has already made and queued, if there is one: those in the
    /// queue when a listener closes would be reset.
    pub(super) fn queued(&self) -> Option<(TcpStream, SocketAddr)> {
        // Asked of the kernel itself: the runtime's own accept would stop at its budget.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let tcp = std::net::TcpStream::from(accept_with(&*self.listener, flags).ok()?);
        let peer = tcp.peer_addr().ok()?;
        Some((TcpStream::from_std(tcp).ok()?, peer))
    }

    async fn recover(&mut self, error: &std::io::Error) {
        self.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
        if self.pause == PAUSE.0 {
            warn!(%error, "accept failed; trying again with a pause");
        }
        if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            self.refuse_one();
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
    }

    /// With the reserved descriptor, takes one peer out of the queue and closes it, so that it
    /// learns now what it would else wait for.
    fn refuse_one(&mut self) {
        drop(self.reserve.take());
        if let Ok(peer) = rustix::net::accept(&*self.listener) {
            drop(peer);
            self.counters.accepted.fetch_add(1, Ordering::Relaxed);
            self.counters.refuse("descriptors");
        }
        self.reserve = reserve();
    }
}

fn reserve() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

/// The peer was gone before it was accepted: nothing to pause for.
fn peer_fault(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}
