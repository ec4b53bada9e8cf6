//! What is seen, and what keys do, at every size and whatever the service says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use prost_types::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::super::exit::Failure;
use super::super::stage::{Connection, Key, Leave, Theme};
use super::act::Act;
use super::figures::{Figures, Pace};
use super::happening::Happening;
use super::link::News;
use super::model::{Dialog, Seat, Top};
use super::pane::Tab;
use super::read::{Lists, Page, Sample, Server};
use super::view::draw;
use crate::grpc::api;
use api::listener::State;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000)
}

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn listener(id: &str, state: State, sessions: u32) -> api::Listener {
    api::Listener {
        name: format!("listeners/{id}"),
        bound: "127.0.0.1:8080".into(),
        state: state.into(),
        transport: api::Transport::Tcp.into(),
        protocol: Some(api::listener::Protocol::Ack(api::AckProtocol::default())),
        status: Some(api::ListenerStatus {
            active_sessions: sessions,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn session(id: &str, received_bytes: u64) -> api::Session {
    api::Session {
        name: format!("listeners/a/sessions/{id}"),
        peer: "127.0.0.1:9".into(),
        state: api::session::State::Active.into(),
        open_time: at(990),
        received_bytes,
        ..Default::default()
    }
}

fn sample(time: SystemTime, sessions: Vec<api::Session>) -> Sample {
    let pace = Pace {
        received_messages: 1_234.0,
        received_bytes: 2_048.0,
        ..Pace::default()
    };
    let mut failed = listener("c", State::Failed, 0);
    failed.last_failure = Some(api::FailureInfo {
        reason: "ADDRESS_IN_USE".into(),
        message: "\u{1b}]0;evil\u{7}".into(),
        ..Default::default()
    });
    Sample {
        time,
        figures: Figures {
            has_rates: true,
            processors: 0.5,
            waiting: 2.0,
            longest_wait: 61.0,
            pace,
            paces: [("a".to_owned(), pace)].into(),
            ..Figures::default()
        },
        listeners: vec![
            listener("b", State::Paused, 7),
            listener("a", State::Active, 3),
            failed,
        ],
        lists: Lists {
            sessions: Some(Page {
                total: 15_000,
                items: sessions,
            }),
            conversations: None,
        },
    }
}

fn heard(top: &mut Top, sample: Sample) {
    let time = sample.time;
    top.hear(News::Sample(Box::new(sample)), time);
}

/// Three listeners, two of 15,000 sessions.
fn top() -> Top {
    let mut top = Top::new(Seat {
        endpoint: "http://control:1".into(),
        interval: Duration::from_secs(2),
        read_only: false,
        limit: 200,
    });
    let info = api::GetServerInfoResponse {
        version: "1.0".into(),
        start_time: at(400),
        ..Default::default()
    };
    let node = "n".to_owned();
    top.hear(News::Found(Box::new(Server { info, node })), now());
    heard(
        &mut top,
        sample(now(), vec![session("x", 5), session("y", 5)]),
    );
    top
}

fn press(top: &mut Top, keys: &str) -> Option<Leave> {
    keys.chars()
        .map(|c| top.press(Key::Char(c), now()))
        .last()
        .flatten()
}

fn drawn(top: &Top, width: u16, height: u16, colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(top, Theme { colour }, now(), frame))
        .unwrap();
    terminal
}

fn lines(top: &Top, width: u16, height: u16) -> Vec<String> {
    let terminal = drawn(top, width, height, false);
    let buffer = terminal.backend().buffer();
    let row = |y| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(row).collect()
}

#[test]
fn one_look_says_how_the_service_is() {
    let expected = [
        " switchboard n 1.0 · up 10m · http://control:1                         every 2s",
        " cpu 50%  mem 0B  fds 0  workers 0  sessions 10  listeners 1 failed 1 paused",
        " in 1,234 msg/s 2.0K/s  out 0 msg/s 0B/s  waiting 2 (1m)  dropped 0",
        " 1 listeners  2 sessions  3 desk  4 events  3 · by NAME",
        " NAME  STATE   SESSIONS  MSG/S  IN/S  OUT/S  BIND            NOTE",
        " a     active         3  1,234  2.0K     0B  127.0.0.1:8080",
        " b     paused         7      0    0B     0B  127.0.0.1:8080",
        " c     failed         0      0    0B     0B  127.0.0.1:8080  ADDRESS_IN_USE: \\u{",
        "",
        "Enter details · P pause, resume · D drain · s sort · / filter · ? keys · q quit",
    ];
    let shown = lines(&top(), 80, 10);
    for (shown, expected) in shown.iter().zip(expected) {
        assert!(shown.starts_with(expected), "{shown:?} {expected:?}");
    }
}

#[test]
fn rows_are_sorted_filtered_and_selected() {
    let mut top = top();
    let names = |top: &Top| {
        let (rows, total) = top.rows(Tab::Listeners, now());
        let names: Vec<_> = rows.iter().map(|row| row.cells[0].text.clone()).collect();
        (names.concat(), total)
    };
    assert_eq!(names(&top), ("abc".into(), 3));
    press(&mut top, "ss");
    assert_eq!(names(&top).0, "bac", "by sessions");
    press(&mut top, "S");
    assert_eq!(names(&top).0, "cab");
    press(&mut top, "/paus");
    assert_eq!(names(&top), ("b".into(), 3));
    press(&mut top, "q");
    assert_eq!(names(&top).0, "", "letters are text here");
    top.press(Key::Escape, now());
    assert_eq!(names(&top).0, "cab");
    press(&mut top, "j");
    assert_eq!(top.selected(now()).as_deref(), Some("listeners/a"));
}

#[test]
fn what_is_looked_at_is_what_is_read() {
    let mut top = top();
    assert_eq!(top.wanted(), super::read::Wanted::default());
    press(&mut top, "2ssss");
    let asked = top.wanted().sessions.unwrap();
    assert_eq!(asked.order_by, "received_bytes desc");
    assert_eq!((asked.page_size, &*asked.parent), (200, "listeners/-"));
    press(&mut top, "/10.0.");
    assert_eq!(
        top.wanted().sessions.unwrap().filter,
        "name : \"10.0.\" OR peer : \"10.0.\""
    );
    top.press(Key::Enter, now());
    press(&mut top, "3");
    assert!(top.wanted().sessions.is_none() && top.wanted().conversations.is_some());
    press(&mut top, "4");
    assert!(top.wanted().happenings && top.wanted().conversations.is_none());
}

#[test]
fn sessions_have_rates_once_they_were_read_twice() {
    let mut top = top();
    let pace = |top: &Top| top.rows(Tab::Sessions, now()).0[0].cells[6].text.clone();
    assert_eq!(pace(&top), "");
    let later = sample(now() + Duration::from_secs(2), vec![session("x", 2_053)]);
    heard(&mut top, later);
    assert_eq!(pace(&top), "1.0K");
    // Another process counts anew.
    top.hear(News::Found(Box::default()), now());
    heard(
        &mut top,
        sample(now() + Duration::from_secs(4), vec![session("x", 1)]),
    );
    assert_eq!(pace(&top), "");
    press(&mut top, "2");
    assert!(
        lines(&top, 80, 10)[3].contains("1 of 15,000"),
        "and are few of many"
    );
}

#[test]
fn nothing_is_done_before_it_was_confirmed() {
    let mut top = top();
    let pause = Act::Pause("listeners/a".into());
    press(&mut top, "P");
    assert!(matches!(&top.dialog, Some(Dialog::Confirm { act, .. }) if *act == pause));
    let shown = lines(&top, 80, 24).join("\n");
    assert!(shown.contains("switchboard listener pause a --endpoint http://control:1"));
    assert!(shown.contains("its 3 sessions"), "{shown}");
    press(&mut top, "n");
    assert!(top.take_asks().is_empty() && top.dialog.is_none());
    press(&mut top, "Py");
    let asked = top.take_asks().pop().unwrap();
    assert_eq!(asked.act, pause);
    assert!(lines(&top, 80, 24)[23].starts_with("… switchboard listener pause a"));
    top.hear(News::Acted(asked.id, Err("no (WHY)".into())), now());
    assert!(lines(&top, 80, 24)[23].starts_with("! no (WHY) · switchboard listener pause a"));
    // The one below is paused already, and no session.
    press(&mut top, "jPy");
    assert_eq!(top.take_asks()[0].act, Act::Resume("listeners/b".into()));
    press(&mut top, "K");
    assert!(top.dialog.is_none() && top.notice(now()).unwrap().is_error);
    press(&mut top, "2Ky");
    assert_eq!(
        top.take_asks()[0].act,
        Act::Close("listeners/a/sessions/x".into())
    );
}

#[test]
fn who_only_looks_does_nothing() {
    let mut top = top();
    top.seat.read_only = true;
    press(&mut top, "PyDy2Ky");
    assert!(top.take_asks().is_empty() && top.dialog.is_none());
    press(&mut top, "?");
    assert!(!lines(&top, 80, 24).join("\n").contains("drain"));
}

#[test]
fn what_is_frozen_stays_and_its_age_is_told() {
    let mut top = top();
    press(&mut top, "p");
    let mut later = sample(now(), Vec::new());
    later.listeners.clear();
    heard(&mut top, later);
    assert_eq!(top.rows(Tab::Listeners, now()).1, 3);
    assert!(lines(&top, 80, 24)[0].contains("FROZEN, 0s old"));
    press(&mut top, "p");
    assert_eq!(top.rows(Tab::Listeners, now()).1, 0);
}

#[test]
fn a_service_that_is_gone_is_shown_as_it_was() {
    let mut top = top();
    let (why, pause) = ("refused".to_owned(), Duration::from_secs(3));
    top.hear(News::Lost { why, pause }, now());
    let shown = lines(&top, 80, 24);
    assert!(
        shown[0].contains("LOST, 0s old, again in 3s"),
        "{}",
        shown[0]
    );
    assert!(shown[23].starts_with("refused") && shown[5].contains("active"));
    press(&mut top, "P");
    assert!(top.dialog.is_none(), "nobody would hear it");
    heard(&mut top, sample(now(), Vec::new()));
    assert_eq!(top.connection, Connection::Open);
    let later = now() + Duration::from_secs(6);
    assert_eq!(top.stale(later), Some(Duration::from_secs(6)));
    top.hear(News::Ended(Failure::error("x")), now());
}

#[test]
fn events_are_remembered_newest_first_and_not_for_ever() {
    let mut top = top();
    for number in 0..600 {
        let happening = Happening {
            time: Some(now()),
            change: "created".into(),
            name: format!("listeners/l{number}"),
            detail: "active".into(),
            missed: u64::from(number == 599),
        };
        top.hear(News::Happened(happening), now());
    }
    let (rows, total) = top.rows(Tab::Events, now());
    assert_eq!((total, &*rows[0].cells[2].text), (500, "listeners/l599"));
    assert_eq!(
        rows[0].cells[3].text,
        "active (1 events before it were left out)"
    );
    press(&mut top, "4");
    top.press(Key::Enter, now());
    let shown = lines(&top, 80, 24).join("\n");
    assert!(
        shown.contains("time: 00:16:40.000\n event: created"),
        "{shown}"
    );
}

#[test]
fn details_are_everything_and_scroll() {
    let mut top = top();
    press(&mut top, "jj");
    top.press(Key::Enter, now());
    let shown = |top: &Top| lines(top, 80, 12).join("\n");
    assert!(
        shown(&top).contains("state: STATE_FAILED"),
        "{}",
        shown(&top)
    );
    top.press(Key::PageDown, now());
    assert!(!shown(&top).contains("name: listeners/c\n"));
    // Its text obeys nobody.
    assert!(top.details("listeners/c", now()).contains("\\u001b]0;evil"));
    press(&mut top, "x");
    assert!(top.dialog.is_none());
}

#[test]
fn keys_leave_in_one_press() {
    let mut top = top();
    assert_eq!(press(&mut top, "?q"), None, "the key closes the help");
    assert_eq!(top.press(Key::Ctrl('c'), now()), Some(Leave::Interrupted));
    assert_eq!(press(&mut top, "q"), Some(Leave::Quit));
}

#[test]
fn without_colour_there_is_none() {
    let coloured = |colour| {
        let mut top = top();
        press(&mut top, "P");
        let terminal = drawn(&top, 80, 24, colour);
        let cells = terminal.backend().buffer().content.iter();
        cells.filter(|cell| cell.fg != Color::Reset).count()
    };
    assert_eq!(coloured(false), 0);
    assert!(coloured(true) > 0);
}

proptest! {
    #[test]
    fn it_is_drawn_at_every_size(
        width in 1u16..200,
        height in 1u16..50,
        keys in prop::collection::vec(prop::sample::select(&b"1234sS/pPDKjkGgq?\r\x1b "[..]), 0..12),
        name in ".{0,40}",
    ) {
        let mut top = top();
        let mut strange = session(&name, 1);
        strange.peer.clone_from(&name);
        heard(&mut top, sample(now(), vec![strange]));
        for key in keys {
            let key = match key {
                b'\r' => Key::Enter,
                0x1b => Key::Escape,
                letter => Key::Char(char::from(letter)),
            };
            top.press(key, now());
        }
        drawn(&top, width, height, true);
    }
}
