//! The disk that the store is on is full: what cannot be kept is not done, and everything else goes on.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::client::{Client, Shape};
use crate::support::{Service, Talk};

/// Room for a store and little else.
const DISK: &str = "size=1500k";

/// A service whose store is on a small disk of its own, which is in its home; `None` where no such disk can be made.
fn on_a_small_disk() -> Option<Service> {
    let disk = |home: &str| format!("mount -t tmpfs -o {DISK} tmpfs {home}/disk && exec \"$@\"");
    let tried = Command::new("unshare")
        .args(["-Umr", "mount", "-t", "tmpfs", "tmpfs", "/tmp"])
        .output();
    if !tried.is_ok_and(|output| output.status.success()) {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no disk can be mounted here without rights"
        );
        return None;
    }
    let toml = "[listeners.web]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";
    let home = Service::home_for(toml);
    std::fs::create_dir(home.path().join("disk")).unwrap();
    let mut program = Command::new("unshare");
    program.args([
        "-Umr",
        "sh",
        "-c",
        &disk(home.path().to_str().unwrap()),
        "sh",
    ]);
    program.arg(env!("CARGO_BIN_EXE_switchboard"));
    let path = format!("store.path={}", home.path().join("disk/s.db").display());
    let service = Service::spawn(home, program, &["--set", &path], &[]);
    service.announced("http");
    Some(service)
}

/// A file that takes all that is left of the disk, as seen from outside.
fn fill(service: &Service) -> PathBuf {
    let disk = service.home().join("disk");
    let within = PathBuf::from(format!("/proc/{}/root{}", service.pid(), disk.display()));
    let filler = within.join("filler");
    let mut file = File::create(&filler).unwrap();
    let chunk = [0; 4096];
    while file.write_all(&chunk).is_ok() {}
    filler
}

fn is_refused(status: &Status) -> bool {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert_eq!(info.reason, "STATE_PERSIST_FAILED", "{status:?}");
    assert_eq!(info.metadata["cause"], "STORE_FULL", "{status:?}");
    true
}

fn shape(n: usize) -> Shape {
    Shape {
        labels: [
            ("pad".to_owned(), "x".repeat(2_000)),
            ("n".to_owned(), n.to_string()),
        ]
        .into(),
        max_sessions: 5,
        active: true,
    }
}

#[test]
fn a_full_disk_refuses_changes_and_nothing_else() {
    let Some(service) = on_a_small_disk() else {
        return;
    };
    let client = Client::of(service.grpc());
    client.create("before", &shape(0)).unwrap();
    let mut open = service.talk("web");
    let filler = fill(&service);
    // The log beside the file may have room for some more.
    let refusal = (0..2_000).find_map(|n| client.update("before", &shape(n)).err());
    assert!(is_refused(
        &refusal.expect("a full disk takes no end of changes")
    ));
    let there = client.list();
    for _ in 0..3 {
        assert!(is_refused(&client.create("never", &shape(1)).unwrap_err()));
        assert!(is_refused(&client.stop("web").unwrap_err()));
        assert!(is_refused(&client.delete("before").unwrap_err()));
        assert!(is_refused(
            &client.update("before", &shape(9_999)).unwrap_err()
        ));
    }
    let now = client.list();
    let names: Vec<_> = now.keys().map(String::as_str).collect();
    assert_eq!(names, ["before", "web"]);
    for (name, listener) in &now {
        assert_eq!(listener.etag, there[name].etag, "{name}");
        assert_eq!(listener.bound, there[name].bound, "{name}");
    }
    // Sessions and reads go on.
    open.send("hello");
    open.expect("received data!!");
    Talk::to(now["before"].bound.parse().unwrap());
    assert!(!client.settings().is_empty());
    let (_, metrics) = service.http_get("/metrics");
    let failed = "switchboard_store_writes_total{error_type=\"STORE_FULL\"}";
    assert!(metrics.contains(failed), "{metrics}");

    std::fs::remove_file(filler).unwrap();
    let freed = Instant::now();
    while let Err(status) = client.create("after", &shape(2)) {
        assert!(
            is_refused(&status) && freed.elapsed() < Duration::from_secs(1),
            "{status:?}"
        );
    }
    println!("written again {:?} after there was room", freed.elapsed());
    assert!(client.list().contains_key("after"));
}
