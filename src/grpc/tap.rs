//! `TapSession`: one session's traffic, live and within bounds.

use std::time::{Duration, Instant};

use futures_util::stream::{self, Stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::convert::time;
use super::listeners::{caller, refused};
use super::status::invalid;
use super::{Control, api};
use crate::net::{Direction, Frame, Tap, TapBounds};
use crate::supervisor::{Error, Violation};

/// Bytes that are shown when the caller does not say, and at most.
const BYTES: (u64, u64) = (1 << 20, 64 << 20);

/// How long when the caller does not say, and at most.
const LASTS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

impl Control {
    /// Taps a session until it ends, a bound is reached, or the control plane goes.
    pub(super) async fn tap(
        &self,
        request: Request<api::TapSessionRequest>,
    ) -> Result<Response<tonic::codegen::BoxStream<api::TapSessionResponse>>, Status> {
        // Whoever reads the trail is to know whether what was said was seen.
        let seen = if request.get_ref().include_payload {
            "include_payload"
        } else {
            ""
        };
        let caller = caller(&request, "TapSession", seen);
        let asked = request.into_inner();
        let bounds = bounds(&asked)?;
        let tap = async { self.supervisor.tap(&asked.name, bounds).map_err(refused) };
        let tap = self.audited(caller, &asked.name, tap).await?;
        let responses = responses(tap, self.closing.clone());
        Ok(Response::new(Box::pin(responses)))
    }
}

fn bounds(asked: &api::TapSessionRequest) -> Result<TapBounds, Status> {
    let mut wrong = Vec::new();
    let mut refuse = |field: &str, description: String| {
        wrong.push(Violation {
            field: field.into(),
            description,
        });
    };
    let bytes = match asked.max_bytes {
        0 => BYTES.0,
        bytes => bytes,
    };
    if bytes > BYTES.1 {
        let rule = format!("it is at most {}; 0 asks for {}", BYTES.1, BYTES.0);
        refuse("max_bytes", rule);
    }
    let lasts = asked.max_duration.map(Duration::try_from).transpose();
    let lasts = lasts.ok().map(|lasts| lasts.unwrap_or(LASTS.0));
    let lasts = lasts.filter(|lasts| !lasts.is_zero() && *lasts <= LASTS.1);
    if lasts.is_none() {
        let (usual, most) = (LASTS.0.as_secs(), LASTS.1.as_secs());
        let rule = format!("it is more than none and at most {most}s; unset asks for {usual}s");
        refuse("max_duration", rule);
    }
    match lasts {
        Some(lasts) if wrong.is_empty() => Ok(TapBounds {
            bytes,
            until: Instant::now() + lasts,
            payload: asked.include_payload,
        }),
        _ => Err(invalid("TAP_BOUNDS_INVALID", wrong)),
    }
}

fn responses(
    tap: Tap,
    closing: CancellationToken,
) -> impl Stream<Item = Result<api::TapSessionResponse, Status>> {
    stream::unfold(Some(tap), move |tap| {
        let closing = closing.clone();
        async move {
            let mut tap = tap?;
            match closing.run_until_cancelled(tap.next()).await {
                None => Some((Err(refused(Error::Stopping)), None)),
                Some(Some(frame)) => Some((Ok(response(frame)), Some(tap))),
                Some(None) => match tap.dropped() {
                    0 => None,
                    dropped => Some((Ok(only_dropped(dropped)), None)),
                },
            }
        }
    })
}

fn response(frame: Frame) -> api::TapSessionResponse {
    use api::tap_session_response::Direction as D;
    let direction = match frame.direction {
        Direction::Receive => D::Receive,
        Direction::Transmit => D::Transmit,
    };
    api::TapSessionResponse {
        direction: direction.into(),
        frame_time: Some(time(frame.at)),
        size_bytes: frame.size as u64,
        payload: frame.payload.into(),
        truncated: frame.truncated,
        dropped_frames: frame.dropped,
    }
}

/// What was lost behind the last frame.
fn only_dropped(frames: u64) -> api::TapSessionResponse {
    api::TapSessionResponse {
        dropped_frames: frames,
        ..api::TapSessionResponse::default()
    }
}
