//! The names of the events that machines look for in the log, each in the field `event` of its line.

/// A session is over: how long it took, what it sent and got, and why it ended.
pub const SESSION_END: &str = "switchboard.session.end";

/// A session goes on: what it has sent and got so far.
pub const SESSION_CHECKPOINT: &str = "switchboard.session.checkpoint";

/// A listener has come to another state of its life.
pub const LISTENER_STATE_CHANGE: &str = "switchboard.listener.state_change";
