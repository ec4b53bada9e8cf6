//! Traces and metrics on their way to an OTLP collector, which may be slow, hang or be away.
//!
//! The exporters live on a thread and a runtime of their own: the SDK's blocking waits deadlock when the exporter needs
//! the runtime that is waiting. Finished spans go into a bounded queue that never waits; every export has a time-out;
//! what does not get through is dropped and counted, and each outage is logged once. The SDK's own batch processor and
//! periodic reader are not used, because the one keeps its losses to itself and the other takes five seconds to shut
//! down whatever it is told.

use super::Error;
use super::metrics::{Losses, Metrics};
use super::settings::Endpoints;
use opentelemetry::Context;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use tonic::transport::{Channel, Endpoint};

/// The longest that one export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Spans that may wait for export: the SDK's default.
const QUEUE_SPANS: usize = 2048;
/// Spans in one export: the SDK's default. So many are sent before the interval ends.
const BATCH_SPANS: usize = 512;
const SPAN_INTERVAL: Duration = Duration::from_secs(1);
/// The convention's default; `OTEL_METRIC_EXPORT_INTERVAL`, in milliseconds, replaces it.
const METRIC_INTERVAL: Duration = Duration::from_secs(60);

/// Finished spans that wait for export.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    spans: Mutex<Vec<SpanData>>,
    batch: Notify,
    losses: Arc<Losses>,
}

impl Queue {
    pub(super) fn new(losses: Arc<Losses>) -> Self {
        Self(Arc::new(Waiting {
            losses,
            ..Waiting::default()
        }))
    }

    pub(super) fn take(&self) -> Vec<SpanData> {
        std::mem::take(&mut *self.0.spans.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        let mut spans = self.0.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.len() >= QUEUE_SPANS {
            self.0.losses.spans.fetch_add(1, Ordering::Relaxed);
            return;
        }
        spans.push(span);
        if spans.len() == BATCH_SPANS {
            self.0.batch.notify_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The running exporter; its thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Exporter {
    flushes: mpsc::Sender<SyncSender<()>>,
}

impl Exporter {
    /// Builds the exporters on their thread; nothing is connected yet.
    ///
    /// # Errors
    /// When an endpoint or another `OTEL_EXPORTER_OTLP_*` variable cannot be used, or there is no thread to be had.
    pub(super) fn start(
        endpoints: Endpoints,
        resource: Resource,
        queue: Queue,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let (flushes, asked) = mpsc::channel(1);
        let (ready, built) = sync_channel(1);
        let work = move || {
            let run = || {
                let runtime = runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(Error::Thread)?;
                let _inside = runtime.enter();
                let pipeline = Pipeline::new(endpoints, &resource, queue, metrics)
                    .map_err(|error| Error::Endpoint(error.to_string()))?;
                Ok((runtime, pipeline))
            };
            match run() {
                Ok((runtime, pipeline)) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(pipeline.run(asked));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        };
        thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(work)
            .map_err(Error::Thread)?;
        built
            .recv()
            .unwrap_or_else(|_| Err(Error::Endpoint("the exporter ended".to_owned())))?;
        Ok(Self { flushes })
    }

    /// Sends what waits, and returns when that is done or at the deadline. Blocks.
    pub(super) fn flush(&self, deadline: Instant) {
        let (done, finished) = sync_channel(1);
        // A full channel means that a flush is under way already.
        if self.flushes.try_send(done).is_ok() {
            let _ = finished.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

struct Pipeline {
    queue: Queue,
    metrics: Arc<Metrics>,
    span_exporter: Option<SpanExporter>,
    metric_exporter: Option<MetricsServiceClient<Channel>>,
    resource: Resource,
    traces_up: Outage,
    metrics_up: Outage,
}

impl Pipeline {
    fn new(
        endpoints: Endpoints,
        resource: &Resource,
        queue: Queue,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ExporterBuildError> {
        let spans = |endpoint| {
            let builder = SpanExporter::builder().with_tonic();
            builder
                .with_endpoint(endpoint)
                .with_timeout(EXPORT_TIMEOUT)
                .build()
        };
        let metric = |endpoint: String| {
            Endpoint::from_shared(endpoint)
                .map(|endpoint| MetricsServiceClient::new(endpoint.connect_lazy()))
                .map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))
        };
        let mut span_exporter = endpoints.traces.map(spans).transpose()?;
        if let Some(exporter) = &mut span_exporter {
            exporter.set_resource(resource);
        }
        Ok(Self {
            span_exporter,
            metric_exporter: endpoints.metrics.map(metric).transpose()?,
            traces_up: Outage::new("traces"),
            metrics_up: Outage::new("metrics"),
            resource: resource.clone(),
            queue,
            metrics,
        })
    }

    async fn run(mut self, mut flushes: mpsc::Receiver<SyncSender<()>>) {
        let waiting = self.queue.0.clone();
        let ticks = |period| {
            let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut spans_due = ticks(SPAN_INTERVAL);
        let mut metrics_due = ticks(metric_interval(
            std::env::var("OTEL_METRIC_EXPORT_INTERVAL").ok(),
        ));
        loop {
            tokio::select! {
                () = waiting.batch.notified() => self.send_spans().await,
                _ = spans_due.tick() => self.send_spans().await,
                _ = metrics_due.tick() => self.send_metrics().await,
                flush = flushes.recv() => {
                    let Some(done) = flush else { return };
                    self.send_spans().await;
                    self.send_metrics().await;
                    let _ = done.send(());
                }
            }
        }
    }

    async fn send_spans(&mut self) {
        let Some(exporter) = &self.span_exporter else {
            return;
        };
        let mut spans = self.queue.take().into_iter().peekable();
        while spans.peek().is_some() {
            let batch: Vec<SpanData> = spans.by_ref().take(BATCH_SPANS).collect();
            let size = batch.len() as u64;
            let result = timeout(EXPORT_TIMEOUT, exporter.export(batch)).await;
            if self.traces_up.is_lost(result) {
                self.metrics.losses.spans.fetch_add(size, Ordering::Relaxed);
            }
        }
    }

    async fn send_metrics(&mut self) {
        let Some(exporter) = &mut self.metric_exporter else {
            return;
        };
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some((&self.resource).into()),
                scope_metrics: vec![ScopeMetrics {
                    metrics: self.metrics.otlp(),
                    ..ScopeMetrics::default()
                }],
                schema_url: String::new(),
            }],
        };
        let result = timeout(EXPORT_TIMEOUT, exporter.export(request)).await;
        let result = result.map(|answer| {
            let failure = |status: tonic::Status| OTelSdkError::InternalFailure(status.to_string());
            answer.map(drop).map_err(failure)
        });
        if self.metrics_up.is_lost(result) {
            self.metrics.losses.metrics.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn metric_interval(variable: Option<String>) -> Duration {
    variable
        .and_then(|value| value.parse().ok())
        .filter(|&millis: &u64| millis > 0)
        .map_or(METRIC_INTERVAL, Duration::from_millis)
}

/// Says once that exports began to fail and once that they work again.
struct Outage {
    signal: &'static str,
    failing: bool,
}

impl Outage {
    fn new(signal: &'static str) -> Self {
        Self {
            signal,
            failing: false,
        }
    }

    fn is_lost<E>(&mut self, result: Result<OTelSdkResult, E>) -> bool {
        let problem = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        let signal = self.signal;
        match &problem {
            Some(error) if !self.failing => {
                tracing::warn!(
                    signal,
                    error,
                    "telemetry export fails; what is not sent is dropped and counted"
                );
            }
            None if self.failing => tracing::info!(signal, "telemetry export works again"),
            _ => {}
        }
        self.failing = problem.is_some();
        self.failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_variables_or_a_minute() {
        let interval = |value: &str| metric_interval(Some(value.to_owned()));
        assert_eq!(interval("250"), Duration::from_millis(250));
        for unusable in ["", "0", "soon", "-1"] {
            assert_eq!(interval(unusable), METRIC_INTERVAL);
        }
        assert_eq!(metric_interval(None), METRIC_INTERVAL);
    }

    #[test]
    fn an_outage_ends_with_the_first_success() {
        let mut outage = Outage::new("traces");
        assert!(!outage.is_lost::<()>(Ok(Ok(()))));
        assert!(outage.is_lost(Err(())));
        assert!(outage.failing);
        assert!(!outage.is_lost::<()>(Ok(Ok(()))));
        assert!(!outage.failing);
    }
}
