//! Pauses that end by themselves. What is resumed by the clock is resumed as by a caller, so it is kept, and recorded.

use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Owner;
use crate::grpc::{Caller, Configuration, Verb, Wish};

/// The longest that the clock is left alone: it may be set meanwhile.
const GLANCE: Duration = Duration::from_secs(10);

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Resumes each listener when its time has come, until `stop`.
pub(super) async fn follow(owner: Owner, stop: CancellationToken) {
    let mut changes = owner.supervisor.changes();
    loop {
        let mut wait = GLANCE;
        if let Some((at, name, etag)) = owner.supervisor.next_resume() {
            match at.duration_since(SystemTime::now()) {
                Ok(left) => wait = left.min(GLANCE),
                Err(_) => wait = resume(&owner, name, etag).await,
            }
        }
        let woken = async {
            tokio::select! {
                changed = changes.changed() => changed.is_ok(),
                () = tokio::time::sleep(wait) => true,
            }
        };
        if stop.run_until_cancelled(woken).await != Some(true) {
            return;
        }
    }
}

/// How long until it is looked at again.
async fn resume(owner: &Owner, name: String, etag: String) -> Duration {
    let caller = Caller {
        actor: "switchboard".to_owned(),
        method: "ResumeListener",
        reason: "its resume_time has come".to_owned(),
        ..Caller::default()
    };
    let wish = Wish {
        name: name.clone(),
        verb: Verb::Resume,
        etag,
    };
    match owner.set_desired(wish, caller).await {
        Ok(_) => Duration::ZERO,
        Err(error) => {
            warn!(listener = name, %error, "cannot resume it; trying again");
            AGAIN
        }
    }
}
