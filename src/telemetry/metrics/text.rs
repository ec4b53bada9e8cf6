//! A collection as scrapers read it: Prometheus text 0.0.4, or OpenMetrics 1.0, which has exemplars.
//!
//! Both have the same names: dots become underscores, the unit is the last word, and a counter's series end in `_total`.

use super::super::instruments::{Definition, Instrument, Kind};
use super::distribution::{Distribution, Exemplar};
use super::{Point, Points, Value};
use opentelemetry_sdk::Resource;
use std::collections::BTreeMap;
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
    writer.target(resource);
    for (instrument, of) in points.each() {
        writer.family(instrument, of);
    }
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

/// The name of a label that somebody else has named: none may begin with a digit, nor with what scrapers keep for their
/// own.
fn own_name(key: &str) -> String {
    let name = underscored(key);
    let is_reserved = name.starts_with("__") || name.starts_with(|c: char| c.is_ascii_digit());
    if is_reserved {
        format!("key_{name}")
    } else {
        name
    }
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
        let _ = writeln!(self.out, "# HELP {name} {help}");
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

    /// Who reports, as a series of its own: OpenMetrics wants it first.
    fn target(&mut self, resource: &Resource) {
        let (family, kind) = match self.exposition {
            Exposition::Prometheus => ("target_info", "gauge"),
            Exposition::OpenMetrics => ("target", "info"),
        };
        // Keys are whatever the environment says: of two that become one name the values are joined, since a scraper
        // refuses the whole text for a name that is there twice.
        let mut pairs: BTreeMap<String, String> = BTreeMap::new();
        let sorted: BTreeMap<_, _> = resource.iter().collect();
        for (key, value) in sorted {
            let joined = pairs.entry(own_name(key.as_str())).or_default();
            if !joined.is_empty() {
                joined.push(';');
            }
            joined.push_str(&value.as_str());
        }
        if pairs.is_empty() {
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::super::super::Trace;
    use super::super::super::trace::remote_parent;
    use super::super::Metrics;
    use super::*;
    use opentelemetry::KeyValue;
    use std::collections::HashSet;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn metrics(resource: Resource) -> Metrics {
        let metrics = Metrics::new(resource, None);
        let sampled = Trace::from(&remote_parent(PARENT, None).unwrap());
        for (value, trace) in [(0.002, sampled), (3.0, Trace::default())] {
            metrics
                .calls
                .record(["grpc", "a/B", "OK", ""], value, &trace);
        }
        metrics
    }

    #[test]
    fn both_texts_have_the_same_series() {
        let metrics = metrics(Resource::builder().build());
        let series = |exposition| {
            let text = metrics.exposition(exposition);
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let bare = |line: &str| {
                let (series, _) = line.split_once(' ').unwrap();
                // The two have other ways to write a bound.
                series.split("le=").next().unwrap().to_owned()
            };
            lines.map(bare).collect::<HashSet<_>>()
        };
        let all = series(Exposition::Prometheus);
        assert!(all.len() > 10);
        assert_eq!(all, series(Exposition::OpenMetrics));
    }

    #[test]
    fn openmetrics_has_units_exemplars_and_an_end() {
        let metrics = metrics(Resource::builder_empty().build());
        let text = metrics.exposition(Exposition::OpenMetrics);
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        for line in [
            "# TYPE rpc_server_call_duration_seconds histogram",
            "# UNIT rpc_server_call_duration_seconds seconds",
            "# TYPE process_cpu_time_seconds counter",
            "# TYPE switchboard_telemetry_dropped counter",
            "switchboard_telemetry_dropped_total{switchboard_telemetry_signal=\"logs\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        let labels = "rpc_method=\"a/B\",rpc_response_status_code=\"OK\",rpc_system_name=\"grpc\"";
        let exemplar =
            "# {trace_id=\"0af7651916cd43dd8448eb211c80319c\",span_id=\"b7ad6b7169203331\"} 0.002 ";
        let first = format!(
            "rpc_server_call_duration_seconds_bucket{{{labels},le=\"0.005\"}} 1 {exemplar}"
        );
        assert!(text.contains(&first), "no {first} in\n{text}");
        let last = format!("rpc_server_call_duration_seconds_bucket{{{labels},le=\"10.0\"}} 2\n");
        assert!(text.contains(&last), "no {last} in\n{text}");
        assert!(!metrics.exposition(Exposition::Prometheus).contains("# {"));
    }

    #[test]
    fn a_bound_is_written_in_one_way() {
        let writer = |exposition| Writer {
            out: String::new(),
            exposition,
        };
        let open = writer(Exposition::OpenMetrics);
        let texts = [1.0, 0.25, 0.0001, 0.000_01, 0.000_002_5].map(|bound| open.bound(bound));
        assert_eq!(texts, ["1.0", "0.25", "0.0001", "1e-05", "2.5e-06"]);
        let plain = writer(Exposition::Prometheus);
        assert_eq!(
            [1.0, 0.000_01].map(|bound| plain.bound(bound)),
            ["1", "0.00001"]
        );
    }

    #[test]
    fn no_key_of_the_environment_makes_a_label_twice_or_one_that_is_refused() {
        let keys = ["a.b", "a_b", "1st", "__name__"];
        let pairs = keys.map(|key| KeyValue::new(key, key));
        let metrics = metrics(Resource::builder_empty().with_attributes(pairs).build());
        let line = "target_info{a_b=\"a.b;a_b\",key_1st=\"1st\",key___name__=\"__name__\"} 1";
        for exposition in [Exposition::Prometheus, Exposition::OpenMetrics] {
            let text = metrics.exposition(exposition);
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn no_value_breaks_out_of_its_quotes() {
        let hostile = "a\\b\"} 1\nc";
        let resource = Resource::builder_empty().with_attribute(KeyValue::new("od-d.key", hostile));
        let metrics = metrics(resource.build());
        for exposition in [Exposition::Prometheus, Exposition::OpenMetrics] {
            let text = metrics.exposition(exposition);
            let line = "target_info{od_d_key=\"a\\\\b\\\"} 1\\nc\"} 1";
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }
}
