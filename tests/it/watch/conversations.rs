//! Watches of conversations.

use switchboard::grpc::api;
use switchboard::grpc::api::ChangeType::{Created, Existing, Updated};
use switchboard::grpc::api::chat_service_client::ChatServiceClient;
use switchboard::grpc::api::conversation::State;
use switchboard::grpc::api::reply_conversation_request::Body;
use tonic::Code;

use super::client::{Answer, Client, reason};
use crate::support::Service;

type Told = api::WatchConversationsResponse;

const DESK: &str = "[listeners.desk]\nprotocol = \"chat\"\nbind = \"127.0.0.1:0\"\n\
    [listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

fn watch_of(listener: &str, token: &str) -> api::WatchConversationsRequest {
    api::WatchConversationsRequest {
        parent: format!("listeners/{listener}"),
        resume_token: token.to_owned(),
    }
}

fn gist(told: &Told) -> (api::ChangeType, State, u32) {
    let conversation = told.conversation.clone().unwrap_or_default();
    let state = conversation.state();
    (told.kind(), state, conversation.unanswered_messages)
}

#[test]
fn what_is_said_answered_and_ended_is_told() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let watch = client.conversations(watch_of("desk", ""));
    assert!(watch.synced().0.is_empty());

    let mut peer = service.talk("desk");
    peer.send("hello");
    let began = watch.change();
    assert_eq!(gist(&began), (Created, State::Waiting, 1));
    let last = began.conversation.clone().unwrap().last_message.unwrap();
    assert_eq!(last.text, "hello");

    let later = client.conversations(watch_of("-", ""));
    let (existing, _) = later.synced();
    assert_eq!(
        existing.iter().map(gist).collect::<Vec<_>>(),
        [(Existing, State::Waiting, 1)]
    );

    let mut calls = ChatServiceClient::new(client.channel.clone());
    let reply = api::ReplyConversationRequest {
        name: began.name(),
        body: Some(Body::Text("hi".into())),
        ..api::ReplyConversationRequest::default()
    };
    client.wait(calls.reply_conversation(reply)).unwrap();
    peer.expect("hi");
    drop(peer);
    for watch in [&watch, &later] {
        let told = [watch.change(), watch.change()].map(|told| gist(&told));
        // As it is when it is sent: it may have ended by the time that the answer is told.
        assert_eq!((told[0].0, told[0].2), (Updated, 0));
        assert_eq!(told[1], (Updated, State::Closed, 0));
    }
    let rest = client.conversations(watch_of("desk", began.token()));
    for _ in 0..2 {
        assert_eq!(gist(&rest.change()), (Updated, State::Closed, 0));
    }
    assert!(rest.ready().is_none());
}

#[test]
fn only_a_desk_has_conversations_to_watch() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    for (parent, code, word) in [
        ("ack", Code::FailedPrecondition, "NO_DESK"),
        ("absent", Code::NotFound, "LISTENER_NOT_FOUND"),
        ("", Code::InvalidArgument, "PARENT_INVALID"),
    ] {
        let refused = client.conversations(watch_of(parent, "")).end();
        let refused = refused.unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (code, word));
    }
}
