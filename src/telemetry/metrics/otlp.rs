//! A collection as OTLP has it: cumulative since the process began or, of a listener, since it was made.

use super::super::instruments::{Instrument, Kind};
use super::distribution::{Distribution, Exemplar};
use super::{Point, Points, Value};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar as OtlpExemplar, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, Sum, exemplar, metric, number_data_point,
};
use std::time::{SystemTime, UNIX_EPOCH};

/// Every instrument that has points.
pub(super) fn metrics(points: &Points) -> Vec<Metric> {
    let all = points.each().map(|(instrument, of)| {
        let definition = instrument.definition();
        Metric {
            name: definition.name.to_owned(),
            description: definition.description.to_owned(),
            unit: definition.unit.to_owned(),
            metadata: Vec::new(),
            data: Some(data(instrument, of, points)),
        }
    });
    all.collect()
}

/// How many points they hold.
pub(in super::super) fn points(metrics: &[Metric]) -> u64 {
    let count = |metric: &Metric| match &metric.data {
        Some(metric::Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(metric::Data::Sum(sum)) => sum.data_points.len(),
        Some(metric::Data::Histogram(histogram)) => histogram.data_points.len(),
        _ => 0,
    };
    metrics.iter().map(|metric| count(metric) as u64).sum()
}

fn data(instrument: Instrument, of: &[Point], points: &Points) -> metric::Data {
    let cumulative = AggregationTemporality::Cumulative.into();
    let numbers = || {
        let numbers = of.iter().filter_map(|p| number(instrument, p, points));
        numbers.collect()
    };
    match instrument.definition().kind {
        Kind::Gauge => metric::Data::Gauge(Gauge {
            data_points: numbers(),
        }),
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: of
                .iter()
                .filter_map(|p| histogram(instrument, p, points))
                .collect(),
            aggregation_temporality: cumulative,
        }),
        kind => metric::Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: cumulative,
            is_monotonic: kind == Kind::Counter,
        }),
    }
}

fn number(instrument: Instrument, point: &Point, points: &Points) -> Option<NumberDataPoint> {
    let Value::Number(value) = point.value else {
        return None;
    };
    Some(NumberDataPoint {
        attributes: attributes(instrument, point),
        start_time_unix_nano: since(point, points),
        time_unix_nano: nanos(points.now),
        exemplars: Vec::new(),
        flags: 0,
        value: Some(number_data_point::Value::AsDouble(value)),
    })
}

fn histogram(instrument: Instrument, point: &Point, points: &Points) -> Option<HistogramDataPoint> {
    let Value::Distribution(read) = &point.value else {
        return None;
    };
    let Distribution {
        counts,
        sum,
        exemplars,
    } = read;
    Some(HistogramDataPoint {
        attributes: attributes(instrument, point),
        start_time_unix_nano: since(point, points),
        time_unix_nano: nanos(points.now),
        count: read.count(),
        sum: Some(*sum),
        bucket_counts: counts.clone(),
        explicit_bounds: instrument.definition().buckets.to_vec(),
        exemplars: exemplars.iter().map(|(_, e)| example(e)).collect(),
        flags: 0,
        min: None,
        max: None,
    })
}

fn example(of: &Exemplar) -> OtlpExemplar {
    let (trace_id, span_id) = of.trace.ids();
    OtlpExemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: nanos(of.at),
        span_id: span_id.to_vec(),
        trace_id: trace_id.to_vec(),
        value: Some(exemplar::Value::AsDouble(of.value)),
    }
}

fn attributes(instrument: Instrument, point: &Point) -> Vec<KeyValue> {
    let pairs = point.attributes(instrument).into_iter();
    let pair = |(key, value): (&str, &str)| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    };
    pairs.map(pair).collect()
}

fn since(point: &Point, points: &Points) -> u64 {
    let owner = point.labels.as_ref();
    nanos(owner.map_or(points.since, |labels| labels.recorded.since))
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
