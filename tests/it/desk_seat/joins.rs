//! Operators who sit down in the middle of it all.

use std::collections::BTreeMap;
use std::thread;

use switchboard::grpc::api;
use switchboard::grpc::api::attach_desk_request::Input;
use switchboard::grpc::api::attach_desk_response::Event;

use super::operator::{Client, start};
use crate::support::{Service, soak};

const DESK: &str = "[store]\npath = \"\"\n\
    [listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
    unattended_after = \"10m\"\nlimits = { max_message_rate = 0 }\n";

/// Sits down, and looks on until it has seen the last message of so many conversations; how many there were of each.
fn sees_each_once(client: &Client, conversations: usize, last: u64) {
    let seat = client.attach(Input::Start(api::AttachStart {
        replay: 1_000,
        read_only: true,
        ..start("chat", "")
    }));
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut over = 0;
    while over < conversations {
        match seat.next() {
            Event::Message(said) => {
                let before = seen.entry(said.conversation).or_default();
                assert_eq!(said.sequence, *before + 1, "each once, and in order");
                *before = said.sequence;
                over += usize::from(said.sequence == last);
            }
            Event::Gap(gap) => panic!("missed {}", gap.missed),
            _ => {}
        }
    }
}

#[test]
fn whoever_sits_down_in_the_middle_sees_each_message_once_and_in_order() {
    let (talks, messages, seats) = if soak() { (40, 250, 60) } else { (20, 100, 12) };
    let service = Service::start(DESK);
    let clients: Vec<_> = (0..seats).map(|_| Client::of(&service)).collect();
    let mut peers: Vec<_> = (0..talks).map(|_| service.talk("chat")).collect();
    thread::scope(|scope| {
        let mut clients = clients.iter();
        for n in 0..messages {
            // Spread over all that is said.
            if n % (messages / seats) == 0
                && let Some(client) = clients.next()
            {
                scope.spawn(move || sees_each_once(client, talks, messages as u64));
            }
            for peer in &mut peers {
                peer.send(format!("{n}\n"));
            }
        }
    });
}
