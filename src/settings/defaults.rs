//! What runs without any configuration.

use std::collections::BTreeMap;

use crate::net;
use crate::protocol::{self, Protocol};
use crate::supervisor::{Desired, ListenerName, Spec};

/// The listeners that run when no layer names one; `deploy/switchboard.toml` says the same.
pub fn default_listeners() -> BTreeMap<ListenerName, Spec> {
    let udp = protocol::chat::Settings {
        transport: net::Transport::Udp,
        ..protocol::chat::Settings::default()
    };
    let shell = protocol::shell::Settings {
        // What holds its commands is the cage.
        policy: protocol::shell::Policy::Any,
        ..protocol::shell::Settings::default()
    };
    let listeners = [
        (
            "ack",
            8080,
            Protocol::Ack(protocol::ack::Settings::default()),
        ),
        (
            "uppercase",
            8080,
            Protocol::Uppercase(protocol::uppercase::Settings::default()),
        ),
        (
            "chat",
            8081,
            Protocol::Chat(protocol::chat::Settings::default()),
        ),
        ("qq", 8081, Protocol::Chat(udp)),
        ("shell", 8090, Protocol::Shell(shell)),
    ];
    let listeners = listeners.into_iter().filter_map(|(name, port, protocol)| {
        let spec = Spec {
            desired_state: Desired::Active,
            pause_mode: net::PauseMode::default(),
            resume_time: None,
            bind: net::Address(([127, 0, 0, 1], port).into()),
            display_name: String::new(),
            labels: BTreeMap::new(),
            limits: net::Limits::default(),
            protocol,
        };
        // Every name above is one.
        Some((name.parse().ok()?, spec))
    });
    listeners.collect()
}
