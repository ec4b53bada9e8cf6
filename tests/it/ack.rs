//! The ack listener: one answer for each message whatever its shape, and a ledger that says so.

use serde_json::{Value, json};

use super::limits::{close_reason, session_of, sessions};
use super::support::{Service, eventually, no_grpcurl, number};

const ANSWER: &[u8] = b"received data!!";

fn session(service: &Service, name: &str) -> Value {
    let request = json!({ "name": name });
    service.call("SessionService/GetSession", &request, "session")
}

#[test]
fn a_visit_is_shown_while_it_lasts_and_remembered_when_it_is_over() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.once]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\nonce = true\n",
    );
    let mut talk = service.talk("ack");
    for message in [&b"hello"[..], b"\0\xff", b"q"] {
        talk.send(message);
        talk.expect(ANSWER);
    }
    let name = session_of(&service, "ack", talk.local());
    assert!(name.starts_with("listeners/ack/sessions/local-"), "{name}");
    let shown = session(&service, &name);
    assert_eq!(shown["state"], "STATE_ACTIVE");
    assert_eq!(shown["peer"], talk.local().to_string());
    assert_eq!(shown["local"], service.address("ack").to_string());
    let counts = |shown: &Value| {
        [
            "receivedMessages",
            "receivedBytes",
            "sentMessages",
            "sentBytes",
        ]
        .map(|key| number(&shown[key]))
    };
    assert_eq!(counts(&shown), [3, 8, 3, 45]);
    assert_eq!(shown["traceId"].as_str().map(str::len), Some(32), "{shown}");

    talk.half_close();
    talk.expect_closed();
    assert_eq!(close_reason(&service, "ack", talk.local()), "client_closed");
    let shown = session(&service, &name);
    assert_eq!(counts(&shown), [3, 8, 3, 45]);
    assert!(shown["closeTime"].is_string(), "{shown}");
    for (key, count) in [
        ("receivedBytes", 8),
        ("sentBytes", 45),
        ("acceptedConnections", 1),
    ] {
        assert_eq!(service.count("ack", key), count, "{key}");
    }

    let mut talk = service.talk("ack");
    let peer = talk.local();
    talk.send("hello");
    talk.expect(ANSWER);
    talk.reset();
    assert_eq!(close_reason(&service, "ack", peer), "client_reset");

    let mut talk = service.talk("once");
    talk.send("hello");
    assert_eq!(talk.rest(), ANSWER);
    let peer = talk.local();
    drop(talk);
    assert_eq!(close_reason(&service, "once", peer), "completed");
    let open = sessions(&service, "ack")
        .iter()
        .filter(|s| s["state"] != "STATE_CLOSED")
        .count();
    assert_eq!(open, 0);
}

#[test]
fn where_a_send_ends_does_not_matter_where_messages_are_framed() {
    let service = Service::start(
        "[listeners.line]\nprotocol = \"ack\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.length]\nprotocol = \"ack\"\nframing = \"length\"\nbind = \"127.0.0.1:0\"\n",
    );
    let body = [b'x'; 1024];
    for (listener, message, answer) in [
        (
            "line",
            [&body[..], b"\n"].concat(),
            [ANSWER, b"\n"].concat(),
        ),
        (
            "length",
            [&1024i32.to_le_bytes(), &body[..]].concat(),
            [&15i32.to_le_bytes(), ANSWER].concat(),
        ),
    ] {
        let mut talk = service.talk(listener);
        for at in 1..message.len() {
            talk.send(&message[..at]);
            talk.send(&message[at..]);
            talk.expect(&answer);
        }
        // Two in one segment, and the last with the end of the peer's side.
        talk.send(message.repeat(2));
        talk.half_close();
        assert_eq!(talk.rest(), answer.repeat(2));
    }
}

#[test]
fn a_listener_made_at_run_time_answers_with_its_own_bytes() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start("[listeners.other]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n");
    let request = json!({
        "listener_id": "bytes",
        "listener": {
            "bind": "127.0.0.1:0",
            // The bytes 0, 255 and 10.
            "ack": { "reply": "AP8K", "framing": "FRAMING_LENGTH" },
        },
    });
    let made = service.call("ListenerService/CreateListener", &request, "listener");
    assert_eq!(made["ack"]["reply"], "AP8K");
    assert_eq!(made["bound"], service.bound("bytes").to_string());
    let mut talk = super::support::Talk::to(service.bound("bytes"));
    talk.send(b"\x02\0\0\0hi\0\0\0\0");
    talk.expect(b"\x03\0\0\0\0\xff\n\x03\0\0\0\0\xff\n");
    eventually("both are counted", || {
        service.count("bytes", "sentBytes") > 0
    });
}
