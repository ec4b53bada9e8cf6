//! Watches of listeners: every transition, for whoever watches.

use switchboard::grpc::api;
use switchboard::grpc::api::ChangeType::{Bookmark, Created, Deleted, Existing, Updated};
use switchboard::grpc::api::listener::{DesiredState, Protocol, State};
use switchboard::grpc::api::listener_service_client::ListenerServiceClient;
use tonic::Code;

use super::ACK;
use super::client::{Answer, Client, Following, reason};
use crate::support::Service;

type Told = api::WatchListenersResponse;

/// What the tests do to a listener named `l`.
struct Calls<'a>(&'a Client, ListenerServiceClient<tonic::transport::Channel>);

impl<'a> Calls<'a> {
    fn of(client: &'a Client) -> Self {
        Self(client, ListenerServiceClient::new(client.channel.clone()))
    }

    fn listener(team: &str, desired: DesiredState) -> api::Listener {
        api::Listener {
            name: "listeners/l".into(),
            bind: "127.0.0.1:0".into(),
            protocol: Some(Protocol::Ack(api::AckProtocol::default())),
            labels: [("team".to_owned(), team.to_owned())].into(),
            desired_state: desired.into(),
            ..api::Listener::default()
        }
    }

    fn create(&mut self, team: &str, desired: DesiredState) {
        let request = api::CreateListenerRequest {
            listener_id: "l".into(),
            listener: Some(Self::listener(team, desired)),
            ..api::CreateListenerRequest::default()
        };
        self.0.wait(self.1.create_listener(request)).unwrap();
    }

    fn label(&mut self, team: &str) {
        let request = api::UpdateListenerRequest {
            listener: Some(Self::listener(team, DesiredState::Unspecified)),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["labels".into()],
            }),
            ..api::UpdateListenerRequest::default()
        };
        self.0.wait(self.1.update_listener(request)).unwrap();
    }

    fn start(&mut self) {
        let request = api::StartListenerRequest {
            name: "listeners/l".into(),
            ..api::StartListenerRequest::default()
        };
        self.0.wait(self.1.start_listener(request)).unwrap();
    }

    fn stop(&mut self) {
        let request = api::StopListenerRequest {
            name: "listeners/l".into(),
            grace: Some(prost_types::Duration::default()),
            ..api::StopListenerRequest::default()
        };
        self.0.wait(self.1.stop_listener(request)).unwrap();
    }

    fn delete(&mut self) {
        let request = api::DeleteListenerRequest {
            name: "listeners/l".into(),
            force: true,
            ..api::DeleteListenerRequest::default()
        };
        self.0.wait(self.1.delete_listener(request)).unwrap();
    }
}

/// What an answer says, without what differs from run to run.
fn gist(told: &Told) -> (api::ChangeType, State, String) {
    let listener = told.listener.clone().unwrap_or_default();
    let team = listener.labels.get("team").cloned().unwrap_or_default();
    (told.kind(), listener.state(), team)
}

/// Up to and with the one that says `last`.
fn until(watch: &Following<Told>, last: api::ChangeType) -> Vec<Told> {
    let mut all = Vec::new();
    loop {
        all.push(watch.change());
        if all.last().is_some_and(|told| told.kind() == last) {
            return all;
        }
    }
}

#[test]
fn everybody_sees_every_transition() {
    let service = Service::start(ACK);
    let (first, second) = (Client::of(&service), Client::of(&service));
    let watches = [first.listeners(""), second.listeners("")];
    for watch in &watches {
        let (existing, _) = watch.synced();
        let existing: Vec<_> = existing.iter().map(|t| (t.kind(), t.name())).collect();
        assert_eq!(existing, [(Existing, "listeners/ack".to_owned())]);
    }
    let mut calls = Calls::of(&first);
    calls.create("a", DesiredState::Stopped);
    calls.start();
    calls.label("b");
    calls.stop();
    calls.start();
    calls.delete();
    let expected = [
        (Created, State::Stopped, "a"),
        (Updated, State::Active, "a"),
        (Updated, State::Active, "b"),
        (Updated, State::Draining, "b"),
        (Updated, State::Stopped, "b"),
        (Updated, State::Active, "b"),
        (Updated, State::Draining, "b"),
        (Deleted, State::Draining, "b"),
    ]
    .map(|(kind, state, team)| (kind, state, team.to_owned()));
    let mut tokens = Vec::new();
    for watch in &watches {
        let told = until(watch, Deleted);
        assert_eq!(told.iter().map(gist).collect::<Vec<_>>(), expected);
        tokens.push(told[2].token().to_owned());
    }
    // Also who comes back later.
    let request = api::WatchListenersRequest {
        resume_token: tokens[1].clone(),
        ..api::WatchListenersRequest::default()
    };
    let told = until(&first.listeners_as(request), Deleted);
    assert_eq!(told.iter().map(gist).collect::<Vec<_>>(), expected[3..]);
}

#[test]
fn a_listener_enters_and_leaves_a_filter_by_its_changes() {
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let watch = client.listeners("labels.team = \"edge\"");
    assert!(watch.synced().0.is_empty());
    let mut calls = Calls::of(&client);
    calls.create("core", DesiredState::Stopped);
    calls.label("edge");
    calls.start();
    calls.label("core");
    calls.stop();
    calls.label("edge");
    calls.delete();
    let told: Vec<_> = (0..5).map(|_| gist(&watch.change())).collect();
    let expected = [
        (Created, State::Stopped, "edge"),
        (Updated, State::Active, "edge"),
        (Deleted, State::Active, "core"),
        (Created, State::Stopped, "edge"),
        (Deleted, State::Stopped, "edge"),
    ];
    let expected = expected.map(|(kind, state, team)| (kind, state, team.to_owned()));
    assert_eq!(told, expected);
}

#[test]
fn what_is_counted_is_told_to_those_who_ask_for_it() {
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let every = |seconds| api::WatchListenersRequest {
        status_interval: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..api::WatchListenersRequest::default()
    };
    let silent = client.listeners("");
    let watch = client.listeners_as(every(0));
    for watch in [&silent, &watch] {
        watch.synced();
    }
    let mut talk = service.talk("ack");
    talk.send("hello");
    let active = |told: &Told| {
        let status = told.listener.as_ref().and_then(|l| l.status.clone());
        status.unwrap_or_default().active_sessions
    };
    loop {
        let told = watch.change();
        assert_eq!((told.kind(), &*told.name()), (Updated, "listeners/ack"));
        if active(&told) == 1 {
            break;
        }
    }
    drop(talk);
    while active(&watch.change()) != 0 {}
    // Nothing else changed.
    assert!(silent.ready().is_none_or(|told| told.kind() == Bookmark));
    let refused = client.listeners_as(every(-1)).end().unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(reason(&refused), "STATUS_INTERVAL_INVALID");
}
