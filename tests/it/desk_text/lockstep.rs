//! In lockstep every message gets one answer, in the order of the messages, and nothing else ever comes: whoever answers,
//! in whatever order, over TCP and UDP.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use switchboard::grpc::api;
use switchboard::grpc::api::chat_service_client::ChatServiceClient;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};

use super::{Chance, framed};
use crate::limits::close_reason;
use crate::support::{Peer, Service, Talk, eventually, no_grpcurl};

const LOCKSTEP: &str = r#"
    [listeners.raw]
    protocol = "chat"
    bind = "127.0.0.1:0"
    [listeners.line]
    protocol = "chat"
    framing = "line"
    bind = "127.0.0.1:0"
    [listeners.length]
    protocol = "chat"
    framing = "length"
    bind = "127.0.0.1:0"
    [listeners.udp]
    protocol = "chat"
    transport = "udp"
    bind = "127.0.0.1:0"
"#;

/// An operator who answers in any order.
struct Operator {
    runtime: Runtime,
    chat: ChatServiceClient<Channel>,
    chance: Chance,
}

impl Operator {
    fn at(service: &Service) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc())).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self {
            runtime,
            chat: ChatServiceClient::new(channel),
            chance: Chance(7),
        }
    }

    /// Answers so many messages of a listener, each with its own text doubled.
    fn answer(&mut self, listener: &str, count: usize) {
        let mut left = BTreeMap::new();
        let parent = format!("listeners/{listener}/conversations/-");
        eventually("all messages wait", || {
            let request = api::ListMessagesRequest {
                parent: parent.clone(),
                page_size: 1_000,
                ..Default::default()
            };
            let page = self
                .runtime
                .block_on(self.chat.list_messages(request))
                .unwrap();
            let said = page.into_inner().messages;
            let answered: Vec<_> = said
                .iter()
                .map(|m| (m.conversation.clone(), m.in_reply_to))
                .collect();
            left = said
                .iter()
                .filter(|m| m.author() == api::chat_message::Author::Peer)
                .map(|m| ((m.conversation.clone(), m.sequence), m.text.clone()))
                .filter(|(key, _)| !answered.contains(key))
                .collect();
            left.len() == count
        });
        let mut left: Vec<_> = left.into_iter().collect();
        while !left.is_empty() {
            let ((name, in_reply_to), text) = left.swap_remove(self.chance.below(left.len()));
            let request = api::ReplyConversationRequest {
                name,
                in_reply_to,
                body: Some(api::reply_conversation_request::Body::Text(format!(
                    "{text}{text}"
                ))),
                operator: "ann".into(),
                ..Default::default()
            };
            self.runtime
                .block_on(self.chat.reply_conversation(request))
                .unwrap();
        }
    }
}

fn nothing_more(talk: &Talk) {
    talk.0.set_nonblocking(true).unwrap();
    let nothing = talk.0.peek(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    talk.0.set_nonblocking(false).unwrap();
}

#[test]
fn each_message_has_one_answer_in_its_turn_over_tcp() {
    let service = Service::start(LOCKSTEP);
    let mut operator = Operator::at(&service);
    for (listener, wrap) in [
        (
            "line",
            (|text| format!("{text}\n").into_bytes()) as fn(&str) -> Vec<u8>,
        ),
        ("length", |text| framed(text.as_bytes())),
    ] {
        let mut clients: Vec<_> = (0..10).map(|_| service.talk(listener)).collect();
        for round in 0..2 {
            for (n, client) in clients.iter_mut().enumerate() {
                let all: Vec<_> = (0..20)
                    .flat_map(|m| wrap(&format!("{round}-{n}-{m},")))
                    .collect();
                client.send(all);
            }
            operator.answer(listener, 200);
            for (n, client) in clients.iter_mut().enumerate() {
                let all: Vec<_> = (0..20)
                    .flat_map(|m| wrap(&format!("{round}-{n}-{m},").repeat(2)))
                    .collect();
                client.expect(all);
                nothing_more(client);
            }
        }
    }
    // The oldest clients send once and receive once.
    let mut clients: Vec<_> = (0..10).map(|_| service.talk("raw")).collect();
    for round in 0..3 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(format!("{round}-{n},"));
        }
        operator.answer("raw", 10);
        for (n, client) in clients.iter_mut().enumerate() {
            let answer = format!("{round}-{n},").repeat(2);
            assert_eq!(client.recv(1024), answer.as_bytes());
            nothing_more(client);
        }
    }
}

#[test]
fn each_message_has_one_answer_in_its_turn_over_udp() {
    let service = Service::start(LOCKSTEP);
    let mut operator = Operator::at(&service);
    let peers: Vec<_> = (0..10).map(|_| service.peer("udp")).collect();
    for round in 0..2 {
        for m in 0..20 {
            let each = peers.iter().enumerate();
            each.for_each(|(n, peer)| peer.send(format!("{round}-{n}-{m}")));
        }
        operator.answer("udp", 200);
        for (n, peer) in peers.iter().enumerate() {
            (0..20).for_each(|m| peer.expect(format!("{round}-{n}-{m}").repeat(2)));
            peer.0.set_nonblocking(true).unwrap();
            assert!(peer.0.recv(&mut [0; 9]).is_err());
            peer.0.set_nonblocking(false).unwrap();
        }
    }
}

#[test]
fn what_waits_of_one_client_is_bounded_and_all_of_it_is_answered() {
    if no_grpcurl() {
        return;
    }
    let toml = "[listeners.qq]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"127.0.0.1:0\"\n\
                unattended_after = \"2s\"\n";
    let service = Service::start(toml);
    let peer: Peer = service.peer("qq");
    (0..300).for_each(|n| peer.send(n.to_string()));
    eventually("the others are counted", || {
        service.rejected("qq", "too_many_unanswered") == 44
    });
    (0..256).for_each(|_| peer.expect("no operator is available"));
    // There is room again.
    peer.send("and now?");
    peer.expect("no operator is available");
}

#[test]
fn a_muted_client_is_heard_by_nobody_and_waits_no_longer_than_others() {
    if no_grpcurl() {
        return;
    }
    for transport in ["tcp", "udp"] {
        let service = Service::start(&format!(
            "[listeners.chat]\nprotocol = \"chat\"\ntransport = \"{transport}\"\nbind = \"127.0.0.1:0\"\n\
             unattended_after = \"300ms\"\n"
        ));
        let mut talk = (transport == "tcp").then(|| service.talk("chat"));
        let peer = (transport == "udp").then(|| service.peer("chat"));
        let mut exchange = |text: &str| match (&mut talk, &peer) {
            (Some(talk), _) => {
                talk.send(text);
                talk.expect("no operator is available");
            }
            (_, Some(peer)) => {
                peer.send(text);
                peer.expect("no operator is available");
            }
            _ => unreachable!("it is one of them"),
        };
        exchange("heard");
        let request = json!({ "parent": "listeners/chat" });
        let found = service.call("ChatService/ListConversations", &request, "conversations");
        let name = found[0]["name"].clone();
        let mute = |muted: bool| {
            let request = json!({ "name": name, "muted": muted });
            let done = service.call("ChatService/MuteConversation", &request, "conversation");
            assert_eq!(done["muted"].as_bool().unwrap_or_default(), muted);
        };
        mute(true);
        exchange("unheard");
        exchange("unheard too");
        mute(false);
        exchange("heard again");
        let messages = super::messages(&service, name.as_str().unwrap());
        let peers = messages.iter().filter(|m| m["author"] == "AUTHOR_PEER");
        let texts: Vec<_> = peers.map(|m| m["text"].as_str().unwrap()).collect();
        assert_eq!(texts, ["heard", "heard again"], "{transport}");
        assert_eq!(service.rejected("chat", "muted"), 2);
        let trail = service.call("ServerService/ListAuditEvents", &json!({}), "auditEvents");
        let muted = |e: &&Value| {
            e["method"]
                .as_str()
                .is_some_and(|m| m.ends_with("MuteConversation"))
        };
        assert_eq!(
            trail.as_array().unwrap().iter().filter(muted).count(),
            2,
            "{trail}"
        );
    }
}

#[test]
fn who_is_kicked_or_banned_is_gone_from_the_desk() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(LOCKSTEP);
    for listener in ["line", "udp"] {
        let mut talk = (listener == "line").then(|| service.talk(listener));
        let peer = (listener == "udp").then(|| service.peer(listener));
        let mut say = || match (&mut talk, &peer) {
            (Some(talk), _) => {
                talk.send("hello\n");
                talk.local()
            }
            (_, Some(peer)) => {
                peer.send("hello");
                peer.local()
            }
            _ => unreachable!("it is one of them"),
        };
        let address = say();
        let talk = crate::chat::waiting(&service, listener, 1);
        let name = talk["session"].clone();
        if listener == "udp" {
            // Its next datagram would be a new conversation.
            let ban = json!({ "parent": format!("listeners/{listener}"), "cidr": "127.0.0.1/32", "close_sessions": true });
            let count = service.call("SessionService/BanSource", &ban, "closeCount");
            assert_eq!(count, 1);
            say();
            eventually("it is kept away", || {
                service.rejected(listener, "banned") == 1
            });
            assert_eq!(close_reason(&service, listener, address), "denied");
        } else {
            service.call(
                "SessionService/CloseSession",
                &json!({ "name": name }),
                "session",
            );
            assert_eq!(close_reason(&service, listener, address), "kicked");
        }
        let request = json!({ "name": talk["name"], "text": "too late" });
        let error = service
            .grpcurl("ChatService/ReplyConversation", &request)
            .unwrap_err();
        assert_eq!(
            (error.code, error.reason()),
            ("FAILED_PRECONDITION", "CONVERSATION_CLOSED")
        );
    }
    let trail = service
        .call("ServerService/ListAuditEvents", &json!({}), "auditEvents")
        .to_string();
    for method in ["CloseSession", "BanSource"] {
        assert!(trail.contains(method), "{trail}");
    }
}
