//! The uppercase listener: every datagram is answered or counted, each answer comes from the address that was asked.

use std::net::{IpAddr, SocketAddr};

use rustix::process::Signal;
use serde_json::json;

use super::support::{Peer, Service, eventually, no_grpcurl};

const ONE: &str = "[listeners.uppercase]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:0\"\n";

#[test]
fn every_datagram_is_answered_or_counted_with_its_reason() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.uppercase]
        protocol = "uppercase"
        bind = "127.0.0.1:0"
        [listeners.tight]
        protocol = "uppercase"
        bind = "127.0.0.1:0"
        max_amplification = 1.0
        limits = { max_message_bytes = 10 }
        [listeners.replace]
        protocol = "uppercase"
        bind = "127.0.0.1:0"
        invalid = "replace"
        "#,
    );
    let peer = service.peer("uppercase");
    let whole = "x".repeat(65_507);
    for (question, answer) in [
        ("hello", "HELLO"),
        ("straße", "STRASSE"),
        ("ΐ", "\u{399}\u{308}\u{301}"),
        ("ŉ ǆ ﬃ", "ʼN Ǆ FFI"),
        ("line\n\0", "LINE\n\0"),
        ("", ""),
        (&whole, &whole.to_uppercase()),
    ] {
        peer.send(question);
        peer.expect(answer);
    }
    peer.send(b"not \xff text");
    // 40,000 bytes that would become 120,000.
    peer.send("ΐ".repeat(20_000));
    peer.send("next");
    peer.expect("NEXT");
    assert_eq!(service.rejected("uppercase", "invalid_utf8"), 1);
    assert_eq!(service.rejected("uppercase", "answer_too_large"), 1);
    // There are no sessions here, and no limits on them.
    assert_eq!(service.count("uppercase", "activeSessions"), 0);
    assert!(service.count("uppercase", "receivedBytes") > 65_507);
    assert!(service.count("uppercase", "sentBytes") > 65_507);

    let peer = service.peer("tight");
    peer.send("ΐ");
    peer.send("eleven bytes");
    peer.send("ten bytes!");
    peer.expect("TEN BYTES!");
    assert_eq!(service.rejected("tight", "amplification"), 1);
    assert_eq!(service.rejected("tight", "message_too_large"), 1);

    let peer = service.peer("replace");
    peer.send(b"not \xff text");
    peer.expect("NOT \u{fffd} TEXT");
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let service =
        Service::start("[listeners.uppercase]\nprotocol = \"uppercase\"\nbind = \"0.0.0.0:0\"\n");
    let port = service.port("uppercase");
    for last in 1..=3 {
        let address = SocketAddr::new(IpAddr::from([127, 0, 0, last]), port);
        // It hears only the address that it asked.
        let peer = Peer::to(address);
        peer.send("hello");
        peer.expect("HELLO");
    }
}

#[test]
fn who_leaves_before_the_answer_is_nobody_elses_business() {
    let service = Service::start(ONE);
    let peer = service.peer("uppercase");
    for _ in 0..200 {
        let gone = service.peer("uppercase");
        gone.send("hello");
        drop(gone);
        peer.send("still here");
        peer.expect("STILL HERE");
    }
}

#[test]
fn every_core_has_a_socket_and_every_peer_is_answered_in_order() {
    let service = Service::start(ONE);
    let port = service.port("uppercase");
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let local = format!(" 0100007F:{port:04X} ");
    let sockets = table.lines().filter(|row| row.contains(&local)).count();
    assert_eq!(sockets, std::thread::available_parallelism().unwrap().get());
    // So many that no socket is without some of them.
    let peers: Vec<_> = (0..64).map(|_| service.peer("uppercase")).collect();
    // Runs of one length, and what ends them.
    let said = |i: usize| format!("number {}", "1234567890".repeat(i % 5));
    for i in 0..40 {
        peers.iter().for_each(|peer| peer.send(said(i)));
    }
    for peer in &peers {
        (0..40).for_each(|i| peer.expect(said(i).to_uppercase()));
    }
}

#[test]
fn an_address_that_is_served_is_no_other_processes() {
    let first = Service::start(ONE);
    let address = first.address("uppercase");
    let second = Service::start(&ONE.replace("127.0.0.1:0", &address.to_string()));
    let told = second.announced("uppercase");
    assert!(told.contains("is in use by another socket"), "{told}");
    let peer = first.peer("uppercase");
    for _ in 0..100 {
        peer.send("still here");
        peer.expect("STILL HERE");
    }
}

#[test]
fn what_had_come_when_the_door_closes_is_answered() {
    let service = Service::start(ONE);
    let peers: Vec<_> = (0..8).map(|_| service.peer("uppercase")).collect();
    // While it stands still: nothing is read before it learns that it is to end.
    service.signal(Signal::STOP);
    for i in 0..100 {
        peers.iter().for_each(|peer| peer.send(format!("no {i}")));
    }
    service.signal(Signal::TERM);
    service.signal(Signal::CONT);
    for peer in &peers {
        (0..100).for_each(|i| peer.expect(format!("NO {i}")));
    }
}

#[test]
fn what_waits_at_a_paused_listener_that_stops_is_counted() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(ONE);
    let name = json!({ "name": "listeners/uppercase" });
    // Queueing, as nothing else is asked.
    service.call("ListenerService/PauseListener", &name, "listener");
    let peers: Vec<_> = (0..8).map(|_| service.peer("uppercase")).collect();
    // As many as the receive buffers hold; what they do not is the kernel's to count.
    let sent = 16_000;
    for i in 0..sent {
        peers[i as usize % peers.len()].send(format!("no {i}"));
    }
    service.call("ListenerService/StopListener", &name, "listener");
    let counted =
        || service.rejected("uppercase", "paused") + service.count("uppercase", "datagramsDropped");
    eventually("all are counted", || counted() == sent);
    assert_eq!(service.count("uppercase", "sentBytes"), 0);
}
