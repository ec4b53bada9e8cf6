//! What is measured: in the text that a scraper asks for, of the listeners that there are, and bounded whatever clients do.

mod numbers;
mod reference;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::support::{Service, Talk, eventually, no_grpcurl};

const OPENMETRICS: &str = "Accept: application/openmetrics-text; version=1.0.0\r\n";

/// The head of the answer to a scrape with these headers, and its body.
fn scrape(service: &Service, headers: &str) -> (String, Vec<u8>) {
    let mut talk = Talk::to(service.http());
    talk.send(format!(
        "GET /metrics HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n"
    ));
    let mut answer = talk.rest();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = answer.split_off(end.expect("an HTTP answer") + 4);
    let head = String::from_utf8(answer).unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    (head.to_lowercase(), body)
}

/// Every series of a text, labels and all, with its value.
fn values(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let value = |line: &str| {
        let bare = line.split(" # ").next().unwrap();
        let (series, value) = bare.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    };
    lines.map(value).collect()
}

/// The series of a scrape with their values.
fn series(service: &Service) -> BTreeMap<String, f64> {
    let (_, body) = scrape(service, "");
    values(&String::from_utf8(body).unwrap())
}

/// A collector that accepts and says nothing, so that there are spans and nobody takes them.
fn silent_collector() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    (listener, endpoint)
}

#[test]
fn who_asks_for_openmetrics_gets_it_with_the_traces_of_what_was_sampled() {
    let (_collector, endpoint) = silent_collector();
    let service = Service::start_with(
        "[listeners.shell]\nprotocol = \"shell\"\nprograms = [\"echo\"]\nbind = \"127.0.0.1:0\"\n",
        &[],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)],
    );
    let frame = service.talk("shell").command("echo hello");
    let trace = frame.header["trace_id"].as_str().unwrap().to_owned();
    let example = format!("# {{trace_id=\"{trace}\",span_id=\"");
    let exemplars = |text: &str| {
        let with = text.lines().filter(|line| line.contains(&example));
        with.map(|line| line.split('{').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let mut text = String::new();
    eventually("the command's trace is an exemplar", || {
        let (head, body) = scrape(&service, OPENMETRICS);
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"));
        text = String::from_utf8(body).unwrap();
        exemplars(&text).len() == 2
    });
    assert_eq!(
        exemplars(&text),
        [
            "switchboard_command_duration_seconds_bucket",
            "switchboard_command_output_bytes_bucket"
        ]
    );
    assert!(text.ends_with("\n# EOF\n"));
    for line in [
        "# TYPE switchboard_session_io_bytes counter",
        "# UNIT switchboard_session_io_bytes bytes",
        "# TYPE switchboard_command_duration_seconds histogram",
        "# UNIT switchboard_command_duration_seconds seconds",
        "# TYPE target info",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in {text}");
    }
    // An exemplar stands behind a bucket that holds it.
    for line in text.lines().filter(|line| line.contains(" # {")) {
        let (bucket, rest) = line.split_once(" # ").unwrap();
        let value: f64 = rest.split(' ').nth(1).unwrap().parse().unwrap();
        let bound = bucket.split("le=\"").nth(1).unwrap();
        let bound = bound.split('"').next().unwrap().replace("+Inf", "inf");
        assert!(value <= bound.parse().unwrap(), "{line}");
    }
    let (head, body) = scrape(&service, "");
    assert!(head.contains("content-type: text/plain; version=0.0.4"));
    let text = String::from_utf8(body).unwrap();
    assert!(!text.contains("# EOF") && !text.contains("# UNIT") && !text.contains("trace_id"));
}

#[test]
fn who_asks_for_gzip_gets_the_same_and_less_of_it() {
    let service = Service::start(
        "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.udp]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:0\"\n",
    );
    let (head, plain) = scrape(&service, "");
    assert!(!head.contains("content-encoding"), "{head}");
    let (head, packed) = scrape(&service, "Accept-Encoding: gzip\r\n");
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_string(&mut text)
        .unwrap();
    let plain = String::from_utf8(plain).unwrap();
    let names = |text: &str| values(text).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&text), names(&plain));
    assert!(packed.len() * 4 < plain.len(), "{} bytes", packed.len());
}

/// What a listener has come to, in a few of its series.
fn of(service: &Service, listener: &str, name: &str) -> Option<f64> {
    let label = format!("switchboard_listener_name=\"{listener}\"");
    let all = series(service).into_iter();
    let its = all.filter(|(series, _)| series.starts_with(name) && series.contains(&label));
    its.map(|(_, value)| value).reduce(|sum, value| sum + value)
}

#[test]
fn a_deleted_listener_leaves_nothing_and_one_of_its_name_begins_anew() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start("[listeners.stays]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n");
    let create = || {
        let new = json!({"listener_id": "goes", "listener": {"bind": "127.0.0.1:0", "ack": {}}});
        service.call("ListenerService/CreateListener", &new, "listener");
    };
    let ended = "switchboard_session_duration_seconds_count";
    let talk = |times: usize| {
        for _ in 0..times {
            let mut talk = Talk::to(service.bound("goes"));
            talk.send("hello");
            talk.expect("received data!!");
        }
    };
    create();
    talk(3);
    eventually("three sessions ended", || {
        of(&service, "goes", ended) == Some(3.0)
    });
    assert_eq!(
        of(
            &service,
            "goes",
            "switchboard_session_setup_duration_seconds_count"
        ),
        Some(3.0)
    );
    // A session that outlives its listener tells nothing either.
    let _late = Talk::to(service.bound("goes"));
    let request = json!({ "name": "listeners/goes", "force": true });
    service
        .grpcurl("ListenerService/DeleteListener", &request)
        .unwrap();
    assert_eq!(of(&service, "goes", ""), None);
    let snapshot = service.call("MetricService/GetMetricSnapshot", &json!({}), "snapshot");
    let goes = |s: &&Value| s["attributes"]["switchboard.listener.name"] == "goes";
    let all = snapshot["series"].as_array().unwrap();
    assert_eq!(all.iter().find(goes), None);
    assert!(of(&service, "stays", "").is_some());

    create();
    assert_eq!(of(&service, "goes", ended), None);
    assert_eq!(
        of(&service, "goes", "switchboard_listener_connections_total"),
        Some(0.0)
    );
    talk(1);
    eventually("one session ended", || {
        of(&service, "goes", ended) == Some(1.0)
    });
}

#[test]
fn no_value_of_the_environment_breaks_out_of_its_quotes() {
    let hostile = "a\\b\"} 1\nswitchboard_forged 1\nc";
    let service = Service::start_with("", &[], &[("OTEL_SERVICE_NAME", hostile)]);
    for headers in ["", OPENMETRICS] {
        let (_, body) = scrape(&service, headers);
        let text = String::from_utf8(body).unwrap();
        assert!(
            text.contains(r#"service_name="a\\b\"} 1\nswitchboard_forged 1\nc""#),
            "{text}"
        );
        assert!(
            !text
                .lines()
                .any(|line| line.starts_with("switchboard_forged"))
        );
    }
}

/// Prometheus' own checker, where there is one.
fn promtool(arguments: &[&str]) -> Option<Child> {
    let mut promtool = Command::new("promtool");
    promtool.args(arguments).stdin(Stdio::piped());
    promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    match promtool.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: no promtool on the path");
            None
        }
        started => Some(started.unwrap()),
    }
}

#[test]
fn prometheus_own_checker_finds_nothing() {
    let Some(mut check) = promtool(&["check", "metrics"]) else {
        return;
    };
    let service = Service::start_with(reference::EVERYTHING, &[], &[]);
    reference::use_everything(&service);
    let (_, text) = scrape(&service, "");
    check.stdin.take().unwrap().write_all(&text).unwrap();
    let checked = check.wait_with_output().unwrap();
    let told = [checked.stdout, checked.stderr].concat();
    let told = String::from_utf8(told).unwrap();
    // The conventions' own names, of which Prometheus has another opinion.
    let counts = "non-histogram and non-summary metrics should not have \"_count\" suffix";
    let known = [
        "process_thread_count",
        "process_unix_file_descriptor_count",
        "switchboard_config_drift_count",
    ];
    let expected: Vec<String> = known
        .iter()
        .map(|name| format!("{name} {counts}"))
        .collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}
