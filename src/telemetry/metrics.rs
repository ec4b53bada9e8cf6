//! One reading of every instrument, for whoever asks: the scrape, the control plane and the OTLP exporter.
//!
//! All three read one pipeline. With a reader each, a histogram would be recorded once for each of them, and what one
//! reader's collection observed would linger in another's, so that a deleted listener would come back. A collection asks
//! the source once and hands its points to the SDK's callbacks; collections take turns.

use super::instruments::{
    Definition, Histograms, Instrument, Kind, NONE, OF_LISTENERS, listener_attributes,
};
use super::logs::Writer;
use super::snapshot::{self, Series};
use super::{Error, Labels, process};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider};
use opentelemetry_prometheus::PrometheusExporter;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    Instrument as SdkInstrument, InstrumentKind, Pipeline, SdkMeterProvider, Stream, Temporality,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Listeners that every instrument has room for, and values of an instrument's own attribute, such as the seven states.
const LISTENERS: usize = 1_000;
const VALUES: usize = 7;

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
}

/// What was lost on the way out.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) spans: AtomicU64,
    pub(super) metrics: AtomicU64,
}

pub(super) struct Metrics {
    pub(super) histograms: Histograms,
    pub(super) losses: Arc<Losses>,
    sources: Mutex<Vec<Weak<dyn Source>>>,
    observed: Arc<Mutex<Points>>,
    turn: Mutex<()>,
    reader: Shared,
    registry: prometheus::Registry,
    logs: Option<Writer>,
    since: Instant,
    _provider: SdkMeterProvider,
}

/// By instrument.
struct Points(Vec<Vec<(Vec<KeyValue>, f64)>>);

impl Default for Points {
    fn default() -> Self {
        Self(vec![Vec::new(); Instrument::ALL.len()])
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
        let mut attributes =
            labels.map_or_else(Vec::new, |labels| listener_attributes(labels).to_vec());
        if let Some(value) = attribute {
            attributes.push(KeyValue::new(instrument.definition().attribute, value));
        }
        self.0[instrument as usize].push((attributes, value));
    }
}

/// The Prometheus exporter is also the reader of the other two.
#[derive(Debug, Clone)]
struct Shared(Arc<PrometheusExporter>);

impl MetricReader for Shared {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }
    fn collect(&self, into: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(into)
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }
    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

impl Metrics {
    pub(super) fn new(resource: Resource, logs: Option<Writer>) -> Result<Self, Error> {
        let registry = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .map_err(|error| Error::Metrics(error.to_string()))?;
        let reader = Shared(Arc::new(exporter));
        let provider = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(reader.clone())
            .with_view(observed_limit)
            .build();
        let meter = provider.meter("switchboard");
        let observed = Arc::new(Mutex::new(Points::default()));
        for &instrument in Instrument::ALL {
            register(&meter, instrument, observed.clone());
        }
        Ok(Self {
            histograms: Histograms::new(&meter),
            losses: Arc::default(),
            sources: Mutex::default(),
            observed,
            turn: Mutex::new(()),
            reader,
            registry,
            logs,
            since: Instant::now(),
            _provider: provider,
        })
    }

    /// Has collections read this source too, until it is dropped.
    pub(super) fn observe(&self, source: Weak<dyn Source>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(source);
    }

    /// Prometheus text exposition 0.0.4.
    pub(super) fn prometheus(&self) -> Result<String, Error> {
        let _turn = self.take_turn();
        prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .map_err(|error| Error::Metrics(error.to_string()))
    }

    /// Every metric, as OTLP has it; none when the SDK fails, which it does only after a shutdown.
    pub(super) fn otlp(&self) -> Vec<opentelemetry_proto::tonic::metrics::v1::Metric> {
        let mut collected = ResourceMetrics::default();
        let _ = self.collect(&mut collected);
        let request = ExportMetricsServiceRequest::from(&collected);
        let resources = request.resource_metrics.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_metrics);
        scopes.flat_map(|scope| scope.metrics).collect()
    }

    pub(super) fn collect(&self, into: &mut ResourceMetrics) -> OTelSdkResult {
        let _turn = self.take_turn();
        self.reader.collect(into)
    }

    /// Every series; none when the SDK fails, which it does only after a shutdown.
    pub(super) fn snapshot(&self) -> Vec<Series> {
        let mut collected = ResourceMetrics::default();
        let _ = self.collect(&mut collected);
        snapshot::series(&collected)
    }

    /// Reads the source anew; the points stay as they are until the guard is dropped.
    fn take_turn(&self) -> MutexGuard<'_, ()> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut points = Points::default();
        process::observe(&mut points, self.since.elapsed());
        let lost = [
            ("traces", self.losses.spans.load(Ordering::Relaxed)),
            ("metrics", self.losses.metrics.load(Ordering::Relaxed)),
            ("logs", self.logs.as_ref().map_or(0, Writer::lost)),
        ];
        for (signal, lost) in lost {
            points.observe(
                Instrument::TelemetryDropped,
                None,
                Some(signal),
                lost as f64,
            );
        }
        let sources = self
            .sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for source in sources.iter().filter_map(Weak::upgrade) {
            source.collect(&mut points);
        }
        *self.observed.lock().unwrap_or_else(PoisonError::into_inner) = points;
        turn
    }
}

fn observed_limit(instrument: &SdkInstrument) -> Option<Stream> {
    let named = |it: &&Instrument| it.definition().name == instrument.name();
    let definition = Instrument::ALL.iter().find(named)?.definition();
    Stream::builder()
        .with_cardinality_limit(most_series(&definition))
        .build()
        .ok()
}

/// Series that an observed instrument may have. The SDK takes the room for all of them when the process starts.
fn most_series(of: &Definition) -> usize {
    let of_listeners = OF_LISTENERS
        .iter()
        .any(|prefix| of.name.starts_with(prefix));
    match (of_listeners, of.attribute) {
        (true, NONE) => LISTENERS,
        (true, _) => LISTENERS * VALUES,
        (false, _) => 100,
    }
}

fn register(meter: &Meter, instrument: Instrument, observed: Arc<Mutex<Points>>) {
    let Definition {
        name,
        unit,
        kind,
        description,
        ..
    } = instrument.definition();
    let report = move |to: &dyn AsyncInstrument<f64>| {
        let points = observed.lock().unwrap_or_else(PoisonError::into_inner);
        for (attributes, value) in &points.0[instrument as usize] {
            to.observe(*value, attributes);
        }
    };
    // Each kind has a builder type of its own; the SDK keeps the callback, the handles do nothing.
    macro_rules! build {
        ($method:ident) => {
            drop(
                meter
                    .$method(name)
                    .with_unit(unit)
                    .with_description(description)
                    .with_callback(report)
                    .build(),
            )
        };
    }
    match kind {
        Kind::Counter => build!(f64_observable_counter),
        Kind::UpDownCounter => build!(f64_observable_up_down_counter),
        Kind::Gauge => build!(f64_observable_gauge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str) -> Labels {
        Labels {
            listener: name.into(),
            protocol: "ack",
            transport: "tcp",
            network: "ipv4",
        }
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
            }
        }
    }

    fn observed(names: &[&str]) -> (Metrics, Arc<Listeners>) {
        let metrics = Metrics::new(Resource::builder_empty().build(), None).unwrap();
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
        let text = metrics.prometheus().unwrap();
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
        metrics.histograms.session_duration.record(2.0, &[]);
        metrics.histograms.session_duration.record(3.0, &[]);
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
        assert_eq!(find("switchboard.session.duration.count").value, 2.0);
        let sum = find("switchboard.session.duration.sum");
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
        assert!(metrics.prometheus().unwrap().contains("\"b\""));
        listeners.0.lock().unwrap().pop();
        assert!(!metrics.prometheus().unwrap().contains("\"b\""));
        assert_eq!(of_b(&metrics.snapshot()), 0);
        drop(listeners);
        let text = metrics.prometheus().unwrap();
        assert!(!text.contains("switchboard_listener"), "{text}");
    }

    #[test]
    fn a_thousand_listeners_do_not_overflow() {
        let names: Vec<String> = (0..1000).map(|n| format!("listener-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (metrics, _listeners) = observed(&names);
        let text = metrics.prometheus().unwrap();
        assert!(!text.contains("overflow"));
        assert_eq!(text.matches("\nswitchboard_listener_status{").count(), 2000);
    }
}
