//! One reading of everything that is measured, for whoever asks: the scrape, the control plane and the OTLP exporter.
//!
//! A collection asks the sources for what they count, and writes the points down as they come; each of the three then
//! puts the same points in its own words. Nothing is kept from one collection to the next, so what its owner no longer
//! tells is gone. The SDK's metrics are not used: they never forget a set of attributes that was recorded once, and have
//! no exemplars.

mod distribution;
mod otlp;
mod passage;
mod process;
mod recording;
mod snapshot;
mod text;

pub use snapshot::Series;
pub use text::Exposition;

pub(super) use otlp::points;
pub(super) use passage::Passage;
pub(super) use recording::Recorded;
#[cfg(test)]
pub(super) use text::{name, series_name};

use super::Labels;
use super::instruments::{ERROR_TYPE, Instrument, Scope};
use super::logs::Writer;
use distribution::{Distribution, Family, Values};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_sdk::Resource;
use process::Switches;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Instant, SystemTime};

/// Whoever knows the listeners.
pub trait Source: Send + Sync {
    /// Puts every point of every listener into `sink`. Called from any thread, once for each collection; it may take
    /// milliseconds, must not wait, and must not ask telemetry for a collection itself.
    fn collect(&self, sink: &mut dyn Sink);
}

/// Takes points during a collection.
pub trait Sink {
    /// One point: its listener, or `None` for the process; the value of the instrument's own attribute, from a closed
    /// set (`active`, `receive`, `max_sessions`), or `None`; and the value in the instrument's unit.
    fn observe(
        &mut self,
        instrument: Instrument,
        labels: Option<&Labels>,
        attribute: Option<&'static str>,
        value: f64,
    );

    /// Everything that was recorded of this listener.
    fn recorded(&mut self, labels: &Labels);
}

pub(super) struct Metrics {
    pub(super) passage: Arc<Passage>,
    calls: Family,
    sources: Mutex<Vec<Weak<dyn Source>>>,
    switches: Mutex<Switches>,
    resource: Resource,
    logs: Option<Writer>,
    began: Instant,
    since: SystemTime,
}

/// What one collection found.
struct Points {
    /// By instrument.
    of: Vec<Vec<Point>>,
    /// When the process began to count.
    since: SystemTime,
    now: SystemTime,
}

struct Point {
    labels: Option<Labels>,
    values: Values,
    value: Value,
}

enum Value {
    Number(f64),
    Distribution(Distribution),
}

impl Points {
    fn new(since: SystemTime) -> Self {
        Self {
            of: Instrument::ALL.iter().map(|_| Vec::new()).collect(),
            since,
            now: SystemTime::now(),
        }
    }

    /// Every instrument that has points, with them.
    fn each(&self) -> impl Iterator<Item = (Instrument, &[Point])> {
        let all = Instrument::ALL.iter().zip(&self.of);
        all.filter(|(_, points)| !points.is_empty())
            .map(|(instrument, points)| (*instrument, &**points))
    }

    /// Has what the process refuses there at 0 before it does, where the words for it are known: what comes up first
    /// with a count has not grown, for whoever looks at rates.
    fn zeros(&mut self) {
        for &instrument in Instrument::ALL {
            let definition = instrument.definition();
            let [errors] = definition.attributes else {
                continue;
            };
            if definition.scope != Scope::Process || errors.key != ERROR_TYPE {
                continue;
            }
            for &word in errors.values {
                let points = &self.of[instrument as usize];
                if points.iter().all(|point| point.values[0] != word) {
                    self.observe(instrument, None, Some(word), 0.0);
                }
            }
        }
    }

    fn distributions(&mut self, labels: Option<&Labels>, family: &Family) {
        let points = family.read().map(|(values, read)| Point {
            labels: labels.cloned(),
            values,
            value: Value::Distribution(read),
        });
        self.of[family.instrument as usize].extend(points);
    }
}

impl Point {
    /// Its attributes by their keys, in the order of these.
    fn attributes(&self, instrument: Instrument) -> Vec<(&'static str, &str)> {
        use super::instruments::{LISTENER, NETWORK, PROTOCOL, TRANSPORT};
        let definition = instrument.definition();
        let own = definition.attributes.iter().zip(self.values);
        let mut pairs: Vec<_> = own
            .filter(|(_, value)| !value.is_empty())
            .map(|(attribute, value)| (attribute.key, value))
            .collect();
        if let Some(labels) = &self.labels {
            pairs.push((LISTENER, &labels.listener));
            if definition.scope == Scope::Listener {
                pairs.extend([
                    (PROTOCOL, labels.protocol),
                    (TRANSPORT, labels.transport),
                    (NETWORK, labels.network),
                ]);
            }
        }
        pairs.sort_unstable();
        pairs
    }
}

impl Sink for Points {
    fn observe(
        &mut self,
        instrument: Instrument,
        labels: Option<&Labels>,
        attribute: Option<&'static str>,
        value: f64,
    ) {
        debug_assert!(
            is_defined(instrument, labels, attribute),
            "{instrument:?} has no {attribute:?}, or another owner"
        );
        self.of[instrument as usize].push(Point {
            labels: labels.cloned(),
            values: [attribute.unwrap_or_default(), "", "", ""],
            value: Value::Number(value),
        });
    }

    fn recorded(&mut self, labels: &Labels) {
        for family in labels.recorded.families() {
            self.distributions(Some(labels), family);
        }
    }
}

/// Whether the definition says that there is such a point.
fn is_defined(
    instrument: Instrument,
    labels: Option<&Labels>,
    attribute: Option<&'static str>,
) -> bool {
    let definition = instrument.definition();
    let known = attribute.is_none_or(|value| {
        let own = definition.attributes.first();
        own.is_some_and(|own| own.values.is_empty() || own.values.contains(&value))
    });
    known && labels.is_some() == (definition.scope != Scope::Process)
}

impl Metrics {
    pub(super) fn new(resource: Resource, logs: Option<Writer>) -> Self {
        Self {
            passage: Arc::default(),
            calls: Family::new(Instrument::CallDuration),
            sources: Mutex::default(),
            switches: Mutex::default(),
            resource,
            logs,
            began: Instant::now(),
            since: SystemTime::now(),
        }
    }

    /// Has collections read this source too, until it is dropped.
    pub(super) fn observe(&self, source: Weak<dyn Source>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|source| source.strong_count() > 0);
        sources.push(source);
    }

    /// For a scraper.
    pub(super) fn exposition(&self, exposition: Exposition) -> String {
        text::write(&self.collect(), &self.resource, exposition)
    }

    /// What is exported over OTLP: cumulative, with exemplars.
    pub(super) fn otlp(&self) -> Vec<Metric> {
        otlp::metrics(&self.collect())
    }

    /// Every series.
    pub(super) fn snapshot(&self) -> Vec<Series> {
        snapshot::series(&self.collect())
    }

    fn collect(&self) -> Points {
        let mut points = Points::new(self.since);
        let sources = self
            .sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for source in sources.iter().filter_map(Weak::upgrade) {
            source.collect(&mut points);
        }
        points.distributions(None, &self.calls);
        self.own(&mut points);
        points.zeros();
        points
    }

    /// The process's figures, and telemetry's own.
    fn own(&self, points: &mut Points) {
        {
            let mut switches = self.switches.lock().unwrap_or_else(PoisonError::into_inner);
            process::observe(points, self.began.elapsed(), &mut switches);
        }
        let lost = [
            ("traces", self.passage.spans.load(Ordering::Relaxed)),
            ("metrics", self.passage.metrics.load(Ordering::Relaxed)),
            ("logs", self.logs.as_ref().map_or(0, Writer::lost)),
        ];
        for (signal, lost) in lost {
            let dropped = Instrument::TelemetryDropped;
            points.observe(dropped, None, Some(signal), lost as f64);
        }
        let suppressed = self.logs.as_ref().map_or(0, Writer::suppressed);
        points.observe(Instrument::LogSuppressed, None, None, suppressed as f64);
        self.passage.observe(points);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Trace};
    use super::*;

    fn labels(name: &str) -> Labels {
        Labels::new(name.into(), "ack", "tcp", "ipv4")
    }

    /// Two listeners, of which the second can be deleted.
    struct Listeners(Mutex<Vec<Labels>>);

    impl Source for Listeners {
        fn collect(&self, sink: &mut dyn Sink) {
            for labels in self.0.lock().unwrap().iter() {
                let mut add = |instrument, attribute, value| {
                    sink.observe(instrument, Some(labels), attribute, value);
                };
                add(Instrument::ListenerStatus, Some("active"), 1.0);
                add(Instrument::ListenerStatus, Some("paused"), 0.0);
                add(Instrument::Connections, None, 5.0);
                add(Instrument::Connections, Some("max_sessions"), 2.0);
                add(Instrument::Io, Some("receive"), 4096.0);
                add(Instrument::ChatLongestWait, None, 1.5);
                sink.recorded(labels);
            }
        }
    }

    fn observed(names: &[&str]) -> (Metrics, Arc<Listeners>) {
        let metrics = Metrics::new(Resource::builder_empty().build(), None);
        let listeners = Arc::new(Listeners(Mutex::new(
            names.iter().map(|n| labels(n)).collect(),
        )));
        let source: Weak<dyn Source> = Arc::downgrade(&(listeners.clone() as Arc<dyn Source>));
        metrics.observe(source);
        (metrics, listeners)
    }

    #[test]
    fn prometheus_text_names_the_series() {
        let (metrics, _listeners) = observed(&["a"]);
        let labels = "network_transport=\"tcp\",network_type=\"ipv4\",switchboard_listener_name=\"a\",switchboard_listener_protocol=\"ack\"";
        let text = metrics.exposition(Exposition::Prometheus);
        for line in [
            format!("switchboard_listener_connections_total{{{labels}}} 5"),
            format!(
                "switchboard_listener_connections_total{{error_type=\"max_sessions\",{labels}}} 2"
            ),
            format!(
                "switchboard_listener_status{{{labels},switchboard_listener_state=\"active\"}} 1"
            ),
            format!(
                "switchboard_session_io_bytes_total{{network_io_direction=\"receive\",{labels}}} 4096"
            ),
            format!("switchboard_chat_longest_wait_seconds{{{labels}}} 1.5"),
            "switchboard_telemetry_dropped_total{switchboard_telemetry_signal=\"logs\"} 0"
                .to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert!(text.contains("# TYPE switchboard_listener_connections_total counter"));
        assert!(!text.contains("otel_scope"), "{text}");
        if cfg!(target_os = "linux") {
            for name in [
                "process_cpu_time_seconds_total",
                "process_memory_usage_bytes",
            ] {
                assert!(text.contains(name), "no {name} in\n{text}");
            }
        }
    }

    #[test]
    fn a_snapshot_says_the_same_with_otel_names() {
        let (metrics, _listeners) = observed(&["a"]);
        let calls = ["grpc", "a/B", "OK", ""];
        metrics.calls.record(calls, 2.0, &Trace::default());
        metrics.calls.record(calls, 3.0, &Trace::default());
        let all = metrics.snapshot();
        let find = |name: &str| all.iter().find(|series| series.metric == name).unwrap();
        let of_name = |s: &&Series| s.metric == "switchboard.listener.connections";
        let accepted = |s: &&Series| of_name(s) && s.attributes.len() == 4;
        let connections = all.iter().find(accepted).unwrap();
        assert_eq!((connections.value, connections.kind), (5.0, Kind::Counter));
        assert_eq!(connections.unit, "{connection}");
        let expected = [
            ("network.transport", "tcp"),
            ("network.type", "ipv4"),
            ("switchboard.listener.name", "a"),
            ("switchboard.listener.protocol", "ack"),
        ];
        assert_eq!(
            connections.attributes,
            expected.map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert_eq!(find("rpc.server.call.duration.count").value, 2.0);
        let sum = find("rpc.server.call.duration.sum");
        assert_eq!((sum.value, &*sum.unit), (5.0, "s"));
        assert_eq!(find("switchboard.chat.longest_wait").kind, Kind::Gauge);
    }

    #[test]
    fn a_deleted_listener_vanishes_at_once_whoever_collects() {
        let (metrics, listeners) = observed(&["a", "b"]);
        let of_b = |all: &[Series]| {
            all.iter()
                .filter(|s| s.attributes.iter().any(|(_, value)| value == "b"))
                .count()
        };
        assert_eq!(of_b(&metrics.snapshot()), 6);
        assert!(metrics.exposition(Exposition::Prometheus).contains("\"b\""));
        listeners.0.lock().unwrap().pop();
        assert!(!metrics.exposition(Exposition::Prometheus).contains("\"b\""));
        assert_eq!(of_b(&metrics.snapshot()), 0);
        drop(listeners);
        let text = metrics.exposition(Exposition::Prometheus);
        assert!(!text.contains("switchboard_listener"), "{text}");
    }

    #[test]
    fn a_thousand_listeners_do_not_overflow() {
        let names: Vec<String> = (0..1000).map(|n| format!("listener-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (metrics, _listeners) = observed(&names);
        let text = metrics.exposition(Exposition::Prometheus);
        assert!(!text.contains("overflow"));
        assert_eq!(text.matches("\nswitchboard_listener_status{").count(), 2000);
    }
}
