//! An operator's seat: what it is told, what it may ask, and what happens when there are several.

mod calls;
mod joins;
mod killed;
mod numbers;
mod operator;
mod slow;

use rustix::process::Signal;
use serde_json::json;
use switchboard::grpc::api;
use switchboard::grpc::api::attach_desk_request::Input;
use switchboard::grpc::api::attach_desk_response::Event;
use switchboard::grpc::api::chat_message::Author;
use switchboard::grpc::api::conversation::State;
use tonic::Code;

use super::support::{Service, Talk, eventually, soak};
use operator::{Client, claim, reason, release, reply, sit, start};

/// A desk of clients that read lines.
const DESK: &str = "[listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
    [listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

fn texts(events: &[Event]) -> Vec<&str> {
    let messages = events.iter().filter_map(|event| match event {
        Event::Message(message) => Some(message),
        _ => None,
    });
    messages.map(|message| &*message.text).collect()
}

#[test]
fn a_seat_shows_who_waits_longest_first_then_whatever_happens() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let watch = client.attach(sit("chat", "watch"));
    assert!(watch.synced().is_empty());
    let mut peers = Vec::new();
    for n in 0..3 {
        let mut peer = service.talk("chat");
        peer.send(format!("one {n}\ntwo {n}\n"));
        for expected in ["one", "two"] {
            assert_eq!(watch.message().text, format!("{expected} {n}"));
        }
        peers.push(peer);
    }
    let seat = client.attach(Input::Start(api::AttachStart {
        replay: 1,
        ..start("-", "ann")
    }));
    let before = seat.synced();
    assert_eq!(texts(&before), ["two 0", "two 1", "two 2"]);
    for (n, pair) in before.chunks(2).enumerate() {
        let (Event::Conversation(c), Event::Message(m)) = (&pair[0], &pair[1]) else {
            panic!("{pair:?}");
        };
        assert_eq!((c.state(), c.unanswered_messages), (State::Waiting, 2));
        assert_eq!(c.peer, peers[n].local().to_string());
        assert_eq!((&m.conversation, m.sequence), (&c.name, 2));
    }
    // A conversation comes whole, and behind it what was said.
    peers[1].send("three 1\n");
    let told = seat.conversation();
    assert_eq!(told.unanswered_messages, 3);
    let said = seat.message();
    assert_eq!((&*said.text, said.author()), ("three 1", Author::Peer));
    peers.remove(0).reset();
    assert_eq!(seat.conversation().state(), State::Closed);
}

#[test]
fn every_input_is_answered_once_in_order_behind_what_it_caused() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let (ann, bob) = (
        client.attach(sit("chat", "ann")),
        client.attach(sit("chat", "bob")),
    );
    ann.synced();
    bob.synced();
    let mut peer = service.talk("chat");
    peer.send("hello\n");
    let name = ann.message().conversation;

    // Said in one breath: claimed, answered and given back.
    ann.say(claim("listeners/chat"));
    ann.say(Input::Reply(api::ReplyConversationRequest {
        request_id: "5b0c4f2e-3b65-4d65-9a7e-1f7a2f1d0001".into(),
        ..reply(&name, 0, "hi")
    }));
    ann.say(release(&name));
    let (caused, done) = ann.answer();
    assert_eq!(done.unwrap().conversation, name);
    let Some(Event::Conversation(claimed)) = caused.last() else {
        panic!("{caused:?}");
    };
    assert!(claimed.claim_expire_time.is_some());
    let (caused, done) = ann.answer();
    let done = done.unwrap();
    assert_eq!((&done.conversation, done.sequence), (&name, 2));
    assert_eq!(done.request_id, "5b0c4f2e-3b65-4d65-9a7e-1f7a2f1d0001");
    assert_eq!(texts(&caused), ["hi"]);
    let (caused, done) = ann.answer();
    assert!(done.is_ok());
    let Some(Event::Conversation(given_back)) = caused.last() else {
        panic!("{caused:?}");
    };
    assert_eq!(
        (given_back.state(), &*given_back.operator),
        (State::Answered, "")
    );
    peer.expect("hi\n");

    // All of that is seen at the other seat too.
    assert_eq!(bob.message().text, "hello");
    let answer = bob.message();
    assert_eq!((&*answer.text, &*answer.operator), ("hi", "ann"));
    assert_eq!(answer.in_reply_to, 1);
}

#[test]
fn a_refused_input_is_told_and_the_seat_goes_on() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let (ann, bob) = (
        client.attach(sit("chat", "ann")),
        client.attach(sit("chat", "bob")),
    );
    ann.synced();
    bob.synced();
    assert_eq!(ann.refused(claim("listeners/chat")), "NOTHING_WAITS");
    let mut peer = service.talk("chat");
    peer.send("hello\nanybody?\n");
    let name = ann.message().conversation;
    let other = name.replace("chat", "ack");
    let absent = format!("{name}0");
    let as_bob = Input::Claim(api::ClaimConversationRequest {
        name: name.clone(),
        operator: "bob".into(),
        ..api::ClaimConversationRequest::default()
    });
    for (input, expected) in [
        (sit("chat", "ann"), "INPUT_INVALID"),
        (claim(&absent), "CONVERSATION_NOT_FOUND"),
        (claim(&other), "NAME_INVALID"),
        (as_bob, "OPERATOR_INVALID"),
        (Input::Reply(reply(&name, 9, "x")), "MESSAGE_NOT_FOUND"),
        (Input::Reply(reply(&name, 1, "x\ny")), "REPLY_INVALID"),
    ] {
        assert_eq!(ann.refused(input), expected);
    }
    // One of two is first, whatever they do.
    ann.done(Input::Reply(reply(&name, 1, "hi")));
    bob.say(Input::Reply(api::ReplyConversationRequest {
        request_id: "5b0c4f2e-3b65-4d65-9a7e-1f7a2f1d0002".into(),
        ..reply(&name, 1, "hello")
    }));
    let error = bob.answer().1.unwrap_err();
    assert_eq!(error.reason, "ALREADY_ANSWERED");
    assert_eq!(error.request_id, "5b0c4f2e-3b65-4d65-9a7e-1f7a2f1d0002");
    assert!(error.message.contains("ann"), "{}", error.message);
    ann.done(claim(&name));
    for input in [
        claim(&name),
        release(&name),
        Input::Reply(reply(&name, 2, "me")),
    ] {
        bob.say(input);
        let error = bob.answer().1.unwrap_err();
        assert_eq!(error.reason, "CONVERSATION_CLAIMED");
        assert!(error.message.starts_with("ann "), "{}", error.message);
    }
    // Held by her it is not the next that waits.
    assert_eq!(bob.refused(claim("listeners/chat")), "NOTHING_WAITS");
    ann.done(Input::Reply(reply(&name, 2, "yes")));
    peer.expect("hi\nyes\n");
    drop(peer);
    ann.until(|c| c.state() == State::Closed);
    assert_eq!(ann.refused(claim(&name)), "CONVERSATION_CLOSED");
}

#[test]
fn the_first_input_is_a_start_that_can_be_obeyed() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let replaying = |replay| {
        Input::Start(api::AttachStart {
            replay,
            ..start("chat", "ann")
        })
    };
    for (first, code, word) in [
        (
            claim("listeners/chat"),
            Code::InvalidArgument,
            "START_REQUIRED",
        ),
        (sit("", "ann"), Code::InvalidArgument, "PARENT_INVALID"),
        (sit("chat", ""), Code::InvalidArgument, "OPERATOR_INVALID"),
        (
            sit("chat", "a\u{1b}"),
            Code::InvalidArgument,
            "OPERATOR_INVALID",
        ),
        (replaying(-1), Code::InvalidArgument, "REPLAY_INVALID"),
        (replaying(1_001), Code::InvalidArgument, "REPLAY_INVALID"),
        (sit("ack", "ann"), Code::FailedPrecondition, "NO_DESK"),
        (sit("absent", "ann"), Code::NotFound, "LISTENER_NOT_FOUND"),
    ] {
        let ended = client.attach(first).end().unwrap_err();
        assert_eq!((ended.code(), &*reason(&ended)), (code, word));
    }
}

#[test]
fn who_looks_on_asks_for_nothing() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let looker = client.attach(Input::Start(api::AttachStart {
        read_only: true,
        ..start("chat", "")
    }));
    looker.synced();
    let mut peer = service.talk("chat");
    peer.send("hello\n");
    let name = looker.message().conversation;
    for input in [
        claim(&name),
        release(&name),
        Input::Reply(reply(&name, 0, "x")),
    ] {
        assert_eq!(looker.refused(input), "READ_ONLY");
    }
}

#[test]
fn a_claim_outlives_its_seat_until_its_time_is_up() {
    let toml = DESK.replace(
        "protocol = \"chat\"",
        "protocol = \"chat\"\nclaim_lease = \"1s\"",
    );
    let service = Service::start(&toml);
    let client = Client::of(&service);
    let bob = client.attach(sit("chat", "bob"));
    bob.synced();
    let mut peer = service.talk("chat");
    peer.send("hello\n");
    let name = bob.message().conversation;
    let began = std::time::Instant::now();
    let ann = client.attach(sit("chat", "ann"));
    ann.synced();
    ann.done(claim(&name));
    // Heartbeats keep it beyond its time.
    while began.elapsed() < std::time::Duration::from_millis(1_500) {
        ann.say(Input::Heartbeat(api::Heartbeat {}));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(bob.refused(claim("listeners/chat")), "NOTHING_WAITS");
    let left = std::time::Instant::now();
    drop(ann);
    let lapsed = bob.until(|c| c.operator.is_empty());
    assert!(left.elapsed() > std::time::Duration::from_millis(500));
    assert_eq!(lapsed.state(), State::Waiting);
    let done = bob.done(claim("listeners/chat"));
    assert_eq!(done.conversation, name);
}

#[test]
fn a_reply_that_is_repeated_is_the_first_reply_at_whatever_seat() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let mut peer = service.talk("chat");
    peer.send("hello\n");
    let ann = client.attach(sit("chat", "ann"));
    let name = ann.until(|c| c.unanswered_messages == 1).name;
    let once = api::ReplyConversationRequest {
        request_id: "5b0c4f2e-3b65-4d65-9a7e-1f7a2f1d0003".into(),
        ..reply(&name, 0, &"x".repeat(1_025))
    };
    let first = ann.done(Input::Reply(once.clone()));
    // Longer than the 1,024 bytes that these clients read at once.
    assert_eq!(first.warnings.len(), 1);
    drop(ann);
    let ann = client.attach(sit("chat", "ann"));
    let again = ann.done(Input::Reply(once.clone()));
    assert_eq!(again, first);
    let mut calls = client.calls.clone();
    let called = client.wait(calls.reply_conversation(api::ReplyConversationRequest {
        operator: "ann".into(),
        ..once
    }));
    assert_eq!(called.unwrap().message.unwrap().sequence, first.sequence);
    peer.send("bye\n");
    ann.until(|c| c.unanswered_messages == 1);
    ann.done(Input::Reply(reply(&name, 0, "bye")));
    peer.expect(format!("{}\nbye\n", "x".repeat(1_025)));
}

#[test]
fn who_ends_its_inputs_is_answered_and_leaves() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let mut peer = service.talk("chat");
    peer.send("hello\n");
    let watch = client.attach(sit("chat", "watch"));
    let name = watch.until(|c| c.unanswered_messages == 1).name;
    let mut ann = client.attach(sit("chat", "ann"));
    ann.say(Input::Reply(reply(&name, 0, "hi")));
    ann.leave();
    let (_, done) = ann.answer();
    assert_eq!(done.unwrap().sequence, 2);
    ann.end().unwrap();
    peer.expect("hi\n");
}

#[test]
fn a_seat_at_all_desks_follows_listeners_that_come_and_go() {
    let service = Service::start("[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n");
    let client = Client::of(&service);
    let seat = client.attach(sit("-", "ann"));
    assert!(seat.synced().is_empty());
    for _ in 0..2 {
        let made = service.cli(
            &[
                "listener",
                "create",
                "late",
                "--protocol",
                "chat",
                "--bind",
                "127.0.0.1:0",
            ],
            &[],
        );
        assert_eq!(made.code, 0, "{}", made.stderr);
        let mut peer = Talk::to(service.bound("late"));
        peer.send("hello");
        let said = seat.message();
        assert!(said.conversation.starts_with("listeners/late/"), "{said:?}");
        seat.done(Input::Reply(reply(&said.conversation, 0, "hi")));
        peer.expect("hi");
        let gone = service.cli(&["listener", "delete", "late", "--force"], &[]);
        assert_eq!(gone.code, 0, "{}", gone.stderr);
        seat.until(|c| c.name == said.conversation && c.state() == State::Closed);
        let input = Input::Reply(reply(&said.conversation, 0, "hi"));
        assert_eq!(seat.refused(input), "LISTENER_NOT_FOUND");
    }
}

#[test]
fn a_drain_ends_a_seat_with_a_reason() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let seat = client.attach(sit("chat", "ann"));
    seat.synced();
    service.signal(Signal::TERM);
    let ended = seat.end().unwrap_err();
    assert_eq!(
        (ended.code(), &*reason(&ended)),
        (Code::Unavailable, "SERVER_DRAINING")
    );
    assert_eq!(service.wait().code, 0);
}

#[test]
fn seats_are_bounded_as_watches_are() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let seats: Vec<_> = (0..64)
        .map(|n| client.attach(sit("chat", &format!("op{n}"))))
        .collect();
    seats
        .iter()
        .for_each(|seat| assert!(seat.synced().is_empty()));
    // A connection has room for no more streams; another one does.
    let client = Client::of(&service);
    let refused = client.no_seat(sit("chat", "one too many")).unwrap();
    assert_eq!(
        (refused.code(), &*reason(&refused)),
        (Code::ResourceExhausted, "WATCHER_LIMIT")
    );
    drop(seats);
    eventually("there is room again", || {
        client.no_seat(sit("chat", "ann")).is_none()
    });
}

/// Only in the long run: it is quiet for so long.
#[test]
fn a_sign_of_life_comes_while_it_is_quiet() {
    if !soak() {
        return;
    }
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let seat = client.attach(sit("chat", "ann"));
    seat.synced();
    let quiet = std::time::Instant::now();
    let first = seat.next_within(std::time::Duration::from_secs(20));
    assert!(matches!(first, Event::Heartbeat(_)), "{first:?}");
    let after = quiet.elapsed().as_secs();
    assert!((14..=16).contains(&after), "after {after} s");
}

#[test]
fn what_operators_do_is_in_the_trail() {
    let service = Service::start(DESK);
    let client = Client::of(&service);
    let (ann, bob) = (
        client.attach(sit("chat", "ann")),
        client.attach(sit("chat", "bob")),
    );
    let mut peer = service.talk("chat");
    peer.send("hello\n");
    let name = ann.until(|c| c.unanswered_messages == 1).name;
    ann.done(claim(&name));
    bob.refused(claim(&name));
    bob.done(Input::Claim(api::ClaimConversationRequest {
        name: name.clone(),
        force: true,
        ..api::ClaimConversationRequest::default()
    }));
    let taken = ann.until(|c| c.operator == "bob");
    assert_eq!(taken.state(), State::Claimed);
    assert_eq!(ann.refused(release(&name)), "CONVERSATION_CLAIMED");
    bob.done(release(&name));
    let trail = service.cli(&["audit", "-o", "json"], &[]);
    let trail: serde_json::Value = serde_json::from_str(&trail.stdout).unwrap();
    let told: Vec<_> = trail["auditEvents"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|event| {
            assert_eq!(event["resource"], json!(name), "{event}");
            let of = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let method = of("method");
            let method = method.rsplit('/').next().unwrap().to_owned();
            (method, of("statusCode"), of("reason"))
        })
        .collect();
    let expected = [
        ("ClaimConversation", "OK", "by ann"),
        ("ClaimConversation", "FAILED_PRECONDITION", "by bob"),
        ("ClaimConversation", "OK", "by bob, taken from ann"),
        ("ReleaseConversation", "FAILED_PRECONDITION", "by ann"),
        ("ReleaseConversation", "OK", "by bob"),
    ];
    let expected = expected.map(|(m, s, r)| (m.to_owned(), s.to_owned(), r.to_owned()));
    assert_eq!(told, expected);
}
