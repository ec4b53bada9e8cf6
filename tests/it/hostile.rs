//! Whoever reaches the control plane's port may send what they like: an honest client hardly notices, memory comes back,
//! and what is too much is refused.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tonic::Code;

use super::frames::{
    CHECK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Honest, RST_STREAM, WATCH,
    call, deaf, frame, head, message, next,
};
use super::support::{Service, Talk, eventually, memory, processor_time, soak, take_descriptors};

const LISTENER: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

/// What memory may be more afterwards: what an allocator keeps.
const KEPT: u64 = 8 << 20;

/// What an honest client notices at most: twice what its calls take at best, or this.
const NOTICED: Duration = Duration::from_millis(50);

/// Asks while `attack` runs. Its 99th percentile is hardly worse than before, and memory is what it was.
fn withstands(what: &str, service: &Service, attack: impl FnOnce(SocketAddr) + Send) {
    let mut honest = Honest::over_tcp(service.grpc());
    let alone = honest.p99(300);
    let (before, used) = (memory(service.pid()), processor_time(service.pid()));
    let (address, over) = (service.grpc(), AtomicBool::new(false));
    let mut took = Vec::new();
    let mut most = before;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let attacking = scope.spawn(|| {
            attack(address);
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) && !attacking.is_finished() {
            let (code, time) = honest.ask();
            assert_eq!(code, Code::Ok);
            took.push(time);
            most = most.max(memory(service.pid()));
        }
        attacking.join().unwrap();
    });
    let used = processor_time(service.pid()) - used;
    took.sort();
    let p99 = took[(took.len() * 99).div_ceil(100).max(1) - 1];
    println!(
        "{what}: alone {alone:?}, attacked {p99:?} (worst {:?}, {} calls in {:?}), {used:?} of the processor, \
         memory {} KiB, at most {} KiB",
        took.last().unwrap(),
        took.len(),
        began.elapsed(),
        before >> 10,
        most >> 10,
    );
    assert!(
        p99 <= NOTICED.max(2 * alone),
        "{what}: {p99:?} instead of {alone:?}"
    );
    eventually(&format!("{what}: memory is back"), || {
        memory(service.pid()) <= before + KEPT
    });
    assert_eq!(honest.ask().0, Code::Ok);
}

/// Writes until it is not taken any more; whether all was.
fn push(talk: &mut Talk, bytes: &[u8]) -> bool {
    talk.0.write_all(bytes).is_ok()
}

/// A service that has done all of what follows once, so that what it keeps for it is there.
fn warm() -> Service {
    let service = Service::start(LISTENER);
    Honest::over_tcp(service.grpc()).p99(300);
    service
}

#[test]
fn calls_that_are_taken_back_at_once_end_their_connection() {
    let service = warm();
    let all = if soak() { 100_000 } else { 5_000 };
    withstands("resets", &service, |address| {
        let mut sent = 0;
        while sent < all {
            let mut attackers: Vec<_> = (0..10).map(|_| deaf(address)).collect();
            for attacker in &mut attackers {
                let mut stream = 1;
                // As many on each connection as it lives for.
                while sent < all && stream < 20_000 {
                    let batch: Vec<u8> = (0..50)
                        .flat_map(|i| {
                            let stream = stream + 2 * i;
                            let headers = frame(HEADERS, END_HEADERS, stream, &head(CHECK, &[]));
                            [headers, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
                        })
                        .collect();
                    if !push(attacker, &batch) {
                        break;
                    }
                    (sent, stream) = (sent + 50, stream + 100);
                }
            }
        }
    });
}

#[test]
fn streams_that_are_let_go_once_they_are_answered_leave_nothing() {
    let service = warm();
    let all = if soak() { 100_000 } else { 2_000 };
    withstands("watches", &service, |address| {
        let mut sent = 0;
        while sent < all {
            let (mut attacker, mut stream) = (deaf(address), 1);
            // As long as the connection is let live.
            while sent < all && lets_go(&mut attacker, stream) {
                (sent, stream) = (sent + 50, stream + 100);
            }
            sent += 50;
        }
    });
}

/// Fifty watches, which are reset when the first answers come; whether the connection lives.
fn lets_go(talk: &mut Talk, first: u32) -> bool {
    let streams = (first..).step_by(2).take(50);
    let calls = streams.clone().flat_map(|s| call(s, WATCH, &[], b""));
    let resets = streams.flat_map(|s| frame(RST_STREAM, 0, s, &[0, 0, 0, 8]));
    push(talk, &calls.collect::<Vec<_>>())
        && talk.0.read(&mut [0; 16_384]).is_ok_and(|count| count > 0)
        && push(talk, &resets.collect::<Vec<_>>())
}

#[test]
fn headers_without_an_end_are_not_read_for_ever() {
    let service = warm();
    let all = if soak() { 1 << 30 } else { 16 << 20 };
    withstands("continuations", &service, |address| {
        let mut sent = 0;
        let more = frame(CONTINUATION, 0, 1, &[0x40; 16_384]);
        while sent < all {
            let mut attacker = deaf(address);
            push(&mut attacker, &frame(HEADERS, 0, 1, &head(CHECK, &[])));
            let from = sent;
            while sent < all && push(&mut attacker, &more) {
                sent += more.len();
            }
            // Most of it was never read: the kernel's own buffers hold some MiB.
            let once = sent - from;
            assert!(once < 16 << 20, "{once} bytes of one header");
            sent += 4 << 20;
        }
    });
}

#[test]
fn who_says_nothing_keeps_nobody_out() {
    take_descriptors();
    let service = warm();
    let all = if soak() { 10_000 } else { 1_000 };
    withstands("silence", &service, |address| {
        let silent: Vec<_> = (0..all).map(|_| Talk::to(address)).collect();
        // One who comes now and speaks is let in.
        let began = Instant::now();
        assert_eq!(Honest::over_tcp(address).ask().0, Code::Ok);
        println!("a newcomer was answered after {:?}", began.elapsed());
        drop(silent);
    });
}

/// What a call by hand is answered: the frames' payloads of its headers and trailers.
fn answered(address: SocketAddr, path: &str, more: &[(&str, &str)], bytes: &[u8]) -> Vec<u8> {
    let mut talk = deaf(address);
    talk.send(frame(HEADERS, END_HEADERS, 1, &head(path, more)));
    for (index, piece) in bytes.chunks(16_384).enumerate() {
        let last = (index + 1) * 16_384 >= bytes.len();
        let flags = if last { END_STREAM } else { 0 };
        // It may have been answered before all was said.
        push(&mut talk, &frame(DATA, flags, 1, piece));
    }
    loop {
        let (kind, stream, payload) = next(&mut talk);
        assert_ne!(kind, GOAWAY);
        if (kind, stream) == (HEADERS, 1) {
            return payload;
        }
    }
}

/// Whether headers hold a `grpc-status` of this code: its digits in Huffman's code, behind their length.
fn says(headers: &[u8], code: Code) -> bool {
    let coded: &[u8] = match code {
        Code::ResourceExhausted => &[0x81, 0x7b],
        Code::OutOfRange => &[0x82, 0x08, 0x7f],
        Code::Unimplemented => &[0x82, 0x08, 0xbf],
        Code::Internal => &[0x82, 0x0b, 0x3f],
        _ => unreachable!("not asked for"),
    };
    headers.windows(coded.len()).any(|window| window == coded)
}

const CREATE: &str = "/switchboard.v1.ListenerService/CreateListener";

#[test]
fn what_is_too_much_is_refused_before_it_is_held() {
    let service = warm();
    let address = service.grpc();
    let before = memory(service.pid());
    // A length of almost 4 GiB, and nothing of it.
    let giant = message(false, u32::MAX as usize, b"");
    assert!(says(
        &answered(address, CREATE, &[], &giant),
        Code::OutOfRange
    ));
    let large = message(false, 257 << 10, &[0; 32 << 10]);
    assert!(says(
        &answered(address, CREATE, &[], &large),
        Code::OutOfRange
    ));
    // What is said to be compressed is not looked into.
    let bomb = message(true, 32 << 10, &[0x1f; 32 << 10]);
    let gzip = [("grpc-encoding", "gzip")];
    assert!(says(
        &answered(address, CREATE, &gzip, &bomb),
        Code::Unimplemented
    ));
    // Groups in groups, of a field that there is not.
    let deep = vec![0x7b; 200];
    let deep = message(false, deep.len(), &deep);
    let said = answered(address, CREATE, &[], &deep);
    assert!(says(&said, Code::Internal), "{said:x?}");
    assert_eq!(Honest::over_tcp(address).ask().0, Code::Ok);
    let after = memory(service.pid());
    assert!(after < before + KEPT, "{before} and then {after}");
}

#[test]
fn a_method_has_one_name() {
    let service = warm();
    for path in [
        "//grpc.health.v1.Health/Check",
        "/grpc.health.v1.health/Check",
        "/grpc.health.v1.Health/check",
        "/grpc.health.v1.Health%2fCheck",
        "/grpc.health.v1.Health/Check/",
        "/./grpc.health.v1.Health/Check",
        "/x/../grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Che%63k",
        "/",
        "/*",
    ] {
        let said = answered(service.grpc(), path, &[], &message(false, 0, b""));
        assert!(says(&said, Code::Unimplemented), "{path}: {said:x?}");
    }
    let mut talk = deaf(service.grpc());
    talk.send(call(1, CHECK, &[], b""));
    while next(&mut talk).0 != DATA {}
}
