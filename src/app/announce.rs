//! What is said at the start: where everything listens, and what somebody should know of it.

use std::io::{self, Write};

use tracing::warn;

use crate::net;
use crate::protocol::Protocol;
use crate::protocol::chat::Mode;
use crate::supervisor::{Supervisor, View};

/// One line each: the process, its own doors, every listener.
pub(super) fn write(
    out: &mut impl Write,
    supervisor: &Supervisor,
    own: Vec<(&str, &str, &str, String)>,
) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    writeln!(out, "switchboard {version} (node {})", supervisor.node())?;
    let mut line = |name: &str, word: &str, transport: &str, place: &str| {
        writeln!(out, "{name:<12} {word:<9} {transport:<4} {place}")
    };
    for (name, word, transport, place) in own {
        line(name, word, transport, &place)?;
    }
    for view in supervisor.list() {
        let protocol = &view.spec.protocol;
        let transport = protocol.transport().word();
        line(
            view.name.as_str(),
            protocol.word(),
            transport,
            &place(&view),
        )?;
    }
    out.flush()
}

/// Where a listener listens, or why it does not.
fn place(view: &View) -> String {
    match (view.bound, &view.failure) {
        (Some(bound), _) => bound.to_string(),
        (None, Some(failure)) => format!("FAILED, trying again: {}", failure.message),
        (None, None) if view.why.is_empty() => "stopped".to_owned(),
        (None, None) => format!("stopped: {}", view.why),
    }
}

/// Sockets that were passed and are nobody's: whoever connects to one waits for ever.
pub(super) fn warn_of_unused_sockets() {
    for (name, socket) in net::unused_passed() {
        warn!(
            name,
            socket,
            "a socket that was passed is not used; one is taken by the listener of its name, or by the one bound to its address"
        );
    }
}

/// What can be obeyed and may not be meant is said before it matters; and that what is known of commands and of what was
/// said at a desk goes with the process, where it does.
pub(super) fn warn_of_doubts(supervisor: &Supervisor, store_keeps: bool) {
    for view in supervisor.list() {
        let passing = match &view.spec.protocol {
            Protocol::Shell(_) => Some("the audit trail of this shell is"),
            Protocol::Chat(chat) if chat.mode == Mode::Desk => {
                Some("the transcripts of this desk are")
            }
            _ => None,
        };
        if let Some(passing) = passing.filter(|_| !store_keeps) {
            warn!(
                listener = %view.name,
                "{passing} in memory, gone with the process; set store.path to a file"
            );
        }
        for (key, doubt) in view.spec.protocol.doubts() {
            warn!(listener = %view.name, key, "{doubt}");
        }
    }
}
