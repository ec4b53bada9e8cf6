//! Peers that leave by a reset at any moment of a command: nothing of it is left, here or in the cage.

use std::time::{Duration, Instant};

use super::super::shell::processes;
use super::super::support::{Service, TIMEOUT, eventually, no_grpcurl, soak, take_descriptors};
use super::{Chance, descriptors, gone_within, in_cages, launchers, mark, name, shell, workers};

/// Commands at once.
const ABREAST: usize = 8;

/// All that is held for commands: of the service, its launcher and the workers, by kind.
fn held(service: &Service) -> String {
    let launcher: Vec<_> = launchers(service).into_iter().map(descriptors).collect();
    let workers: Vec<_> = workers(service).into_iter().map(descriptors).collect();
    let own = descriptors(i32::try_from(service.pid()).unwrap());
    format!("{own:?} {launcher:?} {workers:?}")
}

/// The same once it stays as it is: who has just left may not be forgotten yet.
fn settled(service: &Service) -> String {
    let (mut before, mut same) = (String::new(), 0);
    eventually("it stays as it is, and no worker has a command", || {
        let now = held(service);
        let workers = now.rsplit(" [").next().unwrap_or_default();
        let idle = !workers.contains("anon_inode") && !workers.contains("pipe");
        same = if idle && now == before { same + 1 } else { 0 };
        before = now;
        same == 10
    });
    before
}

/// All workers run a command each, at the same time.
fn all_work(service: &Service, name: &str) {
    let (mark, mut talks) = (mark(), Vec::new());
    for _ in 0..ABREAST {
        let mut talk = service.talk(name);
        talk.send(format!(": {mark}; sleep 1; cat /dev/null; echo well"));
        talks.push(talk);
    }
    eventually("all run at once", || processes(&mark) >= ABREAST);
    for mut talk in talks {
        assert_eq!(talk.frame().stdout, b"well\n");
    }
}

#[test]
fn a_peer_that_resets_leaves_nothing_behind() {
    if no_grpcurl() {
        return;
    }
    let resets = if soak() { 1000 } else { 48 };
    take_descriptors();
    in_cages(|cage| {
        let name = name();
        let keys = "limits = { max_sessions_per_source = 1024 }";
        let sandbox = format!("max_concurrent_commands = {ABREAST}");
        let service = Service::start(&shell(&name, cage, keys, &sandbox));
        all_work(&service, &name);
        eventually("all sessions have ended", || {
            service.count(&name, "activeSessions") == 0
        });
        let before = settled(&service);
        let mark = mark();
        std::thread::scope(|scope| {
            for peer in 0..ABREAST {
                let (service, name, mark) = (&service, &name, &mark);
                scope.spawn(move || {
                    let mut chance = Chance(peer as u64);
                    for _ in 0..resets / ABREAST {
                        leave_somehow(service, name, mark, &mut chance);
                    }
                });
            }
        });
        let took = gone_within(mark.as_str(), Duration::from_secs(2));
        eprintln!("{cage}: after {resets} resets nobody is left for longer than {took:?}");
        eventually("all sessions have ended", || {
            service.count(&name, "activeSessions") == 0
        });
        all_work(&service, &name);
        eventually("all sessions have ended", || {
            service.count(&name, "activeSessions") == 0
        });
        let (asked, mut after) = (Instant::now(), held(&service));
        while after != before && asked.elapsed() < TIMEOUT {
            std::thread::sleep(Duration::from_millis(50));
            after = held(&service);
        }
        assert_eq!(after, before, "{cage}: what is held after and before");
    });
}

/// Has a command started and leaves after a while that is different every time.
fn leave_somehow(service: &Service, name: &str, mark: &str, chance: &mut Chance) {
    let mut talk = service.talk(name);
    talk.send(match chance.below(20) {
        0 => format!(": {mark}; trap '' TERM; sleep 100 & (setsid sleep 100 &); sleep 100; : "),
        1..4 => format!(": {mark}; yes | head -c 3000000; cat; sleep 100; :"),
        4..7 => format!(": {mark}; head -c 400000 /dev/zero"),
        7..10 => format!(": {mark}; echo short"),
        10..14 => format!(": {mark}; (setsid sh -c 'sleep 100; : {mark}' &); sleep 100; :"),
        _ => format!(": {mark}; sleep 100; :"),
    });
    std::thread::sleep(Duration::from_micros(chance.below(30_000)));
    talk.reset();
}
