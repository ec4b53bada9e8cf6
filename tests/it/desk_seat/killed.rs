//! Operators that vanish in the middle of a reply, and say it again when they are back.

use std::time::{Duration, Instant};

use switchboard::grpc::api;
use switchboard::grpc::api::attach_desk_request::Input;
use switchboard::grpc::api::chat_message::Author;

use super::operator::{Client, reply, sit};
use crate::support::{Service, soak};

const DESK: &str = "[store]\npath = \"\"\n\
    [listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n";

#[test]
fn a_reply_of_an_operator_who_was_killed_is_said_once() {
    let times = if soak() { 500 } else { 25 };
    let service = Service::start(DESK);
    let watching = Client::of(&service);
    let watch = watching.attach(sit("chat", "watch"));
    watch.synced();
    let mut peer = service.talk("chat");
    let mut acknowledged = 0;
    for n in 0..times {
        peer.send(format!("question {n}\n"));
        let asked = watch.message();
        let once = api::ReplyConversationRequest {
            request_id: format!("5b0c4f2e-3b65-4d65-9a7e-{n:012x}"),
            ..reply(&asked.conversation, asked.sequence, &format!("answer {n}"))
        };
        // Its connection goes with it, at any moment of the reply's way to the disk and back.
        let killed = Client::of(&service);
        let seat = killed.attach(sit("chat", "ann"));
        seat.synced();
        seat.say(Input::Reply(once.clone()));
        let dies = Instant::now() + Duration::from_micros(200 * (n % 100));
        let mut first = None;
        while Instant::now() < dies && first.is_none() {
            first = seat.answered();
        }
        drop(seat);
        drop(killed);

        let back = Client::of(&service);
        let seat = back.attach(sit("chat", "ann"));
        seat.synced();
        let again = seat.done(Input::Reply(once));
        if let Some(first) = first {
            acknowledged += 1;
            assert_eq!(again.sequence, first.sequence);
        }
        let said = watch.message();
        assert_eq!(
            (said.author(), said.sequence),
            (Author::Operator, again.sequence)
        );
        peer.expect(format!("answer {n}\n"));
    }
    println!("killed {times} times, {acknowledged} of them when the reply was acknowledged");
    let all = api::ListMessagesRequest {
        parent: "listeners/chat/conversations/-".to_owned(),
        page_size: 1_000,
        ..api::ListMessagesRequest::default()
    };
    let mut calls = watching.calls.clone();
    let kept = watching.wait(calls.list_messages(all)).unwrap().messages;
    let said: Vec<_> = kept.iter().map(|m| &*m.text).collect();
    let expected: Vec<_> = (0..times)
        .flat_map(|n| [format!("question {n}"), format!("answer {n}")])
        .collect();
    assert_eq!(said, expected);
}
