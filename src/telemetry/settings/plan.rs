//! What is exported, where to and how: the settings and the `OTEL_*` variables put together.
//!
//! A setting has the last word over a variable, and the variable of one signal over that of all. What would send nothing,
//! or send it elsewhere than was meant (an endpoint, a protocol), is refused; whatever else cannot be obeyed is told of.

use super::Settings;
use super::environment::Environment;
use super::route::{Route, Signal, route};
use std::time::Duration;

/// Spans that may wait, and spans in one export: the conventions' defaults.
const QUEUE: usize = 2048;
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// The conventions' default.
const METRIC_INTERVAL: Duration = Duration::from_secs(60);

/// All that the exporters and the sampler are told.
#[derive(Debug)]
pub(in super::super) struct Plan {
    /// None: not exported.
    pub(in super::super) traces: Option<Route>,
    pub(in super::super) metrics: Option<Route>,
    /// Spans that may wait.
    pub(in super::super) queue: usize,
    /// Spans in one export.
    pub(in super::super) batch: usize,
    pub(in super::super) delay: Duration,
    pub(in super::super) metric_interval: Duration,
    /// The part, of what the settings would have sampled, that is.
    pub(in super::super) share: f64,
    /// Whether a caller's decision to sample is ours too.
    pub(in super::super) heeds_callers: bool,
    /// Whether callers' traces are continued.
    pub(in super::super) continues: bool,
    /// What the resource is said to be besides.
    pub(in super::super) attributes: Vec<(String, String)>,
    pub(in super::super) service: Option<String>,
    /// What cannot be obeyed, a line each.
    pub(in super::super) doubts: Vec<String>,
}

impl Plan {
    /// # Errors
    /// What is wrong with the first address or protocol that cannot be used, and where it came from.
    pub(in super::super) fn of(
        settings: &Settings,
        read: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut environment = Environment::new(read);
        let disabled = environment.flag("OTEL_SDK_DISABLED");
        let mut route = |signal| match disabled {
            true => Ok(None),
            false => route(signal, settings, &mut environment),
        };
        let (traces, metrics) = (route(Signal::Traces)?, route(Signal::Metrics)?);
        let queue = size(&mut environment, "OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(QUEUE);
        let batch = size(&mut environment, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE").unwrap_or(BATCH);
        let delay = environment.millis("OTEL_BSP_SCHEDULE_DELAY");
        let interval = environment.millis("OTEL_METRIC_EXPORT_INTERVAL");
        let (share, heeds_callers) = sampler(&mut environment);
        let attributes = environment.pairs(&["OTEL_RESOURCE_ATTRIBUTES".to_owned()]);
        fixed(&mut environment);
        Ok(Self {
            traces,
            metrics,
            queue,
            batch: batch.min(queue),
            delay: delay.unwrap_or(DELAY),
            metric_interval: interval.unwrap_or(METRIC_INTERVAL),
            share,
            heeds_callers,
            continues: propagates(&mut environment),
            attributes,
            service: environment.text("OTEL_SERVICE_NAME"),
            doubts: environment.doubts(),
        })
    }
}

fn size(environment: &mut Environment<'_>, name: &str) -> Option<usize> {
    let number = environment.number(name)?;
    usize::try_from(number).ok()
}

/// Which part of what the settings sample is, and whether a caller's decision is heeded. The settings' shares are the
/// sampler here; the variable thins them out.
fn sampler(environment: &mut Environment<'_>) -> (f64, bool) {
    let name = "OTEL_TRACES_SAMPLER";
    let known = [
        ("always_on", (Some(1.0), false)),
        ("always_off", (Some(0.0), false)),
        ("traceidratio", (None, false)),
        ("parentbased_always_on", (Some(1.0), true)),
        ("parentbased_always_off", (Some(0.0), true)),
        ("parentbased_traceidratio", (None, true)),
    ];
    let sampler = environment.word(&[name.to_owned()], &known);
    let Some((share, heeds)) = sampler else {
        return (1.0, true);
    };
    let share = share.unwrap_or_else(|| {
        let argument = "OTEL_TRACES_SAMPLER_ARG";
        let text = environment.text(argument).unwrap_or_else(|| "1".to_owned());
        let ratio = text
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio));
        if ratio.is_none() {
            environment.doubt(
                argument,
                format!("{text:?} is not between 0 and 1; it counts as 1"),
            );
        }
        ratio.unwrap_or(1.0)
    });
    (share, heeds)
}

/// Whether W3C trace context is among the propagators. Baggage is let through by all that do not read it.
fn propagates(environment: &mut Environment<'_>) -> bool {
    let name = "OTEL_PROPAGATORS";
    let Some(text) = environment.text(name) else {
        return true;
    };
    let words = text.split(',').map(str::trim);
    let unknown = |word: &&str| !["tracecontext", "baggage", "none"].contains(word);
    for word in words.clone().filter(unknown) {
        environment.doubt(
            name,
            format!("{word:?} is not known here; what is known is tracecontext"),
        );
    }
    words.into_iter().any(|word| word == "tracecontext")
}

/// What can be asked for elsewhere, and is always one way here.
const FIXED: [(&str, &str); 4] = [
    (
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "cumulative",
    ),
    (
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        "explicit_bucket_histogram",
    ),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based"),
    ("OTEL_LOGS_EXPORTER", "none"),
];

fn fixed(environment: &mut Environment<'_>) {
    for option in ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"] {
        for name in ["", "TRACES_", "METRICS_"].map(|of| format!("OTEL_EXPORTER_OTLP_{of}{option}"))
        {
            if environment.text(&name).is_some() {
                environment.doubt(&name, "it is ignored; https is not built in");
            }
        }
    }
    for (name, only) in FIXED {
        let said = environment.text(name);
        if let Some(text) = said.filter(|text| !text.eq_ignore_ascii_case(only)) {
            environment.doubt(
                name,
                format!("{text:?} is ignored; it is always {only} here"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(variables: &[(&str, &str)]) -> Plan {
        let read = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Plan::of(&Settings::default(), &read).unwrap()
    }

    #[test]
    fn bounds_and_sampling_are_the_variables() {
        let found = plan(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "8000"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_PROPAGATORS", "b3,baggage"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based"),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=a%20b"),
            ("OTEL_SERVICE_NAME", "desk"),
        ]);
        let (traces, metrics) = (found.traces.unwrap(), found.metrics.unwrap());
        assert_eq!(traces.timeout, Duration::from_millis(500));
        assert_eq!(metrics.timeout, Duration::from_secs(8));
        assert!(metrics.gzip && !traces.gzip);
        assert_eq!((found.queue, found.batch), (100, 100));
        assert_eq!(found.delay, Duration::from_millis(20));
        assert_eq!((found.share, found.heeds_callers), (0.25, false));
        assert!(!found.continues);
        assert_eq!(
            found.attributes,
            [("k8s.pod.name".to_owned(), "a b".to_owned())]
        );
        assert_eq!(found.service.as_deref(), Some("desk"));
        assert_eq!(found.doubts.len(), 2, "{:?}", found.doubts);
        let usual = plan(&[]);
        assert_eq!((usual.queue, usual.batch), (QUEUE, BATCH));
        assert_eq!(
            (usual.share, usual.heeds_callers, usual.continues),
            (1.0, true, true)
        );
    }
}
