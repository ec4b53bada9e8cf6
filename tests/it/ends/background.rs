//! What a command leaves running in the background, and how long a command may be.

use std::time::{Duration, Instant};

use super::super::support::{Service, soak};
use super::{gone_within, in_cages, mark, name, shell};

#[test]
fn children_in_the_background_hold_an_answer_only_when_asked_for() {
    in_cages(|cage| {
        let waits = shell("waits", cage, "wait_for_background = true", "");
        let lingers = shell("lingers", cage, "linger = \"700ms\"", "");
        let service = Service::start(&format!("{}{waits}{lingers}", shell("plain", cage, "", "")));
        let ask = |name: &str, command: String| {
            let mut talk = service.talk(name);
            let began = Instant::now();
            let frame = talk.command(command);
            (frame, began.elapsed())
        };

        // It holds the outputs open, and what it says too late is not said.
        let m = mark();
        let (frame, took) = ask("plain", format!("sh -c 'sleep 100; : {m}' & echo done"));
        assert_eq!(
            (&*frame.stdout, frame.error()),
            (&b"done\n"[..], ""),
            "{cage}"
        );
        assert_eq!(frame.header["exit_code"], 0);
        assert!(took < Duration::from_secs(2), "{cage}: {took:?}");
        gone_within(&m, Duration::ZERO + Duration::from_millis(50));

        // It does not, and nothing is waited for.
        let command = format!("sh -c 'sleep 100; : {m}' >/dev/null 2>&1 & echo done");
        let (frame, _) = ask("plain", command);
        assert_eq!(&*frame.stdout, b"done\n");
        assert!(
            frame.header["duration_ms"].as_u64().unwrap() < 90,
            "{cage}: {}",
            frame.header
        );
        gone_within(&m, Duration::from_millis(50));

        let (frame, took) = ask("lingers", "(sleep 0.2; echo late) & echo done".into());
        assert_eq!(&*frame.stdout, b"done\nlate\n", "{cage}");
        assert!(took < Duration::from_millis(700), "{cage}: {took:?}");
        let (frame, took) = ask("lingers", "(sleep 90; echo late) & echo done".into());
        assert_eq!(&*frame.stdout, b"done\n", "{cage}");
        assert!(took >= Duration::from_millis(700), "{cage}: {took:?}");

        let (frame, took) = ask("waits", "(sleep 1; echo late) & echo done".into());
        assert_eq!(&*frame.stdout, b"done\nlate\n", "{cage}");
        assert!(took >= Duration::from_secs(1), "{cage}: {took:?}");
    });
}

#[test]
fn who_ends_in_the_background_counts_no_more() {
    in_cages(|cage| {
        let name = name();
        let service = Service::start(&shell(&name, cage, "", "max_processes = 16"));
        let mut talk = service.talk(&name);
        // Each is on its way out before the next begins.
        let times = if soak() { 200 } else { 40 };
        let many = format!(
            "mkfifo f; i=0; while [ $i -lt {times} ]; do (echo >f &); read x <f; i=$((i+1)); done; echo all"
        );
        let frame = talk.command(many);
        let said = String::from_utf8_lossy(&frame.stderr);
        assert_eq!(frame.stdout, b"all\n", "{cage}: {said}");
    });
}

#[test]
fn commands_are_as_long_as_the_kernel_takes_and_no_longer() {
    const LONGEST: usize = 131_071;
    in_cages(|cage| {
        let name = name();
        let keys = "framing = \"line\"\nlimits = { max_message_bytes = 200000 }";
        let service = Service::start(&shell(&name, cage, keys, ""));
        let mut talk = service.talk(&name);
        for _ in 0..if soak() { 50 } else { 2 } {
            let (head, tail) = ("printf %s ", " | wc -c");
            let filler = LONGEST - head.len() - tail.len();
            let command = format!("{head}{}{tail}", "x".repeat(filler));
            let frame = talk.command(format!("{command}\n"));
            let said = String::from_utf8(frame.stdout).unwrap();
            assert_eq!(said.trim(), filler.to_string(), "{cage}: {}", frame.header);
            let frame = talk.command(format!("{command} \n"));
            assert_eq!(frame.header["exit_code"], serde_json::Value::Null);
            assert_eq!(frame.error(), "command_too_long", "{cage}");
            assert!(!frame.stderr.is_empty());
        }
        assert_eq!(talk.command("echo well\n").stdout, b"well\n");
    });
}
