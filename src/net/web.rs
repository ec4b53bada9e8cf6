//! Serves HTTP (for gRPC: HTTP/2) with our own accept loop: a deadline for the first bytes, a
//! bound on connections, and a drain that ends.
//!
//! The ready-made servers accept without a pause when descriptors run out, let a peer connect and
//! say nothing for ever, and wait without a deadline for streams that never end.

use std::convert::Infallible;
use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming as RequestBody};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::MapRequest;
use tracing::debug;

use super::accept::Incoming;
use super::counters::Counters;

/// Which HTTP a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// For people and scrapers.
    Http1,
    /// For gRPC.
    Http2,
}

/// Connections at once.
const CONNECTIONS: usize = 512;

/// For the first request's head, or the HTTP/2 preface, to be there.
const FIRST_BYTES: Duration = Duration::from_secs(5);

/// How long an HTTP/1 connection lasts, and how long its last answer may take: peers that ask and
/// do not read would hold every place for ever.
const HTTP1_AGE: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(10));

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Told to whoever speaks something else to a port of gRPC.
const NOT_HTTP2: &str = "this port speaks gRPC (HTTP/2 with prior knowledge) only\n";

/// Runs every task of a server, so that its end can be waited for.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// Who makes a request; every request has it among its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Caller(pub SocketAddr);

/// Serves until `stop`, then lets what is under way finish until `insist`.
pub async fn serve<S, B>(
    listener: TcpListener,
    version: Version,
    service: S,
    stop: CancellationToken,
    insist: CancellationToken,
) where
    S: tower::Service<http::Request<RequestBody>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let tasks = TaskTracker::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut incoming = Incoming::new(listener, Arc::new(Counters::default()));
    while let Some((tcp, peer)) = stop.run_until_cancelled(incoming.accept()).await {
        let Ok(place) = room.clone().try_acquire_owned() else {
            debug!(%peer, "connection refused: {CONNECTIONS} are open");
            continue;
        };
        let told = MapRequest::new(
            service.clone(),
            move |mut request: http::Request<RequestBody>| {
                request.extensions_mut().insert(Caller(peer));
                request
            },
        );
        let connection = connection(tcp, version, told, tasks.clone(), stop.clone());
        let insist = insist.clone();
        tasks.spawn(async move {
            let _place = place;
            if let Some(Err(error)) = insist.run_until_cancelled(connection).await {
                debug!(%peer, %error, "connection ended");
            }
        });
    }
    tasks.close();
    // Streams that are detached from their connection end with it; what does not is left behind.
    insist.run_until_cancelled(tasks.wait()).await;
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn connection<S, B>(
    tcp: TcpStream,
    version: Version,
    service: S,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> Ended
where
    S: tower::Service<http::Request<RequestBody>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    tcp.set_nodelay(true)?;
    let service = TowerToHyperService::new(service);
    match version {
        Version::Http1 => {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(FIRST_BYTES);
            let mut serving = pin!(builder.serve_connection(TokioIo::new(tcp), service));
            tokio::select! {
                ended = serving.as_mut() => return Ok(ended?),
                () = tokio::time::sleep(HTTP1_AGE.0) => {}
                () = stop.cancelled() => {}
            }
            serving.as_mut().graceful_shutdown();
            Ok(tokio::time::timeout(HTTP1_AGE.1, serving).await??)
        }
        Version::Http2 => {
            let io = TokioIo::new(prefaced(tcp).await?);
            let mut serving = pin!(http2(tasks).serve_connection(io, service));
            tokio::select! {
                ended = serving.as_mut() => return Ok(ended?),
                () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
            }
            Ok(serving.await?)
        }
    }
}

/// HTTP/2 with bounds where the defaults have none; the numbers keep a connection below 5 MiB.
fn http2(tasks: TaskTracker) -> hyper::server::conn::http2::Builder<Tasks> {
    let mut builder = hyper::server::conn::http2::Builder::new(Tasks(tasks));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(1 << 20)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Reads the preface itself, since HTTP/2's own handshake waits for it without a deadline.
async fn prefaced(mut tcp: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send> {
    let mut head = [0; PREFACE.len()];
    let mut got = 0;
    let read = async {
        while got < head.len() && head[..got] == PREFACE[..got] {
            match tcp.read(&mut head[got..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => got += count,
            }
        }
        io::Result::Ok(())
    };
    tokio::time::timeout(FIRST_BYTES, read).await??;
    if got < head.len() || head != *PREFACE {
        // Best effort, and not for long: the connection is closed either way.
        let _ = tokio::time::timeout(FIRST_BYTES, turn_away(tcp)).await;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP/2"));
    }
    let (read, write) = tcp.into_split();
    Ok(tokio::io::join(Cursor::new(head).chain(read), write))
}

/// Says what this port speaks, and reads what is still under way: closed with bytes unread, the
/// connection would be reset, and the answer lost with it.
async fn turn_away(mut tcp: TcpStream) -> io::Result<()> {
    let length = NOT_HTTP2.len();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    tcp.write_all(head.as_bytes()).await?;
    tcp.write_all(NOT_HTTP2.as_bytes()).await?;
    tcp.shutdown().await?;
    tokio::io::copy(&mut tcp.take(MOST_UNREAD), &mut tokio::io::sink()).await?;
    Ok(())
}

/// Read of a stranger's request before it is cut off: 64 KiB.
const MOST_UNREAD: u64 = 64 << 10;
