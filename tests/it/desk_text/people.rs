//! People at the desk and in a room, with telnet and nc: what they type arrives as they meant it, however their client
//! ends a line and whatever it says of itself.

use serde_json::{Value, json};

use super::messages;
use crate::chat::waiting;
use crate::support::{Service, Talk, eventually, no_grpcurl};

const PEOPLE: &str = r#"
    [listeners.desk]
    protocol = "chat"
    pace = "free"
    greeting = "welcome"
    bind = "127.0.0.1:0"
    [listeners.room]
    protocol = "chat"
    mode = "room"
    pace = "free"
    greeting = "welcome"
    bind = "127.0.0.1:0"
"#;

fn enter(service: &Service, listener: &str) -> Talk {
    let mut talk = service.talk(listener);
    talk.expect("welcome\n");
    talk
}

fn texts(service: &Service, talk: &Value) -> Vec<String> {
    let all = messages(service, talk["name"].as_str().unwrap());
    let texts = all.iter().map(|m| m["text"].as_str().unwrap().to_owned());
    texts.collect()
}

#[test]
fn a_line_ends_as_it_may() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(PEOPLE);
    let mut client = enter(&service, "desk");
    client.send("lf\ncrlf\r\ncr\rcr nul\r\0and\n\r\n\n\0\r\nlast\n");
    let talk = waiting(&service, "desk", 6);
    let expected = ["lf", "crlf", "cr", "cr nul", "and", "last"];
    assert_eq!(texts(&service, &talk), expected);
    // The last line of a file that is sent with nc has no end.
    client.send("without an end");
    client.half_close();
    let talk = waiting(&service, "desk", 7);
    assert_eq!(texts(&service, &talk)[6], "without an end");
}

#[test]
fn what_telnet_says_of_itself_is_swallowed_however_it_is_split() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(PEOPLE);
    // WILL with an option whose number is LF, DO with one that is CR, the size of a window of 13 by 10 with a doubled IAC,
    // a terminal's name, and IAC IAC for a byte of text.
    let sent = b"\xff\xfb\x0a\xff\xfd\x0done\xff\xfa\x1f\0\x0d\0\x0a\xff\xff\xff\xf0\r\n\
                 t\xff\xf1w\xff\xf9o\xff\xfa\x18\0VT100\xff\xf0\r\0\xff\xfc\x01three\n";
    for listener in ["desk", "room"] {
        let mut whole = enter(&service, listener);
        let mut other = (listener == "room").then(|| enter(&service, listener));
        whole.send(sent);
        match &mut other {
            Some(other) => other.expect("one\ntwo\nthree\n"),
            None => {
                let talk = waiting(&service, listener, 3);
                assert_eq!(texts(&service, &talk), ["one", "two", "three"]);
            }
        }
        // It is never answered.
        whole.0.set_nonblocking(true).unwrap();
        let nothing = whole.0.peek(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }
    // One byte at a time: each is a segment of its own.
    let mut typed = enter(&service, "desk");
    sent.iter().for_each(|byte| typed.send([*byte]));
    let own = typed.local().to_string();
    let request = json!({ "parent": "listeners/desk" });
    eventually("all three lines wait", || {
        let all = service.call("ChatService/ListConversations", &request, "conversations");
        let all = all.as_array().cloned().unwrap_or_default();
        let talk = all.iter().find(|c| c["peer"] == *own);
        talk.is_some_and(|talk| texts(&service, talk) == ["one", "two", "three"])
    });
}

#[test]
fn people_hear_what_they_did_not_ask_for_and_answers_as_they_come() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(PEOPLE);
    let mut client = enter(&service, "desk");
    client.send("one\ntwo\n");
    let talk = waiting(&service, "desk", 2);
    let reply = |keys: Value| {
        let mut request = keys;
        request["name"] = talk["name"].clone();
        service.call("ChatService/ReplyConversation", &request, "message")
    };
    // A later message may be answered first, and one may say more than was asked.
    reply(json!({ "text": "second", "in_reply_to": 2 }));
    client.expect("second\n");
    reply(json!({ "text": "first" }));
    client.expect("first\n");
    reply(json!({ "text": "anything else?" }));
    client.expect("anything else?\n");
}
