//! Whoever sends datagrams may say that it is somebody else, so a listener that answers them sends nobody a flood: so much
//! to each network, never more than was asked, and nothing to services or to itself.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use serde_json::json;

use super::limits::{ELSEWHERE, HERE, peer_from, talk_from};
use super::support::{Peer, Service, eventually, no_grpcurl, run, soak};

/// Those of many addresses of one network.
fn network(third: u8, peers: u8, address: SocketAddr) -> Vec<Peer> {
    let peers = (1..=peers).map(|last| peer_from([127, 0, third, last], address));
    peers.collect()
}

/// How many datagrams have come that nobody has taken yet.
fn waiting(peers: &[Peer]) -> u64 {
    let mut count = 0;
    for Peer(socket) in peers {
        socket.set_nonblocking(true).unwrap();
        while socket.recv(&mut [0; 64]).is_ok() {
            count += 1;
        }
    }
    count
}

#[test]
fn a_network_gets_its_rate_whoever_of_it_asks_and_no_other_is_harmed() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.open]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:0\"\n\
         limits = { max_prefix_rate = 200 }\n",
    );
    let address = service.address("open");
    let flood = network(1, 50, address);
    let honest: Vec<_> = (2..=101)
        .map(|third| peer_from([127, 0, third, 1], address))
        .collect();
    let lasts = Duration::from_secs(if soak() { 20 } else { 2 });
    let (began, mut sent, mut asked) = (Instant::now(), 0_u64, 0_u64);
    // Every round waits for an answer, so the flood is as fast as it can be without a loss: the honest are at all of the
    // sockets that the kernel shares peers out among.
    for (round, peer) in honest.iter().cycle().enumerate() {
        if began.elapsed() >= lasts {
            break;
        }
        // An honest network keeps to its rate too.
        if asked > 200 * (began.elapsed().as_millis() as u64 + 1_000) * honest.len() as u64 / 1_000
        {
            std::thread::yield_now();
            continue;
        }
        for source in 0..10 {
            flood[(round * 10 + source) % flood.len()].send("flood");
            sent += 1;
        }
        peer.send("honest");
        peer.expect("HONEST");
        asked += 1;
    }
    let took = began.elapsed().as_secs_f64();
    let mut answered = 0;
    eventually("every datagram is answered or counted", || {
        answered += waiting(&flood);
        answered + service.rejected("open", "prefix_rate_limited") == sent
    });
    let allowed = 400.0 + 200.0 * took;
    let share = answered as f64 / allowed;
    assert!((0.95..=1.05).contains(&share), "{answered} of {allowed}");
    assert!(sent > 4 * answered && asked > answered, "{sent}, {asked}");
    assert_eq!(service.count("open", "datagramsDropped"), 0);

    // It is changed as it runs, and shown.
    let update = json!({
        "listener": { "name": "listeners/open", "limits": { "max_prefix_rate": 5000.5 } },
        "update_mask": { "paths": ["limits.max_prefix_rate"] },
    });
    service.call("ListenerService/UpdateListener", &update, "listener");
    let listener = service.listener("open");
    assert_eq!(listener["limits"]["maxPrefixRate"], 5000.5);
    flood[0].0.set_nonblocking(false).unwrap();
    flood[0].send("more");
    flood[0].expect("MORE");
}

#[test]
fn a_rate_of_networks_is_for_peers_without_sessions() {
    for (listener, accepted) in [
        ("protocol = \"uppercase\"", true),
        ("protocol = \"ack\"", false),
        ("protocol = \"chat\"\ntransport = \"udp\"", false),
    ] {
        let toml = |rate| {
            format!(
                "[listeners.x]\n{listener}\nbind = \"127.0.0.1:0\"\nlimits = {{ max_prefix_rate = {rate} }}\n"
            )
        };
        let check = |rate| {
            let args = ["check", "--config", "site.toml"];
            run(&[("site.toml", &toml(rate))], &args, &[])
        };
        let ended = check("12.5");
        assert_eq!(ended.code == 0, accepted, "{}", ended.stderr);
        for word in ["listeners.x.limits.max_prefix_rate", "without sessions"] {
            assert_eq!(ended.stderr.contains(word), !accepted, "{}", ended.stderr);
        }
        assert_eq!(check("0").code, 0);
        assert!(check("-1").stderr.contains("-1 is not a rate"));
    }
}

#[test]
fn a_thousand_networks_let_in_their_own_however_they_are_spelled() {
    if no_grpcurl() {
        return;
    }
    let others = (0..998).map(|n| format!("\"10.{}.{}.0/24\"", n / 250, n % 250));
    let networks: Vec<_> = others
        .chain(["\"127.0.0.2\"".into(), "\"::ffff:127.0.3.0/120\"".into()])
        .collect();
    let networks = networks.join(", ");
    let service = Service::start(&format!(
        "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\nlimits = {{ allow_cidrs = [{networks}] }}\n\
         [listeners.uppercase]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:0\"\n\
         limits = {{ allow_cidrs = [{networks}] }}\n",
    ));
    let inside = [ELSEWHERE, [127, 0, 3, 200]];
    let outside = [HERE, [127, 0, 4, 1], [127, 0, 0, 3]];
    for source in outside {
        talk_from(source, service.address("ack"), None).expect_closed();
        peer_from(source, service.address("uppercase")).send("anybody?");
    }
    for source in inside {
        let mut talk = talk_from(source, service.address("ack"), None);
        talk.send("hello");
        talk.expect("received data!!");
        let peer = peer_from(source, service.address("uppercase"));
        peer.send("hello");
        peer.expect("HELLO");
    }
    for listener in ["ack", "uppercase"] {
        eventually("those of no network are turned away", || {
            service.rejected(listener, "denied") == outside.len() as u64
        });
    }
    let shown = &service.listener("ack")["limits"]["allowCidrs"];
    assert_eq!(shown[999], "127.0.3.0/24");
}

/// A socket with a port of services, if this user may have one.
fn service_port(source: [u8; 4]) -> Option<UdpSocket> {
    let found = (600..1_024)
        .rev()
        .find_map(|port| UdpSocket::bind((IpAddr::from(source), port)).ok());
    if found.is_none() {
        eprintln!("skipped: binding ports below 1024 is not permitted");
    }
    found
}

#[test]
fn services_get_no_answer_from_a_listener_that_is_open_to_all() {
    if no_grpcurl() {
        return;
    }
    let Some(port) = service_port(HERE) else {
        return;
    };
    let service = Service::start(
        r#"
        [listeners.local]
        protocol = "uppercase"
        bind = "127.0.0.1:0"
        [listeners.open]
        protocol = "uppercase"
        bind = "0.0.0.0:0"
        [listeners.qq]
        protocol = "chat"
        transport = "udp"
        bind = "0.0.0.0:0"
        "#,
    );
    port.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let here = |listener: &str| SocketAddr::new(IpAddr::from(HERE), service.port(listener));
    for listener in ["open", "qq", "local"] {
        port.send_to(b"hello", here(listener)).unwrap();
    }
    let mut answer = [0; 16];
    let (length, from) = port.recv_from(&mut answer).unwrap();
    assert_eq!((&answer[..length], from), (&b"HELLO"[..], here("local")));
    for listener in ["open", "qq"] {
        eventually("it is counted", || {
            service.rejected(listener, "low_source_port") == 1
        });
        assert_eq!(service.count(listener, "activeSessions"), 0);
        assert_eq!(service.count(listener, "sentBytes"), 0);
    }
    // Whoever has a port of clients is answered.
    let peer = Peer::to(here("open"));
    peer.send("hello");
    peer.expect("HELLO");
}

/// Sends what says that it comes from `source_port` of this machine; false if this user may not.
fn forge(source_port: u16, to: SocketAddr, data: &[u8]) -> bool {
    let Ok(raw) = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::UDP)) else {
        eprintln!("skipped: raw sockets are not permitted");
        return false;
    };
    let length = u16::try_from(8 + data.len()).unwrap();
    // Without a checksum, as IPv4 has it.
    let header = [source_port, to.port(), length, 0].map(u16::to_be_bytes);
    let datagram = [header.as_flattened(), data].concat();
    let sent = sendto(&raw, &datagram, SendFlags::empty(), &to).unwrap();
    assert_eq!(sent, datagram.len());
    true
}

#[test]
fn two_listeners_do_not_answer_each_other() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.one]
        protocol = "uppercase"
        bind = "127.0.0.1:0"
        [listeners.two]
        protocol = "uppercase"
        bind = "127.0.0.1:0"
        [listeners.every]
        protocol = "uppercase"
        bind = "0.0.0.0:0"
        [listeners.desk]
        protocol = "chat"
        transport = "udp"
        bind = "127.0.0.1:0"
        "#,
    );
    let here = |listener: &str| SocketAddr::new(IpAddr::from(HERE), service.port(listener));
    for (from, to) in [
        ("one", "two"),
        ("one", "one"),
        ("every", "one"),
        ("one", "every"),
        ("every", "every"),
        ("one", "desk"),
        ("desk", "one"),
    ] {
        let before = service.rejected(to, "own_address");
        if !forge(service.port(from), here(to), b"and you?") {
            return;
        }
        eventually("it is counted", || {
            service.rejected(to, "own_address") == before + 1
        });
    }
    for listener in ["one", "two", "every", "desk"] {
        assert_eq!(service.count(listener, "sentBytes"), 0, "{listener}");
        assert_eq!(service.count(listener, "activeSessions"), 0, "{listener}");
    }
    // The same port of another address is somebody else, and so is a port that was ours.
    let other = |listener| {
        let socket = UdpSocket::bind((IpAddr::from(ELSEWHERE), service.port(listener))).unwrap();
        socket.connect(here("two")).unwrap();
        Peer(socket)
    };
    let neighbour = other("one");
    neighbour.send("hello");
    neighbour.expect("HELLO");
    let stop = json!({ "name": "listeners/every" });
    let port = here("every");
    service.call("ListenerService/StopListener", &stop, "listener");
    let heir = UdpSocket::bind(port).unwrap();
    heir.connect(here("two")).unwrap();
    let heir = Peer(heir);
    heir.send("hello");
    heir.expect("HELLO");
}

#[test]
fn who_asks_everybody_is_answered_by_nobody() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.open]
        protocol = "uppercase"
        bind = "0.0.0.0:0"
        [listeners.desk]
        protocol = "chat"
        transport = "udp"
        bind = "0.0.0.0:0"
        "#,
    );
    let asker = UdpSocket::bind((IpAddr::from(HERE), 0)).unwrap();
    asker.set_broadcast(true).unwrap();
    for listener in ["open", "desk"] {
        let everybody = IpAddr::from([127, 255, 255, 255]);
        let to = SocketAddr::new(everybody, service.port(listener));
        asker.send_to(b"anybody?", to).unwrap();
        eventually("it is counted", || {
            service.rejected(listener, "broadcast") > 0
        });
        assert_eq!(service.count(listener, "sentBytes"), 0);
        assert_eq!(service.count(listener, "activeSessions"), 0);
    }
    let peer = Peer::to(SocketAddr::new(IpAddr::from(HERE), service.port("open")));
    peer.send("and you?");
    peer.expect("AND YOU?");
}

#[test]
fn no_answer_is_longer_than_its_question_times_what_is_configured() {
    if no_grpcurl() {
        return;
    }
    let factors = [("even", 1.0, 1), ("half", 1.5, 2), ("triple", 3.0, 4)];
    let toml = factors.map(|(name, factor, _)| {
        format!(
            "[listeners.{name}]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:0\"\ninvalid = \"replace\"\n\
             max_amplification = {factor:?}\n"
        )
    });
    let service = Service::start(&toml.concat());
    let questions = [
        // Each of two bytes, which become six: as many as there may be, and as many as can be answered.
        "ΐ".repeat(16_000).into_bytes(),
        "ΐ".repeat(10_900).into_bytes(),
        // Each of one byte, which becomes three.
        vec![0xff; 65_507],
        vec![0xff; 21_835],
        // Of both kinds: as long as 1.4 times, or just as long.
        ["ΐ".repeat(50), "a".repeat(400)].concat().into_bytes(),
        "ß".repeat(1_000).into_bytes(),
    ];
    for (name, factor, fit) in factors {
        let mut answered = 0;
        for question in &questions {
            let peer = service.peer(name);
            peer.send(question);
            peer.send("END");
            let mut answer = peer.recv();
            if answer != b"END" {
                let share = answer.len() as f64 / question.len() as f64;
                assert!(share <= factor, "{name}: {share}");
                answered += 1;
                answer = peer.recv();
            }
            assert_eq!(answer, b"END");
        }
        let (sent, received) = (
            service.count(name, "sentBytes"),
            service.count(name, "receivedBytes"),
        );
        assert!(sent as f64 <= received as f64 * factor, "{name}");
        let dropped =
            ["amplification", "answer_too_large"].map(|word| service.rejected(name, word));
        assert_eq!(
            answered + dropped.iter().sum::<u64>(),
            questions.len() as u64
        );
        assert_eq!(answered, fit, "{name}");
    }
}
