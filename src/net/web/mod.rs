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

pub use caller::Caller;
use caller::Origin;
use connection::Connection;
use places::Places;

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

/// A socket that speaks HTTP once it is accepted.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Where it comes from; what cannot be told apart any more is gone.
    fn origin(&self) -> std::io::Result<Origin>;
}

impl Socket for TcpStream {
    fn origin(&self) -> std::io::Result<Origin> {
        // Answers leave when they are written.
        self.set_nodelay(true)?;
        self.peer_addr().map(Origin::Tcp)
    }
}

impl Socket for UnixStream {
    fn origin(&self) -> std::io::Result<Origin> {
        let peer = self.peer_cred()?;
        Ok(Origin::Unix {
            uid: peer.uid(),
            pid: peer.pid(),
        })
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
    let server = Server {
        version,
        service,
        places: Arc::new(Places::new(site.most_connections)),
        reserve: Reserve::of(site.reserve),
        tasks: tasks.clone(),
        stop,
        insist: insist.clone(),
    };
    let over_tcp = server.accept(site.tcp, site.counters.clone());
    match site.unix {
        // Of its own reserve, so that a flood of one leaves the other its descriptors.
        Some(socket) => {
            let beside = Server {
                reserve: Reserve::of(site.reserve),
                ..server.clone()
            };
            let over_unix = beside.accept(socket, site.counters);
            tokio::join!(over_tcp, over_unix);
        }
        None => over_tcp.await,
    }
    tasks.close();
    // Streams that are detached from their connection end with it; what does not is left behind.
    insist.run_until_cancelled(tasks.wait()).await;
}

/// What every connection is served with.
#[derive(Clone)]
struct Server<S> {
    version: Version,
    service: S,
    places: Arc<Places>,
    reserve: Reserve,
    tasks: TaskTracker,
    stop: CancellationToken,
    insist: CancellationToken,
}

impl<S> Server<S> {
    async fn accept<L, B>(&self, listener: L, counters: Arc<Counters>)
    where
        L: Listening<Stream: Socket>,
        S: Answering<B>,
        B: Content,
    {
        let mut incoming = Incoming::new(listener, counters.clone(), self.reserve.clone());
        while let Some((socket, _)) = self.stop.run_until_cancelled(incoming.accept()).await {
            counters.accepted.fetch_add(1, Ordering::Relaxed);
            // A peer that has left already.
            let Ok(origin) = socket.origin() else {
                continue;
            };
            let newcomer = self.places.arrive(origin.source());
            let connection = Connection {
                version: self.version,
                caller: Caller::new(origin),
                tasks: self.tasks.clone(),
                stop: self.stop.clone(),
            };
            let (service, reserve) = (self.service.clone(), self.reserve.clone());
            let (insist, counters) = (self.insist.clone(), counters.clone());
            self.tasks.spawn(async move {
                let caller = connection.caller.clone();
                let served = connection.serve(socket, service, newcomer);
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
