//! What is counted of the store and of the process's own doors, under the names of telemetry: neither
//! floor knows the other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::configuration::Measures;
use crate::net::Counters;
use crate::store::Store;
use crate::telemetry::{Instrument, Sink, Source, Telemetry};

/// Everything that is counted besides the listeners; collected for as long as this lives.
pub(super) struct Measured {
    pub(super) configuration: Arc<Measures>,
    pub(super) doors: Arc<DoorMeasures>,
    _store: Arc<StoreMeasures>,
}

impl Measured {
    /// Has it all collected.
    pub(super) fn new(telemetry: &Telemetry, store: &Store) -> Self {
        let (configuration, doors) = (Arc::<Measures>::default(), Arc::<DoorMeasures>::default());
        let store = Arc::new(StoreMeasures(store.clone()));
        let sources: [Weak<dyn Source>; 3] = [
            Arc::<Measures>::downgrade(&configuration),
            Arc::<DoorMeasures>::downgrade(&doors),
            Arc::<StoreMeasures>::downgrade(&store),
        ];
        sources
            .into_iter()
            .for_each(|source| telemetry.observe(source));
        Self {
            configuration,
            doors,
            _store: store,
        }
    }
}

/// The store's own counts.
struct StoreMeasures(Store);

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

/// What the control plane and the HTTP side accepted, and turned away.
#[derive(Default)]
pub(super) struct DoorMeasures {
    pub(super) grpc: Arc<Counters>,
    pub(super) calls: Arc<Counters>,
    pub(super) http: Arc<Counters>,
}

impl Source for DoorMeasures {
    fn collect(&self, sink: &mut dyn Sink) {
        for (what, counters) in [
            (Instrument::ControlConnections, &self.grpc),
            (Instrument::HttpConnections, &self.http),
        ] {
            let accepted = counters.accepted.load(Ordering::Relaxed);
            sink.observe(what, None, None, accepted as f64);
        }
        for (what, counters) in [
            (Instrument::ControlConnections, &self.grpc),
            (Instrument::ControlCallsRefused, &self.calls),
            (Instrument::HttpConnections, &self.http),
        ] {
            for (reason, count) in counters.refusals() {
                sink.observe(what, None, Some(reason), count as f64);
            }
        }
    }
}
