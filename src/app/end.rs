//! How the process is asked to end, and hurried when it does: by signals, and by calls.

use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::signals::Signals;
use crate::grpc::Leaving;
use crate::supervisor::Supervisor;

/// Who asked first.
pub(super) enum First {
    Signal,
    Call,
}

/// Waits until somebody asks. By when all is to be over.
pub(super) async fn asked(
    signals: &mut Signals,
    leaving: &Leaving,
    supervisor: &Supervisor,
) -> (First, Instant) {
    let (first, deadline) = tokio::select! {
        name = signals.next() => {
            info!(signal = name, "asked to end");
            (First::Signal, leaving.within(supervisor.grace()))
        }
        deadline = leaving.asked() => (First::Call, deadline),
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let grace_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    info!(grace_ms, "draining; a second signal cuts");
    (first, deadline)
}

/// The first signal hurries as a call does; a second one, at any point of the drain, waits for nobody.
pub(super) async fn hurry(
    mut signals: Signals,
    first: First,
    leaving: Leaving,
    supervisor: Supervisor,
    insist: CancellationToken,
) {
    if matches!(first, First::Call) {
        let name = signals.next().await;
        leaving.within(supervisor.grace());
        info!(signal = name, "asked to end again; a second signal cuts");
    }
    let name = signals.next().await;
    warn!(signal = name, "cutting what is left");
    insist.cancel();
}

/// Cuts the sessions that are left when the time is over, which may have come nearer since the drain began.
pub(super) async fn cut_in_time(leaving: Leaving, cut: CancellationToken) {
    leaving.over().await;
    cut.cancel();
}
