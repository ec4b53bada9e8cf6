//! A change that is asked for twice under one id.

use std::time::Duration;

use rustix::process::Signal;
use switchboard::grpc::api;
use switchboard::grpc::api::listener_service_client::ListenerServiceClient;
use switchboard::grpc::api::server_service_client::ServerServiceClient;
use switchboard::store::{Answer, Options, Store};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::support::{Service, TIMEOUT};

const KEPT: &str = "[store]\npath = \"\"\n\
    [listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

/// One connection, for more calls than grpcurl is fast enough for.
pub(super) struct Client {
    runtime: Runtime,
    listeners: ListenerServiceClient<Channel>,
    server: ServerServiceClient<Channel>,
}

fn create(id: &str, request_id: &str) -> api::CreateListenerRequest {
    api::CreateListenerRequest {
        listener_id: id.to_owned(),
        listener: Some(api::Listener {
            bind: "127.0.0.1:0".to_owned(),
            protocol: Some(api::listener::Protocol::Ack(api::AckProtocol::default())),
            ..api::Listener::default()
        }),
        request_id: request_id.to_owned(),
        ..api::CreateListenerRequest::default()
    }
}

impl Client {
    pub(super) fn of(service: &Service) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc())).unwrap();
        let endpoint = endpoint.timeout(TIMEOUT).connect_timeout(TIMEOUT);
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self {
            runtime,
            listeners: ListenerServiceClient::new(channel.clone()),
            server: ServerServiceClient::new(channel),
        }
    }

    fn wait<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        self.runtime.block_on(call).map(Response::into_inner)
    }

    fn create(&self, id: &str, request_id: &str) -> Result<api::CreateListenerResponse, Status> {
        self.wait(
            self.listeners
                .clone()
                .create_listener(create(id, request_id)),
        )
    }

    pub(super) fn start(&self, id: &str, request_id: &str) -> Result<api::Listener, Status> {
        let request = api::StartListenerRequest {
            name: format!("listeners/{id}"),
            request_id: request_id.to_owned(),
            ..api::StartListenerRequest::default()
        };
        let answer = self.wait(self.listeners.clone().start_listener(request))?;
        Ok(answer.listener.unwrap_or_default())
    }

    pub(super) fn delete(&self, id: &str, request_id: &str) -> Result<(), Status> {
        let request = api::DeleteListenerRequest {
            name: format!("listeners/{id}"),
            force: true,
            request_id: request_id.to_owned(),
            ..api::DeleteListenerRequest::default()
        };
        self.wait(self.listeners.clone().delete_listener(request))
            .map(drop)
    }

    /// How often the trail has a method, done, for a listener.
    fn done(&self, method: &str, id: &str) -> usize {
        let filter = format!(
            "method : \"/{method}\" AND resource = \"listeners/{id}\" AND status_code = \"OK\""
        );
        let request = api::ListAuditEventsRequest {
            page_size: 1_000,
            filter,
            ..api::ListAuditEventsRequest::default()
        };
        self.wait(self.server.clone().list_audit_events(request))
            .unwrap()
            .audit_events
            .len()
    }
}

fn again(service: Service, signal: Signal) -> Service {
    let (home, _) = service.leave(signal);
    Service::start_in(home, &[], &[])
}

#[test]
fn an_answer_is_given_again_after_a_restart_and_after_a_crash() {
    let mut service = Service::start(KEPT);
    let first = Client::of(&service).create("made", "one").unwrap();
    for signal in [Signal::TERM, Signal::KILL] {
        service = again(service, signal);
        let client = Client::of(&service);
        assert_eq!(client.create("made", "one").unwrap(), first);
        assert_eq!(client.done("CreateListener", "made"), 1);
        let reused = client.create("other", "one").unwrap_err();
        assert_eq!(reused.code(), Code::InvalidArgument);
        let info = reused.get_details_error_info().unwrap();
        assert_eq!(info.reason, "REQUEST_ID_REUSED");
        assert_eq!(
            client.create("made", "").unwrap_err().code(),
            Code::AlreadyExists
        );
    }
    // What is gone since then is not made anew either.
    let client = Client::of(&service);
    client.delete("made", "two").unwrap();
    client.delete("made", "two").unwrap();
    assert_eq!(client.create("made", "one").unwrap(), first);
    assert_eq!(
        client.delete("made", "").unwrap_err().code(),
        Code::NotFound
    );
}

#[test]
fn what_was_made_by_a_process_that_died_before_it_answered_is_told_as_it_is() {
    let service = Service::start(KEPT);
    let client = Client::of(&service);
    let first = client.create("made", "one").unwrap();
    client.create("gone", "two").unwrap();
    client.delete("gone", "three").unwrap();
    let (home, _) = service.leave(Signal::TERM);
    // As it stands in the store between the change and its answer.
    let options = Options {
        path: home.path().join("switchboard/switchboard.db"),
        retention: Duration::from_secs(86_400),
        max_bytes: 1 << 30,
    };
    client.runtime.block_on(async {
        let (store, kept) = Store::open(&options).unwrap();
        assert_eq!(kept.answers.len(), 3);
        for answer in kept.answers {
            let unanswered = Answer {
                answer: None,
                ..answer
            };
            store.remember(unanswered, 0).await;
        }
        assert!(store.close(TIMEOUT).await);
    });
    let service = Service::start_in(home, &[], &[]);
    let client = Client::of(&service);
    let told = client.create("made", "one").unwrap().listener.unwrap();
    let made = first.listener.unwrap();
    assert_eq!((told.uid, told.etag), (made.uid, made.etag));
    assert_eq!(
        client.create("gone", "two").unwrap_err().code(),
        Code::NotFound
    );
    client.delete("gone", "three").unwrap();
    assert_eq!(client.done("CreateListener", "made"), 1);
}

#[test]
fn a_refusal_is_not_remembered() {
    let service = Service::start(KEPT);
    let client = Client::of(&service);
    assert_eq!(
        client.start("made", "one").unwrap_err().code(),
        Code::NotFound
    );
    client.create("made", "two").unwrap();
    client.start("made", "one").unwrap();
}

#[test]
fn many_who_ask_at_once_under_one_id_have_one_answer() {
    let service = Service::start(KEPT);
    let client = Client::of(&service);
    let (mut uids, creator) = (Vec::new(), client.listeners.clone());
    client.runtime.block_on(async {
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let mut creator = creator.clone();
                tokio::spawn(async move { creator.create_listener(create("made", "one")).await })
            })
            .collect();
        for call in calls {
            let answer = call.await.unwrap().unwrap().into_inner();
            uids.push(answer.listener.unwrap().uid);
        }
    });
    uids.dedup();
    assert_eq!(uids.len(), 1);
    assert_eq!(client.done("CreateListener", "made"), 1);
}

#[test]
fn who_leaves_in_the_middle_and_asks_again_has_it_made_once() {
    let service = Service::start(KEPT);
    let client = Client::of(&service);
    for n in 0..40 {
        let (id, mut creator) = (format!("l{n}"), client.listeners.clone());
        let request = create(&id, &id);
        client.runtime.block_on(async {
            let wait = Duration::from_micros(100 * n);
            // A time-out resets the stream.
            let _ = tokio::time::timeout(wait, creator.create_listener(request)).await;
        });
        let listener = client.create(&id, &id).unwrap().listener.unwrap();
        assert_eq!(listener.name, format!("listeners/{id}"));
        assert_eq!(client.done("CreateListener", &id), 1, "{id}");
    }
}

/// One round: changes under ids of their own until the process is killed, then each of them again.
fn round(service: Service, round: usize, after: Duration) -> Service {
    let client = Client::of(&service);
    let (pid, mut answers) = (service.pid(), Vec::new());
    let killer = std::thread::spawn(move || {
        std::thread::sleep(after);
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    });
    for n in 0.. {
        let id = format!("r{round}-{n}");
        let answer = client.create(&id, &id);
        let lost = answer.is_err();
        answers.push((id, answer.ok()));
        if lost {
            break;
        }
    }
    killer.join().unwrap();
    let service = again(service, Signal::KILL);
    let client = Client::of(&service);
    for (id, answer) in &answers {
        let told = client
            .create(id, id)
            .unwrap_or_else(|e| panic!("{id} of {answer:?}: {e}"));
        assert!(
            answer.as_ref().is_none_or(|answer| *answer == told),
            "{id}: {answer:?}, {told:?}"
        );
        assert_eq!(client.done("CreateListener", id), 1, "{id}");
    }
    for (id, _) in &answers {
        client.delete(id, "").unwrap();
    }
    service
}

#[test]
fn a_process_that_dies_at_any_moment_makes_nothing_twice() {
    let soak = std::env::var("SWITCHBOARD_SOAK").is_ok_and(|value| value == "1");
    let mut service = Service::start(KEPT);
    for n in 0..if soak { 100 } else { 5 } {
        // At moments that have nothing to do with what it is about.
        service = round(service, n, Duration::from_micros(60_000 + 7_919 * n as u64));
    }
}
