//! What commands attempt in order to get out of each cage, and what they are given to begin with.
//!
//! The attacker is this very test program, run as a command: it makes every one of [`attacks::ATTACKS`] and tells what
//! stopped it. What gets through must be listed as a known miss of that cage, here and in the README; and a miss that
//! is stopped after all fails the test too, so that the list stays true.
#![allow(unsafe_code, reason = "attacks are system calls that no library makes")]

mod attacks;
mod inherited;
mod means;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::Write;
use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::Arc;

use rustix::process::geteuid;

use self::attacks::{ATTACKS, Facts};
use super::support::{Service, Talk, eventually};

/// The fewest attempts that say something.
const FEWEST: usize = 40;

/// What gets through, and in which cages.
const MISSES: &[(&[&str], &[&str])] = &[
    (
        &[
            "stat-file",
            "watch-file",
            "chmod-file",
            "see-service",
            "slow-group-of-other",
        ],
        &["landlock", "none"],
    ),
    (
        &[
            "read-configuration",
            "list-folder",
            "run-program",
            "write-file",
            "truncate-file",
            "link-file",
            "create-in-tmp",
            "create-in-var-tmp",
            "environment-of-other",
            "scratch-of-other",
            "scratch-through-other",
            "plant-in-other",
            "signal-other",
            "pidfd-signal-other",
            "limit-other",
            "pin-other",
            "slow-other",
            "control-plane",
            "http",
            "own-udp",
            "listen",
            "unix-socket",
            "abstract-socket",
            "netlink",
            "fix-addresses",
        ],
        &["none"],
    ),
];

/// The same where the host lets: its kernel may lack it, or be set up to refuse it to all.
const MISSES_BY_HOST: &[(&[&str], &[&str])] = &[(
    &[
        "create-in-dev-shm",
        "memory-of-other",
        "trace-other",
        "read-memory-across",
        "take-descriptor",
        "compare-processes",
        "unshare-user",
        "clone-user",
        "clone-user-and-mount",
        "clone3-user",
        "name-to-handle",
        "load-bpf",
        "count-events",
        "io-uring",
        "userfaultfd",
        "keyring",
        "add-key",
        "request-key",
        "watch-all-files",
        "share-memory",
        "message-queue",
        "posix-queue",
        "kernel-messages",
        "open-fuse",
        "open-virtual-machine",
        "call-of-32-bits",
        "x32-call",
        "metadata-service",
        "cipher-socket",
        "machine-socket",
    ],
    &["none"],
)];

/// A service with a shell in a cage, one command that runs there, and whatever an attacker could be after.
struct Host {
    facts: Facts,
    service: Service,
    /// Holds the other command.
    _other: Talk,
    _open: (UnixListener, UnixListener, UdpSocket),
    _folder: tempfile::TempDir,
}

/// Says that a test cannot be made here, and why.
fn skip(tier: &str, why: &str) {
    // Not by `eprintln!`, which is shown of failed tests only.
    let _ = writeln!(std::io::stderr(), "SKIPPED escapes from `{tier}`: {why}");
}

/// The children of a process, by number; none of one that has ended.
fn children(pid: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    for thread in threads.into_iter().flatten().filter_map(Result::ok) {
        let told = fs::read_to_string(thread.path().join("children"));
        let told = told.unwrap_or_default();
        found.extend(
            told.split_whitespace()
                .map(|pid| pid.parse::<i32>().unwrap()),
        );
    }
    found
}

fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Whether we are, which is said when we are not.
fn is_root(tier: &str) -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        let rule = "commands are somebody else's than the service's only where that is root";
        skip(tier, rule);
    }
    is_root
}

/// The service, unless the host does not offer its listener the cage, which is then said.
fn offered(tier: &str, service: Service) -> Option<Service> {
    let announced = service.announced("shell");
    if announced.parse::<std::net::SocketAddr>().is_err() {
        skip(tier, &announced);
        return None;
    }
    Some(service)
}

impl Host {
    /// None where the host does not offer the cage, which is then said.
    fn start(tier: &str) -> Option<Self> {
        if !is_root(tier) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path(), 0o755);
        fs::copy(std::env::current_exe().unwrap(), folder.path().join("it")).unwrap();
        fs::copy("/usr/bin/id", folder.path().join("id")).unwrap();
        open_to_all(&folder.path().join("id"), 0o4755);
        let home = Service::home_for("");
        open_to_all(home.path(), 0o755);
        fs::copy("/bin/true", home.path().join("true")).unwrap();
        fs::write(home.path().join("nobodys"), "secret").unwrap();
        chown(home.path().join("nobodys"), Some(65_534), Some(65_534)).unwrap();
        let at = |name: &str| home.path().join(name).display().to_string();
        let toml = format!(
            "[grpc]\nsocket = {:?}\n[store]\npath = {:?}\n[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\n\
             bind = \"127.0.0.1:0\"\n[listeners.shell.sandbox]\nisolation = \"{tier}\"\nmin_isolation = \"none\"\n\
             readable = [\"/usr\", \"/bin\", \"/sbin\", \"/lib\", \"/lib64\", \"/etc\", {:?}]\n",
            at("control"),
            at("state.db"),
            folder.path(),
        );
        fs::write(home.path().join("switchboard.toml"), toml).unwrap();
        let service = Service::start_in(Arc::clone(&home), &[], &[("SECRET", "of the service")]);
        offered(tier, service).map(|service| Self::of(service, folder))
    }

    fn of(service: Service, folder: tempfile::TempDir) -> Self {
        let id = i32::try_from(service.pid()).unwrap();
        let [launcher] = Vec::from_iter(children(id)).try_into().unwrap();
        let mut talk = service.talk("shell");
        talk.send("echo mine > secret; sleep 1000000");
        let mut other = None;
        eventually("the other command runs", || {
            let all = processes_of(launcher);
            other = all.into_iter().find(|pid| {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.starts_with(b"sleep\0"))
            });
            other.is_some()
        });
        let other = other.unwrap();
        let own = |worker: &&i32| **worker == other || processes_of(**worker).contains(&other);
        let worker = *children(launcher).iter().find(own).unwrap();
        let unnamed = format!("switchboard-escape-{id}");
        let name = SocketAddr::from_abstract_name(&unnamed).unwrap();
        let open = folder.path().join("open");
        let listens = UnixListener::bind(&open).unwrap();
        open_to_all(&open, 0o777);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let facts = Facts {
            folder: folder.path().to_owned(),
            home: service.home().to_owned(),
            service: id,
            launcher,
            worker,
            other,
            other_scratch: fs::read_link(format!("/proc/{other}/cwd")).unwrap(),
            grpc: service.grpc(),
            http: service.http(),
            udp: udp.local_addr().unwrap(),
            unnamed,
            parent: 0,
        };
        let told = serde_json::to_vec(&facts).unwrap();
        fs::write(folder.path().join("facts"), told).unwrap();
        open_to_all(&folder.path().join("facts"), 0o644);
        Self {
            facts,
            service,
            _other: talk,
            _open: (listens, UnixListener::bind_addr(&name).unwrap(), udp),
            _folder: folder,
        }
    }

    /// What stopped each attack, if anything.
    fn attack(&self) -> BTreeMap<String, Option<String>> {
        let program = self.facts.folder.join("it");
        let command = format!(
            "exec {} --exact escape::inside --ignored --nocapture --test-threads=1",
            program.display()
        );
        let frame = self.service.talk("shell").command(command);
        let said = String::from_utf8_lossy(&frame.stdout).into_owned();
        let lines = said.lines().filter_map(|line| line.split_once("attack "));
        let told =
            lines.map(|(_, told)| serde_json::from_str::<(String, Option<String>)>(told).unwrap());
        let told: BTreeMap<_, _> = told.collect();
        let stderr = String::from_utf8_lossy(&frame.stderr);
        assert_eq!(
            told.len(),
            ATTACKS.len(),
            "{}\n{said}\n{stderr}",
            frame.header
        );
        told
    }
}

/// All that a process has started, and those in turn.
fn processes_of(pid: i32) -> Vec<i32> {
    let mut found = Vec::from_iter(children(pid));
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(children(pid));
        at += 1;
    }
    found
}

/// The attacker: a command of the service under test.
#[test]
#[ignore = "it is run as a command, by the tests below"]
fn inside() {
    let folder = std::env::current_exe().unwrap();
    let Ok(facts) = fs::read(folder.with_file_name("facts")) else {
        return;
    };
    let mut facts: Facts = serde_json::from_slice(&facts).unwrap();
    facts.parent = std::os::unix::process::parent_id() as i32;
    for (name, attack) in ATTACKS {
        let stopped = means::attempt(*attack, &facts);
        println!(
            "attack {}",
            serde_json::to_string(&(name, stopped)).unwrap()
        );
    }
}

fn nothing_gets_out_of(tier: &str) {
    let Some(host) = Host::start(tier) else {
        return;
    };
    let told = host.attack();
    let listed = |list: &[(&[&'static str], &[&str])]| -> BTreeSet<&str> {
        let of = list.iter().filter(|(_, tiers)| tiers.contains(&tier));
        of.flat_map(|(names, _)| names.iter().copied()).collect()
    };
    let (misses, by_host) = (listed(MISSES), listed(MISSES_BY_HOST));
    let through = |name: &str| told[name].is_none();
    let names = ATTACKS.iter().map(|(name, _)| *name);
    let got_out: Vec<_> = names
        .filter(|n| through(n) && !misses.contains(n) && !by_host.contains(n))
        .collect();
    let stopped: Vec<_> = misses
        .iter()
        .filter(|name| !through(name))
        .map(|name| (name, &told[*name]))
        .collect();
    let wrong = format!("`{tier}`: got out: {got_out:?}\nno miss: {stopped:?}");
    assert!(got_out.is_empty() && stopped.is_empty(), "{wrong}");
    assert!(told.len() - misses.len() - by_host.len() >= FEWEST);
}

#[test]
fn nothing_gets_out_of_the_full_cage() {
    nothing_gets_out_of("full");
}

#[test]
fn nothing_gets_out_of_a_user_namespace() {
    nothing_gets_out_of("userns");
}

#[test]
fn nothing_gets_out_of_landlock_but_what_is_known() {
    nothing_gets_out_of("landlock");
}

#[test]
fn nothing_gets_out_of_another_user_but_what_is_known() {
    nothing_gets_out_of("none");
}

/// The table of the README has a row for each kind of miss: what it is, its attempts, and the cages.
#[test]
fn known_misses_are_told() {
    let quoted = |cell: &str| -> Vec<String> {
        let words = cell.split('`').skip(1).step_by(2);
        words.map(str::to_owned).collect()
    };
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let table = text.split("| a command may |").nth(1).expect("the table");
    let mut told = BTreeSet::new();
    for row in table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
    {
        let [.., cages, attempts, _] = &row.split('|').collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        for cage in quoted(cages) {
            told.extend(
                quoted(attempts)
                    .into_iter()
                    .map(|attempt| (cage.clone(), attempt)),
            );
        }
    }
    let mut known = BTreeSet::new();
    for (attempts, cages) in [MISSES, MISSES_BY_HOST].concat() {
        for cage in cages {
            known.extend(
                attempts
                    .iter()
                    .map(|attempt| ((*cage).to_owned(), (*attempt).to_owned())),
            );
        }
    }
    let names: BTreeSet<_> = ATTACKS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), ATTACKS.len(), "a name is there twice");
    for (_, attempt) in &known {
        // Some are of one architecture.
        assert!(
            names.contains(attempt.as_str()) || !cfg!(target_arch = "x86_64"),
            "{attempt}"
        );
    }
    assert_eq!(told, known);
}
