//! Listeners that let nobody new in: those inside are unharmed, the port stays ours, and it can be taken back.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use switchboard::grpc::api::listener_service_client::ListenerServiceClient;
use switchboard::grpc::api::{self, PauseMode};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};

use super::support::{Service, TIMEOUT, Talk, eventually, no_grpcurl, soak, take_descriptors};

const LISTENERS: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\nframing = \"line\"\n\
     limits = { max_sessions_per_source = 10000 }\n\
     [listeners.shell]\nprotocol = \"shell\"\nbind = \"127.0.0.1:0\"\nprograms = [\"echo\"]\n\
     [listeners.up]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:0\"\n\
     [listeners.desk]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"127.0.0.1:0\"\n";

fn tell(service: &Service, verb: &str, name: &str, more: &Value) -> Value {
    let mut request = json!({ "name": format!("listeners/{name}") });
    let fields = request.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let method = format!("ListenerService/{verb}Listener");
    let answer = service.grpcurl(&method, &request);
    answer.unwrap_or_else(|error| panic!("{verb} {name}: {error:?}"))["listener"].clone()
}

fn pause(service: &Service, name: &str, mode: &str) -> Value {
    tell(
        service,
        "Pause",
        name,
        &json!({ "mode": format!("PAUSE_MODE_{mode}") }),
    )
}

fn is_answered(talk: &mut Talk) {
    talk.send("hello\n");
    talk.expect("received data!!\n");
}

#[test]
fn a_queue_waits_and_is_served_when_it_is_over() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(LISTENERS);
    let mut inside = service.talk("ack");
    is_answered(&mut inside);
    let paused = pause(&service, "ack", "QUEUE");
    assert_eq!(paused["state"], "STATE_PAUSED");
    assert_eq!(paused["pauseMode"], "PAUSE_MODE_QUEUE");
    assert_eq!(paused["bound"], service.address("ack").to_string());
    let mut outside: Vec<Talk> = (0..3).map(|_| service.talk("ack")).collect();
    outside.iter_mut().for_each(|talk| talk.send("hello\n"));
    is_answered(&mut inside);
    let status = &service.listener("ack")["status"];
    assert_eq!(status["activeSessions"], 1);
    assert_eq!(status["acceptQueueLength"], 3);
    assert_eq!(
        tell(&service, "Resume", "ack", &json!({}))["state"],
        "STATE_ACTIVE"
    );
    outside
        .iter_mut()
        .for_each(|talk| talk.expect("received data!!\n"));
    assert_eq!(service.listener("ack").get("pauseMode"), None);
    // Who waited for it is told, and counted, when it is not over after all.
    pause(&service, "ack", "QUEUE");
    let mut late = service.talk("ack");
    pause(&service, "ack", "REFUSE");
    let said = String::from_utf8(late.rest()).unwrap();
    assert!(said.starts_with("unavailable: "), "{said}");
    assert_eq!(service.rejected("ack", "paused"), 1);
}

#[test]
fn who_is_rejected_learns_why_in_the_words_of_the_protocol() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(LISTENERS);
    let mut inside = service.talk("ack");
    is_answered(&mut inside);
    for name in ["ack", "shell", "up", "desk"] {
        let paused = pause(&service, name, "REJECT");
        assert_eq!(paused["pauseMode"], "PAUSE_MODE_REJECT");
    }
    let mut outside = service.talk("ack");
    outside.send("hello\n");
    let said = String::from_utf8(outside.rest()).unwrap();
    assert!(said.starts_with("unavailable: "), "{said}");
    let mut shell = service.talk("shell");
    let frame = shell.frame();
    assert_eq!(frame.header["error"]["code"], "unavailable");
    shell.expect_closed();
    let peer = service.peer("desk");
    peer.send("is anybody there, who could tell me when this desk is open again?");
    assert!(
        String::from_utf8(peer.recv())
            .unwrap()
            .starts_with("unavailable: ")
    );
    is_answered(&mut inside);
    assert_eq!(service.rejected("ack", "paused"), 1);
    assert_eq!(service.rejected("desk", "paused"), 1);
    assert_eq!(service.count("ack", "activeSessions"), 1);
}

#[test]
fn over_udp_those_who_have_a_session_go_on_and_the_rest_waits_or_is_refused() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(LISTENERS);
    let known = service.peer("desk");
    known.send("first");
    eventually("it is known", || {
        service.count("desk", "activeSessions") == 1
    });
    pause(&service, "desk", "REFUSE");
    known.send("second");
    let stranger = service.peer("desk");
    stranger.send("let me in");
    eventually("the stranger is kept away", || {
        service.rejected("desk", "paused") == 1
    });
    eventually("the one inside is heard", || {
        let asked = json!({ "parent": "listeners/desk" });
        let found = service.call("ChatService/ListConversations", &asked, "conversations");
        found[0]["unansweredMessages"] == 2
    });

    // Whoever has no session is always new. In the queue it waits.
    pause(&service, "up", "QUEUE");
    let waiting = service.peer("up");
    waiting.send("abc");
    tell(&service, "Resume", "up", &json!({}));
    waiting.expect("ABC");
    // Refused, the kernel says so, and the port stays ours.
    pause(&service, "up", "REFUSE");
    let refused: Vec<_> = (0..16).map(|_| service.peer("up")).collect();
    for peer in &refused {
        peer.send("abc");
        let told = peer.0.recv(&mut [0; 9]).unwrap_err();
        assert_eq!(told.kind(), ErrorKind::ConnectionRefused);
    }
    assert!(std::net::UdpSocket::bind(service.address("up")).is_err());
    let resumed = tell(&service, "Resume", "up", &json!({}));
    assert_eq!(resumed["bound"], service.address("up").to_string());
    for peer in &refused {
        peer.send("abc");
        peer.expect("ABC");
    }
}

#[test]
fn what_is_paused_stays_so_over_a_restart() {
    if no_grpcurl() {
        return;
    }
    let store = "[store]\npath = \"switchboard.db\"\n";
    // A port of the kernel's choice would be another one after the restart. This address is nobody else's.
    let bind = TcpListener::bind("127.0.0.78:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let listener = format!("[listeners.ack]\nprotocol = \"ack\"\nbind = \"{bind}\"\n");
    let home = Service::home_for(&(listener + store));
    let mut service = Service::start_in(home, &[], &[]);
    let reason = json!({ "mode": "PAUSE_MODE_REFUSE", "reason": "maintenance" });
    tell(&service, "Pause", "ack", &reason);
    for signal in [Signal::TERM, Signal::KILL] {
        let (home, _) = service.leave(signal);
        service = Service::start_in(home, &[], &[]);
        let paused = service.listener("ack");
        assert_eq!(paused["state"], "STATE_PAUSED", "after {signal:?}");
        assert_eq!(paused["pauseMode"], "PAUSE_MODE_REFUSE");
        let why = paused["desiredStateReason"].as_str().unwrap();
        assert!(
            why.contains("PauseListener") && why.ends_with(": maintenance"),
            "{why}"
        );
        let refused = TcpStream::connect(service.address("ack")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    tell(&service, "Resume", "ack", &json!({}));
    drop(TcpStream::connect(service.address("ack")).unwrap());
    let (home, _) = service.leave(Signal::KILL);
    let service = Service::start_in(home, &[], &[]);
    assert_eq!(service.listener("ack")["state"], "STATE_ACTIVE");
    assert_eq!(service.listener("ack").get("desiredStateReason"), None);
}

#[test]
fn a_pause_ends_by_itself_when_it_was_to() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(LISTENERS);
    let paused = tell(
        &service,
        "Pause",
        "ack",
        &json!({ "auto_resume_after": "0.3s" }),
    );
    assert_eq!(paused["state"], "STATE_PAUSED");
    assert!(paused["resumeTime"].is_string(), "{paused}");
    eventually("it resumes", || {
        service.listener("ack")["state"] == "STATE_ACTIVE"
    });
    assert_eq!(service.listener("ack").get("resumeTime"), None);
    // One that is told to last takes the other's end away.
    tell(
        &service,
        "Pause",
        "ack",
        &json!({ "auto_resume_after": "3600s" }),
    );
    let paused = pause(&service, "ack", "QUEUE");
    assert_eq!(paused.get("resumeTime"), None);
}

#[test]
fn a_pause_that_cannot_end_holds_up_no_other() {
    if no_grpcurl() {
        return;
    }
    let pinned = [
        ("SWITCHBOARD__LISTENERS__UP__DESIRED_STATE", "paused"),
        (
            "SWITCHBOARD__LISTENERS__UP__RESUME_TIME",
            "2020-01-01T00:00:00Z",
        ),
    ];
    let service = Service::start_with(LISTENERS, &[], &pinned);
    assert_eq!(service.listener("up")["state"], "STATE_PAUSED");
    let soon = json!({ "auto_resume_after": "0.2s" });
    tell(&service, "Pause", "ack", &soon);
    eventually("the other resumes", || {
        service.listener("ack")["state"] == "STATE_ACTIVE"
    });
    assert_eq!(service.listener("up")["state"], "STATE_PAUSED");
}

#[test]
fn what_does_not_serve_cannot_be_paused_and_what_is_paused_can_be_paused() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(LISTENERS);
    let first = pause(&service, "ack", "QUEUE");
    assert_eq!(pause(&service, "ack", "QUEUE")["etag"], first["etag"]);
    assert_eq!(
        pause(&service, "ack", "REJECT")["pauseMode"],
        "PAUSE_MODE_REJECT"
    );
    assert_eq!(
        tell(&service, "Start", "ack", &json!({}))["state"],
        "STATE_ACTIVE"
    );
    assert_eq!(
        tell(&service, "Resume", "ack", &json!({}))["state"],
        "STATE_ACTIVE"
    );
    tell(&service, "Stop", "ack", &json!({}));
    for verb in ["Pause", "Resume"] {
        let method = format!("ListenerService/{verb}Listener");
        let error = service
            .grpcurl(&method, &json!({ "name": "listeners/ack" }))
            .unwrap_err();
        assert_eq!(
            (error.code, error.reason()),
            ("FAILED_PRECONDITION", "LISTENER_STATE_INVALID")
        );
        assert_eq!(
            error.detail("PreconditionFailure")["violations"][0]["type"],
            "STATE"
        );
    }
}

// ---------------------------------------------------------------- the number

/// Calls of the generated client: grpcurl is a process a call.
struct Calls(Runtime, ListenerServiceClient<Channel>);

impl Calls {
    fn of(service: &Service) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc())).unwrap();
        let channel = runtime
            .block_on(endpoint.timeout(TIMEOUT).connect())
            .unwrap();
        Self(runtime, ListenerServiceClient::new(channel))
    }

    fn pause(&mut self, name: &str, mode: PauseMode) {
        let asked = api::PauseListenerRequest {
            name: format!("listeners/{name}"),
            mode: mode.into(),
            ..Default::default()
        };
        self.0.block_on(self.1.pause_listener(asked)).unwrap();
    }

    fn resume(&mut self, name: &str) {
        let asked = api::ResumeListenerRequest {
            name: format!("listeners/{name}"),
            ..Default::default()
        };
        self.0.block_on(self.1.resume_listener(asked)).unwrap();
    }
}

/// Somebody who wants the port, as a server of std does: with `SO_REUSEADDR`, as fast as it can.
struct Rival(Arc<AtomicBool>, Arc<AtomicUsize>, JoinHandle<usize>);

impl Rival {
    fn of(address: SocketAddr) -> Self {
        let (stop, won) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, counted) = (stop.clone(), won.clone());
        let trying = std::thread::spawn(move || {
            let mut tries = 0;
            while !stopped.load(Ordering::Relaxed) {
                tries += 1;
                if TcpListener::bind(address).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
            tries
        });
        Self(stop, won, trying)
    }

    /// How often it tried, and how often it had the port.
    fn end(self) -> (usize, usize) {
        self.0.store(true, Ordering::Relaxed);
        (self.2.join().unwrap(), self.1.load(Ordering::Relaxed))
    }
}

#[test]
fn a_port_that_refuses_is_nobody_elses() {
    take_descriptors();
    let (cycles, connects) = if soak() {
        (1_000, 10_000)
    } else {
        (100, 1_000)
    };
    let service = Service::start(LISTENERS);
    let address = service.address("ack");
    let mut inside: Vec<Talk> = (0..20).map(|_| service.talk("ack")).collect();
    inside.iter_mut().for_each(is_answered);
    let mut calls = Calls::of(&service);
    let rival = Rival::of(address);
    for cycle in 0..cycles {
        calls.pause("ack", PauseMode::Refuse);
        for _ in 0..connects / cycles {
            let refused = TcpStream::connect_timeout(&address, Duration::from_secs(5));
            assert_eq!(
                refused.unwrap_err().kind(),
                ErrorKind::ConnectionRefused,
                "{cycle}"
            );
        }
        is_answered(&mut inside[cycle % 20]);
        calls.resume("ack");
        is_answered(&mut Talk::to(address));
    }
    let (tries, won) = rival.end();
    assert_eq!(won, 0, "of {tries} tries");
    assert!(tries > cycles, "{tries} tries");
    inside.iter_mut().for_each(is_answered);
    println!(
        "{connects} connects refused in {cycles} cycles; {tries} tries for the port, none won"
    );
}
