//! Launchers and workers that are killed or stopped: every command is answered, and the listener is well again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::super::shell::processes;
use super::super::support::{Service, Talk, eventually, no_grpcurl, soak};
use super::{Chance, gone_within, in_cages, launchers, mark, name, shell, signal, workers};

/// What may become of a command whose cage ends.
const ANSWERS: [&str; 5] = [
    "",
    "launcher_lost",
    "launcher_unavailable",
    "spawn_failed",
    "busy",
];

fn serves(service: &Service, name: &str) -> bool {
    let request = json!({ "service": format!("listeners/{name}") });
    service.call("grpc.health.v1.Health/Check", &request, "status") == "SERVING"
}

/// Has eight sessions run commands while `harm` is done again and again; all are answered. How many well.
fn under_load(
    service: &Service,
    name: &str,
    time: Duration,
    mut harm: impl FnMut(),
) -> (usize, usize) {
    let (over, well, ill) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut talk = service.talk(name);
                while !over.load(Ordering::Relaxed) {
                    let frame = talk.command("sleep 0.01; echo well");
                    let error = frame.error();
                    assert!(ANSWERS.contains(&error), "{}", frame.header);
                    let count = if frame.stdout == b"well\n" && error.is_empty() {
                        &well
                    } else {
                        &ill
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let began = Instant::now();
        while began.elapsed() < time {
            harm();
            std::thread::sleep(Duration::from_millis(200));
        }
        over.store(true, Ordering::Relaxed);
    });
    (well.into_inner(), ill.into_inner())
}

#[test]
fn every_command_is_answered_however_often_its_launcher_is_killed() {
    if no_grpcurl() {
        return;
    }
    let time = Duration::from_secs(if soak() { 30 } else { 1 });
    in_cages(|cage| {
        let name = name();
        let service = Service::start(&shell(&name, cage, "", ""));
        let mut ailing = 0;
        let answers = under_load(&service, &name, time, || {
            launchers(&service)
                .into_iter()
                .for_each(|pid| signal(pid, Signal::KILL));
            ailing += usize::from(!serves(&service, &name));
        });
        eprintln!("{cage}: answered well and not: {answers:?}; not serving when asked: {ailing}");
        assert!(ailing > 0, "{cage}");
        eventually("it is well again", || serves(&service, &name));
        assert_eq!(service.talk(&name).command("echo well").stdout, b"well\n");
    });
}

#[test]
fn every_command_is_answered_however_often_its_worker_is_killed() {
    let time = Duration::from_secs(if soak() { 30 } else { 1 });
    in_cages(|cage| {
        let (name, mut chance) = (name(), Chance(7));
        let service = Service::start(&shell(&name, cage, "", "max_concurrent_commands = 8"));
        let first = launchers(&service);
        let answers = under_load(&service, &name, time, || {
            let all: Vec<_> = workers(&service).into_iter().collect();
            if !all.is_empty() {
                signal(all[chance.below(all.len() as u64) as usize], Signal::KILL);
            }
        });
        eprintln!("{cage}: answered well and not: {answers:?}");
        assert!(answers.0 > 0);
        assert_eq!(launchers(&service), first, "{cage}: the launcher goes on");
        assert!(workers(&service).len() <= 8);
    });
}

/// A command that runs, with one that it has left behind, and a worker that hears nothing any more.
fn deaf(service: &Service, name: &str) -> (String, Talk) {
    let (mark, mut talk) = (mark(), service.talk(name));
    talk.send(format!(
        ": {mark}; (setsid sh -c 'sleep 100; : {mark}' &); sleep 100; :"
    ));
    eventually("it runs", || processes(&mark) >= 2);
    for pid in workers(service) {
        signal(pid, Signal::STOP);
    }
    (mark, talk)
}

#[test]
fn a_worker_that_hears_nothing_is_killed_with_its_command() {
    if no_grpcurl() {
        return;
    }
    in_cages(|cage| {
        let name = name();
        let service = Service::start(&shell(&name, cage, "", ""));
        let (mark, _talk) = deaf(&service, &name);
        let stop = json!({ "name": format!("listeners/{name}"), "grace": "0s" });
        service
            .grpcurl("ListenerService/StopListener", &stop)
            .unwrap();
        gone_within(&mark, Duration::from_secs(2));
        eventually("its launcher has ended", || launchers(&service).is_empty());
    });
}

#[test]
fn a_worker_that_hears_nothing_does_not_hold_its_session() {
    if !soak() {
        return;
    }
    in_cages(|cage| {
        let name = name();
        let service = Service::start(&shell(&name, cage, "command_timeout = \"300ms\"", ""));
        let (mark, mut talk) = deaf(&service, &name);
        assert_eq!(talk.frame().error(), "launcher_lost");
        gone_within(&mark, Duration::from_millis(500));
        assert_eq!(talk.command("echo well").stdout, b"well\n");
    });
}

#[test]
fn a_launcher_that_hears_nothing_is_replaced() {
    if !soak() {
        return;
    }
    in_cages(|cage| {
        let name = name();
        let service = Service::start(&shell(&name, cage, "queue_timeout = \"1s\"", ""));
        let mut talks = [service.talk(&name), service.talk(&name)];
        launchers(&service)
            .into_iter()
            .for_each(|pid| signal(pid, Signal::STOP));
        let began = Instant::now();
        // The one worker that there is serves one of them.
        talks[0].send("sleep 2; echo well");
        talks[1].send("sleep 2; echo well");
        let frames = talks.each_mut().map(|talk| talk.frame());
        let errors = frames.each_ref().map(|frame| frame.error().to_owned());
        assert!(
            errors.contains(&"launcher_unavailable".to_owned()),
            "{errors:?}"
        );
        assert!(errors.contains(&String::new()), "{errors:?}");
        assert!(began.elapsed() < Duration::from_secs(5));
        let deadline = Instant::now() + Duration::from_secs(25);
        loop {
            for talk in &mut talks {
                talk.send("sleep 0.5; echo well");
            }
            let frames = talks.each_mut().map(|talk| talk.frame());
            if frames.iter().all(|frame| frame.stdout == b"well\n") {
                break;
            }
            assert!(Instant::now() < deadline, "{cage}: it is not replaced");
        }
        eprintln!("{cage}: replaced after {:?}", began.elapsed());
    });
}
