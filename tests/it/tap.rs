//! A live copy of one session's traffic: what it shows, what it keeps to itself, and that the session does not notice.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use switchboard::grpc::api::session_service_client::SessionServiceClient;
use switchboard::grpc::api::tap_session_response::Direction::{self, Receive, Transmit};
use switchboard::grpc::api::{TapSessionRequest, TapSessionResponse};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::support::{Service, TIMEOUT, Talk, eventually, no_grpcurl};

const ACK: &str = "[listeners.ack]\nprotocol = \"ack\"\nframing = \"line\"\nreply = \"yes\"\nbind = \"127.0.0.1:0\"\n";

/// One connection to the control plane. Between two calls it is not driven: it takes nothing then.
struct Client {
    runtime: Runtime,
    sessions: SessionServiceClient<Channel>,
}

impl Client {
    fn of(service: &Service) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc())).unwrap();
        let endpoint = endpoint.timeout(3 * TIMEOUT).connect_timeout(TIMEOUT);
        // Small, so that what is not taken waits in the service.
        let endpoint = endpoint.initial_stream_window_size(65_535);
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        let sessions = SessionServiceClient::new(channel);
        Self { runtime, sessions }
    }

    /// The tap stands once this has returned.
    fn tap(&self, request: TapSessionRequest) -> Result<Streaming<TapSessionResponse>, Status> {
        let call = async { self.sessions.clone().tap_session(request).await };
        self.runtime.block_on(call).map(tonic::Response::into_inner)
    }

    fn next(&self, tap: &mut Streaming<TapSessionResponse>) -> TapSessionResponse {
        let next = self.runtime.block_on(tap.message());
        next.unwrap().expect("one more response")
    }

    /// What is left of a tap that is about to end.
    fn rest(&self, mut tap: Streaming<TapSessionResponse>) -> Vec<TapSessionResponse> {
        let all = async {
            let mut all = Vec::new();
            while let Some(response) = tap.message().await.unwrap() {
                all.push(response);
            }
            all
        };
        self.runtime.block_on(all)
    }
}

/// The name of a peer's session, once it is there.
fn name(service: &Service, listener: &str, peer: SocketAddr) -> String {
    let mut found = None;
    eventually("the session is listed", || {
        let request = json!({ "parent": format!("listeners/{listener}"), "page_size": 1000 });
        let all = service.call("SessionService/ListSessions", &request, "sessions");
        let all = all.as_array().cloned().unwrap_or_default();
        let own = all.iter().find(|s| s["peer"] == peer.to_string());
        found = own.map(|s| s["name"].as_str().unwrap().to_owned());
        found.is_some()
    });
    found.unwrap()
}

fn of(name: &str) -> TapSessionRequest {
    TapSessionRequest {
        name: name.to_owned(),
        ..TapSessionRequest::default()
    }
}

/// The same, and what was said.
fn aloud(name: &str) -> TapSessionRequest {
    TapSessionRequest {
        include_payload: true,
        ..of(name)
    }
}

type Shown = (Direction, u64, Vec<u8>, bool);

fn shown(response: &TapSessionResponse) -> Shown {
    assert!(response.frame_time.is_some(), "{response:?}");
    assert_eq!(response.dropped_frames, 0);
    let (size, payload) = (response.size_bytes, response.payload.clone());
    (response.direction(), size, payload, response.truncated)
}

#[test]
fn two_taps_show_the_same_traffic_and_only_one_what_was_said() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let mut talk = service.talk("ack");
    talk.send("before\n");
    talk.expect("yes\n");
    let name = name(&service, "ack", talk.local());
    let (mut silent, mut loud) = (
        client.tap(of(&name)).unwrap(),
        client.tap(aloud(&name)).unwrap(),
    );
    talk.send("hello\n");
    talk.expect("yes\n");
    for (tap, payload) in [(&mut silent, false), (&mut loud, true)] {
        for (direction, bytes) in [(Receive, "hello\n"), (Transmit, "yes\n")] {
            let said = if payload { bytes.into() } else { Vec::new() };
            let expected = (direction, bytes.len() as u64, said, false);
            assert_eq!(shown(&client.next(tap)), expected);
        }
    }
    let request = json!({ "filter": "method : TapSession" });
    let events = service.call("ServerService/ListAuditEvents", &request, "auditEvents");
    let events = events.as_array().unwrap();
    assert!(events.iter().all(|e| e["resource"] == *name), "{events:?}");
    let seen = |with: &str| {
        events
            .iter()
            .filter(|e| e["reason"].as_str().unwrap_or("") == with)
            .count()
    };
    assert_eq!((seen(""), seen("include_payload")), (1, 1), "{events:?}");
    // Neither notices that the other goes, nor does the session.
    drop(silent);
    talk.send("again\n");
    talk.expect("yes\n");
    assert_eq!(shown(&client.next(&mut loud)).2, b"again\n");
    talk.half_close();
    talk.expect_closed();
    let rest = client.rest(loud);
    assert_eq!(
        rest.iter().map(shown).map(|s| s.2).collect::<Vec<_>>(),
        [b"yes\n"]
    );
}

#[test]
fn a_tap_of_a_session_that_says_nothing_ends_with_it() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let talk = service.talk("ack");
    let name = name(&service, "ack", talk.local());
    let tap = client.tap(of(&name)).unwrap();
    drop(talk);
    assert_eq!(client.rest(tap), []);
    let mut error = None;
    eventually("it is one that closed", || {
        error = client.tap(of(&name)).err();
        error.is_some()
    });
    let error = error.unwrap();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let details = error.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "SESSION_CLOSED");
    assert!(details.precondition_failure().is_some());
    let error = client
        .tap(of("listeners/ack/sessions/local-x"))
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[test]
fn a_tap_ends_at_its_bounds() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let mut talk = service.talk("ack");
    let name = name(&service, "ack", talk.local());
    let bytes = client.tap(TapSessionRequest {
        max_bytes: 11,
        ..aloud(&name)
    });
    let time = client.tap(TapSessionRequest {
        max_duration: Some(prost_types::Duration {
            seconds: 0,
            nanos: 50_000_000,
        }),
        ..of(&name)
    });
    let began = Instant::now();
    assert_eq!(client.rest(time.unwrap()), []);
    assert!(began.elapsed() < TIMEOUT / 2);
    for _ in 0..3 {
        talk.send("12345\n");
        talk.expect("yes\n");
    }
    // 6, 4, and what is left of the next 6.
    let rest: Vec<_> = client.rest(bytes.unwrap()).iter().map(shown).collect();
    let expected: [Shown; 3] = [
        (Receive, 6, b"12345\n".into(), false),
        (Transmit, 4, b"yes\n".into(), false),
        (Receive, 6, b"1".into(), true),
    ];
    assert_eq!(rest, expected);
}

#[test]
fn a_long_frame_is_cut_and_its_size_stands() {
    let reply = "x".repeat(20_000);
    let service = Service::start(&format!(
        "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\nreply = \"{reply}\"\n"
    ));
    if no_grpcurl() {
        return;
    }
    let client = Client::of(&service);
    let mut talk = service.talk("ack");
    let mut tap = client
        .tap(aloud(&name(&service, "ack", talk.local())))
        .unwrap();
    talk.send("?");
    talk.expect(&reply);
    assert_eq!(
        shown(&client.next(&mut tap)),
        (Receive, 1, b"?".into(), false)
    );
    let (direction, size, payload, truncated) = shown(&client.next(&mut tap));
    assert_eq!((direction, size, truncated), (Transmit, 20_000, true));
    assert_eq!(payload, &reply.as_bytes()[..16_384]);
}

#[test]
fn bounds_that_cannot_be_kept_are_refused_at_once() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let talk = service.talk("ack");
    let name = name(&service, "ack", talk.local());
    for duration in ["3601s", "-1s", "0s"] {
        let request =
            json!({ "name": name, "max_bytes": (64 << 20) + 1, "max_duration": duration });
        let error = service
            .grpcurl("SessionService/TapSession", &request)
            .unwrap_err();
        assert_eq!(
            (error.code, error.reason()),
            ("INVALID_ARGUMENT", "TAP_BOUNDS_INVALID")
        );
        assert_eq!(error.fields(), ["max_bytes", "max_duration"].into());
    }
}

#[test]
fn so_many_taps_and_no_more() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let talks: Vec<Talk> = (0..5).map(|_| service.talk("ack")).collect();
    let names: Vec<_> = talks
        .iter()
        .map(|t| name(&service, "ack", t.local()))
        .collect();
    let refused = |name: &str, subject: &str| {
        let error = client.tap(of(name)).unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        let details = error.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "TAP_LIMIT");
        let quota = &details.quota_failure().unwrap().violations[0];
        assert_eq!(quota.subject, subject, "{error}");
        let wait = details.retry_info().unwrap().retry_delay.unwrap();
        assert!(wait > Duration::from_secs(30) && wait <= Duration::from_secs(60));
    };
    let mut taps = Vec::new();
    for name in &names[..4] {
        taps.extend((0..4).map(|_| client.tap(of(name)).unwrap()));
        if taps.len() < 16 {
            refused(name, "session");
        }
    }
    refused(&names[4], "server");
    // One that goes makes room.
    taps.pop();
    eventually("there is room", || client.tap(of(&names[4])).is_ok());
}

#[test]
fn a_taker_that_stalls_loses_frames_is_told_how_many_and_holds_nobody_up() {
    if no_grpcurl() {
        return;
    }
    const EXCHANGES: usize = 200;
    let service = Service::start(ACK);
    let (stalled, quick) = (Client::of(&service), Client::of(&service));
    let mut talk = service.talk("ack");
    let name = name(&service, "ack", talk.local());
    let whole = |name: &str| TapSessionRequest {
        max_bytes: 64 << 20,
        ..aloud(name)
    };
    let tap = stalled.tap(whole(&name)).unwrap();
    let mut other = quick.tap(whole(&name)).unwrap();
    let question = format!("{}\n", "?".repeat(12_000));
    let (mut frames, mut received) = (0, 0);
    for _ in 0..EXCHANGES {
        talk.send(&question);
        talk.expect("yes\n");
        // Taken as it goes, nothing is lost.
        loop {
            let (direction, size, ..) = shown(&quick.next(&mut other));
            frames += 1;
            match direction {
                Receive => received += size,
                _ => break assert_eq!(size, 4),
            }
        }
    }
    assert_eq!(received, (EXCHANGES * question.len()) as u64);
    talk.half_close();
    talk.expect_closed();
    let rest = stalled.rest(tap);
    let is_frame = |r: &&TapSessionResponse| r.direction() != Direction::Unspecified;
    let shown = rest.iter().filter(is_frame).count() as u64;
    let dropped: u64 = rest.iter().map(|r| r.dropped_frames).sum();
    assert_eq!(shown + dropped, frames);
    assert!(
        dropped > 0 && shown >= 64,
        "{shown} shown, {dropped} dropped"
    );
}

#[test]
fn what_others_send_to_a_session_and_datagrams_are_shown_too() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.room]\nprotocol = \"chat\"\nmode = \"room\"\npace = \"free\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.qq]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"127.0.0.1:0\"\n",
    );
    let client = Client::of(&service);
    let (mut one, mut two) = (service.talk("room"), service.talk("room"));
    name(&service, "room", one.local());
    let mut tap = client
        .tap(aloud(&name(&service, "room", two.local())))
        .unwrap();
    one.send("hello\n");
    two.expect("hello\n");
    assert_eq!(
        shown(&client.next(&mut tap)),
        (Transmit, 6, b"hello\n".into(), false)
    );

    let peer = service.peer("qq");
    peer.send("?");
    let name = name(&service, "qq", peer.local());
    let mut tap = client.tap(aloud(&name)).unwrap();
    peer.send("");
    assert_eq!(
        shown(&client.next(&mut tap)),
        (Receive, 0, b"".into(), false)
    );
    let reply = json!({ "name": name.replace("/sessions/", "/conversations/"), "text": "yes" });
    service
        .grpcurl("ChatService/ReplyConversation", &reply)
        .unwrap();
    peer.expect("yes");
    assert_eq!(
        shown(&client.next(&mut tap)),
        (Transmit, 3, b"yes".into(), false)
    );
    let close = json!({ "name": name });
    service
        .grpcurl("SessionService/CloseSession", &close)
        .unwrap();
    assert_eq!(client.rest(tap).len(), 0);
}
