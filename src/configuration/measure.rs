//! What is counted of the configuration.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::{Instrument, Sink, Source};

/// Reloads by how they ended, and how far what runs is from what a restart would give.
#[derive(Debug, Default)]
pub struct Measures {
    reloads: Mutex<Vec<(Option<&'static str>, u64)>>,
    drift: AtomicU64,
    failing: AtomicU64,
}

impl Measures {
    /// A reload ended well, or for this reason not.
    pub(super) fn reloaded(&self, failure: Option<&'static str>) {
        let mut reloads = crate::net::lock(&self.reloads);
        match reloads.iter_mut().find(|(reason, _)| *reason == failure) {
            Some((_, count)) => *count += 1,
            None => reloads.push((failure, 1)),
        }
        self.failing
            .store(u64::from(failure.is_some()), Ordering::Relaxed);
    }

    pub(super) fn has_drifted(&self) -> bool {
        self.drift.load(Ordering::Relaxed) > 0
    }

    pub(super) fn drifted(&self, settings: usize) {
        self.drift.store(settings as u64, Ordering::Relaxed);
    }
}

impl Source for Measures {
    fn collect(&self, sink: &mut dyn Sink) {
        let mut put =
            |what, attribute, value: u64| sink.observe(what, None, attribute, value as f64);
        let reloads = crate::net::lock(&self.reloads).clone();
        if !reloads.iter().any(|(reason, _)| reason.is_none()) {
            put(Instrument::ConfigReloads, None, 0);
        }
        for (reason, count) in reloads {
            put(Instrument::ConfigReloads, reason, count);
        }
        put(
            Instrument::ConfigDrift,
            None,
            self.drift.load(Ordering::Relaxed),
        );
        put(
            Instrument::ConfigFailing,
            None,
            self.failing.load(Ordering::Relaxed),
        );
    }
}
