//! The one drain: close the door, ask, wait, insist.

use std::future::Future;
use std::io;
use std::mem::discriminant;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::accept_streams;
use super::bind::Bound;
use super::close::{Ask, CloseReason};
use super::datagram::{DatagramSocket, serve_datagrams};
use super::door::Door;
use super::handler::Handler;
use super::kernel::{self, AcceptQueue};
use super::limits::Bounds;

/// A listener that runs: its door, and every task behind it.
#[derive(Debug)]
pub struct Running {
    /// What its sessions share.
    pub door: Arc<Door>,
    /// Where it really listens.
    pub address: SocketAddr,
    /// Its socket while connections are accepted; nobody else may keep that open.
    listening: Weak<TcpListener>,
    /// The same over UDP.
    receiving: Weak<DatagramSocket>,
    accepting: CancellationToken,
    sweeping: CancellationToken,
    entrance: TaskTracker,
    sweeper: TaskTracker,
    sessions: TaskTracker,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Sessions that ended by themselves in time.
    pub finished: usize,
    /// Sessions that were cut.
    pub cut: usize,
}

/// How long a cut session may take to let go of what it holds.
const CUT_PATIENCE: Duration = Duration::from_secs(5);

impl Drop for Running {
    /// Nobody can reach it any more, so nobody may come in either.
    fn drop(&mut self) {
        self.accepting.cancel();
        self.sweeping.cancel();
    }
}

fn other_kind() -> io::Error {
    io::Error::other("the socket is not of the protocol's kind")
}

impl Running {
    /// Runs `door` on a bound socket. Must be called within the runtime.
    pub fn start(door: Arc<Door>, bound: Bound) -> io::Result<Self> {
        let mut running = Self {
            door: door.clone(),
            address: bound.address(),
            listening: Weak::new(),
            receiving: Weak::new(),
            accepting: CancellationToken::new(),
            sweeping: CancellationToken::new(),
            entrance: TaskTracker::new(),
            sweeper: TaskTracker::new(),
            sessions: TaskTracker::new(),
        };
        let stop = running.accepting.clone();
        match (bound, &door.terms().handler) {
            (Bound::Stream(listener), Handler::Stream(_)) => {
                let listener = Arc::new(TcpListener::from_std(listener)?);
                running.listening = Arc::downgrade(&listener);
                let tasks = running.sessions.clone();
                running
                    .entrance
                    .spawn(accept_streams(listener, door.clone(), tasks, stop));
            }
            (Bound::Datagram(socket), Handler::Datagram(_)) => {
                let socket = Arc::new(DatagramSocket::new(socket)?);
                running.receiving = Arc::downgrade(&socket);
                running
                    .entrance
                    .spawn(serve_datagrams(socket, door.clone(), stop));
            }
            _ => return Err(other_kind()),
        }
        running.sweeper.spawn(door.sweep(running.sweeping.clone()));
        Ok(running)
    }

    /// Exchanges what is obeyed while it runs. Clocks, whoever comes in, and datagrams obey the new
    /// terms; TCP sessions that are open keep the message limits, the outbox and the protocol that
    /// they began with. Nobody is ended for a limit on sessions that is now passed.
    ///
    /// # Errors
    /// When the protocol wants the other kind of socket, or the kernel refuses the new accept
    /// queue. What was obeyed before then still is.
    pub fn set_terms(&self, bounds: Bounds, handler: Handler) -> io::Result<()> {
        let now = self.door.terms();
        if discriminant(&now.handler) != discriminant(&handler) {
            return Err(other_kind());
        }
        if bounds.accept_backlog != now.bounds.accept_backlog
            && let Some(listener) = self.listening.upgrade()
        {
            // A socket that listens already only gets the new length.
            rustix::net::listen(&*listener, bounds.accept_backlog)?;
        }
        self.door.set_terms(bounds, handler);
        Ok(())
    }

    /// Who waits to be accepted; none over UDP, and while none may come.
    pub fn accept_queue(&self) -> Option<AcceptQueue> {
        kernel::accept_queue(&*self.listening.upgrade()?)
    }

    /// Counts what the kernel has dropped of its datagrams since that was last done.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn count_drops(&self) -> io::Result<()> {
        let socket = self.receiving.upgrade();
        socket.map_or(Ok(()), |socket| socket.count_drops(&self.door.counters))
    }

    /// Closes the door: no new peer comes in.
    pub fn close_door(&self) {
        self.accepting.cancel();
    }

    /// Resolves once its socket is closed, after [`close_door`](Self::close_door).
    pub async fn door_closed(&self) {
        self.entrance.close();
        self.entrance.wait().await;
    }

    /// Resolves once another socket may have its address, after [`close_door`](Self::close_door). Sessions over UDP
    /// send from the socket itself: they get what can still be said, and end.
    pub async fn address_let_go(&self) {
        self.door_closed().await;
        if let Handler::Datagram(_) = self.door.terms().handler {
            self.door.ask_all(Ask::Finish(CloseReason::Drained));
        }
    }

    /// Asks every session to end once nothing is owed, waits for the last one until `insist`
    /// resolves, then cuts the rest. The door closes first if it still stands open.
    pub async fn drain(&self, insist: impl Future<Output = ()>) -> Drained {
        self.close_door();
        // Whoever is still coming in is inside before the sessions are asked.
        self.door_closed().await;
        let at_start = self.door.sessions.count();
        self.door.ask_all(Ask::Finish(CloseReason::Drained));
        self.sessions.close();
        let mut left = 0;
        tokio::select! {
            biased;
            () = self.sessions.wait() => {}
            () = insist => {
                left = self.door.sessions.count();
                self.door.ask_all(Ask::Cut(CloseReason::Drained));
                // A session past this holds nothing of its peer's any more; its task is on its own.
                let _ = tokio::time::timeout(CUT_PATIENCE, self.sessions.wait()).await;
            }
        }
        self.sweeping.cancel();
        self.sweeper.close();
        self.sweeper.wait().await;
        Drained {
            finished: at_start.saturating_sub(left),
            cut: left,
        }
    }
}
