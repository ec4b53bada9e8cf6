//! Watches: the state, then every change, in order, once, resumable; and waits.

mod client;
mod conversations;
mod listeners;
mod sessions;
mod wait;

use switchboard::grpc::api::ChangeType;
use tonic::Code;
use tonic_types::StatusExt;

use super::support::{Service, eventually};
use client::{Answer, Client, Following, reason, sessions};

const ACK: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
    limits = { max_sessions_per_source = 4000 }\n";

/// The value of a metric's series, in the text that Prometheus scrapes.
fn measured(service: &Service, metric: &str, method: &str) -> u64 {
    let (_, text) = service.http_get("/metrics");
    let of = format!("rpc_method=\"switchboard.v1.{method}\"");
    let is_it = |line: &&str| line.starts_with(metric) && line.contains(&of);
    let line = text.lines().find(is_it);
    let line = line.unwrap_or_else(|| panic!("no {metric} of {method}: {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn watches_are_bounded_counted_and_free_their_places() {
    let service = Service::start(ACK);
    let active = || {
        measured(
            &service,
            "switchboard_watch_active",
            "SessionService/WatchSessions",
        )
    };
    let (first, second) = (Client::of(&service), Client::of(&service));
    // No connection carries more than 64 streams.
    let mut open: Vec<_> = (0..64)
        .map(|n| if n % 2 == 0 { &first } else { &second })
        .map(|client| client.sessions(sessions("ack")))
        .collect();
    for watch in &open {
        watch.synced();
    }
    assert_eq!(active(), 64);
    let refused = first.sessions(sessions("ack")).end().unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(reason(&refused), "WATCHER_LIMIT");
    let details = refused.get_error_details();
    assert!(details.quota_failure().is_some() && details.retry_info().is_some());
    open.pop();
    eventually("the place is free", || active() == 63);
    open.push(first.sessions(sessions("ack")));
    open.last().unwrap().synced();
}

#[test]
fn a_process_that_goes_ends_every_watch_and_says_why() {
    let service = Service::start(ACK);
    let (first, second) = (Client::of(&service), Client::of(&service));
    let watches: Vec<_> = (0..50)
        .map(|n| if n % 2 == 0 { &first } else { &second })
        .map(|client| client.sessions(sessions("-")))
        .collect();
    let listeners = first.listeners("");
    for watch in &watches {
        watch.synced();
    }
    listeners.synced();
    service.terminate();
    // It is told to its end what the drain does.
    let states: Vec<_> = listeners
        .until_end()
        .into_iter()
        .map(|told| told.listener.unwrap().state().as_str_name())
        .collect();
    assert_eq!(states, ["STATE_DRAINING", "STATE_STOPPED"]);
    for watch in watches {
        let end = watch.end().unwrap_err();
        assert_eq!(end.code(), Code::Unavailable);
        assert_eq!(reason(&end), "SERVER_DRAINING");
    }
    assert_eq!(service.wait().code, 0);
}

/// Two streams of answers that must be the same from some place on.
fn same<A: Answer>(a: &[A], b: &[A]) {
    let short = |all: &[A]| -> Vec<(ChangeType, String)> {
        all.iter().map(|told| (told.kind(), told.name())).collect()
    };
    assert_eq!(short(a), short(b));
}

/// So many answers, in their order.
fn take<A: Answer>(watch: &Following<A>, count: usize) -> Vec<A> {
    (0..count).map(|_| watch.next()).collect()
}
