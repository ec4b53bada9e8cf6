//! The same verbs one call at a time, as an operator makes them with grpcurl.

use serde_json::{Value, json};

use crate::chat::waiting;
use crate::support::{GrpcError, Service, Talk, eventually, grpcurl, no_grpcurl, number};

const DESK: &str = "[listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
    [listeners.free]\nprotocol = \"chat\"\nframing = \"line\"\npace = \"free\"\nbind = \"127.0.0.1:0\"\n";

fn claim(service: &Service, keys: &Value) -> Result<Value, GrpcError> {
    let claimed = service.grpcurl("ChatService/ClaimConversation", keys);
    claimed.map(|mut answer| answer["conversation"].take())
}

fn reply(service: &Service, keys: &Value) -> Result<Value, GrpcError> {
    service.grpcurl("ChatService/ReplyConversation", keys)
}

#[test]
fn a_claim_keeps_others_out_until_it_is_released_or_taken() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(DESK);
    let of_chat = |operator: &str| json!({ "name": "listeners/chat", "operator": operator });
    let none = claim(&service, &of_chat("ann")).unwrap_err();
    assert_eq!(
        (none.code, none.reason()),
        ("FAILED_PRECONDITION", "NOTHING_WAITS")
    );
    let mut peers: Vec<_> = (0..2).map(|_| service.talk("chat")).collect();
    let mut names = Vec::new();
    for peer in &mut peers {
        peer.send("hello\n");
        let (from, mut name) = (peer.local().to_string(), Value::Null);
        eventually("the message waits", || {
            let inbox = service.call(
                "ChatService/ListConversations",
                &json!({ "parent": "listeners/chat", "filter": format!("peer = \"{from}\"") }),
                "conversations",
            );
            name = inbox[0]["name"].clone();
            name.is_string()
        });
        names.push(name);
    }
    let again = json!({
        "name": "listeners/chat", "operator": "ann",
        "request_id": "5b0c4f2e-3b65-4d65-9a7e-1f7a2f1d0011",
    });
    // Repeated it is not the next one.
    for _ in 0..2 {
        let claimed = claim(&service, &again).unwrap();
        assert_eq!(claimed["name"], names[0]);
        assert_eq!(
            (&claimed["state"], &claimed["operator"]),
            (&json!("STATE_CLAIMED"), &json!("ann"))
        );
    }
    assert_eq!(claim(&service, &of_chat("bob")).unwrap()["name"], names[1]);

    let first = |operator: &str| json!({ "name": names[0], "operator": operator });
    let held = claim(&service, &first("bob")).unwrap_err();
    assert_eq!(
        (held.code, held.reason()),
        ("FAILED_PRECONDITION", "CONVERSATION_CLAIMED")
    );
    assert_eq!(held.detail("ErrorInfo")["metadata"]["operator"], "ann");
    assert_eq!(
        held.detail("PreconditionFailure")["violations"][0]["subject"],
        names[0]
    );
    let kept_out = reply(
        &service,
        &json!({ "name": names[0], "operator": "bob", "text": "x" }),
    );
    assert_eq!(kept_out.unwrap_err().reason(), "CONVERSATION_CLAIMED");
    let forced = json!({ "name": names[0], "operator": "bob", "force": true });
    assert_eq!(claim(&service, &forced).unwrap()["operator"], "bob");

    // Who was first is told even by who holds it.
    let by_bob = json!({ "name": names[1], "operator": "bob", "text": "hi", "in_reply_to": 1 });
    reply(&service, &by_bob).unwrap();
    let by_ann = json!({ "name": names[1], "operator": "ann", "text": "x", "in_reply_to": 1 });
    let late = reply(&service, &by_ann).unwrap_err();
    assert_eq!((late.code, late.reason()), ("ABORTED", "ALREADY_ANSWERED"));

    let release = json!({ "name": names[0] });
    for _ in 0..2 {
        let free = service.call("ChatService/ReleaseConversation", &release, "conversation");
        assert_eq!(
            (&free["state"], &free["operator"]),
            (&json!("STATE_WAITING"), &Value::Null)
        );
    }
    // Without a claim the first to answer is the one who answered.
    reply(
        &service,
        &json!({ "name": names[0], "operator": "ann", "text": "hi", "in_reply_to": 1 }),
    )
    .unwrap();
    let second = json!({ "name": names[0], "operator": "bob", "text": "x", "in_reply_to": 1 });
    let second = reply(&service, &second).unwrap_err();
    assert_eq!(
        (second.code, second.reason()),
        ("ABORTED", "ALREADY_ANSWERED")
    );
    assert_eq!(second.detail("ErrorInfo")["metadata"]["answered_by"], "ann");
    peers[0].expect("hi\n");
    for wrong in ["", "a\nb"] {
        let refused = claim(&service, &first(wrong)).unwrap_err();
        assert_eq!(
            (refused.code, refused.reason()),
            ("INVALID_ARGUMENT", "OPERATOR_INVALID")
        );
    }
}

#[test]
fn what_a_muted_peer_says_is_discarded() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(DESK);
    let mut peer = service.talk("free");
    peer.send("hello\n");
    let talk = waiting(&service, "free", 1);
    let mute = |muted: bool| {
        let request = json!({ "name": talk["name"], "muted": muted });
        service.call("ChatService/MuteConversation", &request, "conversation")
    };
    assert_eq!(mute(true)["muted"], true);
    let received = service.count("free", "receivedBytes");
    peer.send("not heard\n");
    eventually("it was read", || {
        service.count("free", "receivedBytes") > received
    });
    assert_eq!(mute(false)["muted"], Value::Null);
    peer.send("heard\n");
    assert_eq!(waiting(&service, "free", 2)["lastMessage"]["text"], "heard");
}

#[test]
fn a_broadcast_reaches_all_whose_pace_is_free() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(DESK);
    let mut peers: Vec<_> = (0..3).map(|_| service.talk("free")).collect();
    for (n, peer) in peers.iter_mut().enumerate() {
        peer.send("hello\n");
        eventually("it has a conversation", || {
            let all = json!({ "parent": "listeners/free" });
            number(&service.call("ChatService/ListConversations", &all, "totalSize")) > n as u64
        });
    }
    let request = json!({
        "parent": "listeners/free", "text": "back in five minutes", "operator": "ann",
        "request_id": "5b0c4f2e-3b65-4d65-9a7e-1f7a2f1d0021",
    });
    // Repeated it is not said again.
    for _ in 0..2 {
        let reached = service.call("ChatService/Broadcast", &request, "recipients");
        assert_eq!(reached, 3);
    }
    let after = json!({ "parent": "listeners/free", "text": "now" });
    service.call("ChatService/Broadcast", &after, "recipients");
    for peer in &mut peers {
        peer.expect("back in five minutes\nnow\n");
    }
    let all = json!({ "parent": "listeners/free/conversations/-", "filter": "author = AUTHOR_BROADCAST" });
    let said = service.call("ChatService/ListMessages", &all, "messages");
    assert_eq!(said.as_array().unwrap().len(), 6);
    assert_eq!(said[0]["operator"], "ann");
    for (request, reason) in [
        (
            json!({ "parent": "listeners/chat", "text": "x" }),
            "PACE_LOCKSTEP",
        ),
        (json!({ "parent": "listeners/free" }), "TEXT_INVALID"),
        (
            json!({ "parent": "listeners/-", "text": "x" }),
            "NAME_INVALID",
        ),
    ] {
        let refused = service
            .grpcurl("ChatService/Broadcast", &request)
            .unwrap_err();
        assert_eq!(refused.reason(), reason, "{request}");
    }
}

#[test]
fn a_seat_is_kept_by_grpcurl_too() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(DESK);
    let mut peer: Talk = service.talk("chat");
    peer.send("hello\n");
    let talk = waiting(&service, "chat", 1);
    let inputs = [
        json!({ "start": { "parent": "listeners/chat", "operator": "ann", "replay": 10 } }),
        json!({ "claim": { "name": "listeners/chat" } }),
        json!({ "reply": { "name": talk["name"], "text": "hi" } }),
        json!({ "claim": { "name": "listeners/chat", "request_id": "5b0c4f2e-3b65-4d65-9a7e-1f7a2f1d0031" } }),
    ];
    let inputs: String = inputs.iter().map(Value::to_string).collect();
    let address = service.grpc().to_string();
    let told = grpcurl(
        &["-d", "@", &address, "switchboard.v1.ChatService/AttachDesk"],
        &inputs,
    );
    let told = told.unwrap();
    let told: Vec<Value> = serde_json::Deserializer::from_str(&told)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    peer.expect("hi\n");
    let answers: Vec<_> = told
        .iter()
        .filter(|event| event["done"].is_object() || event["error"].is_object())
        .collect();
    assert_eq!(answers[0]["done"]["conversation"], talk["name"]);
    assert_eq!(answers[1]["done"]["sequence"], "2");
    assert_eq!(answers[2]["error"]["reason"], "NOTHING_WAITS");
    assert_eq!(
        answers[2]["error"]["requestId"],
        "5b0c4f2e-3b65-4d65-9a7e-1f7a2f1d0031"
    );
    let texts: Vec<_> = told
        .iter()
        .filter_map(|event| event["message"]["text"].as_str())
        .collect();
    assert_eq!(texts, ["hello", "hi"]);
    assert!(told.iter().any(|event| event["synced"].is_object()));
}
