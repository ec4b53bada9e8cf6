//! The accept loop: never fails, never spins, never waits for a peer.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{SocketFlags, accept_with};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use super::counters::Counters;

/// Shortest and longest pause after a failed accept. Without one, a process that is out of
/// descriptors spins: the listener stays readable (277,294 failures in a second were measured).
/// Whoever comes when there are descriptors again waits for the rest of a pause: well below the second or so that
/// clients give a connection.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(800));

/// A listening socket, of whatever family.
pub trait Listening: AsFd {
    /// What it accepts.
    type Stream;
    /// Where that comes from.
    type Peer;
    /// The next connection, or a waker kept for it.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Self::Peer)>>;
}

impl Listening for TcpListener {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.poll_accept(cx)
    }
}

/// A want of descriptors that has lasted until the pause is so long is told to those who wait.
const WANT: Duration = Duration::from_millis(100);

/// A listening socket whose `accept` only ever answers with a connection.
pub struct Incoming<L> {
    pub(super) listener: Arc<L>,
    counters: Arc<Counters>,
    reserve: Reserve,
    pause: Duration,
}

impl<L: Listening> Incoming<L> {
    /// Accepts from `listener`; failures are counted. `reserve` is what it lives on when there is
    /// no other descriptor left: the last one to tell waiting peers no, the others to let them in.
    pub fn new(listener: impl Into<Arc<L>>, counters: Arc<Counters>, reserve: Reserve) -> Self {
        Self {
            listener: listener.into(),
            counters,
            reserve,
            pause: PAUSE.0,
        }
    }

    /// The next connection. Cancel safe.
    pub async fn accept(&mut self) -> (L::Stream, L::Peer) {
        loop {
            match poll_fn(|cx| self.listener.poll_accept(cx)).await {
                Ok(accepted) => {
                    self.pause = PAUSE.0;
                    return accepted;
                }
                Err(e) if peer_fault(&e) => {}
                Err(e) => self.recover(&e).await,
            }
        }
    }

    async fn recover(&mut self, error: &io::Error) {
        if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            if self.reserve.spend() {
                return;
            }
            // Those who have just left may not have let go of theirs yet, and then there is room a moment later.
            if self.pause >= WANT {
                self.refuse_one();
            }
        }
        self.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
        if self.pause == PAUSE.0 {
            warn!(%error, "accept failed; trying again with a pause");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
    }

    /// With the last descriptor, takes one peer out of the queue and closes it, so that it learns
    /// now what it would else wait for.
    fn refuse_one(&mut self) {
        self.reserve.empty();
        if let Ok(peer) = rustix::net::accept(&*self.listener) {
            drop(peer);
            self.counters.accepted.fetch_add(1, Ordering::Relaxed);
            self.counters.refuse("descriptors");
        }
        self.reserve.fill();
    }
}

impl Incoming<TcpListener> {
    /// A connection that the kernel has already made and queued, if there is one: those in the
    /// queue when a listener closes would be reset.
    pub(super) fn queued(&self) -> Option<(TcpStream, SocketAddr)> {
        // Asked of the kernel itself: the runtime's own accept would stop at its budget.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let tcp = std::net::TcpStream::from(accept_with(&*self.listener, flags).ok()?);
        let peer = tcp.peer_addr().ok()?;
        Some((TcpStream::from_std(tcp).ok()?, peer))
    }
}

/// Descriptors that are held open for the time when there is no other left.
#[derive(Debug, Clone)]
pub struct Reserve {
    held: Arc<Mutex<Vec<OwnedFd>>>,
    size: usize,
}

impl Reserve {
    /// Holds `size` descriptors, or as many as there are.
    pub fn of(size: usize) -> Self {
        let reserve = Self {
            held: Arc::default(),
            size,
        };
        reserve.fill();
        reserve
    }

    /// Makes up for those that were given up, as far as there are any.
    pub fn fill(&self) {
        let mut held = super::lock(&self.held);
        while held.len() < self.size
            && let Ok(file) = std::fs::File::open("/dev/null")
        {
            held.push(file.into());
        }
    }

    /// Gives one up for a connection; the last is for saying no.
    fn spend(&self) -> bool {
        let mut held = super::lock(&self.held);
        held.len() > 1 && held.pop().is_some()
    }

    fn empty(&self) {
        super::lock(&self.held).clear();
    }
}

/// The peer was gone before it was accepted: nothing to pause for.
fn peer_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}
