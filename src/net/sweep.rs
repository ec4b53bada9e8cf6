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

/// How often a session that stays is told of.
const CHECKPOINT: Duration = Duration::from_secs(600);

impl Door {
    /// Runs every clock of this door until `stop`.
    pub(super) async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut last = Instant::now();
        loop {
            let pause = tokio::time::sleep(self.terms().sweep_interval());
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
            let (terms, now) = (self.terms(), Instant::now());
            terms.handler.tick(now);
            self.tell_checkpoints(last, now);
            last = now;
            for (session, ask) in self.overdue(&terms.bounds) {
                self.ask(&session, ask);
            }
        }
    }

    /// Tells of each session that came to a checkpoint between two looks. Nothing is kept for it, and nobody is looked at
    /// where it would not be told.
    fn tell_checkpoints(&self, last: Instant, now: Instant) {
        if !Self::tells_of_sessions() {
            return;
        }
        let mut due = Vec::new();
        self.sessions.each(|session| {
            if passes_checkpoint(session.since, last, now) {
                due.push(session.clone());
            }
        });
        due.iter().for_each(|session| self.tell_checkpoint(session));
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

/// Whether a session's age went past a multiple of [`CHECKPOINT`] between two looks.
fn passes_checkpoint(since: Instant, last: Instant, now: Instant) -> bool {
    let past = |at: Instant| at.saturating_duration_since(since).as_secs() / CHECKPOINT.as_secs();
    past(now) > past(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_of_once_at_each_checkpoint_however_often_it_is_looked_at() {
        let since = Instant::now();
        let at = |secs: u64| since + Duration::from_secs(secs);
        for step in [1, 7, 30, 599, 600] {
            let looks: Vec<_> = (0..=3_000).step_by(step).collect();
            let told = looks.windows(2);
            let told = told.filter(|look| passes_checkpoint(since, at(look[0]), at(look[1])));
            let last = looks[looks.len() - 1];
            assert_eq!(told.count() as u64, last / 600, "every {step} s");
        }
        assert!(!passes_checkpoint(at(100), at(0), at(50)));
        assert!(!passes_checkpoint(since, at(0), at(599)));
    }
}
