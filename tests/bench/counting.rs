//! What is counted for every message, and what is told to whoever watches.

use divan::{Bencher, black_box};
use switchboard::net::{Counters, Feed};

#[divan::bench]
fn message_received(bencher: Bencher<'_, '_>) {
    let counters = Counters::default();
    bencher.bench_local(|| counters.ended.received(black_box(64)));
    assert!(counters.ended.totals().received_messages > 0);
}

/// Two threads that count on one line of the cache, for long enough to meet there.
#[divan::bench(threads = 2, sample_size = 100_000)]
fn message_received_by_two(bencher: Bencher<'_, '_>) {
    let counters = Counters::default();
    bencher.bench(|| counters.ended.received(black_box(64)));
}

/// Reasons are searched in the order of their first use; this one is the last of eight.
#[divan::bench]
fn refusal(bencher: Bencher<'_, '_>) {
    let counters = Counters::default();
    let reasons = ["a", "b", "c", "d", "e", "f", "g", "rate_limited"];
    for reason in reasons {
        counters.refuse(reason);
    }
    assert_eq!(counters.refusals().len(), reasons.len());
    bencher.bench_local(|| counters.refuse(black_box("rate_limited")));
}

#[divan::bench]
fn publish_while_nobody_follows(bencher: Bencher<'_, '_>) {
    let feed = Feed::<u64>::new(1_024);
    bencher.bench_local(|| feed.publish(|| 1));
    assert!(!feed.is_kept());
}

#[divan::bench(args = [1, 100])]
fn publish_and_take(bencher: Bencher<'_, '_>, followers: usize) {
    let feed = Feed::<u64>::new(1_024);
    let mut all: Vec<_> = (0..followers).map(|_| feed.follow()).collect();
    bencher.bench_local(|| {
        feed.publish(|| 1);
        assert!(all.iter_mut().all(|follower| follower.take().is_some()));
    });
}
