//! The one place that names metrics: their names, kinds, units, attributes and buckets.
//!
//! Names follow the OpenTelemetry conventions: no unit and no `_total` in them, because exporters derive both
//! (Prometheus makes `switchboard.session.io` in `By` into `switchboard_session_io_bytes_total`). What belongs to a
//! listener is observed from its own counters at each collection instead of recorded, so a deleted listener's series
//! vanish; only distributions, which cannot be observed, are recorded as they happen. No peer address, session id or
//! text is ever an attribute.

use super::Labels;
use opentelemetry::metrics::{Histogram, Meter};
use opentelemetry::{KeyValue, StringValue};

pub(super) const LISTENER: &str = "switchboard.listener.name";
pub(super) const PROTOCOL: &str = "switchboard.listener.protocol";
pub(super) const TRANSPORT: &str = "network.transport";
pub(super) const NETWORK: &str = "network.type";
pub(super) const ERROR_TYPE: &str = "error.type";
pub(super) const RPC_SYSTEM: &str = "rpc.system.name";
pub(super) const RPC_METHOD: &str = "rpc.method";
/// Renamed `rpc.status_code` by semantic-conventions#3921, which no release carries yet.
pub(super) const RPC_STATUS: &str = "rpc.response.status_code";
pub(super) const CLOSE_REASON: &str = "switchboard.session.close_reason";
pub(super) const DRAIN_OUTCOME: &str = "switchboard.drain.outcome";
pub(super) const COMMAND_EXIT: &str = "switchboard.command.exit_code";
pub(super) const COMMAND_TRUNCATED: &str = "switchboard.command.truncated";

/// How a series' values relate to one another in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives; its rate says something.
    Counter,
    /// Goes up and down, and adds up over listeners.
    UpDownCounter,
    /// Goes up and down, and does not add up.
    Gauge,
}

/// What an observed instrument is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
    /// The key of the attribute that a point may carry besides its listener's.
    pub(super) attribute: &'static str,
    pub(super) description: &'static str,
}

macro_rules! instruments {
    ($($variant:ident = $kind:ident $name:literal, $unit:literal, $attribute:expr, $description:literal;)*) => {
        /// An instrument that is read at each collection.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Instrument {
            $(#[doc = concat!("`", $name, "`, in `", $unit, "`: ", $description)] $variant,)*
        }

        impl Instrument {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),*];

            pub(super) const fn definition(self) -> Definition {
                match self {
                    $(Self::$variant => Definition {
                        name: $name,
                        unit: $unit,
                        kind: Kind::$kind,
                        attribute: $attribute,
                        description: $description,
                    },)*
                }
            }
        }
    };
}

const STATE: &str = "switchboard.listener.state";
const DIRECTION: &str = "network.io.direction";
const CPU_MODE: &str = "cpu.mode";
const SIGNAL: &str = "switchboard.telemetry.signal";
/// The attribute of an instrument that has none of its own.
pub(super) const NONE: &str = "";

/// How the names begin whose points belong to listeners.
pub(super) const OF_LISTENERS: [&str; 4] = [
    "switchboard.listener.",
    "switchboard.session.",
    "switchboard.chat.",
    "switchboard.shell.",
];

instruments! {
    ListenerStatus = UpDownCounter "switchboard.listener.status", "{listener}", STATE,
        "1 for the state that the listener is in, 0 for the others.";
    Connections = Counter "switchboard.listener.connections", "{connection}", ERROR_TYPE,
        "Connections accepted; with error.type, turned away and why.";
    AcceptErrors = Counter "switchboard.listener.accept_errors", "{error}", ERROR_TYPE,
        "Failures of accept itself.";
    AcceptQueueLength = UpDownCounter "switchboard.listener.accept_queue.length", "{connection}", NONE,
        "Connections that wait to be accepted.";
    AcceptQueueLimit = UpDownCounter "switchboard.listener.accept_queue.limit", "{connection}", NONE,
        "Connections that may wait to be accepted.";
    Datagrams = Counter "switchboard.listener.datagrams", "{datagram}", DIRECTION,
        "Datagrams received and sent.";
    DatagramsDropped = Counter "switchboard.listener.datagram.dropped", "{datagram}", ERROR_TYPE,
        "Datagrams that were not answered, and why; receive_buffer: the kernel had no room.";
    SessionsActive = UpDownCounter "switchboard.session.active", "{session}", NONE,
        "Open sessions.";
    SessionsLimit = UpDownCounter "switchboard.session.limit", "{session}", NONE,
        "Sessions that may be open.";
    Messages = Counter "switchboard.session.messages", "{message}", DIRECTION,
        "Messages received and sent.";
    MessagesRefused = Counter "switchboard.session.messages.refused", "{message}", ERROR_TYPE,
        "Messages that were not served as asked, and why.";
    Io = Counter "switchboard.session.io", "By", DIRECTION,
        "Bytes received and sent.";
    SendQueueUsage = UpDownCounter "switchboard.session.send_queue.usage", "By", NONE,
        "Bytes that wait for peers to read, over all sessions.";
    SendQueueLimit = UpDownCounter "switchboard.session.send_queue.limit", "By", NONE,
        "Bytes that may wait for peers to read, over all sessions.";
    Stalls = Counter "switchboard.session.stalls", "{stall}", NONE,
        "Times that a peer did not read and its queue had to wait.";
    ChatWaiting = UpDownCounter "switchboard.chat.waiting", "{conversation}", NONE,
        "Conversations that wait for an operator's answer.";
    ChatLongestWait = Gauge "switchboard.chat.longest_wait", "s", NONE,
        "Age of the oldest message that waits for an answer.";
    ChatUnattended = Counter "switchboard.chat.auto_replies", "{message}", NONE,
        "Messages that the listener answered itself, since no operator did.";
    ChatUnanswered = Counter "switchboard.chat.unanswered", "{message}", NONE,
        "Messages whose peer left without an answer.";
    ChatNotKept = Counter "switchboard.chat.transcript.failures", "{message}", NONE,
        "Messages and answers that could not be entered in a transcript.";
    ShellWorkers = UpDownCounter "switchboard.shell.workers", "{worker}", NONE,
        "Processes that run commands, or wait for some.";
    LauncherRestarts = Counter "switchboard.shell.launcher.restarts", "{restart}", NONE,
        "Launchers that ended or could not start, and were started again.";
    ControlConnections = Counter "switchboard.control.connections", "{connection}", ERROR_TYPE,
        "Connections to the control plane accepted; with error.type, turned away or closed and why.";
    ControlCallsRefused = Counter "switchboard.control.calls.refused", "{call}", ERROR_TYPE,
        "Control calls that found no room, and why.";
    HttpConnections = Counter "switchboard.http.connections", "{connection}", ERROR_TYPE,
        "Connections to the HTTP side accepted; with error.type, turned away or closed and why.";
    WatchesActive = UpDownCounter "switchboard.watch.active", "{stream}", RPC_METHOD,
        "Watches and waits that are open.";
    WatchEventsDropped = Counter "switchboard.watch.events.dropped", "{event}", RPC_METHOD,
        "Events that watches missed because their clients did not read fast enough.";
    ConfigReloads = Counter "switchboard.config.reloads", "{reload}", ERROR_TYPE,
        "Reloads of the configuration; with error.type, those that changed nothing and why.";
    ConfigFailing = UpDownCounter "switchboard.config.reload.failing", "{reload}", NONE,
        "1 while the last reload changed nothing because something was wrong, 0 otherwise.";
    ConfigDrift = UpDownCounter "switchboard.config.drift.count", "{setting}", NONE,
        "Settings that a restart would change, or that keep it from starting.";
    StoreSize = UpDownCounter "switchboard.store.size", "By", NONE,
        "Length of the store's file.";
    StoreWrites = Counter "switchboard.store.writes", "{write}", ERROR_TYPE,
        "Writes that are on disk; with error.type, those that are not and why.";
    StoreCommits = Counter "switchboard.store.commits", "{commit}", NONE,
        "Commits that the writes took.";
    AuditLost = Counter "switchboard.audit.lost", "{event}", NONE,
        "Audit events and commands that are not in the trail; what was changed is in the log.";
    ProcessCpuTime = Counter "process.cpu.time", "s", CPU_MODE,
        "Processor time used.";
    ProcessMemoryUsage = UpDownCounter "process.memory.usage", "By", NONE,
        "Resident memory.";
    ProcessThreadCount = UpDownCounter "process.thread.count", "{thread}", NONE,
        "Threads.";
    ProcessOpenFiles = UpDownCounter "process.unix.file_descriptor.count", "{file_descriptor}", NONE,
        "Open file descriptors.";
    ProcessUptime = Gauge "process.uptime", "s", NONE,
        "Time since telemetry started.";
    TelemetryDropped = Counter "switchboard.telemetry.dropped", "{item}", SIGNAL,
        "Spans, metric exports and log lines that were lost.";
}

/// The attribute set of everything that belongs to a listener.
pub(super) fn listener_attributes(labels: &Labels) -> [KeyValue; 4] {
    [
        KeyValue::new(LISTENER, StringValue::from(labels.listener.clone())),
        KeyValue::new(PROTOCOL, labels.protocol),
        KeyValue::new(TRANSPORT, labels.transport),
        KeyValue::new(NETWORK, labels.network),
    ]
}

/// The recorded distributions.
pub(super) struct Histograms {
    pub(super) session_duration: Histogram<f64>,
    pub(super) session_setup: Histogram<f64>,
    pub(super) command_duration: Histogram<f64>,
    pub(super) command_output: Histogram<f64>,
    pub(super) drain_duration: Histogram<f64>,
    pub(super) first_response: Histogram<f64>,
    pub(super) call_duration: Histogram<f64>,
}

/// The buckets of `rpc.server.call.duration` in the semantic conventions, in seconds.
const CALL: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// The same, and on to where a long command's time-out may lie.
const COMMAND: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Kestrel's buckets for connections, and on to a day: an operator's conversation lasts.
const SESSION: &[f64] = &[
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1800.0, 3600.0,
    21600.0, 86400.0,
];
const SETUP: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.05,
    0.25, 1.0,
];
const DRAIN: &[f64] = &[
    0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
];
/// People answer: from at once to an hour.
const RESPONSE: &[f64] = &[
    1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];
const OUTPUT: &[f64] = &[
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

impl Histograms {
    pub(super) fn new(meter: &Meter) -> Self {
        let make = |name: &'static str, unit: &'static str, buckets: &[f64], text: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit(unit)
                .with_boundaries(buckets.to_vec())
                .with_description(text)
                .build()
        };
        Self {
            session_duration: make(
                "switchboard.session.duration",
                "s",
                SESSION,
                "How long sessions stayed, and why they ended.",
            ),
            session_setup: make(
                "switchboard.session.setup.duration",
                "s",
                SETUP,
                "From accept until a session is ready.",
            ),
            command_duration: make(
                "switchboard.command.duration",
                "s",
                COMMAND,
                "How long commands ran, and how they ended.",
            ),
            command_output: make(
                "switchboard.command.output",
                "By",
                OUTPUT,
                "What commands wrote.",
            ),
            drain_duration: make(
                "switchboard.listener.drain.duration",
                "s",
                DRAIN,
                "How long drains took, and how they ended.",
            ),
            first_response: make(
                "switchboard.chat.first_response",
                "s",
                RESPONSE,
                "From a message until an operator's answer, the first of a conversation.",
            ),
            call_duration: make(
                "rpc.server.call.duration",
                "s",
                CALL,
                "How long control calls took.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_carry_no_unit() {
        let mut seen = HashSet::new();
        for (index, instrument) in Instrument::ALL.iter().enumerate() {
            let Definition { name, unit, .. } = instrument.definition();
            assert_eq!(*instrument as usize, index);
            assert!(seen.insert(name), "{name} twice");
            assert!(
                unit == "s" || unit == "By" || unit.starts_with('{'),
                "{name}: {unit}"
            );
            for bad in ["_total", "bytes", "seconds"] {
                assert!(!name.contains(bad), "{name}");
            }
        }
    }

    #[test]
    fn buckets_ascend() {
        for buckets in [CALL, COMMAND, SESSION, SETUP, DRAIN, RESPONSE, OUTPUT] {
            assert!(
                buckets.windows(2).all(|pair| pair[0] < pair[1]),
                "{buckets:?}"
            );
        }
    }
}
