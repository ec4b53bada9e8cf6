//! The service is killed while commands run: none of them outlives it, and the next finds a clean house.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::shell::processes;
use super::super::support::{Service, eventually, soak};
use super::{
    expect_no_traces, gone_within, in_cages, is_launcher, launchers, mark, name, shell, signal,
};

/// Commands that run at each kill.
const COMMANDS: usize = 20;

#[test]
fn a_killed_service_takes_its_commands_along() {
    let rounds = if soak() { 25 } else { 1 };
    in_cages(|cage| {
        let name = name();
        let sandbox = format!("max_concurrent_commands = {COMMANDS}");
        let toml = shell(&name, cage, "", &sandbox);
        let mut home = Service::home_for(&toml);
        let (mut most, mut ready) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            let began = Instant::now();
            let service = Service::start_in(home, &[], &[]);
            let address = service.address(&name);
            ready = ready.max(began.elapsed());
            expect_no_traces(&name);
            let (mark, mut talks) = (mark(), Vec::new());
            for _ in 0..COMMANDS {
                let mut talk = service.talk(&name);
                talk.send(format!(
                    "trap '' TERM; : {mark}; (setsid sh -c 'sleep 100; : {mark}' &); sleep 100; :"
                ));
                talks.push(talk);
            }
            eventually("all run", || processes(&mark) >= 2 * COMMANDS);
            let old = launchers(&service);
            let killed = Instant::now();
            service.signal(Signal::KILL);
            gone_within(&mark, Duration::from_millis(500));
            most = most.max(killed.elapsed());
            (home, _) = service.leave(Signal::KILL);
            let bound = TcpListener::bind(address);
            assert!(bound.is_ok(), "{cage}: {bound:?}");
            eventually("the launchers have ended too", || {
                old.iter().all(|pid| !is_launcher(*pid))
            });
            assert_eq!(
                super::traces(&name),
                Vec::<std::path::PathBuf>::new(),
                "{cage}"
            );
        }
        eprintln!("{cage}: {rounds} kills: gone after {most:?} at most, ready after {ready:?}");
    });
}

#[test]
fn what_even_a_killed_launcher_leaves_is_gone_with_the_next() {
    in_cages(|cage| {
        let name = name();
        let toml = shell(&name, cage, "", "");
        let service = Service::start(&toml);
        let (mark, mut talk) = (mark(), service.talk(&name));
        talk.send(format!(
            "trap '' TERM; : {mark}; (setsid sh -c 'sleep 100; : {mark}' &); sleep 100; :"
        ));
        eventually("it runs", || processes(&mark) >= 2);
        for pid in launchers(&service) {
            signal(pid, Signal::KILL);
        }
        let (home, _) = service.leave(Signal::KILL);
        let service = Service::start_in(home, &[], &[]);
        gone_within(&mark, Duration::from_secs(2));
        expect_no_traces(&name);
        assert_eq!(service.talk(&name).command("echo well").stdout, b"well\n");
    });
}
