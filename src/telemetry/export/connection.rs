//! One connection to a collector, over which one request at a time is posted.
//!
//! HTTP/2 for gRPC and HTTP/1.1 for the rest differ here in their handshake alone. A connection that has failed in any
//! way, or was given up on, is closed with all that ran for it, and the next request makes a new one: nothing that a
//! collector does can pile up. Of an answer so much is read as a status needs.

use super::super::settings::{Protocol, Route};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use std::future::{Future, poll_fn};
use std::pin::Pin;

use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Bytes of an answer that are read; a status with its details has few hundred.
const MOST_READ: usize = 64 << 10;
/// Bytes of an answer's head.
const MOST_HEAD: u32 = 16 << 10;

pub(super) struct Connection {
    host: String,
    port: u16,
    protocol: Protocol,
    open: Option<Open>,
}

struct Open {
    sender: Sender,
    /// Ends what runs for the connection when it is dropped.
    _over: DropGuard,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) trailers: HeaderMap,
    pub(super) body: Bytes,
}

/// Nothing came back.
pub(super) struct Failure {
    /// The connection had served before, so that its end may be no more than its age.
    pub(super) was_old: bool,
    pub(super) why: String,
}

impl Connection {
    pub(super) fn new(route: &Route) -> Self {
        let host = route.uri.host().unwrap_or_default();
        Self {
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: route.uri.port_u16().unwrap_or(80),
            protocol: route.protocol,
            open: None,
        }
    }

    /// Posts a request and reads its answer. A call that is dropped on its way closes the connection.
    ///
    /// # Errors
    /// When there is no connection to be had, or it broke.
    pub(super) async fn post(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let taken = self.open.take();
        let was_old = taken.is_some();
        let failed = |why: String| Failure { was_old, why };
        let mut open = match taken {
            Some(open) => open,
            None => self
                .connect()
                .await
                .map_err(|error| failed(told(&*error)))?,
        };
        let (answer, is_whole) = open
            .exchange(request)
            .await
            .map_err(|error| failed(told(&error)))?;
        // What is left unread would stand before the next answer.
        self.open = is_whole.then_some(open);
        Ok(answer)
    }

    async fn connect(&self) -> Result<Open, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        let (over, tasks) = (CancellationToken::new(), TaskTracker::new());
        let tasks = Tasks(tasks, over.clone());
        let io = TokioIo::new(stream);
        let sender = match self.protocol {
            Protocol::Grpc => {
                let mut builder = http2::Builder::new(tasks.clone());
                builder.max_header_list_size(MOST_HEAD);
                let (sender, connection) = builder.handshake(io).await?;
                tasks.run(connection);
                Sender::Http2(sender)
            }
            Protocol::Http => {
                let mut builder = http1::Builder::new();
                builder.max_buf_size(MOST_HEAD as usize);
                let (sender, connection) = builder.handshake(io).await?;
                tasks.run(connection);
                Sender::Http1(sender)
            }
        };
        Ok(Open {
            sender,
            _over: over.drop_guard(),
        })
    }
}

impl Open {
    /// The answer, and whether all of it was read.
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<(Answer, bool)> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (head, mut incoming) = response.into_parts();
        let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
        let is_whole = loop {
            let Some(frame) = next(&mut incoming).await else {
                break true;
            };
            match frame?.into_data() {
                Ok(data) if body.len() + data.len() > MOST_READ => break false,
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        };
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            trailers,
            body: body.into(),
        };
        Ok((answer, is_whole))
    }
}

async fn next(body: &mut Incoming) -> Option<hyper::Result<hyper::body::Frame<Bytes>>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// Runs what a connection needs, until that is over.
#[derive(Clone)]
struct Tasks(TaskTracker, CancellationToken);

impl Tasks {
    fn run(&self, task: impl Future<Output: Send> + Send + 'static) {
        let over = self.1.clone();
        self.0
            .spawn(async move { over.run_until_cancelled(task).await.map(drop) });
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.run(task);
    }
}

/// An error with its causes: `client error (Connect): connection refused`.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        // Some say their cause themselves.
        let cause_told = cause.to_string();
        if !told.contains(&cause_told) {
            told = format!("{told}: {cause_told}");
        }
        next = cause.source();
    }
    told
}
