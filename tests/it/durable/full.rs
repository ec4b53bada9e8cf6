//! A disk that is full: what cannot be kept is refused and leaves no trace, all else goes on, and space is all it takes.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use switchboard::grpc::api;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::client::{Client, Shape};
use super::{FILES, soak};
use crate::support::{Service, Talk, program};

/// Mounts a small disk where the store belongs and becomes the program.
const MOUNT: &str =
    "mount -t tmpfs -o size=1536k,mode=0700 none \"$XDG_STATE_HOME/switchboard\" && exec \"$@\"";

/// A program in a mount namespace of its own; none where the system lets nobody have one.
pub(crate) fn on_a_small_disk(program: &str) -> Option<Command> {
    let namespaces = ["-Umr", "-m"];
    let command = |flags: &str, program: &str| {
        let mut command = Command::new("unshare");
        command.args([flags, "sh", "-c", MOUNT, "sh", program]);
        command
    };
    let works = |flags: &&str| {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("switchboard")).unwrap();
        let mut tried = command(flags, "true");
        tried
            .env("XDG_STATE_HOME", home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        tried.status().is_ok_and(|status| status.success())
    };
    namespaces
        .into_iter()
        .find(works)
        .map(|flags| command(flags, program))
}

/// The disk as the service sees it.
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn of(service: &Service) -> Self {
        let folder = service.home().join("switchboard");
        Self(format!("/proc/{}/root{}", service.pid(), folder.display()).into())
    }

    /// Takes all that is left of it.
    pub(crate) fn fill(&self) {
        let mut filler = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.0.join("filler"))
            .unwrap();
        loop {
            match filler.write_all(&[0; 4_096]) {
                Ok(()) => {}
                Err(full) if full.kind() == ErrorKind::StorageFull => return,
                Err(fault) => panic!("{fault}"),
            }
        }
    }

    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }

    /// What is on it, as a killed process would leave it.
    fn copy(&self, to: &Path) {
        for file in ["switchboard.db", "switchboard.db-wal"] {
            std::fs::copy(self.0.join(file), to.join(file)).unwrap();
        }
    }
}

/// What is there, and the sockets that are open for it.
fn state(service: &Service, client: &Client) -> (BTreeMap<String, api::Listener>, usize) {
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", service.pid()))
        .unwrap()
        .filter(|entry| {
            let target = std::fs::read_link(entry.as_ref().unwrap().path());
            target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
        });
    (client.list(), sockets.count())
}

/// Calls, with another number each time, until it is refused; that must be for the disk alone, and change nothing.
fn until_refused(
    what: &str,
    service: &Service,
    client: &Client,
    mut call: impl FnMut(usize) -> Result<(), Status>,
) -> usize {
    for n in 0..2_000 {
        let before = state(service, client);
        let Err(status) = call(n) else {
            continue;
        };
        assert_eq!(status.code(), Code::Internal, "{what}: {status:?}");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "STATE_PERSIST_FAILED", "{what}");
        assert_eq!(
            info.metadata.get("cause").map(String::as_str),
            Some("STORE_FULL"),
            "{what}"
        );
        assert!(
            status.message().contains("full"),
            "{what}: {}",
            status.message()
        );
        assert!(
            state(service, client) == before,
            "{what} has changed something"
        );
        return n;
    }
    panic!("{what} was never refused");
}

fn shape(n: usize) -> Shape {
    Shape {
        labels: [
            ("n".to_owned(), n.to_string()),
            ("pad".to_owned(), "x".repeat(500)),
        ]
        .into(),
        max_sessions: 100 + n as u32,
        active: true,
    }
}

/// Kinds of changes that are tried.
const KINDS: usize = 4;

/// Every kind of change, each until it is refused.
fn is_full(service: &Service, client: &Client, round: usize) -> usize {
    let mut made = 0;
    made += until_refused("CreateListener", service, client, |n| {
        client
            .create(&format!("more-{round}-{n}"), &shape(n))
            .map(drop)
    });
    made += until_refused("UpdateListener", service, client, |n| {
        client.update("web", &shape(n))
    });
    made += until_refused(
        "StopListener and StartListener",
        service,
        client,
        |n| match n % 2 {
            0 => client.stop("other"),
            _ => client.start("other"),
        },
    );
    let names: Vec<_> = client
        .list()
        .into_keys()
        .filter(|name| name.starts_with("kept-"))
        .collect();
    made + until_refused("DeleteListener", service, client, |n| {
        client.delete(&names[n])
    })
}

fn echoes(talk: &mut Talk) {
    talk.send("hello");
    talk.expect("of the files");
}

#[test]
fn a_full_disk_refuses_changes_and_nothing_else() {
    let Some(program) = on_a_small_disk(&program()) else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the system lets nobody mount a small disk (unshare -Umr, unshare -m)"
        );
        return;
    };
    let home = Service::home_for(FILES);
    std::fs::create_dir(home.path().join("switchboard")).unwrap();
    let service = Service::spawn(home.clone(), program, &[], &[]);
    let (client, disk) = (Client::of(service.grpc()), Disk::of(&service));
    let mut talk = service.talk("web");
    let (rounds, mut changes, mut slowest) = (if soak() { 20 } else { 2 }, 0, Duration::ZERO);
    // More than the disk holds, were the log of it never worked off.
    for n in 0..120 {
        client.update("web", &shape(n)).unwrap();
    }
    for round in 0..rounds {
        for n in 0..8 {
            client
                .create(&format!("kept-{round}-{n}"), &shape(n))
                .unwrap();
        }
        disk.fill();
        changes += is_full(&service, &client, round);
        // Sessions, reads, and what need not be kept go on.
        echoes(&mut talk);
        echoes(&mut service.talk("web"));
        assert!(client.settings().contains_key("listeners.web.reply"));
        let (_, metrics) = service.http_get("/metrics");
        let refused = "switchboard_store_writes_total{error_type=\"STORE_FULL\"}";
        assert!(metrics.contains(refused), "{metrics}");
        let passing = format!("passing-{round}");
        client.create_passing(&passing, &shape(round)).unwrap();
        client.delete(&passing).unwrap();

        disk.make_room();
        let began = Instant::now();
        while let Err(status) = client.update("web", &shape(round)) {
            assert!(
                began.elapsed() < Duration::from_secs(1),
                "round {round}: {status:?}"
            );
        }
        slowest = slowest.max(began.elapsed());
        for name in client
            .list()
            .into_keys()
            .filter(|name| name.starts_with("more-"))
        {
            client.delete(&name).unwrap();
        }
        client.start("other").unwrap();
    }
    // What the disk holds is what was answered, and no more.
    let expected: BTreeMap<_, _> = client
        .list()
        .iter()
        .map(|(name, l)| (name.clone(), Shape::of(l)))
        .collect();
    let kept = Service::home_for(FILES);
    std::fs::create_dir(kept.path().join("switchboard")).unwrap();
    disk.copy(&kept.path().join("switchboard"));
    drop(client);
    let (_, ended) = service.leave(Signal::TERM);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    // Of a row of refusals the first is told, and the end of it.
    let told = |what: &str| ended.stderr.matches(what).count();
    let (fails, works) = (told("\"store fails\""), told("\"store works again\""));
    assert!(
        fails == works && (rounds..=rounds * KINDS).contains(&fails),
        "{fails} times, {works} times"
    );
    let service = Service::start_in(kept, &[], &[]);
    let there = Client::of(service.grpc()).list();
    let there: BTreeMap<_, _> = there
        .iter()
        .map(|(name, l)| (name.clone(), Shape::of(l)))
        .collect();
    assert!(
        there == expected,
        "{:?}\n{:?}",
        there.keys(),
        expected.keys()
    );
    println!(
        "{rounds} times full, {changes} changes on the way there, a change again after {slowest:?} at most"
    );
}
