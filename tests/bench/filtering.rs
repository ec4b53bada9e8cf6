//! Filters of lists and watches: read once, then asked for every item and every event.

use divan::{Bencher, black_box};
use switchboard::grpc::Filter;
use switchboard::grpc::api::{Listener, ListenerStatus, listener};

const SHORT: &str = "state = STATE_ACTIVE";
const LONG: &str = r#"(state = STATE_ACTIVE OR state = STATE_PAUSED) AND labels.team = "edge" AND NOT bind : ":80" AND status.active_sessions > 10"#;

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

#[divan::bench(args = [SHORT, LONG])]
fn read(text: &str) -> Filter {
    Filter::read::<Listener>("filter", text).unwrap()
}

#[divan::bench(args = ["", SHORT, LONG])]
fn admits(bencher: Bencher<'_, '_>, text: &str) {
    let filter = Filter::read::<Listener>("filter", text).unwrap();
    let message = edge();
    assert!(filter.admits(&message));
    bencher.bench_local(|| filter.admits(black_box(&message)));
}
