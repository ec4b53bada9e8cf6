//! `MetricService`: the same instruments as the exporters.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream::unfold;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status};

use super::convert::time;
use super::filter::Filter;
use super::listeners::refused;
use super::status::{internal, invalid_field, quota, status, with_reason};
use super::{Control, api, page};
use crate::supervisor;
use crate::telemetry::{Kind, Series};

/// Streams at once; each costs a collection at every interval.
pub const STREAMS: usize = 32;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(500);
const LONGEST_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// What tells a series from the others.
type Key = (String, Vec<(String, String)>);

type Item = Result<api::StreamMetricSnapshotsResponse, Status>;

#[tonic::async_trait]
impl api::metric_service_server::MetricService for Control {
    async fn get_metric_snapshot(
        &self,
        request: Request<api::GetMetricSnapshotRequest>,
    ) -> Result<Response<api::GetMetricSnapshotResponse>, Status> {
        let filter = Filter::read::<api::MetricSeries>("filter", &request.get_ref().filter)?;
        let snapshot = self.snapshot(&filter, &mut None).await?;
        let answer = api::GetMetricSnapshotResponse {
            snapshot: Some(snapshot),
        };
        page::fitting(answer, "filter", "ask for fewer series")
    }

    async fn stream_metric_snapshots(
        &self,
        request: Request<api::StreamMetricSnapshotsRequest>,
    ) -> Result<Response<BoxStream<api::StreamMetricSnapshotsResponse>>, Status> {
        let asked = request.into_inner();
        let filter = Filter::read::<api::MetricSeries>("filter", &asked.filter)?;
        let every = every(asked.interval)?;
        let Ok(place) = self.snapshots.clone().try_acquire_owned() else {
            return Err(too_many());
        };
        let mut ticks = interval(every);
        // Who reads slowly gets fewer.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reader = Reader {
            control: self.clone(),
            filter,
            ticks,
            before: Some(Before::default()),
            _place: place,
        };
        let snapshots = unfold(Some(reader), |reader| async { reader?.next().await });
        Ok(Response::new(Box::pin(snapshots)))
    }
}

/// One stream.
struct Reader {
    control: Control,
    filter: Filter,
    ticks: Interval,
    before: Option<Before>,
    _place: OwnedSemaphorePermit,
}

/// The counters of the snapshot before, and when it was.
#[derive(Default)]
struct Before {
    read: Option<Instant>,
    counters: HashMap<Key, f64>,
}

impl Reader {
    /// The next snapshot, or why it is the end.
    async fn next(mut self) -> Option<(Item, Option<Self>)> {
        let closing = self.control.closing.clone();
        let read = closing.run_until_cancelled(async {
            self.ticks.tick().await;
            self.control.snapshot(&self.filter, &mut self.before).await
        });
        let snapshot = match read.await {
            Some(Ok(snapshot)) => snapshot,
            Some(Err(fault)) => return Some((Err(fault), None)),
            None => return Some((Err(refused(supervisor::Error::Stopping)), None)),
        };
        let answer = api::StreamMetricSnapshotsResponse {
            snapshot: Some(snapshot),
        };
        match page::fitting(answer, "filter", "ask for fewer series") {
            Ok(answer) => Some((Ok(answer.into_inner()), Some(self))),
            Err(fault) => Some((Err(fault), None)),
        }
    }
}

impl Control {
    /// What the filter admits now; with rates for whoever knows what was before.
    async fn snapshot(
        &self,
        filter: &Filter,
        before: &mut Option<Before>,
    ) -> Result<api::MetricSnapshot, Status> {
        let telemetry = self.telemetry.clone();
        // A collection walks every session.
        let read = tokio::task::spawn_blocking(move || (telemetry.snapshot(), Instant::now()));
        let (series, now) = read.await.map_err(|fault| internal(&fault.to_string()))?;
        let rates = match before {
            Some(before) => before.rates(&series, now),
            None => vec![None; series.len()],
        };
        let shown = series
            .into_iter()
            .zip(rates)
            .map(|(series, rate)| shown(series, rate));
        Ok(api::MetricSnapshot {
            snapshot_time: Some(time(SystemTime::now())),
            series: shown.filter(|series| filter.admits(series)).collect(),
        })
    }
}

impl Before {
    /// The rates of these series, each per second, where there is one; they are what was before from now on.
    fn rates(&mut self, series: &[Series], now: Instant) -> Vec<Option<f64>> {
        let passed = self
            .read
            .map(|read| now.saturating_duration_since(read).as_secs_f64());
        let mut counters = HashMap::with_capacity(self.counters.len());
        let mut rate = |series: &Series| {
            if series.kind != Kind::Counter {
                return None;
            }
            let key = (series.metric.clone(), series.attributes.clone());
            let before = self.counters.get(&key).copied();
            counters.insert(key, series.value);
            // A listener that was made anew counts from nothing.
            let grown = series.value - before.filter(|before| *before <= series.value)?;
            passed
                .filter(|passed| *passed > 0.0)
                .map(|passed| grown / passed)
        };
        let rates = series.iter().map(&mut rate).collect();
        (self.read, self.counters) = (Some(now), counters);
        rates
    }
}

fn shown(series: Series, rate: Option<f64>) -> api::MetricSeries {
    api::MetricSeries {
        metric: series.metric,
        unit: series.unit,
        attributes: series.attributes.into_iter().collect(),
        value: series.value,
        rate,
    }
}

fn every(asked: Option<prost_types::Duration>) -> Result<Duration, Status> {
    let Some(asked) = asked else {
        return Ok(DEFAULT_INTERVAL);
    };
    match Duration::try_from(asked) {
        Ok(every) if (SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&every) => Ok(every),
        _ => {
            let rule = "it is at least 0.5s and at most 3600s";
            Err(invalid_field("INTERVAL_INVALID", "interval", rule))
        }
    }
}

fn too_many() -> Status {
    let message = format!("{STREAMS} streams of metrics are open, which is all that may be");
    let bare = with_reason("WATCHER_LIMIT", vec![("limit", STREAMS.to_string())]);
    let details = quota(bare, "metric streams", &message, DEFAULT_INTERVAL);
    status(Code::ResourceExhausted, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(metric: &str, kind: Kind, value: f64) -> Series {
        Series {
            metric: metric.into(),
            unit: "1".into(),
            attributes: Vec::new(),
            value,
            kind,
        }
    }

    #[test]
    fn counters_have_rates_from_the_second_snapshot_on_and_nothing_else_has() {
        let read = |count, level| {
            vec![
                series("count", Kind::Counter, count),
                series("level", Kind::Gauge, level),
            ]
        };
        let (mut before, now) = (Before::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(before.rates(&read(5.0, 1.0), now), [None, None]);
        assert_eq!(before.rates(&read(9.0, 7.0), after(2)), [Some(2.0), None]);
        assert_eq!(before.rates(&read(9.0, 7.0), after(3)), [Some(0.0), None]);
        // Begun anew.
        assert_eq!(before.rates(&read(1.0, 7.0), after(4)), [None, None]);
        assert_eq!(before.rates(&read(2.0, 7.0), after(6)), [Some(0.5), None]);
    }

    #[test]
    fn an_interval_is_neither_too_short_nor_too_long() {
        let asked = |seconds, nanos| every(Some(prost_types::Duration { seconds, nanos }));
        assert_eq!(every(None).unwrap(), DEFAULT_INTERVAL);
        assert_eq!(asked(0, 500_000_000).unwrap(), SHORTEST_INTERVAL);
        assert_eq!(asked(3_600, 0).unwrap(), LONGEST_INTERVAL);
        for (seconds, nanos) in [(0, 0), (0, 499_999_999), (3_600, 1), (-1, 0)] {
            assert!(asked(seconds, nanos).is_err(), "{seconds}s {nanos}ns");
        }
    }
}
