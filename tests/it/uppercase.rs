//! The uppercase listener: every datagram is answered or counted, each answer comes from the address that was asked.

use std::net::{IpAddr, SocketAddr};

use super::support::{Peer, Service, no_grpcurl};

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
    let service =
        Service::start("[listeners.uppercase]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:0\"\n");
    let peer = service.peer("uppercase");
    for _ in 0..200 {
        let gone = service.peer("uppercase");
        gone.send("hello");
        drop(gone);
        peer.send("still here");
        peer.expect("STILL HERE");
    }
}
