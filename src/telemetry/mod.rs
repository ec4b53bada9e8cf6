//! What the process tells of itself: logs, metrics and traces.
//!
//! One handle, cloned freely, through which every floor reports. It decides before it spends: what is counted often is
//! observed from counters that its owner keeps anyway, what is traced often is sampled before a span is made, and
//! without an exporter no span is made at all. Nothing here ever waits for a collector, a scraper or a log reader.

mod escape;
mod export;
mod instruments;
mod labels;
mod logs;
mod metrics;
mod sampling;
mod settings;
mod spans;
mod trace;

pub use escape::{escape, escape_bytes};
pub use export::gzip;
pub use instruments::{IO_DIRECTION, Instrument, Kind, LISTENER};
pub use labels::Labels;
pub use logs::{Override as LogOverride, current_trace, event, log_panics, traced};
pub use metrics::{Exposition, Series, Sink, Source};
pub use settings::{LogFormat, Protocol, REDACTED, Settings, without_password};
pub use spans::{Call, Command, CommandEnd, Concerns, Message, Outcome};
pub use trace::Trace;

use export::{Exporter, Queue};
use metrics::Metrics;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use sampling::Sampling;
use settings::Plan;
use spans::Spans;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{env, fmt, io};

/// Schema of the OpenTelemetry semantic conventions that the names of metrics, spans and their attributes follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Who is reporting.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The program's version.
    pub version: &'static str,
    /// The node's name, the first part of every session id.
    pub node: String,
    /// Unique to this run of the process.
    pub instance_id: String,
}

/// The handle.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    metrics: Arc<Metrics>,
    spans: Spans,
    exporter: Option<Exporter>,
    logs: Option<logs::Writer>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("exporting", &self.0.exporter.is_some())
            .finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Installs the log stream (once in a process; a second start shares it) and, when an endpoint is set here or in the
    /// `OTEL_EXPORTER_OTLP_*` variables, the exporters. A collector that is away is no error.
    ///
    /// # Errors
    /// When the log directives or an endpoint cannot be understood, or a thread cannot be started.
    pub fn start(settings: &Settings, identity: &Identity) -> Result<Self, Error> {
        let variable = |name: &str| env::var(name).ok();
        let plan = Plan::of(settings, &variable).map_err(Error::Endpoint)?;
        let logs = logs::install(&settings.log, settings.log_format)?;
        for doubt in &plan.doubts {
            tracing::warn!(doubt, "a variable is not obeyed as it stands");
        }
        let resource = resource(identity, &plan);
        let metrics = Arc::new(Metrics::new(resource.clone(), Some(logs.clone())));
        let queue = Queue::new(plan.queue, plan.batch, metrics.passage.clone());
        let exporter = if plan.traces.is_none() && plan.metrics.is_none() {
            None
        } else {
            let (queue, metrics) = (queue.clone(), metrics.clone());
            let origin = (&resource, identity.version);
            Some(Exporter::start(&plan, origin, queue, metrics)?)
        };
        Ok(Self(Arc::new(Inner {
            metrics,
            spans: Spans {
                tracer: plan.traces.is_some().then(|| tracer(queue)),
                sampling: Sampling::new(settings, &plan),
                node: identity.node.clone(),
            },
            exporter,
            logs: Some(logs),
        })))
    }

    /// Has every collection read these instruments too, for as long as their owner lives.
    pub fn observe(&self, source: Weak<dyn Source>) {
        self.0.metrics.observe(source);
    }

    /// All metrics as a scraper reads them. Blocks for the milliseconds that a collection takes.
    pub fn exposition(&self, exposition: Exposition) -> String {
        self.0.metrics.exposition(exposition)
    }

    /// The same by their OpenTelemetry names, sorted; a histogram as `.count` and `.sum`. Blocks likewise.
    pub fn snapshot(&self) -> Vec<Series> {
        self.0.metrics.snapshot()
    }

    /// Has the log obey what the configuration says now.
    ///
    /// # Errors
    /// When the directives cannot be understood, or the log stream is not this program's.
    pub fn set_log(&self, directives: &str) -> Result<(), Error> {
        logs::configure(directives)
    }

    /// Changes what is logged beside the configuration, until that changes, or the override is ended or replaced.
    ///
    /// # Errors
    /// When the directives cannot be understood, or the log stream is not this program's.
    pub fn override_log(&self, directives: &str) -> Result<LogOverride, Error> {
        logs::set_aside(directives)
    }

    /// Sends and writes what waits, for the last time, but returns after `deadline` whatever the collector does.
    /// Blocks: an asynchronous caller uses `spawn_blocking`.
    pub fn flush(&self, deadline: Duration) {
        let deadline = Instant::now() + deadline;
        if let Some(exporter) = &self.0.exporter {
            exporter.flush(deadline);
        }
        if let Some(logs) = &self.0.logs {
            logs.flush(deadline);
        }
    }
}

/// What every signal says of its origin; `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` have the last word. Of the
/// command line only the program's name is told: the rest may hold anything.
fn resource(identity: &Identity, plan: &Plan) -> Resource {
    let told = plan.attributes.iter().cloned();
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_service_name("switchboard")
        .with_attributes([
            KeyValue::new("service.version", identity.version),
            KeyValue::new("service.instance.id", identity.instance_id.clone()),
            KeyValue::new("switchboard.node", identity.node.clone()),
            KeyValue::new("process.pid", i64::from(std::process::id())),
            KeyValue::new("os.type", env::consts::OS),
        ])
        .with_attributes(host().map(|host| KeyValue::new("host.name", host)))
        .with_attributes(executable().map(|name| KeyValue::new("process.executable.name", name)))
        .with_attributes(told.map(|(key, value)| KeyValue::new(key, value)));
    match &plan.service {
        Some(name) => resource.with_service_name(name.clone()).build(),
        None => resource.build(),
    }
}

fn host() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    (!name.is_empty()).then_some(name)
}

fn executable() -> Option<String> {
    let path = env::current_exe().ok()?;
    Some(path.file_name()?.to_str()?.to_owned())
}

/// The SDK samples everything, because whoever asks it for a span has decided. The exporter names resource and scope.
fn tracer(queue: Queue) -> SdkTracer {
    SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_span_processor(queue)
        .with_resource(Resource::builder_empty().build())
        .build()
        .tracer("switchboard")
}

/// Why telemetry cannot start or answer.
#[derive(Debug)]
pub enum Error {
    /// The log directives cannot be understood.
    Filter(String),
    /// The log stream belongs to the program that this one is embedded in.
    NoLog,
    /// An endpoint, or another variable of the exporters, cannot be used.
    Endpoint(String),
    /// A thread or its runtime cannot be started.
    Thread(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(problem) => write!(f, "log directives: {problem}"),
            Self::NoLog => f.write_str("the log stream is not this program's to change"),
            Self::Endpoint(problem) => write!(f, "telemetry endpoint: {problem}"),
            Self::Thread(error) => write!(f, "telemetry thread: {error}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
impl Telemetry {
    /// Metrics that only this handle can read; no log stream, no exporters, no spans.
    pub fn quiet() -> Self {
        let metrics = Metrics::new(Resource::builder_empty().build(), None);
        Self(Arc::new(Inner {
            metrics: Arc::new(metrics),
            spans: Spans {
                tracer: None,
                sampling: Sampling::all(1.0),
                node: "test".to_owned(),
            },
            exporter: None,
            logs: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::Mutex;
    use std::thread;
    use tonic::server::{Grpc, UnaryService};

    fn started(endpoint: String) -> Telemetry {
        let settings = Settings {
            log: "off".to_owned(),
            otlp_endpoint: Some(endpoint),
            ..Settings::default()
        };
        let identity = Identity {
            version: "1.2.3",
            node: "local".to_owned(),
            instance_id: "instance-7".to_owned(),
        };
        Telemetry::start(&settings, &identity).unwrap()
    }

    fn labels() -> Labels {
        Labels::new("front".into(), "ack", "tcp", "ipv4")
    }

    fn dropped(telemetry: &Telemetry, signal: &str) -> f64 {
        let attributes = [("switchboard.telemetry.signal".to_owned(), signal.to_owned())];
        let all = telemetry.snapshot();
        let of_signal =
            |s: &&Series| s.metric == "switchboard.telemetry.dropped" && s.attributes == attributes;
        all.iter().find(of_signal).unwrap().value
    }

    #[test]
    fn a_hung_collector_holds_nobody() {
        let hung = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = hung.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let kept = connections.clone();
        thread::spawn(move || {
            for connection in hung.incoming() {
                kept.lock().unwrap().push(connection);
            }
        });
        let telemetry = started(format!("http://{address}"));
        let before = Instant::now();
        for id in 0..5_000 {
            telemetry.session_setup(&labels(), id, Duration::from_micros(50));
        }
        assert!(before.elapsed() < Duration::from_secs(2));
        assert!(dropped(&telemetry, "traces") >= 5_000.0 - 2.0 * 2048.0);
        let before = Instant::now();
        telemetry.flush(Duration::from_millis(300));
        let took = before.elapsed();
        assert!(took < Duration::from_millis(600), "{took:?}");
        assert!(took >= Duration::from_millis(250), "{took:?}");
        assert!(!connections.lock().unwrap().is_empty());
    }

    #[test]
    fn a_refusing_collector_costs_a_counter() {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let telemetry = started(format!("http://{address}"));
        telemetry.session_setup(&labels(), 1, Duration::ZERO);
        telemetry.flush(Duration::from_secs(10));
        assert_eq!(dropped(&telemetry, "traces"), 1.0);
        assert_eq!(dropped(&telemetry, "metrics"), 1.0);
    }

    struct Listener(Labels);

    impl Source for Listener {
        fn collect(&self, sink: &mut dyn Sink) {
            sink.recorded(&self.0);
        }
    }

    /// Answers an export with an empty message.
    struct Accept;

    impl UnaryService<()> for Accept {
        type Response = ();
        type Future = std::future::Ready<Result<tonic::Response<()>, tonic::Status>>;
        fn call(&mut self, _request: tonic::Request<()>) -> Self::Future {
            std::future::ready(Ok(tonic::Response::new(())))
        }
    }

    /// A collector that keeps the bodies it is sent.
    fn collector() -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = bodies.clone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = async move |request: axum::extract::Request| {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            kept.lock().unwrap().push(body.to_vec());
            let request = http::Request::from_parts(head, axum::body::Body::from(body));
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            Grpc::new(codec).unary(Accept, request).await
        };
        let serve = async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let routes = axum::Router::new().fallback(answer);
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let routes = hyper_util::service::TowerToHyperService::new(routes.clone());
                let executor = hyper_util::rt::TokioExecutor::new();
                let io = hyper_util::rt::TokioIo::new(connection);
                let http = hyper::server::conn::http2::Builder::new(executor);
                tokio::spawn(http.serve_connection(io, routes));
            }
        };
        thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(serve)
        });
        (format!("http://{address}"), bodies)
    }

    #[test]
    fn a_working_collector_gets_both_signals_with_their_origin() {
        let (endpoint, bodies) = collector();
        let telemetry = started(endpoint);
        let listener = Arc::new(Listener(labels()));
        let source: Arc<dyn Source> = listener.clone();
        telemetry.observe(Arc::downgrade(&source));
        let trace = telemetry.session_setup(&listener.0, 7, Duration::from_micros(50));
        assert!(trace.is_sampled());
        let before = Instant::now();
        telemetry.flush(Duration::from_secs(10));
        assert!(before.elapsed() < Duration::from_secs(5));
        let bodies = bodies.lock().unwrap();
        let texts: Vec<_> = bodies
            .iter()
            .map(|body| String::from_utf8_lossy(body))
            .collect();
        assert_eq!(texts.len(), 2);
        for text in &texts {
            for part in ["service.name", "switchboard", "instance-7", "1.2.3"] {
                assert!(text.contains(part), "no {part} in {text:?}");
            }
        }
        // The two go their own ways.
        let (traces, metrics) = match texts[0].contains("session setup front") {
            true => (&texts[0], &texts[1]),
            false => (&texts[1], &texts[0]),
        };
        assert!(traces.contains("session setup front"));
        assert!(traces.contains("local-00000000000000000000000007"));
        assert!(metrics.contains("switchboard.session.setup.duration"));
        drop(texts);
        assert_eq!(dropped(&telemetry, "traces"), 0.0);
        assert_eq!(dropped(&telemetry, "metrics"), 0.0);
    }

    #[test]
    fn an_unusable_endpoint_is_refused_at_the_start() {
        let settings = Settings {
            otlp_endpoint: Some("nowhere".to_owned()),
            ..Settings::default()
        };
        let identity = Identity {
            version: "1",
            node: "n".to_owned(),
            instance_id: "i".to_owned(),
        };
        let error = Telemetry::start(&settings, &identity).unwrap_err();
        assert!(matches!(error, Error::Endpoint(_)), "{error}");
        assert!(error.to_string().contains("nowhere"));
    }

    #[test]
    fn a_quiet_handle_still_counts() {
        let telemetry = Telemetry::quiet();
        telemetry.call_ended("a/B", "OK", Duration::from_secs(2), &Trace::default());
        let text = telemetry.exposition(Exposition::Prometheus);
        let line = "rpc_server_call_duration_seconds_count{rpc_method=\"a/B\",rpc_response_status_code=\"OK\",rpc_system_name=\"grpc\"} 1";
        assert!(text.contains(line), "{text}");
        telemetry.flush(Duration::from_secs(1));
    }
}
