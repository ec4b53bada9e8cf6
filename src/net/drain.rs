//! The one drain: close the door, ask, wait, insist.

use std::future::Future;
use std::io;
use std::mem::discriminant;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::{Incoming, Reserve};
use super::bind::{self, Bound};
use super::close::{Ask, CloseReason};
use super::datagram::serve_datagrams;
use super::door::Door;
use super::entrance::{Doorway, Entrance};
use super::gate::Gate;
use super::handler::Handler;
use super::kernel::{self, AcceptQueue};
use super::limits::Bounds;
use super::udp::{DatagramSocket, PeerSocket};

/// A listener that runs: its door, and every task behind it.
#[derive(Debug)]
pub struct Running {
    /// What its sessions share.
    pub door: Arc<Door>,
    /// Where it really listens.
    pub address: SocketAddr,
    /// Its socket while it listens; nobody else may keep that open.
    listening: Arc<Mutex<Weak<TcpListener>>>,
    /// Its sockets over UDP while they are open, and what tells that each is closed.
    receiving: Vec<(Weak<DatagramSocket>, CancellationToken)>,
    /// What is asked of its door, and what that does: at each of its sockets.
    gate: watch::Sender<Gate>,
    arranged: Vec<watch::Receiver<Gate>>,
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
        self.gate.send_replace(Gate::Closed);
        self.sweeping.cancel();
    }
}

/// What an entrance begins with.
fn doorway(bound: Bound, door: &Door, listening: &Mutex<Weak<TcpListener>>) -> io::Result<Doorway> {
    match bound {
        Bound::Stream(listener) => {
            let incoming = Incoming::new(
                TcpListener::from_std(listener)?,
                door.counters.clone(),
                Reserve::of(1),
            );
            *super::lock(listening) = Arc::downgrade(&incoming.listener);
            Ok(Doorway::Listening(incoming))
        }
        Bound::Reserved(socket) => Ok(Doorway::Reserved(socket)),
        Bound::Datagram(_) => Err(other_kind()),
    }
}

/// The cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn other_kind() -> io::Error {
    io::Error::other("the socket is not of the protocol's kind")
}

impl Running {
    /// Runs `door` on a bound socket, open or shut. Must be called within the runtime.
    pub fn start(door: Arc<Door>, bound: Bound, gate: Gate) -> io::Result<Self> {
        let mut running = Self {
            door: door.clone(),
            address: bound.address(),
            listening: Arc::default(),
            receiving: Vec::new(),
            gate: watch::channel(gate).0,
            arranged: Vec::new(),
            sweeping: CancellationToken::new(),
            entrance: TaskTracker::new(),
            sweeper: TaskTracker::new(),
            sessions: TaskTracker::new(),
        };
        door.set_shut(gate);
        match (bound, &door.terms().handler) {
            (Bound::Datagram(socket), Handler::Datagram(handler)) => {
                // Whoever has a session may reach it by two addresses, and is heard in order.
                let alone = handler.has_sessions();
                let count = if alone { 1 } else { cores() };
                for socket in bind::share(socket, count) {
                    running.receive(socket)?;
                }
            }
            (Bound::Datagram(_), _) | (_, Handler::Datagram(_)) => return Err(other_kind()),
            (bound, Handler::Stream(_)) => {
                let way = doorway(bound, &door, &running.listening)?;
                let local = Some(running.address).filter(|a| !a.ip().is_unspecified());
                let entrance = Entrance {
                    door: door.clone(),
                    tasks: running.sessions.clone(),
                    gate: running.gate.subscribe(),
                    arranged: running.arranges(gate),
                    listening: running.listening.clone(),
                    local,
                };
                running.entrance.spawn(entrance.serve(way));
            }
        }
        running.sweeper.spawn(door.sweep(running.sweeping.clone()));
        Ok(running)
    }

    /// Receives from one more socket.
    fn receive(&mut self, socket: std::net::UdpSocket) -> io::Result<()> {
        let closed = CancellationToken::new();
        let socket = Arc::new(DatagramSocket::new(socket, closed.clone())?);
        self.receiving.push((Arc::downgrade(&socket), closed));
        if let Handler::Datagram(handler) = &self.door.terms().handler {
            handler.open(&self.door, &PeerSocket::any(&socket));
        }
        let asked = self.gate.subscribe();
        let arranged = self.arranges(*asked.borrow());
        let serving = serve_datagrams(socket, self.door.clone(), asked, arranged);
        self.entrance.spawn(serving);
        Ok(())
    }

    /// Where one more socket says what it does.
    fn arranges(&mut self, gate: Gate) -> watch::Sender<Gate> {
        let (arranges, arranged) = watch::channel(gate);
        self.arranged.push(arranged);
        arranges
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
            && let Some(listener) = super::lock(&self.listening).upgrade()
        {
            // A socket that listens already only gets the new length.
            rustix::net::listen(&*listener, bounds.accept_backlog)?;
        }
        self.door.set_terms(bounds, handler);
        Ok(())
    }

    /// Who waits to be accepted; none over UDP, and while nobody may.
    pub fn accept_queue(&self) -> Option<AcceptQueue> {
        let listener = super::lock(&self.listening).upgrade()?;
        kernel::accept_queue(&*listener)
    }

    /// Counts what the kernel has dropped of its datagrams since that was last done.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn count_drops(&self) -> io::Result<()> {
        let mut sockets = self
            .receiving
            .iter()
            .filter_map(|(socket, _)| socket.upgrade());
        sockets.try_for_each(|socket| socket.count_drops(&self.door.counters))
    }

    /// Opens the door, or shuts it; one that is closed stays closed.
    pub fn set_gate(&self, gate: Gate) {
        self.gate.send_if_modified(|asked| {
            let other = *asked != gate && *asked != Gate::Closed;
            if other {
                *asked = gate;
                // What waited before a door that was shut is not let in because it closes.
                if gate != Gate::Closed {
                    self.door.set_shut(gate);
                }
            }
            other
        });
    }

    /// Resolves once its door does what was last asked of it.
    pub async fn arranged(&self) {
        let asked = || *self.gate.borrow();
        for mut arranged in self.arranged.iter().cloned() {
            // It only fails when the entrance is gone, and then the door is closed.
            let _ = arranged.wait_for(|gate| *gate == asked()).await;
        }
    }

    /// Closes the door: no new peer comes in.
    pub fn close_door(&self) {
        self.set_gate(Gate::Closed);
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
            let closed = async {
                for (_, closed) in &self.receiving {
                    closed.cancelled().await;
                }
            };
            // Whoever holds a session longer than that holds its address too.
            let _ = tokio::time::timeout(CUT_PATIENCE, closed).await;
        }
    }

    /// Resolves once every session has ended; those over UDP have no task.
    async fn all_left(&self) {
        self.sessions.wait().await;
        self.door.sessions.emptied().await;
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
            () = self.all_left() => {}
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
