//! The log: each event is one line that says what it belongs to, wherever in the process it came about.

use serde_json::{Value, json};

use super::support::{Service, eventually, grpcurl, no_grpcurl, number};

const ACK: &str = r#"
    [telemetry]
    log = "debug"
    [listeners.ack]
    protocol = "ack"
    bind = "127.0.0.1:0"
"#;

/// The lines of the log that hold all of these.
fn lines(service: &Service, words: &[&str]) -> Vec<Value> {
    let log = service.stderr();
    let lines = log
        .lines()
        .filter(|line| words.iter().all(|word| line.contains(word)));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Calls a method in a trace of the caller's.
fn call_in(service: &Service, trace: &str, method: &str, request: &Value) {
    let (header, address) = (
        format!("traceparent: 00-{trace}-00f067aa0ba902b7-01"),
        service.grpc().to_string(),
    );
    let method = format!("switchboard.v1.{method}");
    let args = ["-H", &header, "-d", "@", &address, &method];
    grpcurl(&args, &request.to_string()).unwrap();
}

#[test]
fn every_line_that_a_call_brings_about_bears_the_trace_of_its_caller() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let (made, stopped) = (
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "0af7651916cd43dd8448eb211c80319c",
    );
    let listener = json!({ "bind": "127.0.0.1:0", "ack": {} });
    let request = json!({ "listener_id": "front", "listener": listener });
    call_in(&service, made, "ListenerService/CreateListener", &request);
    let named = json!({ "name": "listeners/front" });
    call_in(&service, stopped, "ListenerService/StopListener", &named);
    let (wished, for_now) = (
        "8a3c60f7d188f8fa79d48a391a778fa6",
        json!({ "directive": "info", "revert_after": "0.01s" }),
    );
    call_in(&service, wished, "ServerService/SetLogFilter", &for_now);
    eventually("its end is told in its trace", || {
        let ends = lines(&service, &["went back to the configuration"]);
        ends.iter().any(|line| line["trace_id"] == wished)
    });
    // Its end is told by a task that goes on when the call has been answered.
    let told = |trace: &str, words: &[&str]| {
        eventually(&words.join(", "), || {
            let lines = lines(&service, words);
            let ours = |line: &&Value| line["listener"] == "front";
            let of_front: Vec<_> = lines.iter().filter(ours).collect();
            of_front.iter().any(|line| line["trace_id"] == trace)
        });
    };
    told(made, &["listener created"]);
    told(made, &["listener is bound"]);
    told(
        made,
        &["switchboard.listener.state_change", "\"to\":\"active\""],
    );
    told(stopped, &["listener stops"]);
    told(
        stopped,
        &["switchboard.listener.state_change", "\"to\":\"stopping\""],
    );
    told(stopped, &["listener stopped"]);
    told(
        stopped,
        &["switchboard.listener.state_change", "\"to\":\"stopped\""],
    );
    // What was there before any call is in no trace.
    let own = lines(&service, &["listener is bound", "\"listener\":\"ack\""]);
    assert!(own[0].get("trace_id").is_none(), "{own:?}");
}

/// The names of an object's fields, as often as they are there.
struct Names(Vec<String>);

impl<'de> serde::Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(read: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> serde::de::Visitor<'de> for Fields {
            type Value = Names;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: serde::de::MapAccess<'de>>(
                self,
                mut map: M,
            ) -> Result<Names, M::Error> {
                let mut names = Vec::new();
                while let Some((name, _)) = map.next_entry::<String, Value>()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        read.deserialize_map(Fields)
    }
}

#[test]
fn no_line_has_a_field_twice() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!(
        "{ACK}[listeners.busy]\nprotocol = \"ack\"\nbind = \"{}\"\n",
        taken.local_addr().unwrap()
    );
    let service = Service::start(&busy);
    drop(service.talk("ack"));
    let told =
        |words: &[&str]| eventually(&words.join(", "), || !lines(&service, words).is_empty());
    told(&["listener failed", "ADDRESS_IN_USE", "is in use"]);
    told(&["switchboard.session.end"]);
    for line in service.stderr().lines() {
        let Names(mut names) = serde_json::from_str(line).unwrap();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "{line}");
    }
}

#[test]
fn a_session_ends_in_one_line_with_all_that_is_to_be_said_of_it() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let mut talk = service.talk("ack");
    talk.send("hello");
    talk.expect("received data!!");
    let request = json!({ "parent": "listeners/ack" });
    let sessions = service.call("SessionService/ListSessions", &request, "sessions");
    let session = &sessions[0];
    drop(talk);
    eventually("its end is told", || {
        !lines(&service, &["switchboard.session.end"]).is_empty()
    });
    let ends = lines(&service, &["switchboard.session.end"]);
    assert_eq!(ends.len(), 1, "{ends:?}");
    let end = &ends[0];
    assert_eq!(end["message"], "session ended");
    assert_eq!(end["trace_id"], session["traceId"]);
    let name = session["name"].as_str().unwrap();
    assert!(name.ends_with(end["session"].as_str().unwrap()), "{name}");
    assert_eq!(end["listener"], "ack");
    assert!(
        end["reason"].is_string() && end["open_ms"].is_u64(),
        "{end}"
    );
    for (key, value) in [
        ("received_messages", 1),
        ("sent_messages", 1),
        ("received_bytes", 5),
        ("sent_bytes", 15),
        ("stalls", 0),
    ] {
        assert_eq!(number(&end[key]), value, "{key} in {end}");
    }
    // Of a connection that had exchanged something the kernel knows it.
    assert!(end["rtt_us"].as_u64() > Some(0), "{end}");
    let opened = lines(&service, &["session opened"]);
    assert_eq!(opened[0]["trace_id"], session["traceId"]);
}
