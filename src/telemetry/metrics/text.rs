//! A collection as scrapers read it: Prometheus text 0.0.4, or OpenMetrics 1.0, which has exemplars.
//!
//! Both have the same names: dots become underscores, the unit is the last word, and a counter's series end in `_total`.

use super::super::instruments::{Definition, Instrument, Kind};
use super::distribution::{Distribution, Exemplar};
use super::{Point, Points, Value};
use opentelemetry_sdk::Resource;
use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

/// One of the two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus text exposition 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Exposition {
    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The whole text.
pub(super) fn write(points: &Points, resource: &Resource, exposition: Exposition) -> String {
    let mut writer = Writer {
        out: String::with_capacity(64 * 1024),
        exposition,
    };
    for (instrument, of) in points.each() {
        writer.family(instrument, of);
    }
    writer.target(resource);
    if exposition == Exposition::OpenMetrics {
        writer.out.push_str("# EOF\n");
    }
    writer.out
}

/// The name of a metric here, without a counter's `_total`.
pub(in super::super) fn name(definition: &Definition) -> String {
    let unit = unit(definition).map_or(String::new(), |unit| format!("_{unit}"));
    format!("{}{unit}", underscored(definition.name))
}

/// The name of a counter's series, and of any other metric.
pub(in super::super) fn series_name(definition: &Definition) -> String {
    let name = name(definition);
    match definition.kind {
        Kind::Counter => name + "_total",
        _ => name,
    }
}

fn unit(definition: &Definition) -> Option<&'static str> {
    match definition.unit {
        "s" => Some("seconds"),
        "By" => Some("bytes"),
        _ => None,
    }
}

/// With underscores for all that names may not hold.
fn underscored(name: &str) -> String {
    let valid = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(valid).collect()
}

struct Writer {
    out: String,
    exposition: Exposition,
}

impl Writer {
    fn family(&mut self, instrument: Instrument, of: &[Point]) {
        let definition = instrument.definition();
        let series = series_name(definition);
        let kind = match definition.kind {
            Kind::Counter => "counter",
            Kind::UpDownCounter | Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        match self.exposition {
            Exposition::Prometheus => self.head(&series, kind, None, definition.description),
            Exposition::OpenMetrics => {
                let unit = unit(definition);
                self.head(&name(definition), kind, unit, definition.description);
            }
        }
        let mut labels = String::new();
        for point in of {
            labels.clear();
            for (key, value) in point.attributes(instrument) {
                label(&mut labels, key, value);
            }
            match &point.value {
                Value::Number(value) => self.sample(&series, "", &labels, *value),
                Value::Distribution(read) => {
                    self.distribution(&series, &labels, definition.buckets, read);
                }
            }
        }
    }

    fn head(&mut self, name: &str, kind: &str, unit: Option<&str>, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "# HELP {name} {}", escaped(help));
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
        if let Some(unit) = unit {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &str, value: f64) {
        self.series(name, suffix, labels);
        let _ = writeln!(self.out, " {value}");
    }

    fn series(&mut self, name: &str, suffix: &str, labels: &str) {
        self.out.push_str(name);
        self.out.push_str(suffix);
        if !labels.is_empty() {
            self.out.push('{');
            self.out.push_str(labels);
            self.out.push('}');
        }
    }

    fn distribution(&mut self, name: &str, labels: &str, bounds: &[f64], read: &Distribution) {
        let (mut below, mut exemplars) = (0, read.exemplars.iter().peekable());
        let comma = if labels.is_empty() { "" } else { "," };
        for (bucket, count) in read.counts.iter().enumerate() {
            below += count;
            let bound = match bounds.get(bucket) {
                Some(bound) => self.bound(*bound),
                None => "+Inf".to_owned(),
            };
            let out = &mut self.out;
            let _ = write!(
                out,
                "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}"
            );
            let its = exemplars.next_if(|(of, _)| *of == bucket);
            if let (Exposition::OpenMetrics, Some((_, exemplar))) = (self.exposition, its) {
                self.exemplar(exemplar);
            }
            self.out.push('\n');
        }
        self.sample(name, "_sum", labels, read.sum);
        self.sample(name, "_count", labels, below as f64);
    }

    /// OpenMetrics has one way to write a bound: a float's, with an exponent of two digits.
    fn bound(&self, bound: f64) -> String {
        match self.exposition {
            Exposition::Prometheus => bound.to_string(),
            Exposition::OpenMetrics => {
                let text = format!("{bound:?}");
                match text.split_once("e-") {
                    Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
                    None => text,
                }
            }
        }
    }

    fn exemplar(&mut self, exemplar: &Exemplar) {
        let (trace, span) = exemplar.trace.ids();
        let (trace, span) = (u128::from_be_bytes(trace), u64::from_be_bytes(span));
        let at = exemplar.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let value = exemplar.value;
        let _ = write!(
            self.out,
            " # {{trace_id=\"{trace:032x}\",span_id=\"{span:016x}\"}} {value} {:.3}",
            at.as_secs_f64()
        );
    }

    /// Who reports, as a series of its own.
    fn target(&mut self, resource: &Resource) {
        let (family, kind) = match self.exposition {
            Exposition::Prometheus => ("target_info", "gauge"),
            Exposition::OpenMetrics => ("target", "info"),
        };
        let mut pairs: Vec<_> = resource
            .iter()
            .map(|(key, value)| (key.as_str(), value.to_string()))
            .collect();
        if pairs.is_empty() {
            return;
        }
        pairs.sort();
        let mut labels = String::new();
        for (key, value) in &pairs {
            label(&mut labels, key, value);
        }
        self.head(family, kind, None, "Target metadata");
        self.sample("target_info", "", &labels, 1.0);
    }
}

fn label(labels: &mut String, key: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    let valid = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    labels.extend(key.chars().map(valid));
    labels.push_str("=\"");
    if value.contains(['\\', '"', '\n']) {
        labels.push_str(&escaped(value));
    } else {
        labels.push_str(value);
    }
    labels.push('"');
}

/// With what would end a value or a line written in two characters.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
