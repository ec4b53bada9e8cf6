//! Watches of sessions, among them the number: 50,000 that come and go while five watch and one of them stalls.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use switchboard::grpc::api;
use switchboard::grpc::api::ChangeType::{Bookmark, Created, Deleted, Existing};
use switchboard::grpc::api::session_service_client::SessionServiceClient;
use tonic::Code;
use tonic_types::StatusExt;

use super::client::{Answer, Client, Following, reason, resumed, sessions};
use super::{ACK, measured, same, take};
use crate::support::{Service, Talk, eventually};

type Told = api::WatchSessionsResponse;

const ANSWER: &str = "received data!!";

/// Sessions that come and go in the number's test: enough for whoever stalls to miss some; all with `SWITCHBOARD_SOAK=1`.
fn many() -> usize {
    if std::env::var("SWITCHBOARD_SOAK").is_ok_and(|soak| soak == "1") {
        50_000
    } else {
        8_700
    }
}

/// A line of `/proc/PID/status`, in KiB.
fn memory(service: &Service, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A session that has its answer.
fn talk(service: &Service) -> Talk {
    let mut talk = service.talk("ack");
    talk.send("hello");
    talk.expect(ANSWER);
    talk
}

/// Reads `count` events as they come.
fn follow(watch: &Following<Told>, count: usize, read: &AtomicUsize) -> Vec<Told> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let told = watch.change();
        assert_eq!(told.dropped_events, 0, "after {}", all.len());
        all.push(told);
        read.fetch_add(1, Ordering::Relaxed);
    }
    all
}

/// Sessions come and go, from four threads, never so far ahead of `readers` that a slow machine makes one of them fall
/// behind.
fn churn(service: &Service, count: usize, readers: &[AtomicUsize]) {
    let begun = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let begun = begun.fetch_add(1, Ordering::Relaxed);
                    if begun >= count {
                        return;
                    }
                    while readers
                        .iter()
                        .any(|read| read.load(Ordering::Relaxed) + 12_000 < 2 * begun)
                    {
                        thread::yield_now();
                    }
                    talk(service).reset();
                }
            });
        }
    });
}

#[test]
fn four_follow_every_session_and_the_fifth_who_stalls_learns_what_it_missed() {
    let service = Service::start(ACK);
    let clients: Vec<_> = (0..4).map(|_| Client::of(&service)).collect();
    let watches: Vec<_> = clients
        .iter()
        .map(|client| client.sessions(sessions("ack")))
        .collect();
    for watch in &watches {
        watch.synced();
    }
    let slow = Client::with_window(&service, Some(65_535));
    let mut slow_calls = SessionServiceClient::new(slow.channel.clone());
    let mut stalled = slow
        .wait(slow_calls.watch_sessions(sessions("ack")))
        .unwrap();
    let synced = slow.message(&mut stalled).unwrap();

    let (before, began, count) = (memory(&service, "VmRSS"), Instant::now(), many());
    let readers: [AtomicUsize; 4] = Default::default();
    let told: Vec<Vec<Told>> = thread::scope(|scope| {
        let reading: Vec<_> = watches
            .into_iter()
            .zip(&readers)
            .map(|(watch, read)| scope.spawn(move || follow(&watch, 2 * count, read)))
            .collect();
        churn(&service, count, &readers);
        let told = reading.into_iter().map(|reading| reading.join().unwrap());
        told.collect()
    });
    let (took, after) = (began.elapsed(), memory(&service, "VmHWM"));

    // Every event, in order, once.
    let mut open = BTreeSet::new();
    let mut closed = 0;
    for event in &told[0] {
        match event.kind() {
            Created => assert!(open.insert(event.name())),
            _ => {
                let session = event.session.as_ref().unwrap();
                assert!(open.remove(&session.name));
                assert_eq!((session.received_messages, session.sent_messages), (1, 1));
                closed += 1;
            }
        }
    }
    assert_eq!((open.len(), closed), (0, count));
    for other in &told[1..] {
        same(&told[0], other);
    }

    // Who stalled is told how many it missed, and what it gets then is the rest, without another gap.
    let (mut missed, mut got, mut last) = (0, Vec::new(), synced.clone());
    while got.len() + missed < 2 * count {
        last = slow.message(&mut stalled).unwrap();
        missed += usize::try_from(last.dropped_events).unwrap();
        if last.kind() != Bookmark {
            got.push(last.clone());
        }
    }
    assert_eq!(got.len() + missed, 2 * count);
    assert!(missed > 0 && got.len() >= 16_384, "{missed} missed");
    same(&told[0][2 * count - 16_000..], &got[got.len() - 16_000..]);
    let dropped = "switchboard_watch_events_dropped";
    let counted = measured(&service, dropped, "SessionService/WatchSessions");
    assert_eq!(counted, missed as u64);
    drop(stalled);

    // From its last token it goes on right behind; from its first it is told to list again.
    let again = slow.sessions(resumed("ack", last.token()));
    talk(&service).reset();
    assert_eq!(
        [again.change().kind(), again.change().kind()],
        [Created, Deleted]
    );
    let expired = slow.sessions(resumed("ack", synced.token())).end();
    let expired = expired.unwrap_err();
    assert_eq!(expired.code(), Code::OutOfRange);
    assert_eq!(reason(&expired), "WATCH_RESUME_EXPIRED");
    let oldest = &expired.get_details_error_info().unwrap().metadata["oldest_token"];
    let oldest = slow.sessions(resumed("ack", oldest)).next();
    let place = told[0]
        .iter()
        .position(|e| (e.kind(), e.name()) == (oldest.kind(), oldest.name()));
    assert!(place.is_some_and(|place| place + 16_384 >= 2 * count));

    let grown = after.saturating_sub(before) / 1_024;
    println!("{count} sessions in {took:.1?}, {missed} events missed, {grown} MiB more");
    assert!(grown < 24, "{grown} MiB more");
}

#[test]
fn a_snapshot_while_sessions_come_and_go_lacks_none_and_shows_none_twice() {
    let service = Service::start(ACK);
    let client = Client::of(&service);
    // Several pages of them, of which some leave meanwhile.
    let mut stay: Vec<_> = (0..400).map(|_| talk(&service)).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    talk(&service).reset();
                }
            });
        }
        let mut watches = Vec::new();
        for _ in 0..12 {
            watches.push(client.sessions(sessions("-")));
            stay.drain(..20).for_each(Talk::reset);
        }
        over.store(true, Ordering::Relaxed);
        let live = || client.live("ack").into_iter().collect::<BTreeSet<_>>();
        eventually("those left are those that stay", || {
            live().len() == stay.len()
        });
        let live = live();
        for watch in watches {
            let mut known = BTreeSet::new();
            let mut synced = false;
            while !synced || known != live {
                let told = watch.next();
                assert_eq!(told.dropped_events, 0);
                match told.kind() {
                    Existing => assert!(!synced && known.insert(told.name())),
                    Created => assert!(known.insert(told.name())),
                    Deleted => assert!(known.remove(&told.name())),
                    _ => synced = true,
                }
            }
        }
    });
}

#[test]
fn from_every_token_the_changes_go_on_right_behind() {
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let watch = client.sessions(sessions("ack"));
    let (_, synced) = watch.synced();
    for _ in 0..5 {
        talk(&service).reset();
    }
    let all: Vec<_> = std::iter::once(synced).chain(take(&watch, 10)).collect();
    drop(watch);
    for (place, told) in all.iter().enumerate() {
        let rest = client.sessions(resumed("ack", told.token()));
        same(&all[place + 1..], &take(&rest, 10 - place));
        assert!(rest.ready().is_none());
    }
}

#[test]
fn a_token_fits_its_own_watch_in_its_own_process() {
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let (_, synced) = client.sessions(sessions("ack")).synced();
    let token = synced.token();
    let filtered = api::WatchSessionsRequest {
        filter: "received_bytes > 7".into(),
        ..resumed("ack", token)
    };
    for wrong in [resumed("ack", "garbage"), resumed("-", token), filtered] {
        let refused = client.sessions(wrong).end().unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(reason(&refused), "RESUME_TOKEN_INVALID");
    }
    let other = Service::start(ACK);
    let expired = Client::of(&other).sessions(resumed("ack", token)).end();
    let expired = expired.unwrap_err();
    assert_eq!(expired.code(), Code::OutOfRange);
    assert_eq!(reason(&expired), "WATCH_RESUME_EXPIRED");

    let absent = client.sessions(sessions("absent")).end().unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    let filter = api::WatchSessionsRequest {
        filter: "nonsense = 1".into(),
        ..sessions("ack")
    };
    let refused = client.sessions(filter).end().unwrap_err();
    assert_eq!(reason(&refused), "FILTER_INVALID");
}

#[test]
fn a_filter_hears_of_both_ends_and_of_nothing_else() {
    let service = Service::start(ACK);
    let client = Client::of(&service);
    let watch = |filter: &str| {
        let request = api::WatchSessionsRequest {
            filter: filter.into(),
            ..sessions("ack")
        };
        let watch = client.sessions(request);
        let (existing, synced) = watch.synced();
        assert!(existing.is_empty());
        (watch, synced)
    };
    let (active, _) = watch("state = STATE_ACTIVE");
    let (kicked, synced) = watch("close_reason = CLOSE_REASON_KICKED");
    talk(&service).reset();
    let mut last = talk(&service);
    let told = take(&active, 3);
    let name = told
        .iter()
        .filter(|told| told.kind() == Created)
        .map(Answer::name)
        .next_back()
        .unwrap();
    let mut calls = SessionServiceClient::new(client.channel.clone());
    let request = api::CloseSessionRequest {
        name: name.clone(),
        ..api::CloseSessionRequest::default()
    };
    client.wait(calls.close_session(request)).unwrap();
    last.expect_closed();
    for (watch, whose) in [(&active, "of the live"), (&kicked, "of the kicked")] {
        let told = watch.change();
        assert_eq!(
            (told.kind(), told.name()),
            (Deleted, name.clone()),
            "{whose}"
        );
        let session = told.session.unwrap();
        assert_eq!(session.close_reason().as_str_name(), "CLOSE_REASON_KICKED");
        assert_eq!(session.received_bytes, 5);
    }
    // Events that it does not want give it a fresh token still.
    for _ in 0..150 {
        talk(&service).reset();
    }
    let bookmark = kicked.next();
    assert_eq!(bookmark.kind(), Bookmark);
    assert_ne!(bookmark.token(), synced.token());
}
