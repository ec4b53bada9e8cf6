//! The keys of attributes, and the words that their values are from.
//!
//! Every set of words is closed: what a client sends is never a value. Where the words are many and of another floor,
//! such as the reasons of refusals, they are not repeated here; they are words of the code all the same.

use super::super::Labels;
use opentelemetry::{KeyValue, StringValue};

/// The attribute that names the listener that a series belongs to.
pub const LISTENER: &str = "switchboard.listener.name";
pub(in super::super) const PROTOCOL: &str = "switchboard.listener.protocol";
pub(in super::super) const TRANSPORT: &str = "network.transport";
pub(in super::super) const NETWORK: &str = "network.type";
/// The attribute that says which way something went: `receive` or `transmit`.
pub const IO_DIRECTION: &str = "network.io.direction";
pub(in super::super) const ERROR_TYPE: &str = "error.type";
pub(in super::super) const RPC_SYSTEM: &str = "rpc.system.name";
pub(in super::super) const RPC_METHOD: &str = "rpc.method";
/// Renamed `rpc.status_code` by semantic-conventions#3921, which no release carries yet.
pub(in super::super) const RPC_STATUS: &str = "rpc.response.status_code";
pub(in super::super) const COMMAND_TRUNCATED: &str = "switchboard.command.truncated";

/// The attribute set of everything that belongs to a listener.
pub(in super::super) fn listener_attributes(labels: &Labels) -> [KeyValue; 4] {
    [
        KeyValue::new(LISTENER, StringValue::from(labels.listener.clone())),
        KeyValue::new(PROTOCOL, labels.protocol),
        KeyValue::new(TRANSPORT, labels.transport),
        KeyValue::new(NETWORK, labels.network),
    ]
}

/// An attribute that points of an instrument may carry besides their listener's.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Attribute {
    pub(in super::super) key: &'static str,
    /// Every value; none where the words are another floor's.
    pub(in super::super) values: &'static [&'static str],
}

const fn of(key: &'static str, values: &'static [&'static str]) -> Attribute {
    Attribute { key, values }
}

pub(super) const STATE: Attribute = of(
    "switchboard.listener.state",
    &[
        "active", "paused", "draining", "stopping", "stopped", "failed",
    ],
);
pub(super) const DIRECTION: Attribute = of(IO_DIRECTION, &["receive", "transmit"]);
/// Why: a word of whoever counts.
pub(super) const ERROR: Attribute = of(ERROR_TYPE, &[]);
pub(super) const TURNED_AWAY: Attribute = of(
    ERROR_TYPE,
    &[
        "paused",
        "draining",
        "max_sessions",
        "per_source",
        "accept_rate",
        "denied",
        "banned",
        "descriptors",
    ],
);
pub(super) const NO_ROOM: Attribute = of(ERROR_TYPE, &["request_rate", "max_calls", "max_streams"]);
pub(super) const CLOSE_REASON: Attribute = of(
    "switchboard.session.close_reason",
    &[
        "client_closed",
        "client_reset",
        "idle",
        "max_age",
        "bad_frame",
        "message_too_large",
        "slow_consumer",
        "rate_limited",
        "denied",
        "limit",
        "kicked",
        "drained",
        "completed",
        "internal",
    ],
);
pub(super) const COMMAND_EXIT: Attribute = of(
    "switchboard.command.exit_code",
    &["0", "1", "126", "127", "signal", "other"],
);
pub(super) const TRUNCATED: Attribute = of(COMMAND_TRUNCATED, &["false", "true"]);
pub(super) const DRAIN_OUTCOME: Attribute = of(
    "switchboard.drain.outcome",
    &["completed", "deadline", "cancelled"],
);
pub(super) const SYSTEM: Attribute = of(RPC_SYSTEM, &["grpc"]);
pub(super) const METHOD: Attribute = of(RPC_METHOD, &[]);
pub(super) const STATUS: Attribute = of(RPC_STATUS, &[]);
pub(super) const SIGNAL: Attribute = of(
    "switchboard.telemetry.signal",
    &["traces", "metrics", "logs"],
);
pub(super) const CPU_MODE: Attribute = of("cpu.mode", &["user", "system"]);
pub(super) const SWITCH: Attribute =
    of("process.context_switch.type", &["voluntary", "involuntary"]);
pub(super) const FAULT: Attribute = of("system.paging.fault.type", &["major", "minor"]);
