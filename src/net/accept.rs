//! The accept loop: never fails, never spins, never waits for a peer.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{SocketFlags, accept_with};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::close::CloseReason;
use super::counters::Counters;
use super::door::Door;
use super::handler::Handler;
use super::session::{Route, Session};
use super::stream::{Stream, Wire};
use super::terms::Terms;

/// Shortest and longest pause after a failed accept. Without one, a process that is out of
/// descriptors spins: the listener stays readable (277,294 failures in a second were measured).
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A listening socket whose `accept` only ever answers with a connection.
pub struct Incoming {
    listener: Arc<TcpListener>,
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
    fn queued(&self) -> Option<(TcpStream, SocketAddr)> {
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

/// Accepts sessions for `door` until `stop`, each into a task of `tasks`.
pub async fn accept_streams(
    listener: Arc<TcpListener>,
    door: Arc<Door>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let local = listener
        .local_addr()
        .ok()
        .filter(|a| !a.ip().is_unspecified());
    let mut incoming = Incoming::new(listener, door.counters.clone());
    // After the stop no more than the queue can hold: a flood of new ones must not hold the drain.
    let mut queue = None;
    loop {
        let accepted = match stop.run_until_cancelled(incoming.accept()).await {
            Some(accepted) => Some(accepted),
            None => {
                let left = queue.get_or_insert_with(|| door.terms().bounds.accept_backlog);
                let more = *left >= 0;
                *left -= 1;
                more.then(|| incoming.queued()).flatten()
            }
        };
        let Some((tcp, peer)) = accepted else {
            return;
        };
        let Some(local) = local.or_else(|| tcp.local_addr().ok()) else {
            continue;
        };
        let terms = door.terms();
        if let Ok(session) = door.admit(&terms, peer, local, Route::Stream(Wire::default())) {
            let visit = Visit {
                door: door.clone(),
                session,
                reason: CloseReason::Internal,
            };
            tasks.spawn(visit.serve(tcp, terms));
        }
    }
}

/// Takes its session off the books when it is dropped, so that a panic ends one session, with the
/// reason that it deserves, and nothing else.
struct Visit {
    door: Arc<Door>,
    session: Arc<Session>,
    reason: CloseReason,
}

impl Visit {
    async fn serve(mut self, tcp: TcpStream, terms: Arc<Terms>) {
        let Handler::Stream(handler) = &terms.handler else {
            return;
        };
        let mut stream = Stream::new(tcp, self.door.clone(), terms.clone(), self.session.clone());
        let reason = handler.serve(&mut stream).await;
        self.session.note_ending(reason);
        self.reason = stream.close(reason).await;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.reason == CloseReason::Internal {
            error!(listener = %self.door.labels.listener, session = %self.session.id, "session ended by a fault of ours");
        }
        // After a panic too: nobody must wait for its task any more.
        self.session.note_ending(self.reason);
        self.door.end(&self.session, self.reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, R>(_: impl FnOnce(A, B, C) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn an_idle_session_owns_little() {
        // What its own task holds, beside what its protocol does and the runtime's few words.
        let own = size_of_future(Visit::serve);
        assert!(own <= 512, "{own} bytes");
    }
}
