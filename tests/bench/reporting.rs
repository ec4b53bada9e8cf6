//! What telemetry costs for a message.

use std::net::TcpListener;
use std::time::Duration;

use divan::{Bencher, black_box};
use switchboard::telemetry::{Identity, Labels, Settings, Telemetry, Trace};

pub(crate) fn telemetry(settings: &Settings) -> Telemetry {
    let identity = Identity {
        version: "0",
        node: "bench".to_owned(),
        instance_id: "bench".to_owned(),
    };
    let quiet = Settings {
        log: "off".to_owned(),
        ..settings.clone()
    };
    Telemetry::start(&quiet, &identity).unwrap()
}

pub(crate) fn labels() -> Labels {
    Labels::new("bench".into(), "ack", "tcp", "ipv4")
}

#[divan::bench]
fn message_without_a_collector(bencher: Bencher<'_, '_>) {
    let (telemetry, labels) = (telemetry(&Settings::default()), labels());
    let timed = (0..10_000).filter_map(|_| telemetry.message(&labels, &Trace::default()));
    assert!((20..500).contains(&timed.count()));
    bencher.bench_local(|| telemetry.message(black_box(&labels), &Trace::default()));
}

#[divan::bench]
fn a_session_that_ends(bencher: Bencher<'_, '_>) {
    let (telemetry, labels) = (telemetry(&Settings::default()), labels());
    let open_for = Duration::from_secs(3);
    bencher.bench_local(|| {
        let labels = black_box(&labels);
        telemetry.session_ended(labels, "client_closed", open_for, &Trace::default());
    });
}

/// The median is a message without a span, and the mean has its share of those with one. Nobody takes what is exported.
#[divan::bench]
fn message_at_the_default_sampling(bencher: Bencher<'_, '_>) {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        otlp_endpoint: Some(format!("http://{}", collector.local_addr().unwrap())),
        ..Settings::default()
    };
    let (telemetry, labels) = (telemetry(&settings), labels());
    let sampled = (0..10_000).filter_map(|_| telemetry.message(&labels, &Trace::default()));
    assert!((20..500).contains(&sampled.count()));
    bencher.bench_local(|| telemetry.message(black_box(&labels), &Trace::default()));
}
