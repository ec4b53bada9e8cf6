//! The model: news and keys in, what is asked and shown out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

use super::super::super::stage::{Key, Leave};
use super::ask::{Ask, Asked, Outcome};
use super::desk::{Bell, Desk, Dialog, Focus, Seat};
use super::link::News;
use super::transcript::said;
use crate::grpc::api;
use api::attach_desk_response::Event;
use api::chat_message::Author;
use api::conversation::State;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(500)
}

fn name(id: &str) -> String {
    format!("listeners/chat/conversations/{id}")
}

fn told(desk: &mut Desk, id: &str, since: Option<i64>, operator: &str) {
    let conversation = api::Conversation {
        name: name(id),
        peer: "127.0.0.1:9".into(),
        state: State::Waiting.into(),
        operator: operator.into(),
        waiting_since_time: since.map(|seconds| Timestamp { seconds, nanos: 0 }),
        unanswered_messages: since.map_or(0, |_| 1),
        ..Default::default()
    };
    desk.hear(
        News::Event(Box::new(Event::Conversation(conversation))),
        now(),
    );
}

fn hear(desk: &mut Desk, event: Event) {
    desk.hear(News::Event(Box::new(event)), now());
}

fn seated() -> Desk {
    let mut desk = Desk::new(Seat {
        parent: "listeners/-".into(),
        operator: "ann".into(),
        read_only: false,
        endpoint: String::new(),
    });
    desk.hear(News::Attached, now());
    told(&mut desk, "late", Some(300), "");
    told(&mut desk, "early", Some(100), "");
    told(&mut desk, "idle", None, "");
    hear(&mut desk, Event::Synced(api::Synced {}));
    let listener = api::Listener {
        name: "listeners/chat".into(),
        protocol: Some(api::listener::Protocol::Chat(api::ChatProtocol {
            canned_replies: [("hello".to_owned(), "Hello, you".to_owned())].into(),
            encoding: "gbk".into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    for Asked { id, ask } in desk.take_asks() {
        let outcome = match ask {
            Ask::Manners => Outcome::Manners(vec![listener.clone()]),
            Ask::Read { .. } => Outcome::Read(vec![api::ChatMessage {
                message_time: Some(Timestamp {
                    seconds: 100,
                    nanos: 0,
                }),
                conversation: name("early"),
                ..said(4, Author::Peer, "hi")
            }]),
            other => panic!("{other:?}"),
        };
        desk.hear(News::Answered(id, outcome), now());
    }
    desk
}

fn press(desk: &mut Desk, typed: &str) -> Option<Leave> {
    typed
        .chars()
        .fold(None, |_, c| desk.press(Key::Char(c), now()))
}

/// The one thing that is asked.
fn asked(desk: &mut Desk) -> Asked {
    let mut asks = desk.take_asks();
    asks.retain(|asked| !matches!(asked.ask, Ask::Read { .. }));
    assert_eq!(asks.len(), 1, "{asks:?}");
    asks.remove(0)
}

fn done(id: &str, sequence: u64) -> Outcome {
    Outcome::Done {
        conversation: name(id),
        sequence,
        warnings: Vec::new(),
    }
}

fn refused(message: &str) -> Outcome {
    Outcome::Refused {
        reason: "ALREADY_ANSWERED".into(),
        message: message.into(),
    }
}

fn order(desk: &Desk) -> Vec<String> {
    let ids = desk.queue().into_iter();
    ids.map(|talk| {
        talk.conversation
            .name
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    })
    .collect()
}

#[test]
fn the_longest_wait_is_first_and_looked_at() {
    let mut desk = seated();
    assert_eq!(order(&desk), ["early", "late", "idle"]);
    assert_eq!(desk.selected, Some(name("early")));
    told(&mut desk, "idle", Some(50), "");
    assert_eq!(order(&desk), ["idle", "early", "late"]);
    assert_eq!(desk.selected, Some(name("early")));
    press(&mut desk, "jj");
    assert_eq!(desk.selected, Some(name("late")));
}

#[test]
fn an_answer_goes_to_the_oldest_message_that_is_seen_to_wait() {
    let mut desk = seated();
    desk.press(Key::Enter, now());
    press(&mut desk, "/hello");
    desk.press(Key::Enter, now());
    let Asked { id, ask } = asked(&mut desk);
    let expected = Ask::Reply {
        name: name("early"),
        text: "Hello, you".into(),
        in_reply_to: 4,
    };
    assert_eq!(ask, expected);
    desk.press(Key::Enter, now());
    assert!(desk.take_asks().is_empty(), "one at a time");
    desk.hear(News::Answered(id, done("early", 5)), now());
    assert_eq!(desk.talk().unwrap().draft.text(), "");
}

#[test]
fn what_was_refused_is_still_there() {
    let mut desk = seated();
    desk.press(Key::Enter, now());
    press(&mut desk, "yes");
    desk.press(Key::Enter, now());
    let first = asked(&mut desk);
    desk.hear(
        News::Answered(first.id.clone(), refused("bob answered it")),
        now(),
    );
    assert_eq!(desk.talk().unwrap().draft.text(), "yes");
    assert!(desk.notice(now()).unwrap().is_error);
    desk.press(Key::Enter, now());
    assert_ne!(
        asked(&mut desk).id,
        first.id,
        "another try is another answer"
    );
}

#[test]
fn the_next_answer_is_typed_while_one_is_on_its_way() {
    for (outcome, left) in [
        (done("early", 5), "more"),
        (refused("bob was first"), "one more"),
    ] {
        let mut desk = seated();
        desk.press(Key::Enter, now());
        press(&mut desk, "one");
        desk.press(Key::Enter, now());
        let first = asked(&mut desk);
        press(&mut desk, "more");
        desk.press(Key::Enter, now());
        assert!(desk.take_asks().is_empty(), "one at a time");
        desk.hear(News::Answered(first.id, outcome), now());
        assert_eq!(desk.talk().unwrap().draft.text(), left);
    }
}

#[test]
fn a_draft_belongs_to_its_conversation() {
    let mut desk = seated();
    desk.press(Key::Enter, now());
    press(&mut desk, "for early");
    desk.press(Key::Down, now());
    assert_eq!(desk.talk().unwrap().draft.text(), "");
    desk.press(Key::Up, now());
    assert_eq!(desk.talk().unwrap().draft.text(), "for early");
}

#[test]
fn canned_replies_are_completed() {
    let mut desk = seated();
    desk.press(Key::Char('/'), now());
    desk.press(Key::Char('h'), now());
    desk.press(Key::Tab, now());
    assert_eq!(desk.talk().unwrap().draft.text(), "/hello");
    press(&mut desk, "x");
    desk.press(Key::Enter, now());
    assert!(desk.take_asks().is_empty());
    assert!(desk.notice(now()).unwrap().text.contains("/hellox"));
}

#[test]
fn a_claim_is_looked_at_and_a_release_is_ones_own() {
    let mut desk = seated();
    press(&mut desk, "c");
    let Asked { id, ask } = asked(&mut desk);
    let next = Ask::Claim {
        name: "listeners/chat".into(),
        force: false,
    };
    assert_eq!(ask, next, "the desk knows best who waits longest");
    told(&mut desk, "late", Some(300), "ann");
    desk.hear(News::Answered(id, done("late", 0)), now());
    assert_eq!(
        (desk.selected.clone(), desk.focus),
        (Some(name("late")), Focus::Line)
    );
    desk.press(Key::Ctrl('r'), now());
    assert_eq!(asked(&mut desk).ask, Ask::Release { name: name("late") });
    desk.press(Key::Up, now());
    desk.press(Key::Ctrl('r'), now());
    desk.take_asks();
    assert!(
        desk.notice(now())
            .unwrap()
            .text
            .starts_with("you do not hold")
    );
}

#[test]
fn what_others_feel_is_confirmed() {
    let mut desk = seated();
    told(&mut desk, "early", Some(100), "bob");
    for (key, expected) in [
        (
            "f",
            Ask::Claim {
                name: name("early"),
                force: true,
            },
        ),
        (
            "K",
            Ask::Kick {
                name: name("early"),
            },
        ),
        (
            "m",
            Ask::Mute {
                name: name("early"),
                muted: true,
            },
        ),
    ] {
        press(&mut desk, key);
        assert!(matches!(desk.dialog, Some(Dialog::Confirm { .. })), "{key}");
        press(&mut desk, "n");
        assert!(desk.take_asks().is_empty() && desk.dialog.is_none());
        press(&mut desk, key);
        press(&mut desk, "y");
        let Asked { id, ask } = asked(&mut desk);
        assert_eq!(ask, expected);
        desk.hear(News::Answered(id, refused("not now")), now());
    }
}

#[test]
fn the_bell_rings_for_whom_it_was_told_to() {
    let mut desk = seated();
    assert!(
        !desk.take_ring(),
        "those who wait already ring nobody out of bed"
    );
    told(&mut desk, "new", Some(400), "");
    assert!(!desk.take_ring(), "somebody waited before");
    for id in ["early", "late", "new"] {
        told(&mut desk, id, None, "");
    }
    told(&mut desk, "new", Some(450), "");
    assert!(desk.take_ring() && !desk.take_ring());
    press(&mut desk, "b");
    assert_eq!(desk.bell, Bell::Every);
    told(&mut desk, "newer", Some(460), "");
    assert!(desk.take_ring());
    told(&mut desk, "newer", Some(460), "");
    assert!(!desk.take_ring(), "it waited already");
    press(&mut desk, "b");
    told(&mut desk, "newest", Some(470), "");
    assert!(!desk.take_ring());
}

#[test]
fn who_only_looks_does_nothing() {
    let mut desk = seated();
    desk.seat.read_only = true;
    press(&mut desk, "cCxfKm");
    desk.press(Key::Enter, now());
    assert!(desk.take_asks().is_empty());
    assert_eq!((desk.focus, desk.dialog.is_none()), (Focus::Queue, true));
}

#[test]
fn what_a_new_snapshot_does_not_tell_is_gone() {
    let mut desk = seated();
    desk.press(Key::Enter, now());
    press(&mut desk, "kept");
    let pause = Duration::from_secs(1);
    desk.hear(
        News::Lost {
            why: String::new(),
            pause,
        },
        now(),
    );
    desk.hear(News::Attached, now());
    told(&mut desk, "late", Some(300), "");
    hear(&mut desk, Event::Synced(api::Synced {}));
    assert_eq!(order(&desk), ["late", "early"]);
    assert!(
        desk.talk()
            .is_some_and(|talk| talk.is_closed() && talk.draft.text() == "kept")
    );
    desk.press(Key::Up, now());
    assert_eq!(order(&desk), ["late"]);
}

#[test]
fn a_claim_that_was_taken_is_told() {
    let mut desk = seated();
    told(&mut desk, "early", Some(100), "ann");
    told(&mut desk, "early", Some(100), "bob");
    assert!(desk.notice(now()).unwrap().text.starts_with("bob took"));
    assert!(desk.notice(now() + Duration::from_secs(60)).is_none());
}

#[test]
fn leaving_is_one_key_where_nothing_is_typed() {
    let mut desk = seated();
    desk.press(Key::Enter, now());
    assert_eq!(press(&mut desk, "q"), None);
    assert_eq!(
        desk.press(Key::Ctrl('c'), now()),
        None,
        "it empties the line first"
    );
    assert_eq!(desk.press(Key::Ctrl('c'), now()), Some(Leave::Interrupted));
    desk.press(Key::Escape, now());
    assert_eq!(press(&mut desk, "?q"), None, "the key closes the help");
    assert_eq!(press(&mut desk, "q"), Some(Leave::Quit));
}

#[test]
fn what_is_typed_behind_a_claim_is_for_whoever_is_claimed() {
    let mut desk = seated();
    press(&mut desk, "c");
    let claim = asked(&mut desk);
    press(&mut desk, "Kq yes");
    desk.press(Key::Enter, now());
    assert!(desk.take_asks().is_empty() && desk.dialog.is_none());
    desk.hear(News::Answered(claim.id, done("late", 0)), now());
    let Ask::Reply { name: to, text, .. } = asked(&mut desk).ask else {
        panic!("it was sent");
    };
    assert_eq!((to, &*text), (name("late"), "Kq yes"));

    desk.press(Key::Escape, now());
    press(&mut desk, "C");
    let claim = asked(&mut desk);
    press(&mut desk, "Kq");
    desk.hear(News::Answered(claim.id, refused("bob was first")), now());
    assert!(desk.take_asks().is_empty() && desk.dialog.is_none());
}
