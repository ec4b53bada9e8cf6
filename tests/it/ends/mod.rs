//! How commands end: with their time, their peer, their listener, their launcher and the service itself, whatever they
//! have started and however they resist. In every cage, with the sizes that are promised when `SWITCHBOARD_SOAK=1`.

mod background;
mod killed;
mod left;
mod overload;
mod packets;
mod reset;
mod stopped;
mod swept;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::shell::processes;
use super::support::{Service, eventually, soak};

/// Every cage that this host can have.
const CAGES: [&str; 4] = ["full", "userns", "landlock", "none"];

/// The cages to go through, and whether it can be had is said.
fn cages() -> impl Iterator<Item = &'static str> {
    static OFFERED: OnceLock<Vec<&str>> = OnceLock::new();
    let offered = |cage: &&str| {
        let service = Service::start(&shell("probe", cage, "", ""));
        let has = service.announced("probe").parse::<SocketAddr>().is_ok();
        if !has {
            let skipped = format!("SKIPPED in `{cage}`: this host has it not");
            let _ = writeln!(std::io::stderr(), "{skipped}");
        }
        has
    };
    let all = OFFERED.get_or_init(|| CAGES.into_iter().filter(offered).collect());
    assert!(all.contains(&"none"), "every host has that");
    all.iter().copied()
}

/// Does the same in every cage: at once for a first look, and one after the other where it is measured.
fn in_cages(test: impl Fn(&'static str) + Sync) {
    if soak() {
        return cages().for_each(test);
    }
    std::thread::scope(|scope| {
        for cage in cages() {
            let test = &test;
            scope.spawn(move || test(cage));
        }
    });
}

/// A shell listener of this name with these keys, in this cage and no other, with these keys of its sandbox.
fn shell(name: &str, cage: &str, keys: &str, sandbox: &str) -> String {
    format!(
        "[listeners.{name}]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n{keys}\n\
         [listeners.{name}.sandbox]\nisolation = \"{cage}\"\nmin_isolation = \"none\"\n{sandbox}\n"
    )
}

/// A text that no other process of this machine has in its command line.
fn mark() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("mark-{}-{count}-", std::process::id())
}

/// A name for a listener that no other test of this machine has, for what is named after it.
fn name() -> String {
    format!("{}e", mark()).replace("mark", "m")
}

/// A command that has so many children, which have left their parents and sessions behind, and all of whom do not
/// heed a SIGTERM; it says their number once all are there.
fn stubborn(children: usize, mark: &str) -> String {
    format!(
        "trap '' TERM; : {mark}; mkfifo f; i=0; while [ $i -lt {children} ]; do ( ( read x <f ) & ); i=$((i+1)); done; \
         setsid sh -c 'read x <f; : {mark}' & echo {children}; read x <f"
    )
}

/// Until nobody is left, for so long at most. How long it took.
fn gone_within(mark: &str, most: Duration) -> Duration {
    let began = Instant::now();
    loop {
        let left = processes(mark);
        let took = began.elapsed();
        if left == 0 {
            return took;
        }
        assert!(took < most, "{left} of {mark} live after {took:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The children of a process, of all its threads.
fn children(pid: i32) -> BTreeSet<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let told = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let mut found = BTreeSet::new();
    for text in told {
        found.extend(
            text.split_whitespace()
                .map(|pid| pid.parse::<i32>().unwrap()),
        );
    }
    found
}

/// Whether that process is a launcher or a worker.
fn is_launcher(pid: i32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline"));
    line.is_ok_and(|line| line.ends_with(b"\0launcher\0"))
}

/// The launchers of a service.
fn launchers(service: &Service) -> BTreeSet<i32> {
    let all = children(i32::try_from(service.pid()).unwrap());
    all.into_iter().filter(|pid| is_launcher(*pid)).collect()
}

/// The workers of a service. Whoever fell to a launcher is not one: it has another program.
fn workers(service: &Service) -> BTreeSet<i32> {
    let all = launchers(service).into_iter().flat_map(children);
    all.filter(|pid| is_launcher(*pid)).collect()
}

fn signal(pid: i32, signal: Signal) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

/// How many descriptors of each kind a process has.
fn descriptors(pid: i32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let Ok(to) = fs::read_link(entry.path()) else {
            continue;
        };
        let to = to.to_string_lossy().into_owned();
        let kind = to.split(':').next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_insert(0) += 1;
    }
    kinds
}

/// The scratch folders and control groups of a listener of this machine.
fn traces(listener: &str) -> Vec<PathBuf> {
    fn look(folder: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if entry.file_name().to_string_lossy().starts_with(name) {
                found.push(entry.path());
            } else if is_folder && depth > 0 {
                look(&entry.path(), name, depth - 1, found);
            }
        }
    }
    let (name, mut found) = (format!("switchboard-{listener}."), Vec::new());
    look(Path::new("/tmp"), &name, 0, &mut found);
    look(Path::new("/sys/fs/cgroup"), &name, 5, &mut found);
    found
}

/// Nothing is there that a launcher has made which has ended.
fn expect_no_traces(listener: &str) {
    eventually("what ended launchers have made is gone", || {
        let left = traces(listener).into_iter().filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let behind = name.rsplit_once(&format!("{listener}.")).unwrap().1;
            let pid = behind.split('.').next().unwrap_or_default();
            !is_launcher(pid.parse().unwrap())
        });
        left.count() == 0
    });
}

/// Numbers that look like chance, the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}
