//! The promises of the table: names that both texts can have, buckets that ascend, and a reference that says the same.

use super::super::metrics::{name, series_name};
use super::*;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

#[test]
fn names_are_unique_and_carry_no_unit() {
    let (mut seen, mut scraped) = (HashSet::new(), HashSet::new());
    for (index, instrument) in Instrument::ALL.iter().enumerate() {
        let definition = instrument.definition();
        let Definition { name: of, unit, .. } = *definition;
        assert_eq!(*instrument as usize, index);
        assert!(seen.insert(of), "{of} twice");
        assert!(scraped.insert(name(definition)), "{of} twice");
        assert!(
            unit == "s" || unit == "By" || unit.starts_with('{'),
            "{of}: {unit}"
        );
        for bad in ["_total", "bytes", "seconds"] {
            assert!(!of.contains(bad), "{of}");
        }
        assert!(definition.attributes.len() <= ATTRIBUTES, "{of}");
        // Neither text has to escape it, and no table of the reference breaks.
        let plain = |c: char| c.is_ascii() && !c.is_control() && !"\"\\|`".contains(c);
        assert!(definition.description.chars().all(plain), "{of}");
        assert!(definition.description.ends_with('.'), "{of}");
    }
}

#[test]
fn buckets_ascend_and_only_histograms_have_some() {
    for instrument in Instrument::ALL {
        let Definition { kind, buckets, .. } = instrument.definition();
        assert_eq!(*kind == Kind::Histogram, !buckets.is_empty());
        assert!(
            buckets.windows(2).all(|pair| pair[0] < pair[1]),
            "{buckets:?}"
        );
    }
}

/// What stands before the tables of `deploy/metrics.md`.
const PREFACE: &str = "\
# Metrics

Everything that switchboard measures. It is scraped from `/metrics` of the HTTP side, as Prometheus text 0.0.4 or, with
exemplars, as OpenMetrics 1.0; it is pushed over OTLP when an endpoint is set; and `switchboard metrics` and the
MetricService read the same. This file is written from the program's own table; do not edit it:

    SWITCHBOARD_BLESS=1 cargo test --lib the_reference_is_what_the_table_says

The first column is the name of the scraped series, or of a histogram without `_bucket`, `_sum` and `_count`; the second the
OpenTelemetry name, as OTLP and the MetricService have it. Attributes are labels in a scrape, with `_` for each dot. No
address, no session and no text of a client is ever in one, so that the number of series follows the listeners alone.

";

fn reference() -> String {
    let mut text = PREFACE.to_owned();
    let parts = [
        (
            "Of a listener",
            "They carry `switchboard.listener.name`, `switchboard.listener.protocol`, `network.transport` (`tcp`, `udp`) and\n\
             `network.type` (`ipv4`, `ipv6`) besides the attributes below. They go when the listener is deleted, and begin anew\n\
             when one is made under the same name.",
            Scope::Listener,
        ),
        (
            "Distributions of a listener",
            "They carry `switchboard.listener.name` besides the attributes below, and go with it likewise. A series is there from\n\
             its first value on.",
            Scope::Name,
        ),
        (
            "Of the process",
            "Besides these, `target_info` says who reports: the resource attributes.",
            Scope::Process,
        ),
    ];
    for (title, about, scope) in parts {
        let _ = write!(
            text,
            "## {title}\n\n{about}\n\n\
             | Scraped as | OpenTelemetry name | Kind | Unit | Attributes | Meaning |\n|---|---|---|---|---|---|\n"
        );
        for instrument in Instrument::ALL {
            let definition = instrument.definition();
            if definition.scope == scope {
                text.push_str(&row(definition));
            }
        }
        text.push('\n');
    }
    text.push_str(
        "## Buckets\n\nUpper bounds, each part of its bucket, in the histogram's unit.\n\n",
    );
    for instrument in Instrument::ALL {
        let Definition { name, buckets, .. } = instrument.definition();
        if !buckets.is_empty() {
            let bounds: Vec<String> = buckets.iter().map(f64::to_string).collect();
            let _ = writeln!(text, "- `{name}`: {}", bounds.join(", "));
        }
    }
    text
}

fn row(definition: &Definition) -> String {
    let attribute = |attribute: &Attribute| {
        let values: Vec<String> = attribute.values.iter().map(|v| format!("`{v}`")).collect();
        match values.is_empty() {
            true => format!("`{}`", attribute.key),
            false => format!("`{}`: {}", attribute.key, values.join(", ")),
        }
    };
    let attributes: Vec<String> = definition.attributes.iter().map(attribute).collect();
    let kind = match definition.kind {
        Kind::Counter => "counter",
        Kind::UpDownCounter => "up-down counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    format!(
        "| `{}` | `{}` | {kind} | `{}` | {} | {} |\n",
        series_name(definition),
        definition.name,
        definition.unit,
        attributes.join("; "),
        definition.description
    )
}

#[test]
fn the_reference_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/metrics.md");
    let text = reference();
    if std::env::var_os("SWITCHBOARD_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let stale = written.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(
        written == text,
        "deploy/metrics.md is stale, first here: {stale:?}; \
         `SWITCHBOARD_BLESS=1 cargo test --lib the_reference_is_what_the_table_says` writes it anew"
    );
}
