//! Who may come in and how often: asked for every connection and every datagram.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use divan::{Bencher, black_box};
use ipnet::{IpNet, Ipv4Net};
use switchboard::net::{Networks, Rate, RateKey, RateTable, TokenBucket, canonical};

/// A rate that nobody reaches, and one that everybody is over.
const HIGH: f64 = 1e9;
const LOW: f64 = 1.0;

fn source(n: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 | n).to_be_bytes())
}

#[divan::bench]
fn bucket(bencher: Bencher<'_, '_>) {
    let (bucket, now) = (TokenBucket::new(Rate::new(HIGH)), Instant::now());
    bencher.bench_local(|| bucket.take(black_box(now)));
}

#[divan::bench]
fn rate_passes(bencher: Bencher<'_, '_>) {
    let table = RateTable::new(Rate::new(HIGH));
    let take = || table.take(RateKey::address(black_box(source(1))), Instant::now());
    assert!(take());
    bencher.bench_local(take);
}

#[divan::bench]
fn rate_refuses(bencher: Bencher<'_, '_>) {
    let (table, now) = (RateTable::new(Rate::new(LOW)), Instant::now());
    let take = || table.take(RateKey::address(black_box(source(1))), now);
    assert!(take() && !take());
    bencher.bench_local(take);
}

/// The bucket of all of the peer's /24.
#[divan::bench]
fn rate_of_a_network(bencher: Bencher<'_, '_>) {
    let (table, now) = (RateTable::new(Rate::new(HIGH)), Instant::now());
    let take = || table.take(RateKey::network(black_box(source(1))), now);
    assert!(take());
    bencher.bench_local(take);
}

/// As many sources in turn as there are; past a few thousand each takes over the place of another.
#[divan::bench(args = [1_000, 100_000])]
fn rate_of_many_sources(bencher: Bencher<'_, '_>, sources: u32) {
    let (table, now) = (RateTable::new(Rate::new(HIGH)), Instant::now());
    let next = Cell::new(0);
    bencher.bench_local(|| {
        next.set((next.get() + 1) % sources);
        table.take(RateKey::address(source(next.get())), now)
    });
}

/// So many networks of 256 addresses each, in 10.0.0.0/8.
fn networks(count: u32) -> Networks {
    let network = |n: u32| Ipv4Net::new((0x0a00_0000 | n << 8).into(), 24).unwrap();
    (0..count).map(|n| IpNet::V4(network(n))).collect()
}

#[divan::bench(args = [1, 1_000])]
fn networks_hold(bencher: Bencher<'_, '_>, count: u32) {
    let networks = networks(count);
    assert!(networks.hold(source(7)));
    bencher.bench_local(|| networks.hold(black_box(source(7))));
}

#[divan::bench(args = [0, 1, 1_000])]
fn networks_hold_not(bencher: Bencher<'_, '_>, count: u32) {
    let (networks, stranger) = (networks(count), IpAddr::from([192, 0, 2, 1]));
    assert!(!networks.hold(stranger));
    bencher.bench_local(|| networks.hold(black_box(stranger)));
}

/// One of each prefix length, which is as slow as it gets.
#[divan::bench]
fn networks_of_every_length(bencher: Bencher<'_, '_>) {
    let network = |length| {
        Ipv4Net::new(0x0a00_0000_u32.into(), length)
            .unwrap()
            .trunc()
    };
    let networks: Networks = (8..=32).map(|length| IpNet::V4(network(length))).collect();
    let stranger = IpAddr::from([192, 0, 2, 1]);
    assert!(networks.hold(source(0)) && !networks.hold(stranger));
    bencher.bench_local(|| networks.hold(black_box(stranger)));
}

#[divan::bench(args = ["192.0.2.1:80", "[2001:db8::1]:80", "[::ffff:192.0.2.1]:80"])]
fn canonical_address(bencher: Bencher<'_, '_>, text: &str) {
    let address: SocketAddr = text.parse().unwrap();
    assert!(!canonical(address).to_string().contains("ffff"));
    bencher.bench_local(|| canonical(black_box(address)));
}
