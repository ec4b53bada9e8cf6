//! The desk as an operator sees it: who waits, since when, what was said and who answered; and the room, which needs
//! no operator.

use serde_json::{Value, json};

use super::limits::close_reason;
use super::support::{GrpcError, Service, Talk, eventually, no_grpcurl, number};

/// Conversations of a listener, the longest wait first.
fn inbox(service: &Service, listener: &str) -> Vec<Value> {
    let request = json!({ "parent": format!("listeners/{listener}") });
    let found = service.call("ChatService/ListConversations", &request, "conversations");
    found.as_array().cloned().unwrap_or_default()
}

/// The conversation that waits longest, once so many of its messages wait.
pub(crate) fn waiting(service: &Service, listener: &str, messages: u64) -> Value {
    let mut found = None;
    eventually(&format!("{messages} messages wait at {listener}"), || {
        let first = inbox(service, listener).into_iter().next();
        found = first.filter(|c| number(&c["unansweredMessages"]) == messages);
        found.is_some()
    });
    found.unwrap()
}

fn reply(service: &Service, to: &Value, keys: &Value) -> Result<Value, GrpcError> {
    let mut request = keys.clone();
    request["name"] = to["name"].clone();
    service.grpcurl("ChatService/ReplyConversation", &request)
}

fn said(service: &Service, conversation: &Value) -> Vec<Value> {
    let request = json!({ "parent": conversation["name"] });
    let found = service.call("ChatService/ListMessages", &request, "messages");
    found.as_array().cloned().unwrap_or_default()
}

const DESK: &str =
    "[listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n";

#[test]
fn answers_leave_in_the_order_of_the_questions() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(DESK);
    let mut client = service.talk("chat");
    client.send("first\nsecond\nthird\n");
    let talk = waiting(&service, "chat", 3);
    assert_eq!(talk["state"], "STATE_WAITING");
    assert_eq!(talk["peer"], client.local().to_string());
    assert_eq!(talk["lastMessage"]["text"], "third");
    let name = talk["name"].as_str().unwrap();
    assert_eq!(
        talk["session"],
        name.replace("/conversations/", "/sessions/")
    );

    // Answered, and held: nothing reaches the client before the answer to its first question.
    let third = reply(
        &service,
        &talk,
        &json!({"text": "three", "in_reply_to": 3, "operator": "ann"}),
    );
    assert_eq!(number(&third.unwrap()["message"]["inReplyTo"]), 3);
    reply(&service, &talk, &json!({"text": "two", "in_reply_to": 2})).unwrap();
    waiting(&service, "chat", 1);
    client.0.set_nonblocking(true).unwrap();
    let held = client.0.peek(&mut [0]).unwrap_err();
    assert_eq!(held.kind(), std::io::ErrorKind::WouldBlock);
    client.0.set_nonblocking(false).unwrap();
    // Without a number it is the oldest one that nobody answered.
    let first = reply(&service, &talk, &json!({"text": "one"})).unwrap();
    assert_eq!(number(&first["message"]["inReplyTo"]), 1);
    client.expect("one\ntwo\nthree\n");

    let history: Vec<_> = said(&service, &talk)
        .iter()
        .map(|m| {
            let author = m["author"]
                .as_str()
                .unwrap()
                .trim_start_matches("AUTHOR_")
                .to_owned();
            (
                number(&m["sequence"]),
                author,
                m["text"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected = [
        (1, "PEER", "first"),
        (2, "PEER", "second"),
        (3, "PEER", "third"),
        (4, "OPERATOR", "three"),
        (5, "OPERATOR", "two"),
        (6, "OPERATOR", "one"),
    ];
    assert_eq!(
        history,
        expected.map(|(n, a, t)| (n, a.to_owned(), t.to_owned()))
    );
    assert_eq!(inbox(&service, "chat")[0]["state"], "STATE_ANSWERED");
}

#[test]
fn a_question_is_answered_once() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(DESK);
    let mut client = service.talk("chat");
    client.send("hello\n");
    let talk = waiting(&service, "chat", 1);
    let refusals = [
        (json!({"text": ""}), "INVALID_ARGUMENT", "REPLY_INVALID"),
        (json!({}), "INVALID_ARGUMENT", "REPLY_INVALID"),
        (
            json!({"text": "two\nlines"}),
            "INVALID_ARGUMENT",
            "REPLY_INVALID",
        ),
        (
            json!({"text": "x", "in_reply_to": 9}),
            "INVALID_ARGUMENT",
            "MESSAGE_NOT_FOUND",
        ),
    ];
    for (keys, code, reason) in refusals {
        let error = reply(&service, &talk, &keys).unwrap_err();
        assert_eq!((error.code, error.reason()), (code, reason), "{keys}");
    }
    let mine = json!({
        "text": "mine", "in_reply_to": 1, "operator": "ann",
        "request_id": "6f1c7a2e-54a4-4d8e-9d0b-0f3c5f4f8a11",
    });
    let first = reply(&service, &talk, &mine).unwrap();
    // Said again it is the same answer, not a second one.
    assert_eq!(
        reply(&service, &talk, &mine).unwrap()["message"],
        first["message"]
    );
    let theirs = json!({"text": "theirs", "in_reply_to": 1, "operator": "bob"});
    let error = reply(&service, &talk, &theirs).unwrap_err();
    assert_eq!(
        (error.code, error.reason()),
        ("ABORTED", "ALREADY_ANSWERED")
    );
    assert_eq!(error.detail("ErrorInfo")["metadata"]["answered_by"], "ann");
    assert!(error.message.contains("ann"), "{}", error.message);
    let error = reply(&service, &talk, &json!({"text": "more"})).unwrap_err();
    assert_eq!(
        (error.code, error.reason()),
        ("FAILED_PRECONDITION", "NOTHING_TO_ANSWER")
    );

    // A client that reads once is warned about.
    client.send("again\n");
    waiting(&service, "chat", 1);
    let long = reply(&service, &talk, &json!({"text": "x".repeat(2000)})).unwrap();
    assert_eq!(long["warnings"].as_array().map(Vec::len), Some(1), "{long}");
    client.expect(format!("mine\n{}\n", "x".repeat(2000)));

    client.send("bye\n");
    waiting(&service, "chat", 1);
    client.reset();
    eventually("the conversation is closed", || {
        inbox(&service, "chat")[0]["state"] == "STATE_CLOSED"
    });
    let error = reply(&service, &talk, &json!({"text": "too late"})).unwrap_err();
    assert_eq!(
        (error.code, error.reason()),
        ("FAILED_PRECONDITION", "CONVERSATION_CLOSED")
    );
    let nobody = json!({ "name": "listeners/chat/conversations/local-01jd0000000000000000000000" });
    let error = reply(&service, &nobody, &json!({"text": "x"})).unwrap_err();
    assert_eq!(
        (error.code, error.reason()),
        ("NOT_FOUND", "CONVERSATION_NOT_FOUND")
    );
}

#[test]
fn nobody_waits_for_ever() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.chat]
        protocol = "chat"
        framing = "line"
        bind = "127.0.0.1:0"
        unattended_after = "300ms"
        unattended_reply = "later"
        [listeners.flood]
        protocol = "chat"
        framing = "line"
        bind = "127.0.0.1:0"
        "#,
    );
    let mut client = service.talk("chat");
    client.send("one\ntwo\n");
    // A peer that has said all is still owed its answers.
    client.half_close();
    assert_eq!(client.rest(), b"later\nlater\n");
    assert_eq!(
        close_reason(&service, "chat", client.local()),
        "client_closed"
    );
    let conversation = &inbox(&service, "chat")[0];
    let authors: Vec<_> = said(&service, conversation)
        .iter()
        .map(|m| m["author"].clone())
        .collect();
    let (peer, unattended) = ("AUTHOR_PEER", "AUTHOR_UNATTENDED");
    assert_eq!(authors, [peer, peer, unattended, unattended]);

    // One that is gone is owed nothing, though it had said all before.
    let mut client = service.talk("flood");
    let peer = client.local();
    client.send("hello\n");
    waiting(&service, "flood", 1);
    client.half_close();
    client.reset();
    assert_eq!(close_reason(&service, "flood", peer), "client_reset");
    assert_eq!(inbox(&service, "flood")[0]["state"], "STATE_CLOSED");

    // Nor does the desk gather without bound what nobody answers.
    let mut client = service.talk("flood");
    client.send("x\n".repeat(10_000));
    client.rest();
    let peer = client.local();
    drop(client);
    assert_eq!(close_reason(&service, "flood", peer), "limit");
    assert_eq!(service.rejected("flood", "too_many_unanswered"), 1);
}

#[test]
fn a_full_table_of_udp_peers_lets_the_longest_idle_go() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.qq]
        protocol = "chat"
        transport = "udp"
        bind = "127.0.0.1:0"
        limits = { max_sessions = 2 }
        "#,
    );
    let of = |peer: &super::support::Peer| {
        let own = peer.local().to_string();
        let mut found = None;
        eventually("its message waits", || {
            let all = inbox(&service, "qq");
            found = all
                .into_iter()
                .find(|c| c["peer"] == *own && c["state"] == "STATE_WAITING");
            found.is_some()
        });
        found.unwrap()
    };
    let [idle, second, third, fourth] = [(); 4].map(|()| service.peer("qq"));
    idle.send("hello");
    reply(&service, &of(&idle), &json!({"text": "yes?"})).unwrap();
    idle.expect("yes?");
    second.send("hello");
    of(&second);
    third.send("hello");
    let waits = of(&third);
    assert_eq!(close_reason(&service, "qq", idle.local()), "limit");
    // Both that are here are owed an answer: they stay.
    fourth.send("hello");
    eventually("the fourth is counted", || {
        service.rejected("qq", "max_sessions") == 1
    });
    reply(&service, &of(&second), &json!({"text": "second"})).unwrap();
    second.expect("second");
    reply(&service, &waits, &json!({"text": "third"})).unwrap();
    third.expect("third");
    fourth.send("hello");
    reply(&service, &of(&fourth), &json!({"text": "fourth"})).unwrap();
    fourth.expect("fourth");
    // Of the two that were idle, the one whose answer was longer ago.
    assert_eq!(close_reason(&service, "qq", second.local()), "limit");
    assert_eq!(service.count("qq", "activeSessions"), 2);
}

#[test]
fn a_datagram_of_any_length_is_a_message_and_an_answer_is_one() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.qq]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"127.0.0.1:0\"\n",
    );
    let client = service.peer("qq");
    let long = "x".repeat(65_507);
    client.send("");
    client.send(&long);
    let talk = waiting(&service, "qq", 2);
    assert_eq!(talk["lastMessage"]["text"], long);
    let error = reply(&service, &talk, &json!({ "text": format!("{long}x") })).unwrap_err();
    let refused = ("INVALID_ARGUMENT", "REPLY_INVALID");
    assert_eq!((error.code, error.reason()), refused);
    reply(&service, &talk, &json!({ "text": "nothing?" })).unwrap();
    client.expect("nothing?");
    let told = reply(&service, &talk, &json!({ "text": long })).unwrap();
    client.expect(&long);
    // The rest of a datagram that was read in part does not come later.
    let warning = told["warnings"][0].as_str().unwrap();
    assert!(warning.ends_with("loses the rest"), "{warning}");
}

#[test]
fn text_is_read_and_written_in_the_clients_encoding_and_shown_without_its_tricks() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.gbk]
        protocol = "chat"
        bind = "127.0.0.1:0"
        encoding = "gbk"
        [listeners.auto]
        protocol = "chat"
        bind = "127.0.0.1:0"
        encoding = "auto"
        [listeners.utf8]
        protocol = "chat"
        bind = "127.0.0.1:0"
        [listeners.bytes]
        protocol = "chat"
        bind = "127.0.0.1:0"
        encoding = "bytes"
        "#,
    );
    let (hello, bye) = (b"\xc4\xe3\xba\xc3", b"\xd4\xd9\xbc\xfb");
    for listener in ["gbk", "auto"] {
        let mut client = service.talk(listener);
        client.send(hello);
        let talk = waiting(&service, listener, 1);
        assert_eq!(talk["lastMessage"]["text"], "你好");
        assert_eq!(talk["lastMessage"]["raw"], "xOO6ww==");
        if listener == "gbk" {
            let error = reply(&service, &talk, &json!({"text": "😀"})).unwrap_err();
            assert_eq!(
                (error.code, error.reason()),
                ("INVALID_ARGUMENT", "REPLY_INVALID")
            );
        }
        reply(&service, &talk, &json!({"text": "再见"})).unwrap();
        client.expect(bye);
    }
    let mut client = service.talk("auto");
    client.send("你好");
    let talk = waiting(&service, "auto", 1);
    assert_eq!(talk["lastMessage"]["text"], "你好");
    reply(&service, &talk, &json!({"text": "再见"})).unwrap();
    client.expect("再见");

    // Kept as it came, and shown so that no terminal obeys it.
    let hostile = b"a\xff\x1b[31mb";
    for (listener, shown) in [
        ("utf8", "a\u{fffd}\\u{1b}[31mb"),
        ("bytes", "a\\xff\\u{1b}[31mb"),
    ] {
        let mut client = service.talk(listener);
        client.send(hostile);
        let talk = waiting(&service, listener, 1);
        assert_eq!(talk["lastMessage"]["raw"], "Yf8bWzMxbWI=");
        assert_eq!(talk["lastMessage"]["text"], shown);
        // An operator may send any bytes.
        reply(&service, &talk, &json!({"raw": "//4A"})).unwrap();
        client.expect(b"\xff\xfe\0");
    }
}

#[test]
fn a_room_gives_each_message_to_all_the_others() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.room]
        protocol = "chat"
        mode = "room"
        pace = "free"
        greeting = "welcome"
        bind = "127.0.0.1:0"
        "#,
    );
    let enter = || {
        let mut member: Talk = service.talk("room");
        // It is a member from its greeting on.
        member.expect("welcome\n");
        member
    };
    let (mut one, mut two, mut three) = (enter(), enter(), enter());
    one.send("hello\r\n");
    two.expect("hello\n");
    three.expect("hello\n");
    // As it came, neither decoded nor escaped; and none of it to whoever said it.
    two.send(b"\xfe\x1b[31m\n");
    one.expect(b"\xfe\x1b[31m\n");
    three.expect(b"\xfe\x1b[31m\n");
    three.send("nobody hears himself\n");
    one.expect("nobody hears himself\n");
    two.expect("nobody hears himself\n");
    one.half_close();
    drop(one);
    three.send("bye\n");
    two.expect("bye\n");
    // No desk is there to answer at.
    let request = json!({ "parent": "listeners/room" });
    let error = service
        .grpcurl("ChatService/ListConversations", &request)
        .unwrap_err();
    assert_eq!(
        (error.code, error.reason()),
        ("FAILED_PRECONDITION", "NO_DESK")
    );
}

#[test]
fn answers_that_were_held_leave_together_however_long_they_are() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(DESK);
    let mut client = service.talk("chat");
    client.send("1\n2\n3\n");
    let talk = waiting(&service, "chat", 3);
    // Each fits an outbox, the three of them do not; and the client reads.
    let long = "x".repeat(180_000);
    for sequence in [2, 3, 1] {
        let keys = json!({ "text": long, "in_reply_to": sequence });
        reply(&service, &talk, &keys).unwrap();
    }
    let answer = format!("{long}\n");
    client.expect(answer.repeat(3));
}

#[test]
fn one_question_too_many_does_not_cost_the_others_their_answers() {
    let service = Service::start(DESK);
    let mut client = service.talk("chat");
    client.send("?\n".repeat(300));
    client.expect("no operator is available\n".repeat(256));
    client.expect_closed();
}

#[test]
fn an_inbox_of_long_messages_comes_in_pages_that_fit() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(DESK);
    // Every byte is shown as five characters.
    let hostile = format!("{}\n", "\u{1}".repeat(60_000));
    let mut clients: Vec<_> = (0..20).map(|_| service.talk("chat")).collect();
    clients.iter_mut().for_each(|client| client.send(&hostile));
    let (mut seen, mut token) = (0, Value::from(""));
    eventually("all of them wait", || {
        let request = json!({ "parent": "listeners/chat", "page_size": 1 });
        let page = service.grpcurl("ChatService/ListConversations", &request);
        page.is_ok_and(|page| page["totalSize"] == 20)
    });
    loop {
        let request = json!({ "parent": "listeners/chat", "page_token": token });
        let page = service
            .grpcurl("ChatService/ListConversations", &request)
            .unwrap();
        seen += page["conversations"].as_array().unwrap().len();
        token = page["nextPageToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(seen, 20);
}
