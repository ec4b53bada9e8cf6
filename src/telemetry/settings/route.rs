//! Where a signal goes: its exporter, endpoint, protocol and what each request carries.

use super::environment::Environment;
use super::{Protocol, Settings, without_password};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{self, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Uri};
use std::time::Duration;

/// The longest that one export may take, its repetitions included, unless a variable says otherwise. The conventions' ten
/// seconds would not leave an outage within ten seconds of its end.
const TIMEOUT: Duration = Duration::from_secs(3);

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

/// Where a signal goes; nowhere without an endpoint, or when another exporter is asked for.
pub(super) fn route(
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

/// What a request says of itself and of its connection.
const OURS: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn headers(signal: Signal, environment: &mut Environment<'_>) -> HeaderMap {
    let names = signal.names("HEADERS");
    let mut headers = HeaderMap::new();
    let origin = environment.first(&names).map(|(origin, _)| origin);
    let origin = origin.unwrap_or_default();
    for (name, value) in environment.pairs(&names) {
        let (key, value) = (HeaderName::try_from(&name), HeaderValue::try_from(value));
        match (key, value) {
            (Ok(key), _) if OURS.contains(&key) => {
                environment.doubt(
                    &origin,
                    format_args!("{key} is not its to say; it is ignored"),
                );
            }
            (Ok(key), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(key, value);
            }
            // Unnamed: up to the first `=` it may be part of a secret.
            _ => environment.doubt(&origin, "what is no header in it is ignored"),
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

#[cfg(test)]
mod tests {
    use super::super::Plan;
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
    fn a_header_that_is_the_requests_own_is_told_and_not_taken() {
        let plan = plan(&[
            (ALL, "http://c:1"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
                "Content-Length=9,transfer-encoding=chunked,x-tenant=a",
            ),
        ]);
        assert_eq!(plan.traces.unwrap().headers.len(), 1);
        let told = "OTEL_EXPORTER_OTLP_TRACES_HEADERS: ";
        let doubts = plan.doubts.iter().filter(|doubt| doubt.starts_with(told));
        assert_eq!(doubts.count(), 2, "{:?}", plan.doubts);
    }

    #[test]
    fn no_secret_is_told() {
        let secrets = [
            (ALL, "http://me:hush@c:1"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "api-key=hush,bad key=hush,authorization: Basic bWU6hush=",
            ),
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
        assert_eq!(plan.doubts.len(), 1, "{:?}", plan.doubts);
        for url in ["https://me:hush@c:1", "http://me:hush@", "me:hush@c:1"] {
            let told = address(url, false).unwrap_err();
            assert!(!told.contains("hush"), "{told}");
        }
    }
}
