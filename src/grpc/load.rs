//! How much the control plane does at once, and for how long: calls beyond that are refused before
//! anything is done for them, and every stream ends when its time is up or the control plane goes.
//!
//! Health is always answered: that of a busy process is asked for most.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Frame, SizeHint};
use prost::bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::body::Body;
use tonic::{Code, Status};

use super::status::{Failure, quota, status, with_reason};
use crate::net::{Counters, web};
use crate::supervisor::Error;

/// Calls at work at once.
const SHORT: usize = 256;

/// Streams, and calls that wait for what others do, at once.
const LONG: usize = 1_024;

/// What a call may take that says nothing of it, unless it waits for others.
const PATIENCE: Duration = Duration::from_secs(30);

/// When somebody who found no room may ask again.
const PAUSE: Duration = Duration::from_millis(500);

/// How much is done at once.
#[derive(Clone)]
pub(super) struct Load {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    refused: Arc<Counters>,
    closing: CancellationToken,
}

/// What a call takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Next to nothing.
    Probe,
    /// A moment.
    Short,
    /// What it waits for: a grace, a condition.
    Waiting,
    /// As long as its client listens.
    Stream,
}

/// Unary methods that wait for sessions to end, or for a condition. Those that make sessions end, and wait for none, find
/// room when these have taken all of theirs.
const WAITING: [&str; 5] = [
    "UpdateListener",
    "DeleteListener",
    "StopListener",
    "WaitListener",
    "ReloadConfig",
];

fn kind(method: &str, streams: bool) -> Kind {
    let (service, name) = method.rsplit_once('/').unwrap_or_default();
    if streams {
        Kind::Stream
    } else if service == "grpc.health.v1.Health" {
        Kind::Probe
    } else if WAITING.contains(&name) {
        Kind::Waiting
    } else {
        Kind::Short
    }
}

/// Room that a call takes up.
type Permit = Option<Arc<OwnedSemaphorePermit>>;

tokio::task_local! {
    /// That of the call which the task is at.
    static HELD: Permit;
}

/// The room of the call that is being answered, to be held by whatever goes on when its caller has left.
pub(super) fn held() -> Permit {
    HELD.try_with(Permit::clone).ok().flatten()
}

/// What a call was given.
pub(super) struct Turn {
    kind: Kind,
    permit: Permit,
    time: Option<Duration>,
    closing: CancellationToken,
}

impl Load {
    pub(super) fn new(refused: Arc<Counters>, closing: CancellationToken) -> Self {
        Self {
            short: Arc::new(Semaphore::new(SHORT)),
            long: Arc::new(Semaphore::new(LONG)),
            refused,
            closing,
        }
    }

    /// A turn for a call, or the answer that there is none.
    pub(super) fn admit<B>(
        &self,
        method: &str,
        streams: bool,
        request: &http::Request<B>,
    ) -> Result<Turn, Box<http::Response<Body>>> {
        let caller = request.extensions().get::<web::Caller>();
        if caller.is_some_and(|caller| !caller.may_ask()) {
            let message = "this connection asks faster than one may; wait for answers in between";
            return Err(self.refuse("request_rate", Code::ResourceExhausted, message));
        }
        let kind = kind(method, streams);
        let (room, reason, message) = match kind {
            Kind::Probe => (None, "", ""),
            Kind::Short => (
                Some(&self.short),
                "max_calls",
                "as many calls are at work as may be; ask again",
            ),
            Kind::Waiting | Kind::Stream => (
                Some(&self.long),
                "max_streams",
                "as many streams and waiting calls are open as may be; end some, or ask again",
            ),
        };
        let permit = match room.map(|room| room.clone().try_acquire_owned()) {
            None => None,
            Some(Ok(permit)) => Some(Arc::new(permit)),
            Some(Err(_)) => return Err(self.refuse(reason, Code::Unavailable, message)),
        };
        let asked = request.headers().get("grpc-timeout");
        let asked = asked.and_then(|value| timeout(value.to_str().ok()?));
        let own = matches!(kind, Kind::Probe | Kind::Short).then_some(PATIENCE);
        Ok(Turn {
            kind,
            permit,
            time: asked.or(own),
            closing: self.closing.clone(),
        })
    }

    fn refuse(&self, reason: &'static str, code: Code, message: &str) -> Box<http::Response<Body>> {
        self.refused.refuse(reason);
        let details = with_reason("OVERLOADED", vec![("limit", reason.to_owned())]);
        let details = quota(details, reason, message, PAUSE);
        Box::new(status(code, message, details).into_http())
    }
}

impl Turn {
    /// Runs a call within its time; of a stream that is the time until its end.
    pub(super) async fn take<E>(
        self,
        call: impl Future<Output = Result<http::Response<Body>, E>>,
    ) -> Result<http::Response<Body>, E> {
        let call = HELD.scope(self.permit.clone(), call);
        let Some(time) = self.time else {
            return call.await.map(|answer| self.bound(answer, None));
        };
        let mut end = Box::pin(tokio::time::sleep(time));
        tokio::select! {
            answer = call => answer.map(|answer| self.bound(answer, Some(end))),
            () = end.as_mut() => Ok(too_late().into_http()),
        }
    }

    fn bound(
        self,
        answer: http::Response<Body>,
        end: Option<Pin<Box<Sleep>>>,
    ) -> http::Response<Body> {
        if self.kind != Kind::Stream {
            return answer;
        }
        answer.map(|body| {
            Body::new(Bounded {
                body,
                end,
                closing: Box::pin(self.closing.cancelled_owned()),
                ended: false,
                _permit: self.permit,
            })
        })
    }
}

/// A stream of answers, which ends with its time, and when the control plane goes.
struct Bounded {
    body: Body,
    end: Option<Pin<Box<Sleep>>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
    _permit: Permit,
}

impl hyper::body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // What it has still to say goes first.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let overdue = |end: &mut Pin<Box<Sleep>>| end.as_mut().poll(cx).is_ready();
        let status = if self.end.as_mut().is_some_and(overdue) {
            too_late()
        } else if self.closing.as_mut().poll(cx).is_ready() {
            Failure::from(Error::Stopping).0
        } else {
            return Poll::Pending;
        };
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        Poll::Ready(Some(match status.add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn too_late() -> Status {
    let message = "the call's time was up before its answer; it may still be done";
    let details = with_reason("DEADLINE_EXCEEDED", Vec::new());
    status(Code::DeadlineExceeded, message, details)
}

/// A `grpc-timeout`: at most eight digits and a unit. One that is none counts as not said.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| plain)?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::call::known;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, time) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("10S", Some(Duration::from_secs(10))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
        ] {
            assert_eq!(timeout(text), time, "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "123456789S", "1.5S", "1é"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }

    #[test]
    fn calls_are_told_apart_by_what_they_take() {
        for (method, expected) in [
            ("grpc.health.v1.Health/Check", Kind::Probe),
            ("grpc.health.v1.Health/Watch", Kind::Stream),
            ("switchboard.v1.ListenerService/GetListener", Kind::Short),
            ("switchboard.v1.ListenerService/StopListener", Kind::Waiting),
            (
                "switchboard.v1.ListenerService/WatchListeners",
                Kind::Stream,
            ),
            ("made.up/Method", Kind::Short),
        ] {
            let (name, streams) = known(&format!("/{method}"));
            assert_eq!(kind(name, streams), expected, "{method}");
        }
        for name in WAITING {
            let of = ["Listener", "Session", "Config", "Server"];
            let exists = |s| known(&format!("/switchboard.v1.{s}Service/{name}")).0 != "_OTHER";
            assert!(of.into_iter().any(exists), "{name}");
        }
    }

    #[tokio::test]
    async fn what_outlasts_its_call_keeps_its_room() {
        let load = Load::new(Arc::default(), CancellationToken::new());
        let request = http::Request::new(());
        let turn = load.admit("a/StopListener", false, &request).ok().unwrap();
        let (tell, told) = tokio::sync::oneshot::channel();
        let call = turn.take(async {
            let _ = tell.send(held());
            std::future::pending::<Result<http::Response<Body>, ()>>().await
        });
        let kept = tokio::select! {
            _ = call => panic!("it has no end"),
            kept = told => kept.unwrap(),
        };
        // Its caller has left.
        assert!(kept.is_some() && held().is_none());
        assert_eq!(load.long.available_permits(), LONG - 1);
        drop(kept);
        assert_eq!(load.long.available_permits(), LONG);
    }

    #[test]
    fn what_finds_no_room_is_refused_and_counted_and_health_is_not() {
        let refused = Arc::<Counters>::default();
        let load = Load::new(refused.clone(), CancellationToken::new());
        let request = http::Request::new(());
        let admit = |method: &str, streams| load.admit(method, streams, &request);
        let calls: Vec<_> = (0..SHORT).map(|_| admit("a/Get", false)).collect();
        assert!(calls.iter().all(Result::is_ok));
        let answer = admit("a/Get", false).err().unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        let details = tonic_types::StatusExt::get_error_details(&status);
        assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(PAUSE));
        // Others have their own room, or need none.
        assert!(admit("grpc.health.v1.Health/Check", false).is_ok());
        let streams: Vec<_> = (0..LONG).map(|_| admit("a/Watch", true)).collect();
        assert!(streams.iter().all(Result::is_ok));
        assert!(admit("a/WaitListener", false).is_err());
        drop((calls, streams));
        assert!(admit("a/Get", false).is_ok() && admit("a/Watch", true).is_ok());
        assert_eq!(refused.refusals(), [("max_calls", 1), ("max_streams", 1)]);
    }
}
