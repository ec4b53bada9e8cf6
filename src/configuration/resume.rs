//! Pauses that end by themselves. What is resumed by the clock is resumed as by a caller, so it is kept, and recorded.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Owner;
use crate::grpc::{Caller, Configuration, Verb, Wish};

/// The longest that the clock is left alone: it may be set meanwhile.
const GLANCE: Duration = Duration::from_secs(10);

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Resumes each listener when its time has come, until `stop`. One that cannot be holds up no other.
pub(super) async fn follow(owner: Owner, stop: CancellationToken) {
    let mut changes = owner.supervisor.changes();
    let mut failed = HashMap::new();
    loop {
        failed.retain(|_, at: &mut Instant| at.elapsed() < AGAIN);
        let (due, next) = owner.supervisor.resumes(SystemTime::now());
        for pause in due {
            if !failed.contains_key(&pause) && !resume(&owner, &pause).await {
                failed.insert(pause, Instant::now());
            }
        }
        let left = next.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        let wait = left.unwrap_or(GLANCE).min(GLANCE);
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

/// Whether a pause, by its listener and the etag of that, is over.
async fn resume(owner: &Owner, (name, etag): &(String, String)) -> bool {
    let caller = Caller {
        actor: "switchboard".to_owned(),
        method: "ResumeListener",
        reason: "its resume_time has come".to_owned(),
        ..Caller::default()
    };
    let wish = Wish {
        name: name.clone(),
        verb: Verb::Resume,
        etag: etag.clone(),
    };
    let resumed = owner.set_desired(wish, caller).await;
    if let Err(error) = &resumed {
        warn!(listener = name, %error, "cannot resume it; trying again");
    }
    resumed.is_ok()
}
