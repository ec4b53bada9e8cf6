//! Whoever says too much is slowed down before it is ended, and a flood of strangers costs those who are known nothing.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::limits::{close_reason, talk_from};
use super::support::{Peer, Service, eventually, memory, no_grpcurl, number, soak};

/// The conversation of a peer, once it is there.
fn conversation_of(service: &Service, listener: &str, peer: SocketAddr) -> Value {
    let request = json!({
        "parent": format!("listeners/{listener}"), "filter": format!("peer = \"{peer}\""),
    });
    let mut found = Value::Null;
    eventually("its conversation is there", || {
        let all = service.call("ChatService/ListConversations", &request, "conversations");
        let open = |c: &&Value| c["state"] != "STATE_CLOSED";
        found = all
            .as_array()
            .and_then(|all| all.iter().find(open).cloned())
            .unwrap_or_default();
        !found.is_null()
    });
    found
}

fn reply(service: &Service, to: &Value, text: &str) {
    let request = json!({ "name": to["name"], "text": text });
    service.call("ChatService/ReplyConversation", &request, "message");
}

/// Sends one datagram each from so many addresses and ports of this machine.
fn flood(sources: std::ops::Range<u32>, to: SocketAddr) {
    for n in sources {
        // A few ports of each address.
        let [_, a, b, c] = (n / 4).to_be_bytes();
        let source = IpAddr::from([127, 16 + a, b, c.max(1)]);
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        // What there is no room for is lost, as datagrams are.
        let _ = socket.send_to(b"is anybody there?", to);
    }
}

fn mebibytes(bytes: i64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[test]
fn a_flood_of_strangers_drives_out_strangers_alone() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [store]
        path = "state.db"
        [listeners.quick]
        protocol = "chat"
        transport = "udp"
        bind = "127.0.0.1:0"
        unattended_after = "20ms"
        limits = { max_sessions = 2000 }
        [listeners.slow]
        protocol = "chat"
        transport = "udp"
        bind = "127.0.0.1:0"
        unattended_after = "10m"
        limits = { max_sessions = 2000 }
        "#,
    );
    let sources: u32 = if soak() { 1_000_000 } else { 50_000 };
    // Answered by a person, and spoken again: it is known, and its next answer waits for nobody.
    let known = service.peer("quick");
    known.send("first");
    known.recv();
    known.send("second");
    known.recv();
    let before = conversation_of(&service, "quick", known.local())["name"].clone();
    // At the other desk strangers wait, so that nobody but these two could be pushed out.
    let [answered, owed] = [(); 2].map(|()| service.peer("slow"));
    for peer in [&answered, &owed] {
        peer.send("hello");
        conversation_of(&service, "slow", peer.local());
    }
    let kept = conversation_of(&service, "slow", answered.local());
    reply(&service, &kept, "hello too");
    answered.expect("hello too");

    let over = AtomicBool::new(false);
    let (mut exchanges, mut lost) = (0, 0);
    let (mut rss, began) = (Vec::new(), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for part in 0..10 {
                let part = part * (sources / 10)..(part + 1) * (sources / 10);
                flood(part.clone(), service.address("quick"));
                flood(part, service.address("slow"));
                rss.push(memory(service.pid()) as i64);
            }
            over.store(true, Ordering::Release);
        });
        known
            .0
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        while !over.load(Ordering::Acquire) {
            known.send("still there?");
            // The kernel may have lost it on its way: then it is said again, as by any client over UDP.
            match known.0.recv(&mut [0; 64]) {
                Ok(_) => exchanges += 1,
                Err(_) => lost += 1,
            }
        }
    });
    let took = began.elapsed();
    let (accepted, dropped) = ["quick", "slow"]
        .iter()
        .fold((0, 0), |(accepted, dropped), name| {
            let count = |key| service.count(name, key);
            (
                accepted + count("acceptedConnections"),
                dropped + count("datagramsDropped"),
            )
        });
    let grown = mebibytes(rss[9] - rss[4]);
    println!(
        "{accepted} of {} strangers in {took:?} ({:.0}/s), {dropped} lost in the kernel; {exchanges} exchanges, \
         {lost} of them lost; memory {:.1} MiB, {grown:+.1} in the second half",
        2 * sources,
        accepted as f64 / took.as_secs_f64(),
        mebibytes(rss[9]),
    );
    for name in ["quick", "slow"] {
        assert!(service.count(name, "activeSessions") <= 2_000);
    }
    assert!(exchanges > lost, "{exchanges}, {lost}");
    assert!(grown < 16.0, "{grown} MiB");
    // They are who they were before, and are answered.
    let now = conversation_of(&service, "quick", known.local());
    assert_eq!(now["name"], before);
    answered.send("one more thing");
    eventually("it waits", || {
        let now = conversation_of(&service, "slow", answered.local());
        number(&now["unansweredMessages"]) == 1
    });
    assert_eq!(
        conversation_of(&service, "slow", answered.local())["name"],
        kept["name"]
    );
    reply(&service, &kept, "yes?");
    answered.expect("yes?");
    reply(
        &service,
        &conversation_of(&service, "slow", owed.local()),
        "at last",
    );
    owed.expect("at last");
    // Nobody at the slow desk was owed nothing but the one who is known.
    assert!(service.rejected("slow", "max_sessions") > 0);
    assert_eq!(service.rejected("quick", "unattended_cut"), 0);
}

#[test]
fn who_speaks_too_fast_is_slowed_down_first() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
         unattended_after = \"10ms\"\nlimits = { max_message_rate = 20.0 }\n",
    );
    let mut pasted = service.talk("chat");
    let began = Instant::now();
    // The burst at once, the rest at the rate; each is answered.
    pasted.send("line\n".repeat(50));
    pasted.expect("no operator is available\n".repeat(50));
    assert!(
        began.elapsed() >= Duration::from_millis(1_400),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(service.rejected("chat", "rate_delayed"), 1);
    assert_eq!(service.rejected("chat", "rate_limited"), 0);

    // Who goes on is read no faster, and then closed; what was taken is answered.
    let mut flood = service.talk("chat");
    let peer = flood.local();
    flood.send("more\n".repeat(10_000));
    let answers = flood.rest();
    let answers = answers
        .chunks(25)
        .filter(|line| **line == *b"no operator is available\n");
    let answers = answers.count();
    assert!((100..=125).contains(&answers), "{answers}");
    drop(flood);
    assert_eq!(close_reason(&service, "chat", peer), "rate_limited");
    assert_eq!(service.rejected("chat", "rate_limited"), 1);
    assert_eq!(service.rejected("chat", "rate_delayed"), 2);
    // The one who was slowed down goes on.
    pasted.send("and now?\n");
    pasted.expect("no operator is available\n");
}

#[test]
fn many_sessions_of_one_source_share_its_rate() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n\
         unattended_after = \"10ms\"\nlimits = { max_message_rate = 2.0 }\n",
    );
    let address = service.address("chat");
    let here = |last| talk_from([127, 0, 0, last], address, None);
    // Ten sessions' worth at once for one address, however many it opens.
    let mut talks: Vec<_> = (0..15).map(|_| here(9)).collect();
    talks.iter_mut().for_each(|talk| talk.send("a\nb\n"));
    let mut other = here(8);
    other.send("c\n");
    other.expect("no operator is available\n");
    eventually("some wait", || service.rejected("chat", "rate_delayed") > 0);
    for talk in &mut talks {
        talk.expect("no operator is available\n".repeat(2));
    }
    assert_eq!(service.rejected("chat", "rate_limited"), 0);
}

#[test]
fn datagrams_over_the_rate_are_dropped_and_counted() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.qq]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"127.0.0.1:0\"\n\
         unattended_after = \"10ms\"\nlimits = { max_message_rate = 1.0 }\n",
    );
    let hasty: Peer = service.peer("qq");
    for _ in 0..5 {
        hasty.send("hello");
    }
    hasty.expect("no operator is available");
    eventually("the others are counted", || {
        service.rejected("qq", "rate_limited") == 4
    });
    let request = json!({ "parent": conversation_of(&service, "qq", hasty.local())["name"] });
    let said = service.call("ChatService/ListMessages", &request, "messages");
    assert_eq!(said.as_array().unwrap().len(), 2);
    assert_eq!(number(&said[1]["inReplyTo"]), 1);
}

/// An address of this machine that others may forge; none where it has no network.
fn public_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel says from where it would be.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

#[test]
fn strangers_are_sent_no_multiple_of_what_they_sent() {
    if no_grpcurl() {
        return;
    }
    let Some(address) = public_address() else {
        eprintln!("skipped: there is no address but of loopback");
        return;
    };
    let reply = "没有人在值班。".repeat(20);
    let service = Service::start(&format!(
        "[listeners.qq]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"0.0.0.0:0\"\n\
         unattended_after = \"50ms\"\nunattended_reply = \"{reply}\"\n\
         [listeners.few]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"0.0.0.0:0\"\n\
         unattended_after = \"50ms\"\nunattended_reply = \"{reply}\"\n\
         limits = {{ allow_cidrs = [\"{address}/32\"] }}\n"
    ));
    let peer = |listener: &str| {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.connect((address, service.port(listener))).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Peer(socket)
    };
    // 28 bytes of headers and 2 come, so 62 may go besides 28: whole characters of three bytes.
    let stranger = peer("qq");
    stranger.send("hi");
    let first = String::from_utf8(stranger.recv()).unwrap();
    assert!(
        first.len() <= 62 && first.len() > 50 && reply.starts_with(&first),
        "{first}"
    );
    assert_eq!(service.rejected("qq", "unattended_cut"), 1);
    // It has read that, so it is who it seems.
    stranger.send("hi");
    stranger.expect(&reply);
    assert_eq!(service.rejected("qq", "unattended_cut"), 1);
    // Whoever is let in by name is who it seems.
    let known = peer("few");
    known.send("hi");
    known.expect(&reply);

    // A network gets so many a second, and each of them its answer.
    let crowd: Vec<_> = (0..300).map(|_| peer("qq")).collect();
    crowd.iter().for_each(|peer| peer.send("is anybody there?"));
    crowd.iter().for_each(|peer| drop(peer.recv()));
    assert!(service.rejected("qq", "unattended_delayed") > 0);
    assert_eq!(service.rejected("qq", "unattended_cut"), 301);
}
