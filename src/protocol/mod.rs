//! What is said on a socket. Each protocol is one file or folder: its `Settings`, its pure state
//! and a thin handler; this file is the one list of them.

pub mod ack;
pub mod chat;
pub mod shell;
pub mod uppercase;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Scope, scope_of};
use crate::net::{Address, CloseReason, Event, Handler, Limits, Stream, Transport, Violation};
use crate::store::Store;

/// A protocol with its settings, as files and calls have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Answers every message with the same bytes.
    Ack(ack::Settings),
    /// Runs commands and frames their output.
    Shell(shell::Settings),
    /// Answers each datagram in upper case.
    Uppercase(uppercase::Settings),
    /// Seats an operator, or everyone in a room.
    Chat(chat::Settings),
}

/// What a listener stands on: who it is, and what of the process its protocol may use.
#[derive(Clone, Default)]
pub struct Ground {
    /// The listener's name.
    pub listener: String,
    /// The node's, with which the names of its sessions begin.
    pub node: String,
    /// Where it keeps what must not be forgotten; without one it keeps nothing.
    pub store: Option<Store>,
}

/// A running protocol, and its desk if it has one.
#[derive(Clone)]
pub struct Built {
    /// Serves the sessions.
    pub handler: Handler,
    /// Where operators answer.
    pub desk: Option<Arc<chat::Desk>>,
    shared: Shared,
}

/// What all sessions of a listener share besides, whichever settings they began with.
#[derive(Clone)]
enum Shared {
    Nothing,
    /// Those in a room.
    Members(Arc<chat::Members>),
    /// The commands of a shell.
    Commands(shell::Commands),
}

impl Built {
    /// What runs its commands, if it runs any.
    pub fn launcher(&self) -> Option<&Arc<shell::Launcher>> {
        self.commands().map(|commands| &commands.launcher)
    }

    fn commands(&self) -> Option<&shell::Commands> {
        match &self.shared {
            Shared::Commands(commands) => Some(commands),
            Shared::Nothing | Shared::Members(_) => None,
        }
    }
}

/// Something that a listener cannot be: its key, and what is wrong with it.
pub type Fault = (&'static str, String);

impl Protocol {
    /// The words that choose one.
    pub const WORDS: [&str; 4] = ["ack", "shell", "uppercase", "chat"];

    /// The word that chooses it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ack(_) => "ack",
            Self::Shell(_) => "shell",
            Self::Uppercase(_) => "uppercase",
            Self::Chat(_) => "chat",
        }
    }

    /// The same kind with its default settings.
    pub fn plain(&self) -> Self {
        match self {
            Self::Ack(_) => Self::Ack(ack::Settings::default()),
            Self::Shell(_) => Self::Shell(shell::Settings::default()),
            Self::Uppercase(_) => Self::Uppercase(uppercase::Settings::default()),
            Self::Chat(_) => Self::Chat(chat::Settings::default()),
        }
    }

    /// The kind of socket that it wants.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Ack(_) | Self::Shell(_) => Transport::Tcp,
            Self::Uppercase(_) => Transport::Udp,
            Self::Chat(settings) => settings.transport,
        }
    }

    /// Everything in it that cannot be obeyed on this address and with these limits.
    pub fn check(&self, bind: Address, limits: &Limits) -> Vec<Fault> {
        let mut faults = match self {
            Self::Ack(settings) => settings.check(),
            Self::Shell(settings) => settings.check(bind, limits),
            Self::Uppercase(settings) => settings.check(),
            Self::Chat(settings) => settings.check(limits),
        };
        if limits.max_prefix_rate != 0.0 && !matches!(self, Self::Uppercase(_)) {
            let rule = "it is for peers without sessions, as those of uppercase; \
                        max_accepts_per_second and max_message_rate limit the others";
            faults.push(("limits.max_prefix_rate", rule.into()));
        }
        faults
    }

    /// What can be obeyed and may not be meant.
    pub fn doubts(&self) -> Vec<Fault> {
        match self {
            Self::Shell(settings) => settings.doubts(),
            Self::Ack(_) | Self::Uppercase(_) | Self::Chat(_) => Vec::new(),
        }
    }

    /// The same settings with every default written out, as they are obeyed.
    pub fn resolved(&self) -> Self {
        match self {
            Self::Ack(settings) => Self::Ack(settings.resolved()),
            Self::Shell(settings) => Self::Shell(settings.resolved()),
            Self::Uppercase(settings) => Self::Uppercase(settings.resolved()),
            Self::Chat(settings) => Self::Chat(settings.resolved()),
        }
    }

    /// When a change of each of its own keys takes effect.
    pub fn scopes(&self) -> &'static [(&'static str, Scope)] {
        match self {
            Self::Ack(_) => ack::Settings::SCOPES,
            Self::Shell(_) => shell::Settings::SCOPES,
            Self::Uppercase(_) => uppercase::Settings::SCOPES,
            Self::Chat(_) => chat::Settings::SCOPES,
        }
    }

    /// When a change of its own key (`sandbox.environment`) takes effect; `None` when it has none
    /// of that name.
    pub fn scope(&self, key: &str) -> Option<Scope> {
        scope_of(self.scopes(), key)
    }

    /// Makes it ready to run.
    pub fn build(&self, ground: &Ground) -> Built {
        self.make(ground, None)
    }

    /// Makes it ready to run with changed settings in the place of `before`. What its sessions
    /// share lives on, and takes what is live of the settings at once: a desk with its
    /// conversations and those who wait, a room with its members, a shell's count of commands. A
    /// desk whose change needs a new socket begins anew; its old run must have ended.
    pub fn rebuild(&self, ground: &Ground, before: &Built) -> Built {
        self.make(ground, Some(before))
    }

    /// Makes it ready to run later, in the place of what need not run any more: `before` lives on in it, but for
    /// processes beside this one, which end once its sessions have.
    pub fn rested(&self, ground: &Ground, before: &Built) -> Built {
        match self {
            Self::Shell(settings) => shell::rested(settings, ground, before),
            Self::Ack(_) | Self::Uppercase(_) | Self::Chat(_) => before.clone(),
        }
    }

    fn make(&self, ground: &Ground, before: Option<&Built>) -> Built {
        let alone = |handler| Built {
            handler,
            desk: None,
            shared: Shared::Nothing,
        };
        match self {
            Self::Ack(settings) => alone(ack::handler(settings)),
            Self::Shell(settings) => shell::build(settings, ground, before),
            Self::Uppercase(settings) => alone(uppercase::handler(settings)),
            Self::Chat(settings) => chat::build(settings, ground, before),
        }
    }
}

/// Counts what cannot be a message. Returns the word that its session ends with, and the line that
/// tells the peer, which the caller frames as its answers are.
pub(crate) fn refuse(stream: &Stream, violation: Violation) -> (CloseReason, Option<String>) {
    let reason = Event::Violation(violation).reason();
    stream.door().counters.refuse(reason.word());
    let line = match violation {
        Violation::TooLarge => {
            let max = stream.bounds().max_message_bytes;
            Some(format!(
                "message_too_large: a message has at most {max} bytes"
            ))
        }
        Violation::NegativeLength(n) => Some(format!("bad_frame: {n} is not a length")),
        Violation::TooFast => None,
    };
    (reason, line)
}

/// The same, and sends the line framed as messages are.
pub(crate) fn reject(stream: &mut Stream, violation: Violation) -> CloseReason {
    let (reason, line) = refuse(stream, violation);
    if let Some(line) = line {
        stream.send(&stream.framing().wrap(line.as_bytes()));
    }
    reason
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpStream, UdpSocket};
    use std::time::Duration;

    use serde_json::{Map, Value, json};

    use super::*;
    use crate::net::tests::{Listener, answer};

    fn protocol(word: &str, settings: Value) -> Protocol {
        serde_json::from_value(json!({ word: settings })).unwrap()
    }

    /// A listener that runs, and what it was built of.
    struct Run(Listener, Built);

    impl Run {
        fn start(protocol: &Protocol) -> Self {
            let built = protocol.build(&Ground::default());
            Self(
                Listener::start(Limits::default(), built.handler.clone()),
                built,
            )
        }

        fn change(&mut self, to: &Protocol) {
            self.1 = to.rebuild(&Ground::default(), &self.1);
            self.0.change(Limits::default(), self.1.handler.clone());
        }
    }

    fn read(peer: &mut TcpStream, expected: &str) {
        let mut answer = vec![0; expected.len()];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), expected);
    }

    /// Waits until a condition holds.
    fn until(mut holds: impl FnMut() -> bool) {
        for _ in 0..500 {
            if holds() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it never held");
    }

    #[test]
    fn every_key_has_its_scope() {
        fn keys(table: &Map<String, Value>, above: &str, found: &mut Vec<String>) {
            for (key, value) in table {
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        keys(inner, &format!("{above}{key}."), found);
                    }
                    _ => found.push(format!("{above}{key}")),
                }
            }
        }
        for word in Protocol::WORDS {
            let protocol = protocol(word, json!({}));
            let written = serde_json::to_value(&protocol).unwrap();
            let mut found = Vec::new();
            keys(written[word].as_object().unwrap(), "", &mut found);
            let rows: Vec<_> = protocol.scopes().iter().map(|(key, _)| *key).collect();
            assert_eq!(found, rows, "{word}");
        }
        let shell = protocol("shell", json!({}));
        assert_eq!(
            shell.scope("sandbox.environment.HOME"),
            Some(Scope::NewSessions)
        );
        assert_eq!(shell.scope("greeting"), None);
    }

    #[test]
    fn what_is_written_out_is_as_it_was_and_needs_no_second_writing() {
        let mut all: Vec<_> = Protocol::WORDS.map(|word| protocol(word, json!({}))).into();
        all.push(protocol("chat", json!({"pace": "free"})));
        all.push(protocol("chat", json!({"transport": "udp"})));
        all.push(protocol("chat", json!({"mode": "room", "pace": "free"})));
        all.push(protocol("shell", json!({"max_output_bytes": "3GiB"})));
        for one in all {
            let resolved = one.resolved();
            assert_eq!(resolved.resolved(), resolved);
            // It can be written and read back as a file has it.
            let written = serde_json::to_value(&resolved).unwrap();
            assert_eq!(
                serde_json::from_value::<Protocol>(written).unwrap(),
                resolved
            );
            let bind = "127.0.0.1:0".parse().unwrap();
            assert_eq!(resolved.check(bind, &Limits::default()), []);
        }
        let written = |word| serde_json::to_value(protocol(word, json!({})).resolved()).unwrap();
        assert_eq!(written("ack")["ack"]["reply"], "received data!!");
        assert_eq!(written("shell")["shell"]["command_timeout"], "30s");
        assert_eq!(written("shell")["shell"]["linger"], "100ms");
        assert_eq!(written("chat")["chat"]["framing"], "raw");
        assert_eq!(
            written("chat")["chat"]["unattended_reply"],
            "no operator is available"
        );
    }

    #[test]
    fn an_ack_session_keeps_its_answer() {
        let ack = |reply| protocol("ack", json!({"reply": reply}));
        let mut run = Run::start(&ack("old"));
        let mut first = run.0.connect();
        assert_eq!(answer(&mut first, "?"), "old");
        run.change(&ack("new"));
        assert_eq!(answer(&mut first, "?"), "old");
        assert_eq!(answer(&mut run.0.connect(), "?"), "new");
    }

    #[test]
    fn a_datagram_gets_the_answer_of_the_day() {
        let mut run = Run::start(&protocol("uppercase", json!({})));
        run.change(&protocol("uppercase", json!({"invalid": "replace"})));
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        peer.send_to(b"a\xff", run.0.address()).unwrap();
        let mut answer = [0; 16];
        let length = peer.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], "A\u{fffd}".as_bytes());
    }

    #[test]
    fn who_waits_at_a_desk_waits_at_the_changed_desk() {
        let desk = |after: &str, reply: &str, greeting: &str| {
            let settings = json!({
                "pace": "free", "unattended_after": after,
                "unattended_reply": reply, "greeting": greeting,
            });
            protocol("chat", settings)
        };
        let mut run = Run::start(&desk("1h", "nobody", "hello"));
        let before = run.1.desk.clone().unwrap();
        let mut first = run.0.connect();
        read(&mut first, "hello\n");
        first.write_all(b"anyone?\n").unwrap();
        until(|| before.waiting().0 == 1);
        run.change(&desk("50ms", "later", "welcome"));
        assert!(Arc::ptr_eq(&before, run.1.desk.as_ref().unwrap()));
        read(&mut first, "later\n");
        read(&mut run.0.connect(), "welcome\n");
        assert_eq!(before.conversations().len(), 1);
    }

    #[test]
    fn a_desk_over_udp_knows_its_peers_after_a_change() {
        let desk = |after| {
            protocol(
                "chat",
                json!({"transport": "udp", "unattended_after": after}),
            )
        };
        let mut run = Run::start(&desk("1h"));
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        peer.send_to(b"anyone?", run.0.address()).unwrap();
        let open = run.1.desk.clone().unwrap();
        until(|| open.waiting().0 == 1);
        run.change(&desk("50ms"));
        assert!(peer.recv(&mut [0; 64]).is_ok());
        peer.send_to(b"still?", run.0.address()).unwrap();
        assert!(peer.recv(&mut [0; 64]).is_ok());
        assert_eq!(open.conversations().len(), 1);
    }

    #[test]
    fn a_change_that_needs_a_new_socket_makes_a_new_desk() {
        let first = protocol("chat", json!({})).build(&Ground::default());
        for (key, value) in [
            ("pace", "free"),
            ("framing", "line"),
            ("transport", "udp"),
            ("mode", "room"),
        ] {
            let changed = protocol("chat", json!({key: value}));
            assert_eq!(changed.scope(key), Some(Scope::Rebind));
            let desk = changed.rebuild(&Ground::default(), &first).desk;
            let same = desk.is_some_and(|desk| Arc::ptr_eq(&desk, first.desk.as_ref().unwrap()));
            assert!(!same, "{key}");
        }
    }

    #[test]
    fn members_of_a_room_hear_those_who_come_after_a_change() {
        let room = |greeting| {
            protocol(
                "chat",
                json!({"mode": "room", "pace": "free", "greeting": greeting}),
            )
        };
        let mut run = Run::start(&room("hello"));
        let mut first = run.0.connect();
        read(&mut first, "hello\n");
        run.change(&room("welcome"));
        let mut second = run.0.connect();
        read(&mut second, "welcome\n");
        second.write_all(b"it is me\n").unwrap();
        read(&mut first, "it is me\n");
    }
}
