//! The time of a command is over: it goes, with all that it has started.

use std::time::{Duration, Instant};

use super::super::shell::processes;
use super::super::support::{Service, soak};
use super::{expect_no_traces, in_cages, mark, name, shell, stubborn};

/// From being asked to end until being killed, and until all are gone.
const GRACE: Duration = Duration::from_secs(1);
const GONE: Duration = Duration::from_millis(500);

/// Commands at once.
const ABREAST: usize = 10;

#[test]
fn a_command_goes_in_its_time_with_all_that_it_started() {
    let (commands, sizes): (usize, &[(usize, u64)]) = match soak() {
        true => (200, &[(1, 300), (50, 1000), (500, 5000)]),
        false => (2, &[(50, 600)]),
    };
    in_cages(|cage| {
        for (children, millis) in sizes {
            let most = end(cage, commands, *children, Duration::from_millis(*millis));
            eprintln!("{cage}: {commands} commands of {children}: gone {most:?} after their time");
        }
    });
}

/// The longest that one took from its time-out.
fn end(cage: &str, commands: usize, children: usize, timeout: Duration) -> Duration {
    let name = name();
    let keys = format!("command_timeout = \"{}ms\"", timeout.as_millis());
    let sandbox = format!(
        "max_processes = {}\nmax_memory_bytes = \"2GiB\"\nmax_concurrent_commands = {ABREAST}",
        2 * children + 64
    );
    let service = Service::start(&shell(&name, cage, &keys, &sandbox));
    let mut talks: Vec<_> = (0..ABREAST).map(|_| service.talk(&name)).collect();
    let mut most = Duration::ZERO;
    for batch in (0..commands).step_by(ABREAST) {
        let some = ABREAST.min(commands - batch);
        let marks: Vec<_> = (0..some).map(|_| mark()).collect();
        let began = Instant::now();
        for (talk, mark) in talks.iter_mut().zip(&marks) {
            talk.send(stubborn(children, mark));
        }
        let mut frames = Vec::new();
        for talk in &mut talks[..some] {
            let patience = Some(3 * timeout + 10 * GRACE);
            talk.0.set_read_timeout(patience).unwrap();
            let frame = talk.frame();
            frames.push((frame, began.elapsed().saturating_sub(timeout)));
        }
        let left: usize = marks.iter().map(|mark| processes(mark)).sum();
        assert_eq!(left, 0, "{cage}: of {children}");
        for (frame, late) in frames {
            assert_eq!(frame.error(), "timed_out", "{cage}: {}", frame.header);
            let all = format!("{children}\n");
            assert_eq!(frame.stdout, all.as_bytes(), "{cage}: all were there");
            assert!(late < GRACE + GONE, "{cage}: {late:?} after its time");
            most = most.max(late);
        }
    }
    drop(talks);
    drop(service);
    expect_no_traces(&name);
    most
}
