//! What becomes of spans and points on their way to a collector, counted by those who send them.

use super::super::instruments::Instrument;
use super::Sink;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What passed on the way out, and what was lost.
#[derive(Debug, Default)]
pub(in super::super) struct Passage {
    /// Spans that were lost, wherever that was.
    pub(in super::super) spans: AtomicU64,
    /// Exports of metrics that did not come through whole.
    pub(in super::super) metrics: AtomicU64,
    pub(in super::super) queue: Queued,
    pub(in super::super) spans_sent: Sent,
    pub(in super::super) points_sent: Sent,
}

/// Spans that wait for export.
#[derive(Debug, Default)]
pub(in super::super) struct Queued {
    /// How many may wait.
    pub(in super::super) capacity: AtomicU64,
    /// How many do.
    pub(in super::super) size: AtomicU64,
    /// How many have been let in.
    pub(in super::super) entered: AtomicU64,
    /// How many found it full.
    pub(in super::super) refused: AtomicU64,
}

/// What was sent of one signal.
#[derive(Debug, Default)]
pub(in super::super) struct Sent {
    inflight: AtomicU64,
    taken: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
}

impl Sent {
    /// An export of so many begins; there is one at a time.
    pub(in super::super) fn begin(&self, count: u64) {
        self.inflight.store(count, Relaxed);
    }

    /// It has ended: the collector rejected so many of them or, when there is no number, took none. How many are lost:
    /// no more than there were, whatever the collector says.
    pub(in super::super) fn end(&self, count: u64, rejected: Option<u64>) -> u64 {
        self.inflight.store(0, Relaxed);
        let lost = rejected.map_or(count, |rejected| rejected.min(count));
        self.taken.fetch_add(count - lost, Relaxed);
        let of = match rejected {
            Some(_) => &self.rejected,
            None => &self.failed,
        };
        of.fetch_add(lost, Relaxed);
        lost
    }

    fn observe(&self, exported: Instrument, sink: &mut dyn Sink) {
        for (error, count) in [
            (None, &self.taken),
            (Some("rejected"), &self.rejected),
            (Some("failed"), &self.failed),
        ] {
            sink.observe(exported, None, error, count.load(Relaxed) as f64);
        }
    }
}

impl Passage {
    pub(super) fn observe(&self, sink: &mut dyn Sink) {
        let queue = &self.queue;
        for (what, error, count) in [
            (Instrument::SpanQueueSize, None, &queue.size),
            (Instrument::SpanQueueCapacity, None, &queue.capacity),
            (Instrument::SpansProcessed, None, &queue.entered),
            (
                Instrument::SpansProcessed,
                Some("queue_full"),
                &queue.refused,
            ),
            (Instrument::SpansInflight, None, &self.spans_sent.inflight),
            (Instrument::PointsInflight, None, &self.points_sent.inflight),
        ] {
            sink.observe(what, None, error, count.load(Relaxed) as f64);
        }
        self.spans_sent.observe(Instrument::SpansExported, sink);
        self.points_sent.observe(Instrument::PointsExported, sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_lost_than_was_sent() {
        let sent = Sent::default();
        let ends = [Some(0), Some(3), Some(u64::MAX), None];
        assert_eq!(ends.map(|rejected| sent.end(10, rejected)), [0, 3, 10, 10]);
        let counts = [&sent.taken, &sent.rejected, &sent.failed];
        assert_eq!(counts.map(|count| count.load(Relaxed)), [17, 13, 10]);
    }
}
