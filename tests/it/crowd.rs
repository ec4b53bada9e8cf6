//! A room in which some never read: the others hear everything as soon as without them, and they are closed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::limits::{sessions, talk_from};
use super::support::{Service, Talk, eventually, memory, no_grpcurl, soak, take_descriptors};

/// What an outbox holds that nobody has set.
const OUTBOX: u64 = 256 << 10;

/// Members, those of them who never read, and messages that are measured.
fn sizes() -> (usize, usize, usize) {
    if soak() {
        (1_000, 50, 2_000)
    } else {
        (200, 10, 300)
    }
}

/// Those of a room who speak and read.
struct Room {
    speaker: Talk,
    readers: Vec<Talk>,
    said: usize,
}

impl Room {
    fn of(service: &Service, readers: usize) -> Self {
        let enter = |_| {
            let mut talk = service.talk("room");
            talk.expect("welcome\n");
            talk
        };
        Self {
            speaker: enter(0),
            readers: (0..readers).map(enter).collect(),
            said: 0,
        }
    }

    /// How long it takes until every reader has one more message, and nothing else.
    fn say(&mut self) -> Duration {
        // Long enough to fill soon what the kernel keeps for those who do not read.
        let line = format!("{:04095}\n", self.said);
        self.said += 1;
        let began = Instant::now();
        self.speaker.send(&line);
        for reader in &mut self.readers {
            reader.expect(&line);
        }
        began.elapsed()
    }
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() * 99 / 100]
}

/// Enters and never reads, with a small window.
fn silent(service: &Service) -> Talk {
    talk_from([127, 0, 0, 1], service.address("room"), Some(4 << 10))
}

/// Who was closed, and for what.
fn closed(service: &Service) -> Vec<(SocketAddr, String)> {
    let all = sessions(service, "room");
    let closed = all.iter().filter(|s| s["state"] == "STATE_CLOSED");
    closed
        .map(|s| {
            let peer = s["peer"].as_str().unwrap().parse().unwrap();
            (peer, s["closeReason"].as_str().unwrap().to_owned())
        })
        .collect()
}

#[test]
fn nobody_waits_for_those_who_do_not_read() {
    if no_grpcurl() {
        return;
    }
    take_descriptors();
    let (members, slow, messages) = sizes();
    let service = Service::start(&format!(
        "[listeners.room]\nprotocol = \"chat\"\nmode = \"room\"\npace = \"free\"\ngreeting = \"welcome\"\n\
         bind = \"127.0.0.1:0\"\nlimits = {{ max_sessions_per_source = {} }}\n",
        members + 1
    ));
    let mut room = Room::of(&service, members - 1 - slow);
    // With the looks at it that it gets later, which cost it something too.
    let mut took = Vec::new();
    while took.len() < messages {
        took.extend((0..10).map(|_| room.say()));
        service.count("room", "activeSessions");
    }
    let without = p99(took);

    let before = memory(service.pid());
    let crowd: Vec<Talk> = (0..slow).map(|_| silent(&service)).collect();
    eventually("all are in", || {
        service.count("room", "activeSessions") == members as u64
    });
    let (began, mut took) = (Instant::now(), Vec::new());
    let (mut most, mut gone_after) = (before, None);
    while took.len() < messages || gone_after.is_none() {
        took.extend((0..10).map(|_| room.say()));
        most = most.max(memory(service.pid()));
        let left = service.count("room", "activeSessions");
        if left == (members - slow) as u64 {
            gone_after.get_or_insert_with(|| began.elapsed());
        }
        assert!(began.elapsed() < Duration::from_secs(60), "they stay");
    }
    let (with, gone_after, grown) = (p99(took), gone_after.unwrap(), most - before);
    println!(
        "p99 {without:?} without, {with:?} with {slow} of {members}; closed after {gone_after:?}, {grown} bytes more"
    );
    // A debug build shares its machine with the other tests: a hiccup is none of ours.
    let hiccup = Duration::from_millis(if soak() { 0 } else { 30 });
    assert!(with <= 2 * without + hiccup, "{with:?}, {without:?}");
    assert!(gone_after < Duration::from_secs(11), "{gone_after:?}");
    assert!(grown <= slow as u64 * OUTBOX * 11 / 10, "{grown}");
    let mut closed = closed(&service);
    closed.sort();
    let mut expected: Vec<_> = crowd
        .iter()
        .map(|talk| (talk.local(), "CLOSE_REASON_SLOW_CONSUMER".to_owned()))
        .collect();
    expected.sort();
    assert_eq!(closed, expected);
}

#[test]
fn what_is_said_in_a_burst_reaches_everyone_whole_and_in_order() {
    let service = Service::start(
        "[listeners.room]\nprotocol = \"chat\"\nmode = \"room\"\npace = \"free\"\ngreeting = \"welcome\"\n\
         bind = \"127.0.0.1:0\"\nlimits = { outbox_bytes = \"1KiB\" }\n",
    );
    let mut room = Room::of(&service, 20);
    // More than an outbox, and more than what goes together: nobody who reads is closed for it.
    let burst: String = (0..2_000).map(|n| format!("message {n}\n")).collect();
    room.speaker.send(burst.replace("\n", "\n\n"));
    for reader in &mut room.readers {
        reader.expect(&burst);
    }
    room.say();
}
