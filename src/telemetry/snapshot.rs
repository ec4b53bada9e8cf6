//! A collection as plain values, for the control plane: what the exporters send, under the same names.

use super::instruments::Kind;
use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::data::{
    AggregatedMetrics, HistogramDataPoint, Metric, MetricData, ResourceMetrics,
};

/// One value of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The OpenTelemetry name; a histogram is two series, with `.count` and `.sum` added.
    pub metric: String,
    /// In UCUM: `s`, `By`, `{session}`.
    pub unit: String,
    /// Keys and values, sorted by key.
    pub attributes: Vec<(String, String)>,
    /// In `unit`.
    pub value: f64,
    /// Whether it can be subtracted from its earlier self.
    pub kind: Kind,
}

/// Every series, sorted by name and attributes.
pub(super) fn series(collected: &ResourceMetrics) -> Vec<Series> {
    let metrics = collected.scope_metrics().flat_map(|scope| scope.metrics());
    let mut all: Vec<Series> = metrics.flat_map(of_metric).collect();
    all.sort_by(|a, b| (&a.metric, &a.attributes).cmp(&(&b.metric, &b.attributes)));
    all
}

fn of_metric(metric: &Metric) -> Vec<Series> {
    let series = |value, kind, attributes| Series {
        metric: metric.name().to_owned(),
        unit: metric.unit().to_owned(),
        attributes,
        value,
        kind,
    };
    // Every instrument here is in floating point.
    let AggregatedMetrics::F64(data) = metric.data() else {
        return Vec::new();
    };
    match data {
        MetricData::Sum(sum) => {
            let kind = if sum.is_monotonic() {
                Kind::Counter
            } else {
                Kind::UpDownCounter
            };
            let points = sum.data_points();
            points
                .map(|p| series(p.value(), kind, pairs(p.attributes())))
                .collect()
        }
        MetricData::Gauge(gauge) => {
            let points = gauge.data_points();
            points
                .map(|p| series(p.value(), Kind::Gauge, pairs(p.attributes())))
                .collect()
        }
        MetricData::Histogram(histogram) => {
            let of_point = |p: &HistogramDataPoint<f64>| {
                let mut count = series(p.count() as f64, Kind::Counter, pairs(p.attributes()));
                let mut sum = series(p.sum(), Kind::Counter, count.attributes.clone());
                count.metric.push_str(".count");
                count.unit = "{event}".to_owned();
                sum.metric.push_str(".sum");
                [count, sum]
            };
            histogram.data_points().flat_map(of_point).collect()
        }
        MetricData::ExponentialHistogram(_) => Vec::new(),
    }
}

fn pairs<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = attributes
        .map(|pair| (pair.key.to_string(), pair.value.to_string()))
        .collect();
    pairs.sort();
    pairs
}
