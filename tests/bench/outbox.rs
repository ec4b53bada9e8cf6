//! Messages queued for peers by other tasks: room claimed, queued, the peer's task woken. Nobody writes them out here.

use std::sync::Arc;

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use switchboard::net::{
    Bans, Closures, Counters, Door, DoorParts, Feed, Limits, Route, Session, Transport, Wire,
};
use switchboard::protocol::{Ground, Protocol, ack};
use switchboard::telemetry::Settings;

use crate::reporting::{labels, telemetry};

const MESSAGES: usize = 1_000;

/// Sessions of one listener, each with room for all that a benchmark queues.
fn sessions(count: u32) -> Vec<Arc<Session>> {
    let limits = Limits {
        max_sessions_per_source: count,
        ..Limits::default()
    };
    let door = Door::new(DoorParts {
        labels: labels(),
        bounds: limits.bounds(Transport::Tcp),
        handler: Protocol::Ack(ack::Settings::default())
            .build(&Ground::default())
            .handler,
        bans: Bans::default(),
        counters: Arc::new(Counters::default()),
        closures: Arc::new(Closures::default()),
        feed: Feed::new(1),
        telemetry: telemetry(&Settings::default()),
    });
    let address = "127.0.0.1:9".parse().unwrap();
    let enter = |_| {
        let route = Route::Stream(Wire::default());
        door.admit(&door.terms(), address, address, route, || ())
            .unwrap()
    };
    (0..count).map(enter).collect()
}

/// So many messages of 64 bytes, dealt out to as many sessions.
fn deliver(bencher: Bencher<'_, '_>, count: u32) {
    let message = Bytes::from(vec![b'x'; 64]);
    bencher
        .counter(ItemsCount::new(MESSAGES))
        .with_inputs(|| sessions(count))
        .bench_local_values(|sessions| {
            for session in sessions.iter().cycle().take(MESSAGES) {
                assert!(session.deliver(black_box(&message).clone()));
            }
            sessions
        });
}

#[divan::bench(sample_size = 1, sample_count = 50)]
fn to_one_peer(bencher: Bencher<'_, '_>) {
    deliver(bencher, 1);
}

#[divan::bench(sample_size = 1, sample_count = 50)]
fn to_everyone_of_200(bencher: Bencher<'_, '_>) {
    deliver(bencher, 200);
}
