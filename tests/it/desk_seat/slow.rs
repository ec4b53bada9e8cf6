//! Operators that do not read: they cost the others nothing, and are told that they missed something.

use std::thread;
use std::time::{Duration, Instant};

use switchboard::grpc::api;
use switchboard::grpc::api::attach_desk_request::Input;
use switchboard::grpc::api::attach_desk_response::Event;
use switchboard::grpc::api::chat_message::Author;

use super::operator::{Client, Seat, Stalled, reply, sit, start};
use crate::support::{Service, Talk, memory, soak, take_descriptors};

const DESK: &str = "[store]\npath = \"\"\n\
    [listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
    unattended_after = \"10m\"\nlimits = { max_sessions_per_source = 4000, max_message_rate = 0 }\n";

/// Answers all that is said, for so many messages.
fn answers_all(seat: &Seat, messages: usize) {
    let (mut said, mut done) = (0, 0);
    while done < messages {
        match seat.next() {
            Event::Message(m) if m.author() == Author::Peer => {
                said += 1;
                seat.say(Input::Reply(reply(&m.conversation, m.sequence, "ok")));
            }
            Event::Done(_) => done += 1,
            Event::Error(error) => panic!("{error:?}"),
            Event::Gap(gap) => panic!("an operator who reads missed {}", gap.missed),
            _ => {}
        }
    }
    assert_eq!(said, messages);
}

/// All that is told up to the gap: none, after which all is told anew.
fn reads_again(client: &Client, seat: &mut Stalled) -> (u64, usize) {
    let missed = loop {
        if let Event::Gap(gap) = client.read(seat) {
            break gap.missed;
        }
    };
    let mut shown = 0;
    loop {
        match client.read(seat) {
            Event::Conversation(_) => shown += 1,
            Event::Synced(_) => return (missed, shown),
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn operators_who_do_not_read_harm_nobody_and_learn_what_they_missed() {
    let (stalled, clients, rounds, length) = if soak() {
        (10, 1_000, 40, 1_000)
    } else {
        (3, 50, 12, 32_000)
    };
    let service = Service::start(DESK);
    take_descriptors();
    // Each on a connection of its own: what one does not read would hold up all that share its window.
    let mut seats: Vec<_> = (0..stalled)
        .map(|n| {
            let client = Client::with_window(&service, Some(65_535));
            let seat = client.stall(start("chat", &format!("stalled{n}")));
            (client, seat)
        })
        .collect();
    for (client, seat) in &mut seats {
        assert!(matches!(client.read(seat), Event::Synced(_)));
    }
    let mut peers: Vec<Talk> = (0..clients).map(|_| service.talk("chat")).collect();
    let colleague = Client::of(&service);
    let seat = colleague.attach(sit("chat", "ann"));
    seat.synced();
    let before = memory(service.pid());
    let text = format!("{}\n", "x".repeat(length));
    let mut longest = Duration::ZERO;
    thread::scope(|scope| {
        let operator = scope.spawn(move || answers_all(&seat, clients * rounds));
        for _ in 0..rounds {
            let began = Instant::now();
            peers.iter_mut().for_each(|peer| peer.send(&text));
            peers.iter_mut().for_each(|peer| peer.expect("ok\n"));
            longest = longest.max(began.elapsed());
        }
        operator.join().unwrap();
    });
    let grown = memory(service.pid()).saturating_sub(before) >> 20;
    let told: Vec<_> = seats
        .iter_mut()
        .map(|(client, seat)| reads_again(client, seat))
        .collect();
    println!(
        "{clients} clients, {stalled} stalled operators, {} events: grown by {grown} MiB, the longest round {longest:?}, \
         missed and shown {told:?}",
        2 * clients * rounds
    );
    assert!(
        told.iter()
            .all(|(missed, shown)| *missed > 0 && *shown == clients)
    );
    assert!(grown < 128, "{grown} MiB");
    // From there on they are told as all others are.
    peers[0].send("hello\n");
    for (client, seat) in &mut seats {
        let said = loop {
            if let Event::Message(said) = client.read(seat) {
                break said;
            }
        };
        assert_eq!(said.text, "hello");
    }
    let replayed = api::AttachStart {
        replay: 2,
        ..start("chat", "late")
    };
    let mut late = colleague.stall(replayed);
    let mut last = Vec::new();
    while !matches!(last.last(), Some(Event::Synced(_))) {
        last.push(colleague.read(&mut late));
    }
    let messages = last.iter().filter(|e| matches!(e, Event::Message(_)));
    assert_eq!(messages.count(), 2 * clients);
}
