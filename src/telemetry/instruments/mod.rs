//! The one place that names metrics: their names, kinds, units, attributes and buckets.
//!
//! Names follow the OpenTelemetry conventions: no unit and no `_total` in them, because exporters derive both
//! (Prometheus makes `switchboard.session.io` in `By` into `switchboard_session_io_bytes_total`). What belongs to a
//! listener is read from its own counters and distributions at each collection, so a deleted listener's series vanish.
//! No peer address, session id or text is ever an attribute. `deploy/metrics.md` is written from this table.

mod attribute;
mod bucket;
#[cfg(test)]
mod tests;

pub(super) use attribute::{
    Attribute, COMMAND_TRUNCATED, ERROR_TYPE, NETWORK, PROTOCOL, RPC_METHOD, RPC_STATUS,
    RPC_SYSTEM, TRANSPORT, listener_attributes,
};
pub use attribute::{IO_DIRECTION, LISTENER};

use attribute::{
    CLOSE_REASON, COMMAND_EXIT, CPU_MODE, DIRECTION, DRAIN_OUTCOME, ERROR, FAULT, METHOD, NO_ROOM,
    SIGNAL, STATE, STATUS, SWITCH, SYSTEM, TRUNCATED, TURNED_AWAY,
};
use bucket::{CALL, COMMAND, DRAIN, MESSAGE, OUTPUT, RESPONSE, ROUND_TRIP, SESSION, SETUP};

/// How a series' values relate to one another in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives; its rate says something.
    Counter,
    /// Goes up and down, and adds up over listeners.
    UpDownCounter,
    /// Goes up and down, and does not add up.
    Gauge,
    /// How often values lay within which bounds.
    Histogram,
}

/// Whose points an instrument has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// A listener's: they carry its name, protocol, transport and network.
    Listener,
    /// A listener's: they carry its name alone, since a distribution is many series.
    Name,
    /// The process's.
    Process,
}

/// The most attributes that an instrument has of its own.
pub(super) const ATTRIBUTES: usize = 4;

/// What an instrument is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
    pub(super) scope: Scope,
    /// What a point may carry besides its listener's attributes.
    pub(super) attributes: &'static [Attribute],
    /// Upper bounds, when it is a histogram.
    pub(super) buckets: &'static [f64],
    pub(super) description: &'static str,
}

macro_rules! instruments {
    ($($variant:ident = $scope:ident $kind:ident $(($buckets:ident))? $name:literal, $unit:literal,
       [$($attribute:ident),*], $description:literal;)*) => {
        /// Something that is measured.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Instrument {
            $(#[doc = concat!("`", $name, "`, in `", $unit, "`: ", $description)] $variant,)*
        }

        impl Instrument {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),*];

            /// What its series are called in a snapshot.
            pub const fn name(self) -> &'static str {
                self.definition().name
            }

            pub(super) const fn definition(self) -> &'static Definition {
                match self {
                    $(Self::$variant => &Definition {
                        name: $name,
                        unit: $unit,
                        kind: Kind::$kind,
                        scope: Scope::$scope,
                        attributes: &[$($attribute),*],
                        buckets: instruments!(@ $($buckets)?),
                        description: $description,
                    },)*
                }
            }
        }
    };
    (@) => { &[] };
    (@ $buckets:ident) => { $buckets };
}

instruments! {
    ListenerStatus = Listener UpDownCounter "switchboard.listener.status", "{listener}", [STATE],
        "1 for the state that the listener is in, 0 for the others.";
    Connections = Listener Counter "switchboard.listener.connections", "{connection}", [TURNED_AWAY],
        "Connections accepted; with error.type, turned away and why.";
    AcceptErrors = Listener Counter "switchboard.listener.accept_errors", "{error}", [ERROR],
        "Failures of accept itself.";
    AcceptQueueLength = Listener UpDownCounter "switchboard.listener.accept_queue.length", "{connection}", [],
        "Connections that wait to be accepted.";
    AcceptQueueLimit = Listener UpDownCounter "switchboard.listener.accept_queue.limit", "{connection}", [],
        "Connections that may wait to be accepted.";
    Datagrams = Listener Counter "switchboard.listener.datagrams", "{datagram}", [DIRECTION],
        "Datagrams received and sent.";
    DatagramsDropped = Listener Counter "switchboard.listener.datagram.dropped", "{datagram}", [ERROR],
        "Datagrams that were not answered, and why; receive_buffer: the kernel had no room.";
    DrainDuration = Name Histogram(DRAIN) "switchboard.listener.drain.duration", "s", [DRAIN_OUTCOME],
        "How long drains took, and how they ended.";
    SessionsActive = Listener UpDownCounter "switchboard.session.active", "{session}", [],
        "Open sessions.";
    SessionsLimit = Listener UpDownCounter "switchboard.session.limit", "{session}", [],
        "Sessions that may be open.";
    SessionDuration = Name Histogram(SESSION) "switchboard.session.duration", "s", [CLOSE_REASON, ERROR],
        "How long sessions stayed, and why they ended; with error.type, those that ended for a fault or a limit.";
    SessionSetup = Name Histogram(SETUP) "switchboard.session.setup.duration", "s", [],
        "From accept until a session is ready; peers who are turned away are not in it.";
    Messages = Listener Counter "switchboard.session.messages", "{message}", [DIRECTION],
        "Messages received and sent.";
    MessagesRefused = Listener Counter "switchboard.session.messages.refused", "{message}", [ERROR],
        "Messages that were not served as asked, and why.";
    Io = Listener Counter "switchboard.session.io", "By", [DIRECTION],
        "Bytes received and sent.";
    SendQueueUsage = Listener UpDownCounter "switchboard.session.send_queue.usage", "By", [],
        "Bytes that wait for peers to read, over all sessions.";
    SendQueueLimit = Listener UpDownCounter "switchboard.session.send_queue.limit", "By", [],
        "Bytes that may wait for peers to read, over all sessions.";
    RoundTrip = Name Histogram(ROUND_TRIP) "switchboard.connection.tcp.rtt", "s", [],
        "Round-trip time that the kernel knew when a session ended, of the share in telemetry.sample_tcp_rtt.";
    Stalls = Listener Counter "switchboard.session.stalls", "{stall}", [],
        "Times that a peer did not read and its queue had to wait.";
    MessageDuration = Name Histogram(MESSAGE) "switchboard.message.process.duration", "s", [ERROR],
        "From reading a message until it is answered, or handed to the desk or the room, of one in a hundred drawn at random, or of as many as get a span; with error.type, those that were refused.";
    ChatWaiting = Listener UpDownCounter "switchboard.chat.waiting", "{conversation}", [],
        "Conversations that wait for an operator's answer.";
    ChatLongestWait = Listener Gauge "switchboard.chat.longest_wait", "s", [],
        "Age of the oldest message that waits for an answer.";
    FirstResponse = Name Histogram(RESPONSE) "switchboard.chat.first_response", "s", [],
        "From a message until an operator's answer, the first of a conversation.";
    ChatUnattended = Listener Counter "switchboard.chat.auto_replies", "{message}", [],
        "Messages that the listener answered itself, since no operator did.";
    ChatUnanswered = Listener Counter "switchboard.chat.unanswered", "{message}", [],
        "Messages whose peer left without an answer.";
    ChatNotKept = Listener Counter "switchboard.chat.transcript.failures", "{message}", [],
        "Messages and answers that could not be entered in a transcript.";
    ShellWorkers = Listener UpDownCounter "switchboard.shell.workers", "{worker}", [],
        "Processes that run commands, or wait for some.";
    LauncherRestarts = Listener Counter "switchboard.shell.launcher.restarts", "{restart}", [],
        "Launchers that ended or could not start, and were started again.";
    CommandDuration = Name Histogram(COMMAND) "switchboard.command.duration", "s", [COMMAND_EXIT, ERROR],
        "How long commands ran, and how they ended.";
    CommandOutput = Name Histogram(OUTPUT) "switchboard.command.output", "By", [TRUNCATED],
        "What commands wrote.";
    ControlConnections = Process Counter "switchboard.control.connections", "{connection}", [ERROR],
        "Connections to the control plane accepted; with error.type, turned away or closed and why.";
    ControlCallsRefused = Process Counter "switchboard.control.calls.refused", "{call}", [NO_ROOM],
        "Control calls that found no room, and why.";
    CallDuration = Process Histogram(CALL) "rpc.server.call.duration", "s", [SYSTEM, METHOD, STATUS, ERROR],
        "How long control calls took; a method that is none of ours is _OTHER.";
    HttpConnections = Process Counter "switchboard.http.connections", "{connection}", [ERROR],
        "Connections to the HTTP side accepted; with error.type, turned away or closed and why.";
    WatchesActive = Process UpDownCounter "switchboard.watch.active", "{stream}", [METHOD],
        "Watches and waits that are open.";
    WatchEventsDropped = Process Counter "switchboard.watch.events.dropped", "{event}", [METHOD],
        "Events that watches missed because their clients did not read fast enough.";
    ConfigReloads = Process Counter "switchboard.config.reloads", "{reload}", [ERROR],
        "Reloads of the configuration; with error.type, those that changed nothing and why.";
    ConfigFailing = Process UpDownCounter "switchboard.config.reload.failing", "{reload}", [],
        "1 while the last reload changed nothing because something was wrong, 0 otherwise.";
    ConfigDrift = Process UpDownCounter "switchboard.config.drift.count", "{setting}", [],
        "Settings that a restart would change, or that keep it from starting.";
    StoreSize = Process UpDownCounter "switchboard.store.size", "By", [],
        "Length of the store's file.";
    StoreWrites = Process Counter "switchboard.store.writes", "{write}", [ERROR],
        "Writes that are on disk; with error.type, those that are not and why.";
    StoreCommits = Process Counter "switchboard.store.commits", "{commit}", [],
        "Commits that the writes took.";
    AuditLost = Process Counter "switchboard.audit.lost", "{event}", [],
        "Audit events and commands that are not in the trail; what was changed is in the log.";
    ProcessCpuTime = Process Counter "process.cpu.time", "s", [CPU_MODE],
        "Processor time used.";
    ProcessMemoryUsage = Process UpDownCounter "process.memory.usage", "By", [],
        "Resident memory.";
    ProcessThreadCount = Process UpDownCounter "process.thread.count", "{thread}", [],
        "Threads.";
    ProcessOpenFiles = Process UpDownCounter "process.unix.file_descriptor.count", "{file_descriptor}", [],
        "Open file descriptors.";
    ProcessOpenFilesLimit = Process UpDownCounter "switchboard.process.file_descriptor.limit", "{file_descriptor}", [],
        "File descriptors that may be open.";
    ProcessUptime = Process Gauge "process.uptime", "s", [],
        "Time since telemetry started.";
    ProcessContextSwitches = Process Counter "process.context_switches", "{context_switch}", [SWITCH],
        "Times that a thread gave up its processor, or lost it.";
    ProcessPagingFaults = Process Counter "process.paging.faults", "{fault}", [FAULT],
        "Page faults; the major ones waited for the disk.";
    TelemetryDropped = Process Counter "switchboard.telemetry.dropped", "{item}", [SIGNAL],
        "Spans, metric exports and log lines that were lost.";
    LogSuppressed = Process Counter "switchboard.log.suppressed", "{line}", [],
        "Log lines that were not written because their place in the code had written too many.";
    SpanQueueSize = Process UpDownCounter "otel.sdk.processor.span.queue.size", "{span}", [],
        "Spans that wait to be exported.";
    SpanQueueCapacity = Process UpDownCounter "otel.sdk.processor.span.queue.capacity", "{span}", [],
        "Spans that may wait to be exported.";
    SpansProcessed = Process Counter "otel.sdk.processor.span.processed", "{span}", [ERROR],
        "Spans that were queued for export; with error.type, those that were not and why.";
    SpansInflight = Process UpDownCounter "otel.sdk.exporter.span.inflight", "{span}", [],
        "Spans that an export has under way.";
    SpansExported = Process Counter "otel.sdk.exporter.span.exported", "{span}", [ERROR],
        "Spans that the collector took; with error.type, those that it did not and why.";
    PointsInflight = Process UpDownCounter "otel.sdk.exporter.metric_data_point.inflight", "{data_point}", [],
        "Points of metrics that an export has under way.";
    PointsExported = Process Counter "otel.sdk.exporter.metric_data_point.exported", "{data_point}", [ERROR],
        "Points of metrics that the collector took; with error.type, those that it did not and why.";
}
