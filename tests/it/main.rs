//! Tests of the real binary, one file a promise: each starts `switchboard` on ports of the kernel's choice, talks to it
//! over sockets and through grpcurl, and knows nothing of its insides.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a test that cannot go on has failed"
)]

mod ack;
mod chat;
mod commands;
mod configuration;
mod control;
mod drain;
mod durable;
mod house;
mod life;
mod limits;
mod lists;
mod mutations;
mod numbers;
mod reload;
mod server;
mod shell;
mod support;
mod telemetry;
mod trail;
mod update;
mod uppercase;
