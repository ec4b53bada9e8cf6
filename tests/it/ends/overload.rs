//! Commands that take all they can get: whoever is honest is served as before, and it is over when their time is.

use std::time::{Duration, Instant};

use super::super::shell::processes;
use super::super::support::{Service, Talk, eventually, memory, soak};
use super::{gone_within, in_cages, mark, name, shell};

/// What takes all it can get, and what becomes of it.
const GREEDY: [(&str, &str); 5] = [
    ("fork bomb", "b() { b | b & b | b; }; b; sleep 100"),
    ("double forks", "b() { ( b & ) ; ( b & ); }; b; sleep 100"),
    ("memory bomb", "x=$(yes | tr '\\n' x); sleep 100"),
    ("spinner", "while :; do :; done"),
    ("flood", "yes | head -c 10000000000"),
];

/// The 99th of 100 of the times that an honest command took.
fn p99(talk: &mut Talk, commands: usize) -> Duration {
    let mut times: Vec<_> = (0..commands)
        .map(|_| {
            let began = Instant::now();
            let frame = talk.command("echo honest; true");
            assert_eq!(frame.stdout, b"honest\n", "{}", frame.header);
            began.elapsed()
        })
        .collect();
    times.sort();
    times[(commands * 99).div_ceil(100) - 1]
}

#[test]
fn who_is_honest_is_served_beside_those_who_take_all() {
    let (seconds, commands, most) = if soak() { (8, 1000, 64) } else { (1, 30, 4) };
    in_cages(|cage| {
        let (rough, honest) = (name(), name());
        let toml = shell(
            &rough,
            cage,
            &format!(
                "command_timeout = \"{seconds}s\"\nmax_output_bytes = \"{most}MiB\"\nqueue_timeout = \"200ms\""
            ),
            "max_memory_bytes = \"128MiB\"\nmax_concurrent_commands = 16",
        ) + &shell(&honest, cage, "", "");
        let service = Service::start(&toml);
        let mut talk = service.talk(&honest);
        p99(&mut talk, 10);
        let alone = p99(&mut talk, commands);
        let mark = mark();
        // One of each but the spinners, of which there are eight; two of each flood.
        for (what, text) in GREEDY {
            let many = match what {
                "spinner" => 8,
                _ => 1,
            };
            let began = Instant::now();
            let mut greedy: Vec<_> = (0..many).map(|_| service.talk(&rough)).collect();
            for talk in &mut greedy {
                talk.send(format!(": {mark}; {text}"));
            }
            eventually("it runs", || {
                processes(&mark) > 0 || began.elapsed().as_millis() > 300
            });
            let beside = p99(&mut talk, commands);
            let held = memory(service.pid());
            for talk in &mut greedy {
                talk.0
                    .set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                let frame = talk.frame();
                let late = began.elapsed().saturating_sub(Duration::from_secs(seconds));
                eprintln!(
                    "{cage}: {what}: {} {:?} {late:?} late, honest {alone:?} -> {beside:?}, {} MiB",
                    frame.header["signal"],
                    frame.error(),
                    held >> 20
                );
                // Four cages at once take each other's time.
                let patience = Duration::from_secs(if soak() { 1 } else { 2 });
                assert!(late < patience, "{cage}: {what}: {late:?}");
                if what == "flood" {
                    assert_eq!(frame.header["truncated"], true);
                    assert_eq!(frame.header["len"], most << 20);
                }
            }
            gone_within(&mark, Duration::from_millis(100));
            assert!(held < 256 << 20, "{cage}: {what}: {held}");
            if soak() {
                assert!(beside < 4 * alone, "{cage}: {what}: {alone:?}, {beside:?}");
            }
            let frame = service.talk(&rough).command("echo well");
            assert_eq!(frame.stdout, b"well\n", "{cage}: {what}: {}", frame.header);
        }
    });
}

#[test]
fn who_waits_for_a_turn_has_it_in_the_end() {
    in_cages(|cage| {
        let name = name();
        let keys = "queue_timeout = \"5s\"";
        let service = Service::start(&shell(&name, cage, keys, "max_concurrent_commands = 1"));
        let mut talks: Vec<_> = (0..50).map(|_| service.talk(&name)).collect();
        for talk in &mut talks {
            talk.send("echo had");
        }
        for talk in &mut talks {
            let frame = talk.frame();
            assert_eq!(frame.stdout, b"had\n", "{cage}: {}", frame.header);
        }
    });
}

#[test]
fn fifty_at_once_take_turns_within_their_budget() {
    in_cages(|cage| {
        let name = name();
        let keys = "command_timeout = \"2s\"\nqueue_timeout = \"500ms\"";
        let service = Service::start(&shell(&name, cage, keys, "max_concurrent_commands = 4"));
        let mark = mark();
        let mut talks: Vec<_> = (0..50).map(|_| service.talk(&name)).collect();
        let began = Instant::now();
        for talk in &mut talks {
            talk.send(format!(": {mark}; trap '' TERM; sleep 100; :"));
        }
        let mut codes = std::collections::BTreeMap::new();
        for talk in &mut talks {
            let frame = talk.frame();
            *codes.entry(frame.error().to_owned()).or_insert(0) += 1;
        }
        assert_eq!(codes["timed_out"], 4, "{cage}: {codes:?}");
        assert_eq!(codes["busy"], 46, "{cage}: {codes:?}");
        assert!(began.elapsed() < Duration::from_millis(3500), "{cage}");
        gone_within(&mark, Duration::from_millis(50));
        assert_eq!(service.talk(&name).command("echo well").stdout, b"well\n");
    });
}
