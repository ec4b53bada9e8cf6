//! One connection: its first bytes, its place, its requests, and how it ends.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::caller::Caller;
use super::calls::Calls;
use super::opening::{FIRST_BYTES, open};
use super::places::{Full, Newcomer};
use super::{Answering, Content, Version};

/// How long an HTTP/1 connection lasts: peers that ask and do not read would hold every place.
const HTTP1_AGE: Duration = Duration::from_secs(120);

/// How long an HTTP/2 connection may hold its place without a call; its client opens another when
/// it has one.
const IDLE: Duration = Duration::from_secs(900);

/// How long a peer that was told to leave, and has no call under way, may take to do so: the last
/// answer is on its way to it.
const FAREWELL: Duration = Duration::from_secs(10);

/// The same when the process ends.
const LAST_FAREWELL: Duration = Duration::from_millis(300);

/// What one connection is served with.
pub(super) struct Connection {
    pub(super) version: Version,
    pub(super) caller: Caller,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// Why a connection ended that its peer did not end.
#[derive(Debug)]
pub(super) enum Ended {
    /// The process ends, and it had said nothing.
    Stopping,
    /// Others came, and it had said nothing.
    CrowdedOut,
    /// It did not say in time what comes first.
    Silent,
    /// What it said is not HTTP/2.
    NotHttp2,
    /// There was no place for it.
    Full(Full),
    /// It had no call for a long time.
    Idle,
    /// It took back more calls than it may.
    TakenBack,
    /// It did not answer a ping, or did not leave when it was asked to.
    Unresponsive,
    /// Its socket.
    Io(io::Error),
    /// What it sent broke the protocol, or a bound of it.
    Protocol(hyper::Error),
}

impl Ended {
    /// The word under which it is counted, unless it is the peer's own leaving.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Stopping | Self::Io(_) => None,
            Self::CrowdedOut => Some("crowded_out"),
            Self::Silent => Some("preface"),
            Self::NotHttp2 => Some("not_http2"),
            Self::Full(Full::Connections(_)) => Some("max_connections"),
            Self::Full(Full::Source(_)) => Some("max_connections_per_source"),
            Self::Idle => Some("idle"),
            Self::TakenBack => Some("resets"),
            Self::Unresponsive => Some("unresponsive"),
            Self::Protocol(_) => Some("protocol"),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Protocol(error) => write!(f, "protocol: {error:?}"),
            other => f.write_str(other.reason().unwrap_or("stopping")),
        }
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<hyper::Error> for Ended {
    fn from(error: hyper::Error) -> Self {
        if error.is_timeout() {
            return Self::Unresponsive;
        }
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                return Self::Io(io.kind().into());
            }
            cause = inner.source();
        }
        Self::Protocol(error)
    }
}

impl Connection {
    /// Serves one peer until it leaves, or has to.
    pub(super) async fn serve<T, S, B>(
        self,
        socket: T,
        service: S,
        newcomer: Newcomer,
    ) -> Result<(), Ended>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Answering<B>,
        B: Content,
    {
        let welcome = async {
            let opened = open(socket, self.version, FIRST_BYTES).await?;
            match newcomer.settle() {
                Ok(place) => Ok((opened, place)),
                Err(full) => {
                    opened.turn_away(self.version, full).await;
                    Err(Ended::Full(full))
                }
            }
        };
        let (opened, _place) = tokio::select! {
            welcomed = welcome => welcomed?,
            () = newcomer.crowded_out.cancelled() => return Err(Ended::CrowdedOut),
            () = self.stop.cancelled() => return Err(Ended::Stopping),
        };
        drop(newcomer);
        let calls = Calls {
            service,
            caller: self.caller.clone(),
        };
        let service = service_fn(move |request| calls.call(request));
        let io = TokioIo::new(opened);
        match self.version {
            Version::Http1 => {
                let mut builder = http1::Builder::new();
                builder
                    .timer(TokioTimer::new())
                    .header_read_timeout(FIRST_BYTES);
                self.converse(pin!(builder.serve_connection(io, service)))
                    .await
            }
            Version::Http2 => {
                let serving = http2(self.tasks.clone()).serve_connection(io, service);
                self.converse(pin!(serving)).await
            }
        }
    }

    /// Until the peer leaves, misbehaves, has its time behind it, or the process ends.
    async fn converse(&self, mut serving: Pin<&mut impl Conversation>) -> Result<(), Ended> {
        let over = async {
            match self.version {
                Version::Http1 => tokio::time::sleep(HTTP1_AGE).await,
                Version::Http2 => self.caller.lull(IDLE).await,
            }
        };
        let (told, farewell) = tokio::select! {
            ended = serving.as_mut() => return Ok(ended?),
            () = self.caller.unwanted() => return Err(Ended::TakenBack),
            () = self.stop.cancelled() => (Ended::Stopping, LAST_FAREWELL),
            () = over => (Ended::Idle, FAREWELL),
        };
        serving.as_mut().leave();
        let overdue = async {
            match self.version {
                // A peer that does not read its last answer would stay for ever.
                Version::Http1 => tokio::time::sleep(FAREWELL).await,
                Version::Http2 => self.caller.lull(farewell).await,
            }
        };
        tokio::select! {
            ended = serving => ended?,
            () = overdue => {}
        }
        Err(told)
    }
}

/// HTTP of either version, as far as its end is concerned.
trait Conversation: Future<Output = hyper::Result<()>> {
    /// Asks the peer to leave once it has its answers.
    fn leave(self: Pin<&mut Self>);
}

impl<T, S, B> Conversation for http1::Connection<TokioIo<T>, S>
where
    Self: Future<Output = hyper::Result<()>>,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    fn leave(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<T, S, B> Conversation for http2::Connection<TokioIo<T>, S, Tasks>
where
    Self: Future<Output = hyper::Result<()>>,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
    Tasks: Http2ServerConnExec<S::Future, B>,
{
    fn leave(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

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

/// HTTP/2 with bounds where the defaults have none; the numbers keep a connection below 5 MiB.
fn http2(tasks: TaskTracker) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(Tasks(tasks));
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
