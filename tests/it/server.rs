//! The process itself: what it logs, when it ends, and how much it does.

use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::{Value, json};
use switchboard::grpc::api;
use switchboard::grpc::api::metric_service_client::MetricServiceClient;
use switchboard::grpc::api::server_service_client::ServerServiceClient;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use crate::support::{Service, TIMEOUT, eventually, no_grpcurl};

const SERVED: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

/// Asks for another filter, for so many milliseconds or until told; what it replaces.
fn log(service: &Service, directive: &str, revert_after_ms: Option<i32>) -> String {
    let request = api::SetLogFilterRequest {
        directive: directive.to_owned(),
        revert_after: revert_after_ms.map(|ms| prost_types::Duration {
            seconds: i64::from(ms / 1_000),
            nanos: ms % 1_000 * 1_000_000,
        }),
        ..api::SetLogFilterRequest::default()
    };
    let (runtime, channel) = connected(service);
    let mut server = ServerServiceClient::new(channel);
    let answer = runtime.block_on(server.set_log_filter(request));
    answer.unwrap().into_inner().previous_directive
}

fn connected(service: &Service) -> (Runtime, Channel) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc())).unwrap();
    let endpoint = endpoint.connect_timeout(TIMEOUT);
    let channel = runtime.block_on(endpoint.connect()).unwrap();
    (runtime, channel)
}

/// How often the log's filter went back by itself.
fn went_back(service: &Service) -> usize {
    service.stderr().matches("log filter went back").count()
}

#[test]
fn a_log_filter_goes_back_by_itself() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!("[telemetry]\nlog = \"info,hyper=warn\"\n{SERVED}"));
    assert_eq!(
        log(&service, "switchboard=debug", Some(300)),
        "info,hyper=warn"
    );
    eventually("it goes back", || went_back(&service) == 1);
    assert_eq!(log(&service, "info,h2=off", Some(1_000)), "info,hyper=warn");
    // The later one takes the place of the earlier one, and of its time.
    assert_eq!(log(&service, "info,h2=error", Some(1_500)), "info,h2=off");
    let asked = Instant::now();
    eventually("it goes back once more", || went_back(&service) == 2);
    assert!(
        asked.elapsed() > Duration::from_millis(1_200),
        "{:?}",
        asked.elapsed()
    );
    // Without a time it stays.
    assert_eq!(log(&service, "info,h2=trace", None), "info,hyper=warn");
    assert_eq!(log(&service, "info", None), "info,h2=trace");
    assert_eq!(went_back(&service), 2);
}

#[test]
fn a_log_filter_lasts_through_a_reload_that_is_about_something_else() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    let reload = |text: &str| {
        std::fs::write(service.home().join("switchboard.toml"), text).unwrap();
        let reload = service.grpcurl("ConfigService/ReloadConfig", &json!({}));
        reload.unwrap();
    };
    assert_eq!(log(&service, "info,h2=off", Some(60_000)), "info");
    reload(&format!("{SERVED}display_name = \"other\"\n"));
    assert_eq!(log(&service, "info,h2=warn", Some(60_000)), "info,h2=off");
    reload(&format!("[telemetry]\nlog = \"info,hyper=off\"\n{SERVED}"));
    assert_eq!(log(&service, "info", None), "info,hyper=off");
    reload(SERVED);
    assert_eq!(log(&service, "info,h2=off", Some(200)), "info");
    eventually("it goes back", || went_back(&service) == 1);
    assert_eq!(log(&service, "info", None), "info");
}

#[test]
fn what_is_no_filter_changes_nothing_and_is_told() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SERVED);
    for (directive, told) in [
        ("", "it is empty"),
        ("debugg", "`debugg` is no level"),
        ("info,switchboard=loud", "loud"),
    ] {
        let request = json!({ "directive": directive });
        let error = service
            .grpcurl("ServerService/SetLogFilter", &request)
            .unwrap_err();
        assert_eq!(
            (error.code, error.reason()),
            ("INVALID_ARGUMENT", "LOG_FILTER_INVALID")
        );
        assert!(
            error.fields().contains("directive") && error.message.contains(told),
            "{error:?}"
        );
    }
    assert_eq!(log(&service, "info", None), "info");
}

/// How far away the moment is that an answer tells.
fn left(answer: &Value) -> Duration {
    let told = answer["deadlineTime"].as_str().unwrap();
    let deadline = humantime::parse_rfc3339(told).unwrap();
    deadline
        .duration_since(SystemTime::now())
        .unwrap_or_default()
}

#[test]
fn a_shutdown_drains_and_a_second_one_only_shortens() {
    if no_grpcurl() {
        return;
    }
    // A command that runs keeps its session.
    let shell = "[listeners.sh]\nprotocol = \"shell\"\nbind = \"127.0.0.1:0\"\npolicy = \"any\"\n";
    let service = Service::start(shell);
    let mut talk = service.talk("sh");
    talk.send("sleep 20");
    eventually("it runs", || service.count("sh", "activeSessions") == 1);
    let shutdown = |grace: &str| {
        let request = json!({ "grace": grace, "reason": "tests" });
        left(
            &service
                .grpcurl("ServerService/ShutdownServer", &request)
                .unwrap(),
        )
    };
    let began = Instant::now();
    let first = shutdown("300s");
    assert!(first > Duration::from_secs(290), "{first:?}");
    eventually("it drains", || {
        service.listener("sh")["state"] == "STATE_DRAINING"
    });
    let longer = shutdown("500s");
    assert!(longer <= first, "{longer:?}");
    let shorter = shutdown("1s");
    assert!(shorter <= Duration::from_secs(1), "{shorter:?}");
    let ended = service.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    assert!(ended.stderr.contains("\"cut\":1"), "{}", ended.stderr);
}

#[test]
fn a_signal_behind_a_shutdown_hurries_it_and_a_second_one_cuts() {
    if no_grpcurl() {
        return;
    }
    let shell = "[listeners.sh]\nprotocol = \"shell\"\nbind = \"127.0.0.1:0\"\npolicy = \"any\"\n";
    let service = Service::start(&format!("[shutdown]\ngrace = \"200s\"\n{shell}"));
    let mut talk = service.talk("sh");
    talk.send("sleep 20");
    eventually("it runs", || service.count("sh", "activeSessions") == 1);
    service
        .grpcurl("ServerService/ShutdownServer", &json!({ "grace": "300s" }))
        .unwrap();
    service.signal(Signal::TERM);
    eventually("it is heard", || {
        service.stderr().contains("asked to end again")
    });
    let again = service.grpcurl("ServerService/ShutdownServer", &json!({}));
    assert!(left(&again.unwrap()) <= Duration::from_secs(200));
    service.signal(Signal::TERM);
    let ended = service.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

/// One connection that streams of metrics are read from.
struct Reader {
    runtime: Runtime,
    metrics: MetricServiceClient<Channel>,
}

type Snapshots = Streaming<api::StreamMetricSnapshotsResponse>;

impl Reader {
    fn of(service: &Service) -> Self {
        let (runtime, channel) = connected(service);
        Self {
            runtime,
            metrics: MetricServiceClient::new(channel),
        }
    }

    fn stream(&self, filter: &str) -> Result<Snapshots, Status> {
        let request = api::StreamMetricSnapshotsRequest {
            filter: filter.to_owned(),
            interval: Some(prost_types::Duration {
                seconds: 0,
                nanos: 500_000_000,
            }),
        };
        let mut metrics = self.metrics.clone();
        let stream = self
            .runtime
            .block_on(metrics.stream_metric_snapshots(request));
        stream.map(tonic::Response::into_inner)
    }

    fn next(&self, stream: &mut Snapshots) -> Result<Vec<api::MetricSeries>, Status> {
        let next = async {
            tokio::time::timeout(TIMEOUT, stream.message())
                .await
                .unwrap()
        };
        let answer = self.runtime.block_on(next)?.expect("it ends with a status");
        Ok(answer.snapshot.unwrap().series)
    }
}

#[test]
fn counters_of_a_stream_have_rates() {
    let service = Service::start(SERVED);
    let reader = Reader::of(&service);
    let mut stream = reader.stream("metric : \"switchboard.session\"").unwrap();
    let mut talk = service.talk("ack");
    let first = reader.next(&mut stream).unwrap();
    assert!(first.iter().all(|series| series.rate.is_none()));
    assert!(
        first
            .iter()
            .all(|series| series.metric.contains("switchboard.session"))
    );
    let mut told = false;
    for _ in 0..6 {
        talk.send("x");
        let series = reader.next(&mut stream).unwrap();
        let rates = |metric: &str| {
            let of = series.iter().filter(|series| series.metric == metric);
            of.filter_map(|series| series.rate).collect::<Vec<_>>()
        };
        assert!(rates("switchboard.session.active").is_empty());
        told |= rates("switchboard.session.messages")
            .iter()
            .any(|rate| *rate > 0.5);
    }
    assert!(told);
}

#[test]
fn streams_are_so_many_and_end_with_the_process() {
    let service = Service::start(SERVED);
    let reader = Reader::of(&service);
    let of_one = "metric = \"switchboard.session.active\"";
    let mut streams: Vec<_> = (0..32).map(|_| reader.stream(of_one).unwrap()).collect();
    let refused = reader.stream(of_one).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "WATCHER_LIMIT");
    assert!(details.quota_failure().is_some() && details.retry_info().is_some());
    drop(streams.pop());
    let mut more = None;
    eventually("a place is free", || {
        more = reader.stream(of_one).ok();
        more.is_some()
    });
    streams.extend(more);
    for stream in &mut streams {
        reader.next(stream).unwrap();
    }
    service.terminate();
    for stream in &mut streams {
        let mut ended = None;
        while ended.is_none() {
            ended = reader.next(stream).err();
        }
        let ended = ended.unwrap();
        assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
        let info = ended.get_details_error_info();
        assert_eq!(
            info.map(|info| info.reason).as_deref(),
            Some("SERVER_DRAINING")
        );
    }
    assert_eq!(service.wait().code, 0);
}
