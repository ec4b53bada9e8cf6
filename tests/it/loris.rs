//! Thousands of connections that say a byte now and then, or nothing: they cost little memory, and nobody waits for them.

use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::support::{Service, Talk, eventually, memory, no_grpcurl, soak, take_descriptors};

/// Most bytes that one of them may cost.
const COST: u64 = 2_560;

/// How long each of them thinks about its next byte.
const THINKS: Duration = Duration::from_secs(3);

/// The listeners, and how a message to each begins that is never whole; none says nothing.
const LISTENERS: [(&str, &[u8]); 3] = [
    ("silent", b""),
    ("line", b"hel"),
    ("length", b"\xe8\x03\0\0ec"),
];

/// Of an honest client, one question behind the other.
fn p99(talk: &mut Talk, lasts: Duration) -> Duration {
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < lasts {
        let asked = Instant::now();
        talk.send("hello\n");
        talk.expect("received data!!\n");
        took.push(asked.elapsed());
    }
    took.sort();
    took[took.len() * 99 / 100]
}

/// Lets each that speaks say one byte, and again, until told to stop: how many were said.
fn drip(crowd: &mut [(Talk, bool)], stop: &Receiver<()>) -> usize {
    let pause = THINKS / u32::try_from(crowd.len()).unwrap();
    let mut said = 0;
    loop {
        for (talk, _) in crowd.iter_mut().filter(|(_, speaks)| *speaks) {
            if stop.try_recv() != Err(TryRecvError::Empty) {
                return said;
            }
            talk.send("o");
            said += 1;
            std::thread::sleep(pause);
        }
    }
}

#[test]
fn slow_connections_cost_little_and_hold_up_nobody() {
    if no_grpcurl() {
        return;
    }
    take_descriptors();
    let (count, lasts) = if soak() {
        (10_000, Duration::from_secs(20))
    } else {
        (1_500, Duration::from_secs(2))
    };
    let limits = format!("limits = {{ max_sessions_per_source = {count} }}\n");
    let service = Service::start(&format!(
        "[listeners.silent]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n{limits}\
         [listeners.line]\nprotocol = \"ack\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\n{limits}\
         [listeners.length]\nprotocol = \"shell\"\nprograms = [\"echo\"]\nframing = \"length\"\nbind = \"127.0.0.1:0\"\n{limits}"
    ));
    let mut honest = service.talk("line");
    let alone = p99(&mut honest, lasts);

    // What the control plane takes for its first calls is there before.
    service.count("line", "activeSessions");
    let before = memory(service.pid());
    let mut crowd: Vec<(Talk, bool)> = (0..count)
        .map(|n| {
            let (listener, begins) = LISTENERS[n % LISTENERS.len()];
            let mut talk = service.talk(listener);
            talk.send(begins);
            (talk, !begins.is_empty())
        })
        .collect();
    eventually("all are in", || {
        let there = LISTENERS.map(|(name, _)| service.count(name, "activeSessions"));
        there.iter().sum::<u64>() == count as u64 + 1
    });
    let (stop, stopped) = channel();
    let dripping = std::thread::spawn(move || (drip(&mut crowd, &stopped), crowd));
    let among = p99(&mut honest, lasts);
    let cost = (memory(service.pid()) - before) / count as u64;
    drop(stop);
    let (said, crowd) = dripping.join().unwrap();
    println!(
        "p99 {alone:?} alone, {among:?} among {count} who said {said} bytes; {cost} bytes each"
    );
    assert!(said > 0);
    assert!(cost <= COST, "{cost}");
    assert!(among < Duration::from_millis(50), "{among:?}");
    // A debug build shares its machine with the other tests: a hiccup is none of ours.
    let hiccup = Duration::from_millis(if soak() { 0 } else { 5 });
    assert!(among <= 2 * alone + hiccup, "{among:?}, {alone:?}");
    for (name, _) in LISTENERS {
        let open = crowd.len() / LISTENERS.len() + usize::from(name == "line");
        assert!(service.count(name, "activeSessions") >= open as u64);
    }
}
