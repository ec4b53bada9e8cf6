//! What the log says of a session that ends, and of one that stays: an event each, one line, with everything that a span
//! of its whole life would have said.

use std::time::Duration;

use tracing::debug;

use super::close::CloseReason;
use super::counters::Totals;
use super::door::Door;
use super::session::Session;
use crate::telemetry::event;

impl Door {
    /// Tells of an end.
    pub(super) fn tell_end(
        &self,
        session: &Session,
        reason: CloseReason,
        totals: &Totals,
        open_for: Duration,
        rtt: u32,
    ) {
        debug!(
            event = event::SESSION_END,
            listener = %self.labels.listener, session = %session.id, reason = reason.word(),
            received_messages = totals.received_messages, sent_messages = totals.sent_messages,
            received_bytes = totals.received_bytes, sent_bytes = totals.sent_bytes,
            stalls = session.stalls(), rtt_us = (rtt > 0).then_some(rtt),
            open_ms = millis(open_for), trace_id = %session.trace, "session ended"
        );
    }

    /// Tells how a session fares that is still there.
    pub(super) fn tell_checkpoint(&self, session: &Session) {
        let totals = session.traffic.totals();
        debug!(
            event = event::SESSION_CHECKPOINT,
            listener = %self.labels.listener, session = %session.id,
            received_messages = totals.received_messages, sent_messages = totals.sent_messages,
            received_bytes = totals.received_bytes, sent_bytes = totals.sent_bytes,
            stalls = session.stalls(), rtt_us = round_trip(session).map(micros),
            open_ms = millis(session.since.elapsed()), trace_id = %session.trace, "session goes on"
        );
    }

    /// The round-trip time, in microseconds, of a session whose end will be told, or that is measured; 0 otherwise, for
    /// then the kernel is not asked.
    pub(super) fn last_round_trip(&self, session: &Session) -> u32 {
        let is_sampled = self.telemetry.samples_round_trip();
        let wanted = is_sampled || Self::tells_of_sessions();
        let Some(rtt) = wanted.then(|| round_trip(session)).flatten() else {
            return 0;
        };
        if is_sampled {
            self.telemetry.round_trip(&self.labels, rtt, &session.trace);
        }
        micros(rtt)
    }

    /// Whether the log has what becomes of sessions.
    pub(super) fn tells_of_sessions() -> bool {
        tracing::enabled!(tracing::Level::DEBUG)
    }
}

fn round_trip(session: &Session) -> Option<Duration> {
    Some(session.tcp_info()?.round_trip_time)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
