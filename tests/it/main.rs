//! Tests of the real binary, one file a promise: each starts `switchboard` on ports of the kernel's choice, talks to it
//! over sockets and through grpcurl, and knows nothing of its insides.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test that cannot go on has failed"
)]

mod ack;
mod bans;
mod cancelled;
mod chat;
mod close;
mod collector;
mod commands;
mod completion;
mod configuration;
mod control;
mod crowd;
mod desk;
mod desk_flood;
mod desk_seat;
mod desk_text;
mod desk_tui;
mod drain;
mod durable;
mod ends;
mod escape;
mod facts;
mod flood;
mod follow;
mod frames;
mod hostile;
mod house;
mod leave;
mod life;
mod limits;
mod lists;
mod logs;
mod loris;
mod metrics;
mod mutations;
mod numbers;
mod pause;
mod record;
mod reload;
mod sandbox;
mod served;
mod server;
mod shell;
mod starved;
mod support;
mod tap;
mod telemetry;
mod trail;
mod update;
mod uppercase;
mod watch;
