//! Filters of lists and watches: read once, then asked for every item and every event.

use divan::{Bencher, black_box};
use switchboard::grpc::Filter;
use switchboard::grpc::api::{Listener, ListenerStatus, listener};

const NOTHING: &str = "";
const STATE: &str = "state = STATE_ACTIVE";
const FIVE: &str = r#"(state = STATE_ACTIVE OR state = STATE_PAUSED) AND labels.team = "edge" AND NOT bind : ":80"
    AND status.active_sessions > 10"#;

fn edge() -> Listener {
    Listener {
        name: "listeners/edge".to_owned(),
        bind: "192.0.2.1:7000".to_owned(),
        labels: [("team".to_owned(), "edge".to_owned())].into(),
        state: listener::State::Active.into(),
        status: Some(ListenerStatus {
            active_sessions: 11,
            ..ListenerStatus::default()
        }),
        ..Listener::default()
    }
}

fn read(bencher: Bencher<'_, '_>, text: &str) {
    bencher.bench_local(|| Filter::read::<Listener>("filter", black_box(text)).unwrap());
}

#[divan::bench]
fn read_one_comparison(bencher: Bencher<'_, '_>) {
    read(bencher, STATE);
}

#[divan::bench]
fn read_five_comparisons(bencher: Bencher<'_, '_>) {
    read(bencher, FIVE);
}

fn admits(bencher: Bencher<'_, '_>, text: &str) {
    let filter = Filter::read::<Listener>("filter", text).unwrap();
    let message = edge();
    assert!(filter.admits(&message));
    bencher.bench_local(|| filter.admits(black_box(&message)));
}

#[divan::bench]
fn admits_by_nothing(bencher: Bencher<'_, '_>) {
    admits(bencher, NOTHING);
}

#[divan::bench]
fn admits_by_one_comparison(bencher: Bencher<'_, '_>) {
    admits(bencher, STATE);
}

#[divan::bench]
fn admits_by_five_comparisons(bencher: Bencher<'_, '_>) {
    admits(bencher, FIVE);
}
