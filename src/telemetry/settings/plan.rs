//! What is exported, where to and how: the settings and the `OTEL_*` variables put together.
//!
//! A setting has the last word over a variable, and the variable of one signal over that of all. What would send nothing,
//! or send it elsewhere than was meant (an endpoint, a protocol), is refused; whatever else cannot be obeyed is told of.

use super::environment::Environment;
use super::{Protocol, Settings, without_password};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Uri};
use std::time::Duration;

/// The longest that one export may take, its repetitions included, unless a variable says otherwise. The conventions' ten
/// seconds would not leave an outage within ten seconds of its end.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Spans that may wait, and spans in one export: the conventions' defaults.
const QUEUE: usize = 2048;
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// The conventions' default.
const METRIC_INTERVAL: Duration = Duration::from_secs(60);

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    pub(in super::super) fn word(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }

    /// The variables of an exporter's option, the nearest first.
    fn names(self, option: &str) -> [String; 2] {
        let own = self.word().to_ascii_uppercase();
        [
            format!("OTEL_EXPORTER_OTLP_{own}_{option}"),
            format!("OTEL_EXPORTER_OTLP_{option}"),
        ]
    }

    fn rpc(self) -> &'static str {
        match self {
            Self::Traces => "opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

/// Where a signal goes.
#[derive(Debug, Clone)]
pub(in super::super) struct Route {
    pub(in super::super) protocol: Protocol,
    /// What is posted to.
    pub(in super::super) uri: Uri,
    /// What each request carries besides; secrets, mostly, and marked as such.
    pub(in super::super) headers: HeaderMap,
    /// For one export, its repetitions included.
    pub(in super::super) timeout: Duration,
    pub(in super::super) gzip: bool,
}

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
        temporality(&mut environment);
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

/// Where a signal goes; nowhere without an endpoint, or when another exporter is asked for.
fn route(
    signal: Signal,
    settings: &Settings,
    environment: &mut Environment<'_>,
) -> Result<Option<Route>, String> {
    let exporter = format!("OTEL_{}_EXPORTER", signal.word().to_ascii_uppercase());
    // `prometheus` asks for what is there anyway.
    let known = match signal {
        Signal::Traces => &[("otlp", true), ("none", false)][..],
        Signal::Metrics => &[("otlp", true), ("none", false), ("prometheus", false)][..],
    };
    let wanted = environment.word(&[exporter], known);
    if wanted == Some(false) {
        return Ok(None);
    }
    let protocol = match settings.otlp_protocol {
        Some(protocol) => protocol,
        None => protocol(environment.first(&signal.names("PROTOCOL")))?,
    };
    let Some((origin, url, is_whole)) = endpoint(signal, settings, environment, wanted, protocol)
    else {
        return Ok(None);
    };
    let told = |problem: String| format!("{origin}: {problem}");
    let insecure = environment.first(&signal.names("INSECURE"));
    let insecure = insecure.is_some_and(|(_, text)| text.eq_ignore_ascii_case("true"));
    let (uri, credentials) = address(&url, insecure).map_err(told)?;
    let uri = match (protocol, is_whole) {
        (Protocol::Grpc, _) => below(&uri, signal.rpc()),
        (Protocol::Http, false) => below(&uri, &format!("v1/{}", signal.word())),
        (Protocol::Http, true) => Ok(uri),
    };
    let mut headers = headers(signal, environment);
    if let Some(credentials) = credentials {
        headers.insert(AUTHORIZATION, credentials);
    }
    let gzip = environment.word(
        &signal.names("COMPRESSION"),
        &[("none", false), ("gzip", true)],
    );
    Ok(Some(Route {
        protocol,
        uri: uri.map_err(|error| told(error.to_string()))?,
        headers,
        timeout: timeout(signal, environment),
        gzip: gzip.unwrap_or(false),
    }))
}

/// The endpoint, where it came from, and whether it is the whole address of a signal over HTTP.
fn endpoint(
    signal: Signal,
    settings: &Settings,
    environment: &Environment<'_>,
    wanted: Option<bool>,
    protocol: Protocol,
) -> Option<(String, String, bool)> {
    if let Some(url) = &settings.otlp_endpoint {
        return Some(("otlp_endpoint".to_owned(), url.clone(), false));
    }
    let [own, all] = signal.names("ENDPOINT");
    let usual = match protocol {
        Protocol::Grpc => "http://localhost:4317",
        Protocol::Http => "http://localhost:4318",
    };
    let found = |name: String, whole| Some((name.clone(), environment.text(&name)?, whole));
    found(own, true)
        .or_else(|| found(all, false))
        .or_else(|| wanted.map(|_| ("the usual endpoint".to_owned(), usual.to_owned(), false)))
}

fn protocol(said: Option<(String, String)>) -> Result<Protocol, String> {
    match said {
        None => Ok(Protocol::Grpc),
        Some((_, word)) if word == "grpc" => Ok(Protocol::Grpc),
        Some((_, word)) if word == "http/protobuf" => Ok(Protocol::Http),
        Some((name, word)) => Err(format!(
            "{name}: {word:?} is not spoken here; say \"grpc\" or \"http/protobuf\""
        )),
    }
}

/// Without the credentials, which become a header.
fn address(url: &str, insecure: bool) -> Result<(Uri, Option<HeaderValue>), String> {
    let whole = match url.contains("://") || !insecure {
        true => url.to_owned(),
        false => format!("http://{url}"),
    };
    let shown = without_password(url);
    let uri = whole.parse::<Uri>();
    let uri = uri.map_err(|error| format!("{shown:?}: {error}"))?;
    let authority = match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) => authority.clone(),
        (Some("https"), _) => {
            let problem = "https is not built in; send to a collector on this host";
            return Err(format!("{shown:?}: {problem}"));
        }
        _ => return Err(format!("{shown:?} is not of the form http://HOST:PORT")),
    };
    let Some((user, host)) = authority.as_str().rsplit_once('@') else {
        return Ok((uri, None));
    };
    let mut credentials = HeaderValue::try_from(format!("Basic {}", BASE64.encode(user)))
        .map_err(|_| format!("{shown:?}: its credentials cannot be sent"))?;
    credentials.set_sensitive(true);
    let mut parts = uri.clone().into_parts();
    let wrong = |_| format!("{shown:?} is not of the form http://HOST:PORT");
    parts.authority = Some(host.parse::<Authority>().map_err(wrong)?);
    let uri = Uri::from_parts(parts).map_err(|error| format!("{shown:?}: {error}"))?;
    Ok((uri, Some(credentials)))
}

/// `http://host/base/path` of `http://host/base/`.
fn below(base: &Uri, path: &str) -> Result<Uri, http::Error> {
    let path = format!("{}/{path}", base.path().trim_end_matches('/'));
    let builder = Uri::builder().path_and_query(path);
    let builder = match base.authority() {
        Some(authority) => builder.authority(authority.clone()),
        None => builder,
    };
    builder.scheme(base.scheme_str().unwrap_or("http")).build()
}

fn headers(signal: Signal, environment: &mut Environment<'_>) -> HeaderMap {
    let names = signal.names("HEADERS");
    let mut headers = HeaderMap::new();
    for (name, value) in environment.pairs(&names) {
        let (key, value) = (HeaderName::try_from(&name), HeaderValue::try_from(value));
        match (key, value) {
            (Ok(key), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(key, value);
            }
            _ => environment.doubt(&names[1], format!("{name:?} is no header; it is ignored")),
        }
    }
    headers
}

/// The shortest that is asked for.
fn timeout(signal: Signal, environment: &mut Environment<'_>) -> Duration {
    let [own, all] = signal.names("TIMEOUT");
    let whole = match signal {
        Signal::Traces => "OTEL_BSP_EXPORT_TIMEOUT",
        Signal::Metrics => "OTEL_METRIC_EXPORT_TIMEOUT",
    };
    let one = environment
        .millis(&own)
        .or_else(|| environment.millis(&all));
    let asked = [one, environment.millis(whole)].into_iter().flatten();
    asked.min().unwrap_or(TIMEOUT)
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

fn temporality(environment: &mut Environment<'_>) {
    let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let said = environment.text(name).map(|text| text.to_ascii_lowercase());
    if let Some(text) = said.filter(|text| text != "cumulative") {
        environment.doubt(
            name,
            format!("{text:?} is ignored; every metric is cumulative"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(settings: &Settings, variables: &[(&str, &str)]) -> Result<Plan, String> {
        let read = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Plan::of(settings, &read)
    }

    fn plan(variables: &[(&str, &str)]) -> Plan {
        plan_of(&Settings::default(), variables).unwrap()
    }

    fn targets(plan: &Plan) -> [String; 2] {
        let uri = |route: &Option<Route>| {
            route
                .as_ref()
                .map_or_else(|| "-".to_owned(), |r| r.uri.to_string())
        };
        [uri(&plan.traces), uri(&plan.metrics)]
    }

    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

    #[test]
    fn the_nearest_endpoint_wins() {
        let both = [(ALL, "http://all:4317"), (TRACES, "http://traces:4317")];
        let [traces, metrics] = targets(&plan(&both));
        assert_eq!(
            traces,
            format!("http://traces:4317/{}", Signal::Traces.rpc())
        );
        assert_eq!(
            metrics,
            format!("http://all:4317/{}", Signal::Metrics.rpc())
        );
        let settings = Settings {
            otlp_endpoint: Some("http://set:4317/".to_owned()),
            ..Settings::default()
        };
        let [traces, metrics] = targets(&plan_of(&settings, &both).unwrap());
        assert!(
            traces.starts_with("http://set:4317/opentelemetry"),
            "{traces}"
        );
        assert!(
            metrics.starts_with("http://set:4317/opentelemetry"),
            "{metrics}"
        );
        assert_eq!(targets(&plan(&[])), ["-", "-"]);
        assert_eq!(targets(&plan(&[(ALL, "")])), ["-", "-"]);
    }

    #[test]
    fn over_http_a_signals_own_endpoint_is_taken_as_it_is() {
        let protocol = (PROTOCOL, "http/protobuf");
        let found = plan(&[
            protocol,
            (ALL, "http://c:4318/base/"),
            (TRACES, "http://t/x?y=1"),
        ]);
        assert_eq!(
            targets(&found),
            ["http://t/x?y=1", "http://c:4318/base/v1/metrics"]
        );
        let settings = Settings {
            otlp_endpoint: Some("http://set:4318".to_owned()),
            otlp_protocol: Some(Protocol::Http),
            ..Settings::default()
        };
        let found = plan_of(&settings, &[(PROTOCOL, "grpc")]).unwrap();
        assert_eq!(
            targets(&found),
            ["http://set:4318/v1/traces", "http://set:4318/v1/metrics"]
        );
    }

    #[test]
    fn an_exporter_may_be_asked_for_or_not() {
        let all = (ALL, "http://c:1");
        let no_metrics = plan(&[all, ("OTEL_METRICS_EXPORTER", "prometheus")]);
        assert!(no_metrics.traces.is_some() && no_metrics.metrics.is_none());
        assert!(
            plan(&[all, ("OTEL_TRACES_EXPORTER", "none")])
                .traces
                .is_none()
        );
        assert_eq!(
            targets(&plan(&[all, ("OTEL_SDK_DISABLED", "true")])),
            ["-", "-"]
        );
        let asked = plan(&[("OTEL_TRACES_EXPORTER", "otlp")]);
        assert!(targets(&asked)[0].starts_with("http://localhost:4317/"));
        let odd = plan(&[all, ("OTEL_TRACES_EXPORTER", "zipkin")]);
        assert!(odd.traces.is_some());
        assert_eq!(odd.doubts.len(), 1, "{:?}", odd.doubts);
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused_by_its_name() {
        for (name, value, why) in [
            (TRACES, "https://c:1", "https is not built in"),
            (ALL, "c:4317", "is not of the form http://HOST:PORT"),
            (PROTOCOL, "http/json", "say \"grpc\" or \"http/protobuf\""),
        ] {
            let problem =
                plan_of(&Settings::default(), &[(name, value), (ALL, value)]).unwrap_err();
            assert!(problem.contains(why), "{problem}");
        }
        let insecure = plan(&[(ALL, "c:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")]);
        assert!(targets(&insecure)[0].starts_with("http://c:4317/"));
    }

    #[test]
    fn no_secret_is_told() {
        let secrets = [
            (ALL, "http://me:hush@c:1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hush,bad key=hush"),
        ];
        let plan = plan(&secrets);
        assert!(!format!("{plan:?}").contains("hush"), "{plan:?}");
        let route = plan.traces.unwrap();
        assert_eq!(route.uri.authority().unwrap().as_str(), "c:1");
        assert_eq!(
            route.headers["authorization"],
            format!("Basic {}", BASE64.encode("me:hush"))
        );
        assert_eq!(route.headers["api-key"], "hush");
        assert_eq!(plan.doubts.len(), 2, "{:?}", plan.doubts);
        for url in ["https://me:hush@c:1", "http://me:hush@", "me:hush@c:1"] {
            let told = address(url, false).unwrap_err();
            assert!(!told.contains("hush"), "{told}");
        }
    }

    #[test]
    fn bounds_and_sampling_are_the_variables() {
        let found = plan(&[
            (ALL, "http://c:1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "8000"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_PROPAGATORS", "b3,baggage"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
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
