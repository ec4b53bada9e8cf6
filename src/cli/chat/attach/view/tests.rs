//! What the desk draws: at every size, with and without colour.

use super::super::super::super::stage::Key;
use super::super::ask::{Ask, Outcome};
use super::super::desk::{Desk, Seat};
use super::super::link::News;
use super::super::transcript::said;
use super::*;
use crate::grpc::api;
use api::attach_desk_response::Event;
use api::chat_message::Author;
use api::conversation::State;
use proptest::prelude::*;
use prost_types::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use std::time::{Duration, UNIX_EPOCH};

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(200)
}

fn event(event: Event) -> News {
    News::Event(Box::new(event))
}

fn conversation(id: &str, since: Option<i64>, operator: &str) -> api::Conversation {
    let state = match (operator, since) {
        ("", Some(_)) => State::Waiting,
        ("", None) => State::Answered,
        _ => State::Claimed,
    };
    api::Conversation {
        name: format!("listeners/chat/conversations/{id}"),
        peer: format!("127.0.0.1:400{}", id.len()),
        state: state.into(),
        operator: operator.to_owned(),
        waiting_since_time: since.map(|seconds| Timestamp { seconds, nanos: 0 }),
        unanswered_messages: since.map_or(0, |_| 1),
        last_message: Some(said(2, Author::Peer, "last")),
        ..Default::default()
    }
}

/// Three conversations, the first of them looked at.
fn desk(parent: &str, operator: &str) -> Desk {
    let mut desk = Desk::new(Seat {
        parent: parent.into(),
        operator: operator.into(),
        read_only: false,
        endpoint: "http://desk".into(),
    });
    desk.hear(News::Attached, now());
    for told in [
        conversation("n-100", Some(190), ""),
        conversation("n-1", Some(101), ""),
        conversation("n-10", None, "bob"),
    ] {
        desk.hear(event(Event::Conversation(told)), now());
    }
    desk.hear(event(Event::Synced(api::Synced {})), now());
    let asked = desk.take_asks();
    let read = asked
        .iter()
        .find(|asked| matches!(asked.ask, Ask::Read { .. }));
    let messages = vec![
        said(1, Author::Peer, "is anybody there? 你好"),
        said(
            2,
            Author::Peer,
            "a\u{1b}]0;evil\u{7} very long line that does not fit into one line",
        ),
    ];
    let id = read.unwrap().id.clone();
    desk.hear(News::Answered(id, Outcome::Read(messages)), now());
    desk
}

fn drawn(desk: &Desk, width: u16, height: u16, colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let theme = Theme { colour };
    terminal
        .draw(|frame| draw(desk, theme, now(), frame))
        .unwrap();
    terminal
}

fn lines(desk: &Desk, width: u16, height: u16) -> Vec<String> {
    let terminal = drawn(desk, width, height, false);
    let buffer = terminal.backend().buffer();
    let row = |y| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(row).collect()
}

#[test]
fn all_of_it_stands_on_a_usual_screen() {
    let desk = desk("listeners/chat", "ann");
    let expected = [
        " desk chat · ann · 2 waiting, longest 1m39s · bell: first",
        "      WAIT   N FROM                 │127.0.0.1:4003 · chat · n-1",
        "wait 1m39s   1 127.0.0.1:4003       │00:01:41 peer: is anybody there? 你 好",
        "wait   10s   1 127.0.0.1:4005       │00:01:42 peer: a\\u{1b}]0;evil\\u{7} very",
        "held           127.0.0.1:4004    bob│long line that does not fit into one line",
        "                                    │",
        "─ to 127.0.0.1:4003 (n-1) ───────────────────────────────────── 0/1024 B utf-8 ─",
        "",
        "c claim · Enter answer · x release · ? keys · q quit · http://desk",
    ];
    let drawn = lines(&desk, 80, 9);
    assert_eq!(drawn, expected);
}

#[test]
fn on_a_small_screen_the_part_with_the_keys_is_shown() {
    let mut desk = desk("listeners/-", "ann");
    let queue = lines(&desk, 30, 5);
    assert_eq!(queue[1], "wait 1m39s   1 127.0.0.1:4003");
    desk.press(Key::Enter, now());
    for c in "hi 你好".chars() {
        desk.press(Key::Char(c), now());
    }
    let line = lines(&desk, 30, 5);
    assert_eq!(line[0], "127.0.0.1:4003 · chat · n-1");
    assert_eq!(line[3], "> hi 你 好");
    let mut terminal = drawn(&desk, 30, 5, false);
    terminal.backend_mut().assert_cursor_position((9, 3));
}

#[test]
fn without_colour_there_is_none() {
    let desk = desk("listeners/chat", "ann");
    let colours = |colour| {
        let terminal = drawn(&desk, 80, 24, colour);
        let cells = terminal.backend().buffer().content().iter();
        cells
            .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
            .count()
    };
    assert_eq!(colours(false), 0);
    assert!(colours(true) > 0);
}

#[test]
fn the_counter_warns_of_what_a_lockstep_client_does_not_read() {
    let mut desk = desk("listeners/chat", "ann");
    desk.press(Key::Enter, now());
    desk.press(Key::Paste("x".repeat(1_025)), now());
    let rule = &lines(&desk, 80, 24)[21];
    assert!(rule.ends_with("1025/196608 B utf-8 over 1024! ─"), "{rule}");
}

#[test]
fn a_break_is_told_and_what_was_typed_is_kept() {
    let mut desk = desk("listeners/chat", "ann");
    desk.press(Key::Enter, now());
    desk.press(Key::Char('a'), now());
    let why = "gone\u{1b}[2J".to_owned();
    let pause = Duration::from_secs(4);
    desk.hear(News::Lost { why, pause }, now());
    desk.press(Key::Char('b'), now());
    let shown = lines(&desk, 80, 24);
    assert_eq!(shown[22], "> ab");
    assert_eq!(shown[23], "LOST, again in 4s: gone\\u{1b}[2J · http://desk");
    desk.press(Key::Enter, now());
    assert!(desk.take_asks().is_empty());
    assert_eq!(
        lines(&desk, 80, 24)[23],
        "! not connected; what you type is kept"
    );
    desk.hear(News::Attached, now());
    desk.hear(
        event(Event::Conversation(conversation("n-1", Some(101), ""))),
        now(),
    );
    desk.hear(event(Event::Gap(api::Gap { missed: 7 })), now());
    let shown = lines(&desk, 80, 24);
    assert!(
        shown[5].ends_with("── 7 events were missed here ──"),
        "{shown:?}"
    );
    assert_eq!(shown[22], "> ab");
}

/// Whatever keys and sizes there are, nothing panics and nothing hostile reaches a cell.
fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        any::<char>().prop_map(Key::Char),
        ".{0,40}".prop_map(Key::Paste),
        prop::sample::select(
            "abcdefghijklmnopqrstuvwxyzCKGy?/"
                .chars()
                .collect::<Vec<_>>()
        )
        .prop_map(Key::Char),
        prop::sample::select("celnrzuwka".chars().collect::<Vec<_>>()).prop_map(Key::Ctrl),
        prop::sample::select(vec![
            Key::Enter,
            Key::Escape,
            Key::Tab,
            Key::Up,
            Key::Down,
            Key::PageUp,
            Key::PageDown,
            Key::Home,
            Key::End,
            Key::Backspace,
            Key::Delete,
            Key::Left,
            Key::Right
        ]),
    ]
}

proptest! {
    #[test]
    fn no_key_and_no_size_is_too_much(
        keys in prop::collection::vec(any_key(), 0..40),
        width in 1u16..130,
        height in 1u16..40,
        hostile in any::<String>(),
    ) {
        let mut desk = desk("listeners/chat", "ann");
        let mut message = said(3, Author::Peer, &hostile);
        message.conversation = "listeners/chat/conversations/n-1".into();
        desk.hear(event(Event::Message(message)), now());
        for key in keys {
            desk.press(key, now());
            desk.take_asks();
        }
        let terminal = drawn(&desk, width, height, true);
        let cells = terminal.backend().buffer().content().iter();
        let control = |cell: &&ratatui::buffer::Cell| cell.symbol().chars().any(char::is_control);
        prop_assert_eq!(cells.filter(control).count(), 0);
    }
}
