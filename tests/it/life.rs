//! Listeners are created, started, stopped and deleted while the service runs.

use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::shell::{Gate, Sleeper};
use crate::support::{GrpcError, Service, Talk, eventually, no_grpcurl};

/// One listener that is not in the way.
const OTHER: &str = "[listeners.other]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

const ACK: &[u8] = b"received data!!";

fn name(listener: &str) -> Value {
    json!({ "name": format!("listeners/{listener}") })
}

/// A request for an ack listener on a port of the kernel's choice, with more fields of the listener.
fn ack(id: &str, more: &Value) -> Value {
    let mut listener = json!({ "bind": "127.0.0.1:0", "ack": {} });
    let fields = listener.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    json!({ "listener_id": id, "listener": listener })
}

fn create(service: &Service, request: &Value) -> Result<Value, GrpcError> {
    service
        .grpcurl("ListenerService/CreateListener", request)
        .map(|mut answer| answer["listener"].take())
}

fn start(service: &Service, listener: &str) -> Result<Value, GrpcError> {
    service
        .grpcurl("ListenerService/StartListener", &name(listener))
        .map(|mut answer| answer["listener"].take())
}

fn stop(service: &Service, listener: &str, grace: &str) -> Value {
    let request = json!({ "name": format!("listeners/{listener}"), "grace": grace });
    service.call("ListenerService/StopListener", &request, "listener")
}

/// The health of a service of the health protocol, or the code of the refusal.
fn health(service: &Service, of: &str) -> String {
    match service.grpcurl("grpc.health.v1.Health/Check", &json!({ "service": of })) {
        Ok(answer) => answer["status"].as_str().unwrap_or_default().to_owned(),
        Err(error) => error.code.to_owned(),
    }
}

fn becomes(service: &Service, of: &str, status: &str) {
    eventually(&format!("the health of `{of}` is {status}"), || {
        health(service, of) == status
    });
}

fn greets(address: std::net::SocketAddr) {
    let mut talk = Talk::to(address);
    talk.send("hello");
    talk.expect(ACK);
}

fn address(listener: &Value) -> std::net::SocketAddr {
    listener["bound"]
        .as_str()
        .unwrap_or_default()
        .parse()
        .unwrap()
}

#[test]
fn a_listener_is_created_stopped_started_and_deleted() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(OTHER);
    let made = create(&service, &ack("made", &json!({ "display_name": "made" }))).unwrap();
    assert_eq!(made["name"], "listeners/made");
    assert_eq!(made["state"], "STATE_ACTIVE");
    assert_eq!(made["transport"], "TRANSPORT_TCP");
    assert_eq!(made["displayName"], "made");
    assert_eq!(made["bind"], "127.0.0.1:0");
    assert_eq!(made["origin"]["layer"], "LAYER_RUNTIME_STATE");
    assert_ne!(address(&made).port(), 0);
    greets(address(&made));

    let mut idle = Talk::to(address(&made));
    idle.send("hello");
    idle.expect(ACK);
    let stopped = stop(&service, "made", "10s");
    assert_eq!(stopped["state"], "STATE_STOPPED");
    assert_eq!(stopped["desiredState"], "DESIRED_STATE_STOPPED");
    assert!(stopped["bound"].is_null(), "{stopped}");
    idle.expect_closed();
    assert!(std::net::TcpStream::connect(address(&made)).is_err());

    let started = start(&service, "made").unwrap();
    assert_eq!(started["state"], "STATE_ACTIVE");
    assert_eq!(started["uid"], made["uid"]);
    greets(address(&started));

    stop(&service, "made", "0s");
    let deleted = service.grpcurl("ListenerService/DeleteListener", &name("made"));
    assert_eq!(deleted.unwrap(), json!({}));
    let gone = service.grpcurl("ListenerService/GetListener", &name("made"));
    assert_eq!(gone.unwrap_err().code, "NOT_FOUND");

    let again = create(&service, &ack("made", &json!({}))).unwrap();
    assert_ne!(again["uid"], made["uid"]);
    greets(service.address("other"));
}

#[test]
fn a_listener_may_be_defined_without_being_started() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(OTHER);
    let made = ack("made", &json!({ "desired_state": "DESIRED_STATE_STOPPED" }));
    let made = create(&service, &made).unwrap();
    assert_eq!(made["state"], "STATE_STOPPED");
    assert!(made["bound"].is_null() && made["startTime"].is_null());
    greets(address(&start(&service, "made").unwrap()));
}

#[test]
fn validate_only_changes_nothing() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(OTHER);
    let mut request = ack("made", &json!({}));
    request["validate_only"] = json!(true);
    create(&service, &request).unwrap();
    let gone = service.grpcurl("ListenerService/GetListener", &name("made"));
    assert_eq!(gone.unwrap_err().code, "NOT_FOUND");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    request["listener"]["bind"] = json!(taken.local_addr().unwrap().to_string());
    let refused = create(&service, &request).unwrap_err();
    assert_eq!(refused.code, "FAILED_PRECONDITION");
    assert_eq!(refused.reason(), "ADDRESS_IN_USE");

    let delete = json!({ "name": "listeners/other", "force": true, "validate_only": true });
    service
        .grpcurl("ListenerService/DeleteListener", &delete)
        .unwrap();
    greets(service.address("other"));
    let delete = json!({ "name": "listeners/other", "validate_only": true });
    let refused = service.grpcurl("ListenerService/DeleteListener", &delete);
    assert_eq!(refused.unwrap_err().reason(), "LISTENER_STATE_INVALID");
}

#[test]
fn asking_for_what_is_so_succeeds() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(OTHER);
    let before = service.listener("other");
    assert_eq!(start(&service, "other").unwrap(), before);
    let stopped = stop(&service, "other", "1s");
    assert_eq!(stop(&service, "other", "1s"), stopped);
    assert_ne!(stopped["etag"], before["etag"]);
    let started = start(&service, "other").unwrap();
    assert_eq!(start(&service, "other").unwrap(), started);
}

#[test]
fn only_a_stopped_listener_is_deleted_without_force() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(OTHER);
    let mut talk = service.talk("other");
    talk.send("hello");
    talk.expect(ACK);

    let refused = service.grpcurl("ListenerService/DeleteListener", &name("other"));
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, "FAILED_PRECONDITION");
    assert_eq!(refused.reason(), "LISTENER_STATE_INVALID");
    let metadata = &refused.detail("ErrorInfo")["metadata"];
    assert_eq!(metadata["current_state"], "STATE_ACTIVE");
    assert_eq!(metadata["active_sessions"], "1");
    let allowed = metadata["allowed"].as_str().unwrap();
    assert!(allowed.contains("StopListener"), "{allowed}");
    let violation = &refused.detail("PreconditionFailure")["violations"][0];
    assert_eq!(violation["subject"], "listeners/other");
    talk.send("hello");
    talk.expect(ACK);

    let force = json!({ "name": "listeners/other", "force": true });
    service
        .grpcurl("ListenerService/DeleteListener", &force)
        .unwrap();
    talk.expect_closed();
    let gone = service.grpcurl("ListenerService/GetListener", &name("other"));
    assert_eq!(gone.unwrap_err().code, "NOT_FOUND");
}

#[test]
fn a_taken_port_fails_one_listener_until_it_is_free() {
    if no_grpcurl() {
        return;
    }
    let (tcp, udp) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        UdpSocket::bind("127.0.0.1:0").unwrap(),
    );
    let (stream, datagram) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    let service = Service::start(&format!(
        "{OTHER}[listeners.stream]\nprotocol = \"ack\"\nbind = \"{stream}\"\n\
         [listeners.datagram]\nprotocol = \"uppercase\"\nbind = \"{datagram}\"\n"
    ));
    greets(service.address("other"));
    for (listener, at) in [("stream", stream), ("datagram", datagram)] {
        let told = service.announced(listener);
        assert!(told.starts_with("FAILED"), "{told}");
        assert!(told.contains(&at.to_string()), "{told}");
        let shown = service.listener(listener);
        assert_eq!(shown["state"], "STATE_FAILED");
        assert_eq!(shown["desiredState"], "DESIRED_STATE_ACTIVE");
        assert_eq!(shown["reconciling"], true);
        let failure = &shown["lastFailure"];
        assert_eq!(failure["reason"], "ADDRESS_IN_USE");
        assert!(
            failure["message"].as_str().unwrap().contains("in use"),
            "{failure}"
        );
        assert!(!failure["failTime"].is_null() && !failure["nextRetryTime"].is_null());
        becomes(&service, &format!("listeners/{listener}"), "NOT_SERVING");
    }
    drop((tcp, udp));
    for listener in ["stream", "datagram"] {
        eventually("a freed port is taken", || {
            service.listener(listener)["state"] == "STATE_ACTIVE"
        });
        let shown = service.listener(listener);
        assert!(shown["lastFailure"].is_null(), "{shown}");
        becomes(&service, &format!("listeners/{listener}"), "SERVING");
    }
    greets(stream);
    let peer = crate::support::Peer::to(datagram);
    peer.send("straße");
    peer.expect("STRASSE");
}

#[test]
fn what_failed_is_tried_again_as_what_is_wanted_now_or_not_at_all() {
    if no_grpcurl() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = Service::start(&format!(
        "[listeners.ack]\nprotocol = \"ack\"\nbind = \"{}\"\n",
        taken.local_addr().unwrap()
    ));
    let wanted = json!({ "desired_state": "DESIRED_STATE_PAUSED" });
    crate::update::update(&service, "ack", &wanted);
    let shown = service.listener("ack");
    assert_eq!(shown["state"], "STATE_FAILED");
    assert_eq!(shown["desiredState"], "DESIRED_STATE_PAUSED");
    assert!(shown["lastFailure"]["nextRetryTime"].is_string(), "{shown}");
    let stopped = stop(&service, "ack", "0s");
    assert_eq!(stopped["state"], "STATE_STOPPED");
    let failure = &stopped["lastFailure"];
    assert_eq!(failure["reason"], "ADDRESS_IN_USE");
    assert!(failure.get("nextRetryTime").is_none(), "{failure}");
}

#[test]
fn a_taken_port_is_told_to_whoever_starts_a_listener() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(OTHER);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    let fields = json!({ "bind": bind, "desired_state": "DESIRED_STATE_STOPPED" });
    create(&service, &ack("made", &fields)).unwrap();

    let refused = start(&service, "made").unwrap_err();
    assert_eq!(refused.code, "FAILED_PRECONDITION");
    assert_eq!(refused.reason(), "ADDRESS_IN_USE");
    assert!(refused.message.contains(&bind), "{}", refused.message);
    let violation = &refused.detail("PreconditionFailure")["violations"][0];
    assert_eq!(violation["subject"], bind);
    let shown = service.listener("made");
    assert_eq!(shown["state"], "STATE_STOPPED");
    assert_eq!(shown["lastFailure"]["reason"], "ADDRESS_IN_USE");

    // A create that cannot serve leaves nothing behind.
    let refused = create(&service, &ack("more", &json!({ "bind": bind }))).unwrap_err();
    assert_eq!(refused.reason(), "ADDRESS_IN_USE");
    let gone = service.grpcurl("ListenerService/GetListener", &name("more"));
    assert_eq!(gone.unwrap_err().code, "NOT_FOUND");

    drop(taken);
    let started = start(&service, "made").unwrap();
    assert!(started["lastFailure"].is_null(), "{started}");
    greets(address(&started));
}

/// A shell that runs anything, for commands that wait for a file.
const SHELL: &str =
    "[listeners.shell]\nprotocol = \"shell\"\nbind = \"127.0.0.1:0\"\npolicy = \"any\"\n";

#[test]
fn a_stop_with_grace_lets_a_command_finish() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SHELL);
    let gate = Gate::new();
    let (mut busy, mut idle) = (service.talk("shell"), service.talk("shell"));
    idle.command("echo before");
    busy.send(gate.command());
    gate.wait_for_command();

    let stopped = std::thread::scope(|scope| {
        let stopping = scope.spawn(|| stop(&service, "shell", "20s"));
        eventually("the listener drains", || {
            service.listener("shell")["state"] == "STATE_DRAINING"
        });
        // An idle session does not wait for the busy one.
        idle.expect_closed();
        let drain = &service.listener("shell")["drain"];
        assert_eq!(drain["sessionsAtStart"], 2);
        assert_eq!(drain["sessionsRemaining"], 1);
        assert!(!drain["deadlineTime"].is_null(), "{drain}");
        let refused = start(&service, "shell").unwrap_err();
        assert_eq!(refused.reason(), "LISTENER_STATE_INVALID");
        let metadata = &refused.detail("ErrorInfo")["metadata"];
        assert_eq!(metadata["current_state"], "STATE_DRAINING");
        assert!(std::net::TcpStream::connect(service.address("shell")).is_err());
        gate.open();
        stopping.join().unwrap()
    });
    assert_eq!(stopped["state"], "STATE_STOPPED");
    let frame = busy.frame();
    assert_eq!(frame.stdout, b"done\n");
    assert_eq!(frame.header["exit_code"], 0);
    busy.expect_closed();
}

#[test]
fn a_stop_without_grace_ends_a_command() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(SHELL);
    let (sleeper, mut busy) = (Sleeper::new(), service.talk("shell"));
    busy.send(sleeper.command());
    sleeper.wait_for_command();
    let began = Instant::now();
    assert_eq!(stop(&service, "shell", "0s")["state"], "STATE_STOPPED");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    // Cut, or with a frame that says that it was: in any case closed.
    busy.rest();
    sleeper.expect_gone();
}

#[test]
fn an_old_etag_changes_nothing() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(OTHER);
    let old = service.listener("other")["etag"].clone();
    let with = |etag: &Value| json!({ "name": "listeners/other", "etag": etag });
    service.call("ListenerService/StopListener", &with(&old), "listener");
    let current = service.listener("other")["etag"].clone();
    for method in ["StartListener", "StopListener", "DeleteListener"] {
        let refused = service.grpcurl(&format!("ListenerService/{method}"), &with(&old));
        let refused = refused.unwrap_err();
        assert_eq!(refused.code, "ABORTED", "{method}");
        assert_eq!(refused.reason(), "ETAG_MISMATCH", "{method}");
        let metadata = &refused.detail("ErrorInfo")["metadata"];
        assert_eq!(metadata["current_etag"], current);
    }
    assert_eq!(service.listener("other")["state"], "STATE_STOPPED");
    service.call("ListenerService/StartListener", &with(&current), "listener");
}

#[test]
fn health_follows_every_listener() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(OTHER);
    becomes(&service, "", "SERVING");
    becomes(&service, "listeners/other", "SERVING");
    assert_eq!(health(&service, "listeners/made"), "NOT_FOUND");

    create(&service, &ack("made", &json!({}))).unwrap();
    becomes(&service, "listeners/made", "SERVING");
    stop(&service, "made", "0s");
    becomes(&service, "listeners/made", "NOT_SERVING");
    start(&service, "made").unwrap();
    becomes(&service, "listeners/made", "SERVING");
    stop(&service, "made", "0s");
    service
        .grpcurl("ListenerService/DeleteListener", &name("made"))
        .unwrap();
    becomes(&service, "listeners/made", "NOT_FOUND");
    assert_eq!(health(&service, "listeners/other"), "SERVING");
    assert_eq!(health(&service, ""), "SERVING");
}

#[test]
fn what_was_counted_outlives_a_stop() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(OTHER);
    greets(service.bound("other"));
    stop(&service, "other", "10s");
    let counted = |key: &str| service.count("other", key);
    assert_eq!(counted("acceptedConnections"), 1);
    assert_eq!((counted("receivedBytes"), counted("sentBytes")), (5, 15));
    start(&service, "other").unwrap();
    greets(service.bound("other"));
    eventually("both visits are counted", || {
        counted("acceptedConnections") == 2 && counted("receivedBytes") == 10
    });
    assert_eq!(counted("sentBytes"), 30);
}

#[test]
fn a_deleted_listener_is_not_brought_back_by_a_start_on_its_way() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(OTHER);
    for round in 0..5 {
        let id = format!("door-{round}");
        let made = create(&service, &ack(&id, &json!({}))).unwrap();
        let address = address(&made);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                // Refused or not: what counts is what is left.
                scope.spawn(|| start(&service, &id).is_ok());
            }
            let request = json!({ "name": format!("listeners/{id}"), "force": true });
            service
                .grpcurl("ListenerService/DeleteListener", &request)
                .unwrap();
        });
        assert!(
            TcpListener::bind(address).is_ok(),
            "{address} is still held"
        );
    }
}

#[test]
fn a_request_made_twice_is_done_once() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(OTHER);
    let mut request = ack("door", &json!({}));
    request["request_id"] = "4a8f6b9e-0c5d-4f0e-9d0a-3a6c1f6f2b11".into();
    let first = create(&service, &request).unwrap();
    assert_eq!(create(&service, &request).unwrap(), first);
    // The same id is not another request's.
    request["listener_id"] = "window".into();
    let reused = create(&service, &request).unwrap_err();
    assert_eq!(
        (reused.code, reused.reason()),
        ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    );
    let delete = json!({ "name": "listeners/door", "force": true, "request_id": "b" });
    for _ in 0..2 {
        service
            .grpcurl("ListenerService/DeleteListener", &delete)
            .unwrap();
    }
}
