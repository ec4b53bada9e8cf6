//! Serves HTTP (for gRPC: HTTP/2) with our own accept loop: a deadline for the first bytes, bounds
//! on connections and on what each may do, and a drain that ends.
//!
//! The ready-made servers accept without a pause when descriptors run out, let a peer connect and
//! say nothing for ever, and wait without a deadline for streams that never end.
//!
//! ```text
//!  accept ──▶ Places: a newcomer ──▶ opening: its first bytes ──▶ a place ──▶ connection ──▶ calls
//! ```
//!
//! Whatever ends or turns away a connection counts it under a word of its own.

mod authority;
mod caller;
mod calls;
mod connection;
mod opening;
mod places;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::{Body, Incoming as RequestBody};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use authority::Named;
use caller::Origin;
pub use caller::{Caller, Source};
use connection::Connection;
use places::{Lobby, Places};

use super::accept::{Incoming, Listening, Reserve};
use super::counters::Counters;
use super::unix::UnixSocket;

/// Which HTTP a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// For people and scrapers.
    Http1,
    /// For gRPC.
    Http2,
}

/// Where a server listens, and how many it lets in.
pub struct Site {
    /// Over TCP.
    pub tcp: TcpListener,
    /// In the file system.
    pub unix: Option<UnixSocket>,
    /// Most connections at once, those included that have not yet said anything; a source has at
    /// most half of them.
    pub most_connections: usize,
    /// Connections let in though the process has no other descriptor left, by each of the two.
    pub reserve: usize,
    /// What was accepted, and what was turned away or closed and why.
    pub counters: Arc<Counters>,
}

/// What answers requests.
pub trait Answering<B>:
    tower::Service<
        http::Request<RequestBody>,
        Response = http::Response<B>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
}

impl<S, B> Answering<B> for S where
    S: tower::Service<
            http::Request<RequestBody>,
            Response = http::Response<B>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + 'static
{
}

/// What an answer consists of.
pub trait Content:
    Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static
{
}

impl<B> Content for B where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Unpin
        + Send
        + 'static
{
}

/// A socket as it was accepted.
trait Socket: Send + 'static {
    /// What HTTP is spoken over.
    type Speech: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Where it comes from; of one that has left that cannot be told.
    fn origin(&self) -> std::io::Result<Origin>;
    fn speech(self) -> Self::Speech;
}

impl Socket for TcpStream {
    type Speech = Self;

    fn origin(&self) -> std::io::Result<Origin> {
        // Answers leave when they are written.
        self.set_nodelay(true)?;
        self.peer_addr().map(Origin::Tcp)
    }

    fn speech(self) -> Self {
        self
    }
}

impl Socket for UnixStream {
    type Speech = Named<Self>;

    fn origin(&self) -> std::io::Result<Origin> {
        let peer = self.peer_cred()?;
        Ok(Origin::Unix {
            uid: peer.uid(),
            pid: peer.pid(),
        })
    }

    fn speech(self) -> Named<Self> {
        Named::new(self)
    }
}

/// Serves until `stop`, then lets what is under way finish until `insist`.
pub async fn serve<S, B>(
    site: Site,
    version: Version,
    service: S,
    stop: CancellationToken,
    insist: CancellationToken,
) where
    S: Answering<B>,
    B: Content,
{
    let tasks = TaskTracker::new();
    let places = Arc::new(Places::new(site.most_connections));
    // Each way has its own, so that a flood of one leaves the other open.
    let server = || Server {
        version,
        service: service.clone(),
        lobby: Arc::new(Lobby::new(places.clone(), site.most_connections)),
        reserve: Reserve::of(site.reserve),
        counters: site.counters.clone(),
        tasks: tasks.clone(),
        stop: stop.clone(),
        insist: insist.clone(),
    };
    let over_tcp = server().accept(site.tcp);
    match site.unix {
        Some(socket) => drop(tokio::join!(over_tcp, server().accept(socket))),
        None => over_tcp.await,
    }
    tasks.close();
    // Streams that are detached from their connection end with it; what does not is left behind.
    insist.run_until_cancelled(tasks.wait()).await;
}

/// What every connection that comes one way is served with.
struct Server<S> {
    version: Version,
    service: S,
    lobby: Arc<Lobby>,
    reserve: Reserve,
    counters: Arc<Counters>,
    tasks: TaskTracker,
    stop: CancellationToken,
    insist: CancellationToken,
}

impl<S> Server<S> {
    async fn accept<L, B>(self, listener: L)
    where
        L: Listening<Stream: Socket>,
        S: Answering<B>,
        B: Content,
    {
        let mut incoming = Incoming::new(listener, self.counters.clone(), self.reserve.clone());
        let mut next = async || {
            let (socket, _) = incoming.accept().await;
            self.counters.accepted.fetch_add(1, Ordering::Relaxed);
            // One that has left already is nobody.
            let origin = socket.origin().ok()?;
            let newcomer = self.lobby.arrive(origin.source()).await;
            Some((socket, origin, newcomer))
        };
        while let Some(came) = self.stop.run_until_cancelled(next()).await {
            let Some((socket, origin, newcomer)) = came else {
                continue;
            };
            let caller = Caller::new(origin);
            let connection = Connection {
                version: self.version,
                caller: caller.clone(),
                tasks: self.tasks.clone(),
                stop: self.stop.clone(),
            };
            let served = connection.serve(socket.speech(), self.service.clone(), newcomer);
            let (insist, reserve) = (self.insist.clone(), self.reserve.clone());
            let counters = self.counters.clone();
            self.tasks.spawn(async move {
                let ended = insist.run_until_cancelled(served).await;
                // Its descriptor is free by now.
                reserve.fill();
                if let Some(Err(ended)) = ended {
                    if let Some(reason) = ended.reason() {
                        counters.refuse(reason);
                    }
                    debug!(%caller, reason = %ended, "connection ended");
                }
            });
        }
    }
}
