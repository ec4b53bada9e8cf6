//! Traces and metrics on their way to an OTLP collector, which may be slow, hang, talk nonsense or be away.
//!
//! ```text
//!  spans end ──▶ queue ──▶ a batch ─┐
//!                                   ├─▶ encode ──▶ lane: post, read the answer, perhaps again ──▶ collector
//!  each interval ─▶ a collection ───┘
//! ```
//! All of it lives on a thread and a runtime of its own, so that it takes nothing from those who serve. Each signal has a
//! lane of its own, and one export at a time: what is held is the queue and what is under way, whatever the collector
//! does. Every export has its time; what does not get through is dropped and counted, and each outage is logged once.
//!
//! The exporters that come with the SDK are not used: they read answers without a bound, keep to themselves what a
//! collector rejected, repeat nothing, and take their own time to shut down.

mod answer;
mod connection;
mod encode;
mod lane;
mod queue;

pub use encode::gzip;
pub(super) use queue::Queue;

use super::Error;
use super::metrics::{Metrics, points};
use super::settings::{Plan, Signal};
use encode::Origin;
use lane::{Lane, Leaving};
use opentelemetry_sdk::Resource;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// The running exporters; their thread ends when this is dropped, or when it has been flushed.
#[derive(Debug)]
pub(super) struct Exporter {
    leave: watch::Sender<Option<tokio::time::Instant>>,
    ended: Mutex<Receiver<()>>,
}

impl Exporter {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// When there is no thread, or no runtime for it, to be had.
    pub(super) fn start(
        plan: &Plan,
        origin: (&Resource, &str),
        queue: Queue,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let (leave, leaving) = watch::channel(None);
        let (end, ended) = sync_channel(1);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            // They look up names, and a resolver may hang.
            .max_blocking_threads(2)
            .build()
            .map_err(Error::Thread)?;
        let pipeline = Pipeline::new(plan, origin, queue, metrics, &leaving);
        thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(move || pipeline.run(&runtime, &end))
            .map_err(Error::Thread)?;
        Ok(Self {
            leave,
            ended: Mutex::new(ended),
        })
    }

    /// Sends what waits, once, and ends; returns when that is done or at the deadline. Blocks.
    pub(super) fn flush(&self, deadline: Instant) {
        self.leave.send_replace(Some(deadline.into()));
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // An error means that it has ended, or that time is up.
        let _ = ended.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

struct Pipeline {
    traces: Option<(Lane, Duration)>,
    metered: Option<(Lane, Duration)>,
    origin: Origin,
    queue: Queue,
    metrics: Arc<Metrics>,
}

impl Pipeline {
    fn new(
        plan: &Plan,
        (resource, version): (&Resource, &str),
        queue: Queue,
        metrics: Arc<Metrics>,
        leaving: &Leaving,
    ) -> Self {
        let lane = |signal, route| Lane::new(signal, route, version, leaving.clone());
        let traces = plan.traces.clone();
        let metered = plan.metrics.clone();
        Self {
            traces: traces.map(|route| (lane(Signal::Traces, route), plan.delay)),
            metered: metered.map(|route| (lane(Signal::Metrics, route), plan.metric_interval)),
            origin: Origin::new(resource, version),
            queue,
            metrics,
        }
    }

    fn run(mut self, runtime: &Runtime, end: &SyncSender<()>) {
        let (traces, metered) = (self.traces.take(), self.metered.take());
        let this = &self;
        runtime.block_on(async {
            let spans = async {
                if let Some((lane, delay)) = traces {
                    this.send_spans(lane, delay).await;
                }
            };
            let metrics = async {
                if let Some((lane, every)) = metered {
                    this.send_metrics(lane, every).await;
                }
            };
            tokio::join!(spans, metrics);
        });
        let _ = end.try_send(());
    }

    async fn send_spans(&self, mut lane: Lane, delay: Duration) {
        let passage = &self.metrics.passage;
        let mut due = every(delay);
        loop {
            tokio::select! {
                () = self.queue.is_batch() => {}
                _ = due.tick() => {}
                () = lane.left() => {}
            }
            lane.rest().await;
            loop {
                let batch = self.queue.take();
                if batch.is_empty() {
                    break;
                }
                let count = batch.len() as u64;
                passage.spans_sent.begin(count);
                let rejected = lane.send(self.origin.traces(batch)).await;
                let lost = passage.spans_sent.end(count, rejected);
                passage.spans.fetch_add(lost, Ordering::Relaxed);
                if rejected.is_none() {
                    break;
                }
            }
            if lane.is_leaving() {
                return;
            }
        }
    }

    async fn send_metrics(&self, mut lane: Lane, interval: Duration) {
        let passage = &self.metrics.passage;
        let mut due = every(interval);
        loop {
            tokio::select! {
                _ = due.tick() => {}
                () = lane.left() => {}
            }
            lane.rest().await;
            let left = lane.is_leaving();
            for part in encode::parts(self.metrics.otlp()) {
                let count = points(&part);
                passage.points_sent.begin(count);
                let rejected = lane.send(self.origin.metrics(part)).await;
                passage.points_sent.end(count, rejected);
                if rejected != Some(0) {
                    // Whatever part of it: one export has not come through as it was.
                    passage.metrics.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
            if left {
                return;
            }
        }
    }
}

/// Ticks, the first of them in a period's time.
fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
