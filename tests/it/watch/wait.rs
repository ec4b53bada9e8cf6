//! Waits for a listener to become something.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use switchboard::grpc::api;
use switchboard::grpc::api::listener::State;
use switchboard::grpc::api::listener_service_client::ListenerServiceClient;
use tonic::{Code, Status};

use super::ACK;
use super::client::{Client, reason};
use super::measured;
use crate::support::{Service, eventually, no_grpcurl};

fn wait(
    client: &Client,
    name: &str,
    condition: &str,
    timeout: Option<Duration>,
) -> Result<api::WaitListenerResponse, Status> {
    let mut calls = ListenerServiceClient::new(client.channel.clone());
    let request = api::WaitListenerRequest {
        name: format!("listeners/{name}"),
        condition: condition.to_owned(),
        wait_timeout: timeout.map(|timeout| timeout.try_into().unwrap()),
    };
    client.wait(calls.wait_listener(request))
}

/// A wait is under way.
fn waiting(service: &Service) {
    eventually("it waits", || {
        measured(
            service,
            "switchboard_watch_active",
            "ListenerService/WaitListener",
        ) == 1
    });
}

#[test]
fn a_wait_ends_when_its_condition_holds() {
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let now = wait(&client, "ack", "state = STATE_ACTIVE", None).unwrap();
    assert!(now.satisfied);

    let talk = service.talk("ack");
    let one = wait(&client, "ack", "status.active_sessions = 1", None).unwrap();
    assert_eq!(one.listener.unwrap().status.unwrap().active_sessions, 1);
    thread::scope(|scope| {
        let waits = scope.spawn(|| wait(&client, "ack", "status.active_sessions = 0", None));
        waiting(&service);
        drop(talk);
        assert!(waits.join().unwrap().unwrap().satisfied);
    });
}

#[test]
fn a_wait_whose_time_is_up_says_so_and_shows_the_listener() {
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let (began, short) = (Instant::now(), Duration::from_millis(150));
    let answer = wait(&client, "ack", "state = STATE_STOPPED", Some(short)).unwrap();
    assert!(!answer.satisfied && began.elapsed() >= short);
    assert_eq!(answer.listener.unwrap().state(), State::Active);
    for (name, condition, code, word) in [
        ("ack", "", Code::InvalidArgument, "FILTER_INVALID"),
        ("ack", "state = ", Code::InvalidArgument, "FILTER_INVALID"),
        (
            "absent",
            "state = STATE_ACTIVE",
            Code::NotFound,
            "LISTENER_NOT_FOUND",
        ),
    ] {
        let refused = wait(&client, name, condition, None).unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (code, word));
    }
}

#[test]
fn a_wait_for_what_is_deleted_or_for_a_process_that_goes_is_over() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let create = json!({
        "listener_id": "l", "listener": { "bind": "127.0.0.1:0", "ack": {} },
    });
    let made = |method: &str, request| service.grpcurl(method, &request).unwrap();
    made("ListenerService/CreateListener", create);
    thread::scope(|scope| {
        let waits = scope.spawn(|| wait(&client, "l", "state = STATE_FAILED", None));
        waiting(&service);
        let delete = json!({ "name": "listeners/l", "force": true });
        made("ListenerService/DeleteListener", delete);
        let gone = waits.join().unwrap().unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);

        let waits = scope.spawn(|| wait(&client, "ack", "state = STATE_FAILED", None));
        waiting(&service);
        service.terminate();
        let over = waits.join().unwrap().unwrap_err();
        assert_eq!(over.code(), Code::Unavailable);
        assert_eq!(reason(&over), "SERVER_DRAINING");
    });
}
