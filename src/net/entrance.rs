//! The way in of a TCP listener: who comes is let in, kept waiting, refused or turned away, as its gate says.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use socket2::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::accept::{Incoming, Reserve};
use super::close::CloseReason;
use super::door::{Door, canonical};
use super::gate::{self, Gate, PauseMode, Why};
use super::handler::Handler;
use super::session::{Route, Session};
use super::stream::{Stream, Wire};
use super::terms::Terms;

/// What the way in is made of.
pub(super) struct Entrance {
    pub(super) door: Arc<Door>,
    pub(super) tasks: TaskTracker,
    /// What is asked of it.
    pub(super) gate: watch::Receiver<Gate>,
    /// What it does.
    pub(super) arranged: watch::Sender<Gate>,
    /// Its socket while it listens, for others to look at; nobody else may keep that open.
    pub(super) listening: Arc<Mutex<Weak<TcpListener>>>,
    /// The address that everybody comes to; unknown where any of the machine's will do.
    pub(super) local: Option<SocketAddr>,
}

/// The socket of an entrance.
pub(super) enum Doorway {
    /// It takes connections, or the kernel queues them.
    Listening(Incoming<TcpListener>),
    /// It keeps the port, and the kernel refuses connections.
    Reserved(Socket),
}

/// How long after a failure to listen again it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long, and how many at once, those who are turned away get for their answer.
const FAREWELL: (Duration, usize) = (Duration::from_secs(1), 256);

/// Read of somebody who is turned away: closed with bytes unread, the connection would be reset, and the answer lost.
const MOST_UNREAD: u64 = 64 << 10;

impl Entrance {
    /// Lets sessions in, or keeps them away, until the gate is closed.
    pub(super) async fn serve(mut self, mut way: Doorway) {
        let farewells = Arc::new(Semaphore::new(FAREWELL.1));
        let mut open = true;
        loop {
            let gate = *self.gate.borrow_and_update();
            match self.arrange(way, gate, open, &farewells) {
                Ok(arranged) => {
                    way = arranged;
                    open = gate == Gate::Open;
                    self.arranged.send_replace(gate);
                }
                Err((reserved, error)) => {
                    way = Doorway::Reserved(reserved);
                    let counter = &self.door.counters.accept_errors;
                    counter.fetch_add(1, Ordering::Relaxed);
                    warn!(listener = %self.door.labels.listener, %error, "cannot listen again; trying on");
                    // Whether another gate is asked for or the time has come, it is looked at anew.
                    let _ = tokio::time::timeout(AGAIN, self.gate.changed()).await;
                    continue;
                }
            }
            let asked = match (&mut way, gate) {
                (_, Gate::Closed) => return,
                (Doorway::Listening(incoming), Gate::Open) => {
                    self.accept(incoming, None, &farewells).await
                }
                (
                    Doorway::Listening(incoming),
                    Gate::Shut(PauseMode::Reject | PauseMode::Refuse, why),
                ) => self.accept(incoming, Some(why), &farewells).await,
                _ => self.gate.changed().await,
            };
            if asked.is_err() {
                return;
            }
        }
    }

    /// Gives a gate the socket that it needs. Who came while the door was open is let in before it shuts.
    fn arrange(
        &self,
        way: Doorway,
        gate: Gate,
        open: bool,
        farewells: &Arc<Semaphore>,
    ) -> Result<Doorway, (Socket, io::Error)> {
        let way = match (way, gate) {
            (Doorway::Listening(incoming), Gate::Shut(PauseMode::Refuse, why)) => {
                let away = (!open).then_some(why);
                self.empty(&incoming, away, farewells);
                match gate::reserve_beside(&*incoming.listener) {
                    Ok(reserved) => {
                        self.empty(&incoming, away, farewells);
                        Doorway::Reserved(reserved)
                    }
                    Err(error) => {
                        // Nobody gets in that way either.
                        warn!(listener = %self.door.labels.listener, %error, "cannot refuse; peers are turned away instead");
                        Doorway::Listening(incoming)
                    }
                }
            }
            (Doorway::Listening(incoming), Gate::Closed) => {
                self.empty(&incoming, (!open).then_some(Why::Draining), farewells);
                Doorway::Listening(incoming)
            }
            (
                Doorway::Reserved(reserved),
                Gate::Open | Gate::Shut(PauseMode::Queue | PauseMode::Reject, _),
            ) => {
                let backlog = self.door.terms().bounds.accept_backlog;
                let listener =
                    gate::listen_beside(&reserved, backlog).and_then(TcpListener::from_std);
                match listener {
                    Ok(listener) => Doorway::Listening(Incoming::new(
                        listener,
                        self.door.counters.clone(),
                        Reserve::of(1),
                    )),
                    Err(error) => return Err((reserved, error)),
                }
            }
            (way, _) => way,
        };
        *super::lock(&self.listening) = match &way {
            Doorway::Listening(incoming) => Arc::downgrade(&incoming.listener),
            Doorway::Reserved(_) => Weak::new(),
        };
        Ok(way)
    }

    /// Lets in whoever comes, or turns them away, until another gate is asked for.
    async fn accept(
        &mut self,
        incoming: &mut Incoming<TcpListener>,
        away: Option<Why>,
        farewells: &Arc<Semaphore>,
    ) -> Result<(), watch::error::RecvError> {
        let mut gate = self.gate.clone();
        let mut changed = pin!(gate.changed());
        loop {
            let (tcp, peer) = tokio::select! {
                biased;
                changed = &mut changed => return changed,
                accepted = incoming.accept() => accepted,
            };
            match away {
                None => self.let_in(tcp, peer),
                Some(why) => self.turn_away(tcp, peer, why, farewells),
            }
        }
    }

    /// Takes those that the kernel has queued, no more than its queue can hold: a flood of new ones must not hold a
    /// drain.
    fn empty(
        &self,
        incoming: &Incoming<TcpListener>,
        away: Option<Why>,
        farewells: &Arc<Semaphore>,
    ) {
        for _ in 0..=self.door.terms().bounds.accept_backlog {
            let Some((tcp, peer)) = incoming.queued() else {
                return;
            };
            match away {
                None => self.let_in(tcp, peer),
                Some(why) => self.turn_away(tcp, peer, why, farewells),
            }
        }
    }

    fn let_in(&self, tcp: TcpStream, peer: SocketAddr) {
        let Some(local) = self.local.or_else(|| tcp.local_addr().ok()) else {
            return;
        };
        let terms = self.door.terms();
        if let Ok(session) =
            self.door
                .admit(&terms, peer, local, Route::Stream(Wire::default()), || ())
        {
            let visit = Visit {
                door: self.door.clone(),
                session,
                reason: CloseReason::Internal,
                rtt: 0,
            };
            self.tasks.spawn(visit.serve(tcp, terms));
        }
    }

    /// Says that nobody is served, and closes.
    fn turn_away(&self, tcp: TcpStream, peer: SocketAddr, why: Why, farewells: &Arc<Semaphore>) {
        let terms = self.door.terms();
        let counters = &self.door.counters;
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        if let Err(unwelcome) = terms.welcome(&self.door.bans(), canonical(peer).ip()) {
            return counters.refuse(unwelcome);
        }
        counters.refuse(why.word());
        if let (Handler::Stream(handler), Ok(place)) =
            (&terms.handler, farewells.clone().try_acquire_owned())
        {
            let answer = handler.unavailable();
            self.tasks.spawn(async move {
                // Best effort: it is closed either way.
                let _ = tokio::time::timeout(FAREWELL.0, farewell(tcp, answer)).await;
                drop(place);
            });
        }
    }
}

async fn farewell(mut tcp: TcpStream, answer: Bytes) -> io::Result<u64> {
    tcp.write_all(&answer).await?;
    tcp.shutdown().await?;
    tokio::io::copy(&mut tcp.take(MOST_UNREAD), &mut tokio::io::sink()).await
}

/// Takes its session off the books when it is dropped, so that a panic ends one session, with the
/// reason that it deserves, and nothing else.
struct Visit {
    door: Arc<Door>,
    session: Arc<Session>,
    reason: CloseReason,
    /// The round-trip time of its connection in microseconds, once that is to be closed; 0 when nobody asked.
    rtt: u32,
}

impl Visit {
    async fn serve(mut self, tcp: TcpStream, terms: Arc<Terms>) {
        let Handler::Stream(handler) = &terms.handler else {
            return;
        };
        let mut stream = Stream::new(tcp, self.door.clone(), terms.clone(), self.session.clone());
        let reason = handler.serve(&mut stream).await;
        self.session.note_ending(reason);
        self.rtt = self.door.last_round_trip(&self.session);
        self.reason = stream.close(reason).await;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.reason == CloseReason::Internal {
            error!(listener = %self.door.labels.listener, session = %self.session.id, trace_id = %self.session.trace, "session ended by a fault of ours");
        }
        // After a panic too: nobody must wait for its task any more.
        self.session.note_ending(self.reason);
        self.door.end_after(&self.session, self.reason, self.rtt);
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
