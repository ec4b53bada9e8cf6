//! What is counted of the store, under the names of telemetry: neither floor knows the other.

use crate::store::Store;
use crate::telemetry::{Instrument, Sink, Source};

/// The store's own counts.
pub(super) struct StoreMeasures(pub(super) Store);

impl Source for StoreMeasures {
    fn collect(&self, sink: &mut dyn Sink) {
        let facts = self.0.facts();
        let mut put =
            |what, attribute, value: u64| sink.observe(what, None, attribute, value as f64);
        put(Instrument::StoreSize, None, facts.size);
        put(Instrument::StoreCommits, None, facts.commits);
        put(Instrument::StoreWrites, None, facts.writes);
        put(Instrument::AuditLost, None, facts.lost_events);
        for (reason, count) in facts.failures {
            if count > 0 {
                put(Instrument::StoreWrites, Some(reason), count);
            }
        }
    }
}
