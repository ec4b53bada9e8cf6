//! A disk that is full: replies are refused, peers are answered at their time, and room is all it takes.

use std::process::Command;
use std::time::{Duration, Instant};

use tonic::Code;

use super::{Operator, metric, reason, reply};
use crate::durable::{Disk, on_a_small_disk};
use crate::support::{Service, program};

const DESKS: &str = "[store]\npath = \"\"\n\
    [listeners.patient]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\nunattended_after = \"1h\"\n\
    [listeners.hasty]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\nunattended_after = \"500ms\"\n";

/// As many as may wait in one conversation.
const MESSAGES: u32 = 250;

#[test]
fn what_cannot_be_kept_is_not_said_and_nobody_waits_for_ever() {
    let Some(command) = on_a_small_disk(&program()) else {
        return println!("no namespace is to be had here; skipped");
    };
    let home = Service::home_for(DESKS);
    std::fs::create_dir(home.path().join("switchboard")).unwrap();
    let service = start(home, command);
    let operator = Operator::of(&service);
    let mut peer = service.talk("patient");
    peer.send("?\n".repeat(MESSAGES as usize));
    let name = operator.waiting("patient", MESSAGES).name;
    let disk = Disk::of(&service);
    disk.fill();
    let long = "x".repeat(4_000);
    let mut given = 0;
    let refused = loop {
        match operator.reply(reply(&name, 0, &long)) {
            Ok(_) => given += 1,
            Err(refused) => break refused,
        }
        assert!(given < MESSAGES, "the disk does not fill");
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(reason(&refused), "TRANSCRIPT_NOT_KEPT");
    // What was acknowledged was delivered, and nothing of the other.
    for _ in 0..given {
        peer.expect(format!("{long}\n"));
    }
    assert_eq!(operator.waiting("patient", MESSAGES - given).name, name);

    // A long message that cannot be kept is nobody's to answer; its client does not wait for ever.
    let mut other = service.talk("hasty");
    let began = Instant::now();
    other.send(format!("{}\n", "y".repeat(60_000)));
    other.expect("no operator is available\n");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(450), "{took:?}");
    assert!(operator.inbox("hasty").is_empty());
    let failures = metric(&service, "switchboard_chat_transcript_failures_total");
    assert!(failures >= 2.0, "{failures}");

    disk.make_room();
    let answered = operator.reply(reply(&name, 0, "there is room again"));
    assert_eq!(u64::from(given) + 1, answered.unwrap().in_reply_to);
    peer.expect("there is room again\n");
    let said = operator.transcripts("patient").remove(&name).unwrap();
    assert_eq!(said.len() as u32, MESSAGES + given + 1);
}

fn start(home: std::sync::Arc<tempfile::TempDir>, command: Command) -> Service {
    let service = Service::spawn(home, command, &[], &[]);
    service.announced("http");
    service
}
