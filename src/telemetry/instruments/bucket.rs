//! The upper bounds of the distributions' buckets, each part of its bucket.

/// The buckets of `rpc.server.call.duration` in the semantic conventions, in seconds.
pub(super) const CALL: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// The same, and on to where a long command's time-out may lie.
pub(super) const COMMAND: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Kestrel's buckets for connections, and on to a day: an operator's conversation lasts.
pub(super) const SESSION: &[f64] = &[
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1800.0, 3600.0,
    21600.0, 86400.0,
];
/// Few, because every listener has them all the time: 200 listeners are to fit into a scrape of 1 MiB.
pub(super) const SETUP: &[f64] = &[0.000_025, 0.000_1, 0.000_5, 0.0025, 0.01, 0.05, 0.25, 1.0];
/// A message takes microseconds; a full desk, a queue or a busy processor takes more.
pub(super) const MESSAGE: &[f64] = &[
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_1,
    0.001,
    0.01,
    0.1,
];
/// From loopback to the other side of the world by satellite.
pub(super) const ROUND_TRIP: &[f64] = &[
    0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
];
pub(super) const DRAIN: &[f64] = &[
    0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
];
/// People answer: from at once to an hour.
pub(super) const RESPONSE: &[f64] = &[
    1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];
pub(super) const OUTPUT: &[f64] = &[
    0.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
