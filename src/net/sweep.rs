//! The sweep of a door: every clock of every session, and what its protocol has due, with one timer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::close::{Ask, CloseReason};
use super::door::Door;
use super::limits::Bounds;
use super::session::Session;

/// A peer that lets its bytes wait this long without one of them moving is a slow consumer.
const STALL: Duration = Duration::from_secs(10);

impl Door {
    /// Runs every clock of this door until `stop`.
    pub(super) async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let pause = tokio::time::sleep(self.terms().sweep_interval());
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
            let terms = self.terms();
            terms.handler.tick(Instant::now());
            for (session, ask) in self.overdue(&terms.bounds) {
                self.ask(&session, ask);
            }
        }
    }

    fn overdue(&self, bounds: &Bounds) -> Vec<(Arc<Session>, Ask)> {
        let mut overdue = Vec::new();
        self.sessions.each(|session| {
            if let Some(ask) = self.judge(session, bounds) {
                overdue.push((session.clone(), ask));
            }
        });
        overdue
    }

    fn judge(&self, session: &Session, bounds: &Bounds) -> Option<Ask> {
        if session.stalled_for() > STALL {
            self.counters.stalls.fetch_add(1, Ordering::Relaxed);
            return Some(Ask::Cut(CloseReason::SlowConsumer));
        }
        if session.is_ending() {
            return None;
        }
        let busy = session.owed.load(Ordering::Relaxed) > 0 || session.queued_bytes() > 0;
        if !busy && session.quiet_for() > bounds.idle_timeout {
            return Some(Ask::Cut(CloseReason::Idle));
        }
        let old = bounds
            .max_session_age
            .is_some_and(|age| session.since.elapsed() > age);
        (old && session.asked().is_none()).then_some(Ask::Finish(CloseReason::MaxAge))
    }
}
