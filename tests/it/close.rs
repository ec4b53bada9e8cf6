//! Sessions that are closed by the many: only those that are meant, only when it is really asked for, and no faster
//! than it may be.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::limits::{ELSEWHERE, close_reason, sessions, talk_from};
use super::support::take_descriptors;
use super::support::{GrpcError, Service, Talk, eventually, no_grpcurl, number};

fn served(sources: usize) -> Service {
    let listener = |name| {
        format!(
            "[listeners.{name}]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
             limits = {{ max_sessions_per_source = {sources} }}\n"
        )
    };
    Service::start(&(listener("ack") + &listener("other")))
}

fn asks(talk: &mut Talk) {
    talk.send("hello");
    talk.expect("received data!!");
}

fn close(service: &Service, parent: &str, filter: &str, more: &Value) -> Result<Value, GrpcError> {
    let mut request = json!({ "parent": format!("listeners/{parent}"), "filter": filter });
    let fields = request.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    service.grpcurl("SessionService/CloseSessions", &request)
}

/// How many were closed, or would be, and the names that are told.
fn counted(answer: &Value) -> (u64, usize) {
    let names = answer["closeSample"].as_array().map_or(0, Vec::len);
    (number(&answer["closeCount"]), names)
}

fn open(service: &Service) -> u64 {
    service.count("ack", "activeSessions") + service.count("other", "activeSessions")
}

#[test]
fn what_may_still_finish_is_closed_too() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.sh]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n\
         command_timeout = \"1h\"\n",
    );
    let mut busy = service.talk("sh");
    busy.send("sleep 3600");
    eventually("the command runs", || {
        sessions(&service, "sh")[0]["receivedMessages"] == "1"
    });
    let closed = |filter, more| counted(&close(&service, "sh", filter, &more).unwrap());
    let long = json!({ "force": true, "grace": "3600s" });
    assert_eq!(closed("state = STATE_ACTIVE", long), (1, 1));
    assert_eq!(closed("state = STATE_ACTIVE", json!({})), (0, 0));
    assert_eq!(
        closed("state = STATE_CLOSING", json!({ "force": true })),
        (1, 1)
    );
    busy.expect_closed();
    assert_eq!(closed("*", json!({})), (0, 0));
}

#[test]
fn nothing_is_closed_that_is_not_meant() {
    if no_grpcurl() {
        return;
    }
    let service = served(200);
    let mut talks: Vec<Talk> = (0..120).map(|_| service.talk("ack")).collect();
    talks.push(service.talk("other"));
    talks.iter_mut().for_each(asks);
    let mut elsewhere = talk_from(ELSEWHERE, service.address("ack"), None);
    asks(&mut elsewhere);
    // Without force it is only said what would be.
    let preview = |parent, filter| counted(&close(&service, parent, filter, &json!({})).unwrap());
    assert_eq!(preview("-", "*"), (122, 100));
    assert_eq!(preview("ack", "*"), (121, 100));
    assert_eq!(preview("ack", "peer : \"127.0.0.2\""), (1, 1));
    assert_eq!(preview("ack", "received_messages > 1"), (0, 0));
    assert_eq!(open(&service), 122);
    // More than may be closed are not closed in part.
    let bound = json!({ "force": true, "max_closes": 120 });
    let many = close(&service, "ack", "*", &bound).unwrap_err();
    assert_eq!(
        (many.code, many.reason()),
        ("ABORTED", "MAX_CLOSES_EXCEEDED")
    );
    let told = &many.detail("ErrorInfo")["metadata"];
    assert_eq!(
        (&told["close_count"], &told["max_closes"]),
        (&json!("121"), &json!("120"))
    );
    assert_eq!(open(&service), 122);
    // What is meant is.
    let force = json!({ "force": true, "max_closes": 1, "reason": "it was \u{1b} loud" });
    let one = close(&service, "ack", "peer : \"127.0.0.2:\"", &force).unwrap();
    assert_eq!(counted(&one), (1, 1));
    elsewhere.expect_closed();
    assert_eq!(close_reason(&service, "ack", elsewhere.local()), "kicked");
    let all = sessions(&service, "ack");
    let closed = all.iter().find(|s| s["state"] == "STATE_CLOSED").unwrap();
    assert_eq!(one["closeSample"][0], closed["name"]);
    assert_eq!(closed["closeDetail"], "it was \\u{1b} loud");
    assert_eq!(open(&service), 121);
    let all = close(&service, "-", "*", &json!({ "force": true })).unwrap();
    assert_eq!(counted(&all), (121, 100));
    talks.iter_mut().for_each(Talk::expect_closed);
    eventually("nobody is left", || open(&service) == 0);
    assert_eq!(preview("-", "*"), (0, 0));
}

#[test]
fn a_close_that_is_not_clear_is_refused() {
    if no_grpcurl() {
        return;
    }
    let service = served(10);
    asks(&mut service.talk("ack"));
    let refused = |parent: &str, filter: &str, more: Value| {
        let error = close(&service, parent, filter, &more).unwrap_err();
        let fields: Vec<_> = match error.code {
            "INVALID_ARGUMENT" => error.fields().iter().map(|f| (*f).to_owned()).collect(),
            code => vec![code.to_owned()],
        };
        (error.reason().to_owned(), fields.join(","))
    };
    let is = |reason: &str, fields: &str| (reason.to_owned(), fields.to_owned());
    let force = || json!({ "force": true });
    assert_eq!(refused("ack", "", force()), is("FILTER_INVALID", "filter"));
    assert_eq!(
        refused("ack", "pier = 1", force()),
        is("FILTER_INVALID", "filter")
    );
    assert_eq!(
        refused("absent", "*", force()),
        is("LISTENER_NOT_FOUND", "NOT_FOUND")
    );
    let bounds = json!({ "max_closes": -1, "pace_over": "100000s" });
    assert_eq!(
        refused("ack", "*", bounds),
        is("CLOSE_INVALID", "max_closes,pace_over")
    );
    assert_eq!(
        refused("ack", "*", json!({ "grace": "-1s" })),
        is("GRACE_INVALID", "grace")
    );
}

#[test]
fn closes_are_spread_evenly_over_their_time() {
    if no_grpcurl() {
        return;
    }
    let soak = std::env::var_os("SWITCHBOARD_SOAK").is_some();
    let (count, over) = if soak { (900, 5.0) } else { (300, 1.5) };
    take_descriptors();
    let service = served(count);
    let mut talks: Vec<Talk> = (0..count).map(|_| service.talk("ack")).collect();
    talks.iter_mut().for_each(asks);
    let asked = SystemTime::now();
    let paced = json!({ "force": true, "pace_over": format!("{over}s"), "grace": "30s" });
    let answer = close(&service, "ack", "*", &paced).unwrap();
    assert_eq!(number(&answer["closeCount"]), count as u64);
    // It was answered long before the last one is asked.
    assert!(service.count("ack", "activeSessions") > count as u64 / 2);
    eventually("all are closed", || {
        service.count("ack", "activeSessions") == 0
    });
    let mut moments: Vec<Duration> = sessions(&service, "ack")
        .iter()
        .map(|session| {
            let text = session["closeTime"].as_str().unwrap();
            let time = humantime::parse_rfc3339(text).unwrap();
            time.duration_since(asked).unwrap_or_default()
        })
        .collect();
    moments.sort();
    assert_eq!(moments.len(), count);
    let mean = count as f64 * 0.1 / over;
    for (index, moment) in moments.iter().enumerate() {
        let slice = moments[index..].iter();
        let held = slice
            .take_while(|m| **m < *moment + Duration::from_millis(100))
            .count();
        assert!(
            held as f64 <= 3.0 * mean,
            "{held} from {moment:?} on, {mean} on the average"
        );
    }
    let last = moments[count - 1].as_secs_f64();
    assert!(last > over * 0.8 && last < over + 2.0, "{last}");
}

#[test]
fn a_process_that_leaves_waits_for_no_pace() {
    if no_grpcurl() {
        return;
    }
    let service = served(50);
    let mut talks: Vec<Talk> = (0..20).map(|_| service.talk("ack")).collect();
    talks.iter_mut().for_each(asks);
    let paced = json!({ "force": true, "pace_over": "3600s" });
    close(&service, "-", "*", &paced).unwrap();
    service.terminate();
    let ended = service.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    talks.iter_mut().for_each(Talk::expect_closed);
}
