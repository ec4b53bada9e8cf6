//! Stores that are not opened: the process says which and why, and leaves them as they are.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::{FILES, ack, definitions, store, tell};
use crate::support::{Ended, Service, no_grpcurl, program, run};

/// What a store is cut into.
const PAGE: usize = 4_096;

/// Listeners of the stores that are damaged.
const MADE: usize = 20;

/// Serves on a store that must be refused, and the place of that.
fn serve(store: &Path) -> Ended {
    let toml = format!(
        "[grpc]\naddress = \"127.0.0.1:0\"\n[http]\naddress = \"127.0.0.1:0\"\n[store]\npath = {store:?}\n\
         [listeners.a]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n"
    );
    run(
        &[("test.toml", &toml)],
        &["serve", "--config", "test.toml"],
        &[],
    )
}

/// What a service that has ended left in its store: the file, and the folder that keeps it.
fn left_behind(signal: Signal) -> (Arc<TempDir>, PathBuf) {
    let service = Service::start(FILES);
    let stopped =
        json!({ "desired_state": "DESIRED_STATE_STOPPED", "display_name": "x".repeat(600) });
    for n in 0..MADE {
        tell(
            &service,
            "CreateListener",
            &ack(&format!("made-{n}"), &stopped),
        );
    }
    let file = store(&service);
    (service.leave(signal).0, file)
}

/// Everything beside a file, with its bytes.
fn bytes(file: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(file.parent().unwrap()).unwrap();
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    };
    let mut all: Vec<_> = entries.map(read).collect();
    all.sort();
    all
}

/// The same to be looked at: the names, the lengths and what tells the bytes apart.
fn digest(files: &[(PathBuf, Vec<u8>)]) -> Vec<(&Path, usize, u64)> {
    let hash = |bytes: &[u8]| {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        hasher.finish()
    };
    files
        .iter()
        .map(|(path, bytes)| (path.as_path(), bytes.len(), hash(bytes)))
        .collect()
}

/// The process ends at once, with one line that names the file and says each of these.
fn is_refused(file: &Path, told: &[&str]) {
    let before = bytes(file);
    let ended = serve(file);
    assert_eq!((ended.code, &*ended.stdout), (1, ""), "{}", ended.stderr);
    let line = ended.stderr.lines().last().unwrap_or_default();
    for part in told
        .iter()
        .chain(&["error: the store", file.to_str().unwrap()])
    {
        assert!(line.contains(part), "{part} in {}", ended.stderr);
    }
    let after = bytes(file);
    assert_eq!(
        digest(&after),
        digest(&before),
        "{} was changed",
        file.display()
    );
}

#[test]
fn a_store_that_another_process_has_is_refused_within_a_second() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    tell(&service, "CreateListener", &ack("before", &json!({})));
    let mut talk = service.talk("web");
    let before = definitions(&service);
    for _ in 0..3 {
        let began = Instant::now();
        is_refused(
            &store(&service),
            &["another process", "stop that one", "path of its own"],
        );
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
    }
    // The first is not harmed.
    assert_eq!(definitions(&service), before);
    talk.send("hello");
    talk.expect("of the files");
    tell(&service, "CreateListener", &ack("after", &json!({})));
    let before = definitions(&service);
    let service = super::again(service, Signal::KILL);
    assert_eq!(definitions(&service), before);
    // Once it is gone another may have the store.
    let (home, ended) = service.leave(Signal::KILL);
    assert_eq!(ended.code, -9);
    let service = Service::start_in(home, &[], &[]);
    assert_eq!(definitions(&service), before);
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    if no_grpcurl() {
        return;
    }
    let (_home, file) = left_behind(Signal::TERM);
    set(&file, "PRAGMA user_version = 99");
    is_refused(
        &file,
        &["newer version", "its schema is 99", "run that version"],
    );
}

#[test]
fn a_database_of_something_else_is_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("theirs.db");
    set(
        &file,
        "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)",
    );
    is_refused(&file, &["of another program", "path of its own"]);
    set(
        &file,
        "PRAGMA journal_mode = WAL; INSERT INTO theirs VALUES (2)",
    );
    is_refused(&file, &["of another program"]);
    let text = folder.path().join("text.db");
    fs::write(&text, "not a database at all\n".repeat(100)).unwrap();
    is_refused(&text, &["backup"]);
}

fn set(file: &Path, sql: &str) {
    Connection::open(file).unwrap().execute_batch(sql).unwrap();
}

/// Every place of some bytes in others.
fn places(bytes: &[u8], of: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(of.len()).enumerate();
    windows
        .filter(|(_, window)| *window == of)
        .map(|(at, _)| at)
        .collect()
}

#[test]
fn a_damaged_store_is_refused() {
    if no_grpcurl() {
        return;
    }
    let (home, file) = left_behind(Signal::TERM);
    let good = fs::read(&file).unwrap();
    let damaged = ["is damaged", "from a backup", "move both away"];
    // One byte of what was asked for, and the beginning of every page that says something of it.
    let value = places(&good, b"\"bind\":\"127.0.0.1:0\"");
    let value = value[value.len() / 2] + 9;
    let pages: BTreeSet<_> = places(&good, b"made-")
        .into_iter()
        .map(|at| at / PAGE * PAGE)
        .collect();
    assert!(pages.len() > 3, "{pages:?}");
    for (from, length) in pages.into_iter().map(|page| (page, 64)).chain([(value, 1)]) {
        let mut bad = good.clone();
        bad[from..from + length]
            .iter_mut()
            .for_each(|byte| *byte ^= 0x04);
        fs::write(&file, bad).unwrap();
        is_refused(&file, &damaged);
    }
    for length in [good.len() / 2, 4_096, 100, 10] {
        fs::write(&file, &good[..length]).unwrap();
        is_refused(&file, &damaged);
    }
    // The backup that was spoken of.
    fs::write(&file, good).unwrap();
    let service = Service::start_in(home, &[], &[]);
    assert_eq!(definitions(&service).len(), 2 + MADE);
}

#[test]
fn the_log_of_a_killed_process_belongs_to_its_store() {
    if no_grpcurl() {
        return;
    }
    let (home, file) = left_behind(Signal::KILL);
    let mut log = file.clone().into_os_string();
    log.push("-wal");
    assert!(fs::metadata(&log).unwrap().len() > 16_384);
    let kept = fs::read(&file).unwrap();
    fs::write(&file, "").unwrap();
    is_refused(&file, &["is damaged", "move both away"]);
    fs::write(&file, kept).unwrap();
    let service = Service::start_in(home, &[], &[]);
    assert_eq!(definitions(&service).len(), 2 + MADE);
}

#[test]
fn a_place_that_cannot_be_used_is_refused() {
    let folder = TempDir::new().unwrap();
    let is_a_folder = folder.path().join("folder");
    fs::create_dir(&is_a_folder).unwrap();
    let below_a_file = folder.path().join("file/store.db");
    fs::write(folder.path().join("file"), "").unwrap();
    let nowhere = Path::new("/proc/nowhere/store.db");
    for place in [&is_a_folder, &below_a_file, nowhere] {
        let ended = serve(place);
        assert_eq!((ended.code, &*ended.stdout), (1, ""), "{}", ended.stderr);
        let line = ended.stderr.lines().last().unwrap_or_default();
        let expected = format!("error: the store {} cannot be used: ", place.display());
        assert!(line.starts_with(&expected), "{}", ended.stderr);
    }
    assert_eq!(fs::read_dir(&is_a_folder).unwrap().count(), 0);
}

/// The program as somebody whom the rights of files bind, which of root they do not.
fn bound_by_rights() -> Command {
    let program = program();
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", &program]);
    command
}

#[test]
fn a_store_without_the_rights_to_it_is_refused() {
    if Command::new("setpriv").arg("--version").output().is_err() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: there is no setpriv to give up root's rights with"
        );
        return;
    }
    let home = Arc::new(TempDir::new().unwrap());
    let (folder, file) = (home.path().join("kept"), home.path().join("kept/store.db"));
    let toml = FILES.replace("path = \"\"", &format!("path = {file:?}"));
    fs::write(
        home.path().join("base.toml"),
        "[grpc]\naddress = \"127.0.0.1:0\"\n[http]\naddress = \"127.0.0.1:0\"\n",
    )
    .unwrap();
    fs::write(home.path().join("switchboard.toml"), toml).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(&file, "").unwrap();
    let modes = |of_folder: u32, of_file: u32| {
        fs::set_permissions(&file, Permissions::from_mode(of_file)).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(of_folder)).unwrap();
    };
    // The folder, the file, and a folder in which there can be no log.
    for (of_folder, of_file) in [
        (0o000, 0o600),
        (0o700, 0o000),
        (0o700, 0o400),
        (0o500, 0o600),
    ] {
        modes(of_folder, of_file);
        let service = Service::spawn(home.clone(), bound_by_rights(), &[], &[]);
        let ended = service.wait();
        modes(0o700, 0o600);
        assert_eq!(
            (ended.code, &*ended.stdout),
            (1, ""),
            "{of_folder:o} {of_file:o}: {}",
            ended.stderr
        );
        let line = ended.stderr.lines().last().unwrap_or_default();
        let expected = format!("error: the store {} cannot be used: ", file.display());
        assert!(
            line.starts_with(&expected),
            "{of_folder:o} {of_file:o}: {}",
            ended.stderr
        );
        assert_eq!(
            bytes(&file),
            [(file.clone(), Vec::new())],
            "{of_folder:o} {of_file:o}"
        );
    }
    Service::spawn(home, bound_by_rights(), &[], &[]).announced("http");
}
