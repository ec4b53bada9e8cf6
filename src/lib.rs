//! Switchboard: a process that runs socket listeners, and is run from outside.
//!
//! ```text
//!  8  main, cli          arguments in, exit code out; every client of the control plane
//!  7  app                binds, runs, drains
//!  6  configuration      what should be: layers, changes at run time, reload
//!  5  settings           the whole file's shape
//!  4  grpc, http         translate, and nothing else
//!  3  supervisor         named listeners and their lives
//!  2  protocol           what is said on a socket: ack, chat, shell, uppercase
//!  1  net                sockets, sessions, limits, drain; knows no protocol
//!  0  cage, config, store, telemetry   know nothing of this service
//! ```
//!
//! A floor uses only lower ones. What holds everywhere:
//!
//! - Only `grpc` and the client side of `cli` name generated types.
//! - One accept loop, one datagram loop, one drain, one error table, one escaper, one place that
//!   names metrics.
//! - A panic ends one session or one call. No lock is held across an await, no queue is without a
//!   bound, and every task has somebody who waits for it.
//! - What a client sends reaches a log or a terminal only through `telemetry::escape`; the text of
//!   commands and of chats reaches no log, span or metric at all.
//!
//! How a protocol is added stands in the README.

pub mod app;
pub mod cage;
pub mod cli;
pub mod config;
pub mod configuration;
pub mod grpc;
pub mod http;
pub mod net;
pub mod protocol;
pub mod settings;
pub mod store;
pub mod supervisor;
pub mod telemetry;
