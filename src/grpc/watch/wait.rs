//! `WaitListener`.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::super::convert::{bare_name, duration_of, listener};
use super::super::filter::Filter;
use super::super::listeners::refused;
use super::super::status::invalid_field;
use super::super::{Control, api};
use super::places::Method;
use crate::supervisor::Error;

/// The longest wait; whoever names none waits as long, or as their own deadline says.
const LONGEST: Duration = Duration::from_secs(3_600);

/// How often a condition on what a listener counts is looked at. A change is looked at when it happens.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The fields of a listener that hold what is counted.
const COUNTED: [&str; 2] = ["status", "drain"];

pub(in super::super) async fn wait(
    control: &Control,
    request: Request<api::WaitListenerRequest>,
) -> Result<Response<api::WaitListenerResponse>, Status> {
    let asked = request.get_ref();
    let condition = condition(&asked.condition)?;
    let timeout = duration_of(asked.wait_timeout)
        .map_err(|rule| invalid_field("WAIT_TIMEOUT_INVALID", "wait_timeout", rule))?;
    let ends_at = Instant::now() + timeout.unwrap_or(LONGEST).min(LONGEST);
    let name = bare_name(&asked.name);
    let supervisor = &control.supervisor;
    let uid = supervisor.get(name).map_err(refused)?.uid;
    let _place = control.watches.place(&request, Method::WaitListener)?;
    // A look at what is counted walks every session, and nothing else changes without a word.
    let counted = COUNTED.iter().any(|field| asked.condition.contains(field));
    let look_every = if counted { LOOK_EVERY } else { LONGEST };
    let mut changes = supervisor.changes();
    loop {
        changes.mark_unchanged();
        let view = supervisor.get(name).map_err(refused)?;
        if view.uid != uid {
            // Another one took its name.
            return Err(refused(Error::NoListener(name.to_owned())));
        }
        let shown = listener(view);
        let satisfied = condition.admits(&shown);
        let now = Instant::now();
        if satisfied || now >= ends_at {
            return Ok(Response::new(api::WaitListenerResponse {
                listener: Some(shown),
                satisfied,
            }));
        }
        tokio::select! {
            // It only fails when the supervisor is gone, and we hold it.
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(ends_at.min(now + look_every)) => {}
            () = control.closing.cancelled() => return Err(refused(Error::Stopping)),
        }
    }
}

fn condition(text: &str) -> Result<Filter, Status> {
    let condition = Filter::read::<api::Listener>("condition", text)?;
    if condition.is_empty() {
        let rule =
            "say what to wait for, such as `state = STATE_STOPPED` or `status.active_sessions = 0`";
        return Err(invalid_field("FILTER_INVALID", "condition", rule));
    }
    Ok(condition)
}
