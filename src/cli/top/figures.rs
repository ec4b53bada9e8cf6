//! What a snapshot of the service's own measurements comes to: the totals of the header, and the pace of each listener.

use std::collections::BTreeMap;

use crate::grpc::api;
use crate::telemetry::{IO_DIRECTION, Instrument, LISTENER};

/// What is read of all that is measured, so that a look at it costs as little as it can.
const READ: [Instrument; 12] = [
    Instrument::Messages,
    Instrument::Datagrams,
    Instrument::Io,
    Instrument::DatagramsDropped,
    Instrument::ChatWaiting,
    Instrument::ChatLongestWait,
    Instrument::ShellWorkers,
    Instrument::ProcessCpuTime,
    Instrument::ProcessMemoryUsage,
    Instrument::ProcessOpenFiles,
    Instrument::TelemetryDropped,
    Instrument::WatchEventsDropped,
];

/// How much passes, each a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Pace {
    /// Messages from peers; datagrams where there are no sessions.
    pub(super) received_messages: f64,
    /// The same to peers.
    pub(super) sent_messages: f64,
    /// Bytes from peers.
    pub(super) received_bytes: f64,
    /// Bytes to peers.
    pub(super) sent_bytes: f64,
}

/// The service in a few numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    /// Whether there are rates: a first snapshot has none.
    pub(super) has_rates: bool,
    /// Processors that are busy, 1 for one of them.
    pub(super) processors: f64,
    /// Resident memory, in bytes.
    pub(super) memory: f64,
    /// Open descriptors.
    pub(super) descriptors: f64,
    /// Processes that run commands, or wait for some.
    pub(super) workers: f64,
    /// Conversations that wait for an answer.
    pub(super) waiting: f64,
    /// For how long the first of them does, in seconds.
    pub(super) longest_wait: f64,
    /// Datagrams that were not answered.
    pub(super) dropped: f64,
    /// The same, a second.
    pub(super) dropping: f64,
    /// Events, spans and log lines that nobody was told of.
    pub(super) untold: f64,
    /// Of all listeners.
    pub(super) pace: Pace,
    /// Of each listener, by its id.
    pub(super) paces: BTreeMap<String, Pace>,
}

/// The filter that admits what is read.
pub(super) fn filter() -> String {
    let wanted = READ.map(|instrument| format!("metric = {:?}", instrument.name()));
    wanted.join(" OR ")
}

impl Figures {
    /// Adds a snapshot up.
    pub(super) fn of(snapshot: &api::MetricSnapshot) -> Self {
        let mut figures = Self::default();
        for series in &snapshot.series {
            let read = READ.into_iter().find(|one| one.name() == series.metric);
            if let Some(instrument) = read {
                figures.has_rates |= series.rate.is_some();
                figures.add(instrument, series);
            }
        }
        figures
    }

    fn add(&mut self, instrument: Instrument, series: &api::MetricSeries) {
        let (value, rate) = (series.value, series.rate.unwrap_or_default());
        match instrument {
            Instrument::Messages | Instrument::Datagrams => {
                self.passes(series, |pace| {
                    (&mut pace.received_messages, &mut pace.sent_messages)
                });
            }
            Instrument::Io => {
                self.passes(series, |pace| {
                    (&mut pace.received_bytes, &mut pace.sent_bytes)
                });
            }
            Instrument::DatagramsDropped => {
                self.dropped += value;
                self.dropping += rate;
            }
            Instrument::TelemetryDropped | Instrument::WatchEventsDropped => self.untold += value,
            Instrument::ChatWaiting => self.waiting += value,
            Instrument::ChatLongestWait => self.longest_wait = self.longest_wait.max(value),
            Instrument::ShellWorkers => self.workers += value,
            Instrument::ProcessCpuTime => self.processors += rate,
            Instrument::ProcessMemoryUsage => self.memory = value,
            Instrument::ProcessOpenFiles => self.descriptors = value,
            _ => {}
        }
    }

    /// Adds what goes one of two ways, to all and to its listener.
    fn passes(
        &mut self,
        series: &api::MetricSeries,
        ways: impl Fn(&mut Pace) -> (&mut f64, &mut f64),
    ) {
        let attribute = |key| series.attributes.get(key).map_or("", String::as_str);
        let comes = attribute(IO_DIRECTION) == "receive";
        let of = self.paces.entry(attribute(LISTENER).to_owned());
        for pace in [&mut self.pace, of.or_default()] {
            let (received, sent) = ways(pace);
            *(if comes { received } else { sent }) += series.rate.unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(
        of: Instrument,
        attributes: &[(&str, &str)],
        value: f64,
        rate: f64,
    ) -> api::MetricSeries {
        let pairs = attributes.iter();
        api::MetricSeries {
            metric: of.name().to_owned(),
            attributes: pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            value,
            rate: (rate > 0.0).then_some(rate),
            ..Default::default()
        }
    }

    #[test]
    fn totals_are_the_sums_of_the_listeners() {
        let of = |listener, way| [(LISTENER, listener), (IO_DIRECTION, way)];
        let snapshot = api::MetricSnapshot {
            series: vec![
                series(Instrument::Messages, &of("a", "receive"), 9.0, 2.0),
                series(Instrument::Messages, &of("a", "transmit"), 9.0, 1.0),
                series(Instrument::Datagrams, &of("b", "receive"), 9.0, 4.0),
                series(Instrument::Io, &of("b", "transmit"), 9.0, 100.0),
                series(Instrument::ChatWaiting, &[(LISTENER, "c")], 3.0, 0.0),
                series(Instrument::ChatLongestWait, &[], 12.0, 0.0),
                series(Instrument::ProcessCpuTime, &[], 9.0, 0.5),
                series(Instrument::ProcessCpuTime, &[], 9.0, 0.25),
                series(Instrument::StoreSize, &[], 9.0, 0.0),
            ],
            ..Default::default()
        };
        let figures = Figures::of(&snapshot);
        assert_eq!(figures.pace.received_messages, 6.0);
        assert_eq!(figures.paces["a"].sent_messages, 1.0);
        assert_eq!(figures.paces["b"].received_messages, 4.0);
        assert_eq!(figures.pace.sent_bytes, 100.0);
        assert_eq!((figures.waiting, figures.longest_wait), (3.0, 12.0));
        assert_eq!((figures.processors, figures.has_rates), (0.75, true));
    }

    #[test]
    fn only_what_is_read_is_asked_for() {
        let text = filter();
        assert_eq!(text.matches("metric = \"").count(), READ.len());
        assert!(text.len() < 4_096, "a filter may be so long");
    }
}
