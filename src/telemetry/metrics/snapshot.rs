//! A collection as plain values, for the control plane: what the exporters send, under the same names.

use super::super::instruments::{Instrument, Kind};
use super::{Point, Points, Value};

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
pub(super) fn series(points: &Points) -> Vec<Series> {
    let mut all = Vec::new();
    for (instrument, points) in points.each() {
        for point in points {
            add(instrument, point, &mut all);
        }
    }
    all.sort_by(|a, b| (&a.metric, &a.attributes).cmp(&(&b.metric, &b.attributes)));
    all
}

fn add(instrument: Instrument, point: &Point, all: &mut Vec<Series>) {
    let definition = instrument.definition();
    let pairs = point.attributes(instrument).into_iter();
    let attributes: Vec<_> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let mut put = |suffix, unit: &str, kind, value| {
        all.push(Series {
            metric: format!("{}{suffix}", definition.name),
            unit: unit.to_owned(),
            attributes: attributes.clone(),
            value,
            kind,
        });
    };
    match &point.value {
        Value::Number(value) => put("", definition.unit, definition.kind, *value),
        Value::Distribution(read) => {
            put(".count", "{event}", Kind::Counter, read.count() as f64);
            put(".sum", definition.unit, Kind::Counter, read.sum);
        }
    }
}
