//! Micro-benchmarks of what is done for every message, connection, command or event: mostly pure functions, no sockets.
//!
//! `cargo bench` measures, `cargo test --bench hot` only runs each once. What a benchmark is about is asserted where it
//! is set up, so that one that measures something else fails in both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot go on has failed"
)]

mod auditing;
mod counting;
mod filtering;
mod framing;
mod limits;
mod naming;
mod outbox;
mod reporting;
mod uppercase;

use std::time::Duration;

/// How long one benchmark takes at least and at most: its median is steady by then, and all of them are done in seconds.
const TAKES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

fn main() {
    divan::Divan::default()
        .min_time(TAKES[0])
        .max_time(TAKES[1])
        .config_with_args()
        .main();
}
