//! The files are followed: whatever puts another file in the place of one, and whoever takes his time to write it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::{
    NOT_RELOADED, RELOADED, ack, asks, counted, file, gauge, reload, reloaded, replace, revision,
    told,
};
use crate::support::{Service, eventually, no_grpcurl};

#[test]
fn whoever_looks_first_keeps_nobody_from_taking_it_over() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&ack("kept", ""));
    for (times, reply) in ["one", "two", "three"].iter().enumerate() {
        replace(
            &file(&service),
            &ack("kept", &format!("reply = \"{reply}\"")),
        );
        match times {
            0 => _ = service.call("ConfigService/DiffConfig", &json!({}), "changes"),
            1 => _ = service.call("ConfigService/GetEffectiveConfig", &json!({}), "settings"),
            _ => _ = reload(&service, &json!({ "validate_only": true })).unwrap(),
        }
        reloaded(&service, times + 1);
        asks(&mut service.talk("kept"), reply.as_bytes());
    }
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_told_and_waited_for_by_nobody() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&ack("kept", ""));
    let pipe = service.home().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    fs::rename(pipe, file(&service)).unwrap();
    let refused = reload(&service, &json!({})).unwrap_err();
    assert!(
        refused.message.contains("is not a regular file"),
        "{}",
        refused.message
    );
    // Whoever changes something has his turn.
    service.call(
        "ListenerService/StopListener",
        &json!({ "name": "kept" }),
        "listener",
    );
    service.terminate();
    assert_eq!(service.wait().code, 0);
}

#[test]
fn a_configuration_mount_that_swaps_its_links_is_followed() {
    let mount = tempfile::tempdir().unwrap();
    let publish = |version: &str, text: &str| {
        let folder = mount.path().join(version);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("listeners.toml"), text).unwrap();
        let next = mount.path().join("..data_tmp");
        symlink(version, &next).unwrap();
        fs::rename(next, mount.path().join("..data")).unwrap();
    };
    publish("..2026_1", &ack("kept", ""));
    let config = mount.path().join("listeners.toml");
    symlink("..data/listeners.toml", &config).unwrap();
    let service = Service::start_with("", &["--config", config.to_str().unwrap()], &[]);
    let mut kept = service.talk("kept");
    asks(&mut kept, b"received data!!");
    for version in 2..5 {
        let reply = format!("version {version}");
        publish(
            &format!("..2026_{version}"),
            &ack("kept", &format!("reply = \"{reply}\"")),
        );
        fs::remove_dir_all(mount.path().join(format!("..2026_{}", version - 1))).unwrap();
        reloaded(&service, version - 1);
        asks(&mut service.talk("kept"), reply.as_bytes());
        asks(&mut kept, b"received data!!");
    }
    assert_eq!(told(&service, NOT_RELOADED).len(), 0);
}

#[test]
fn a_file_that_is_gone_is_missed_and_one_that_is_back_is_read() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&ack("kept", ""));
    let mut kept = service.talk("kept");
    asks(&mut kept, b"received data!!");
    let before = revision(&service);
    fs::remove_file(file(&service)).unwrap();
    eventually("it is missed", || !told(&service, NOT_RELOADED).is_empty());
    let problem = told(&service, NOT_RELOADED)[0]["problem"].to_string();
    assert!(
        problem.contains(file(&service).to_str().unwrap()),
        "{problem}"
    );
    assert_eq!(gauge(&service, "switchboard_config_reload_failing"), 1);
    assert_eq!(revision(&service), before);
    asks(&mut kept, b"received data!!");
    asks(&mut service.talk("kept"), b"received data!!");

    fs::write(file(&service), ack("kept", "reply = \"back\"")).unwrap();
    reloaded(&service, 1);
    asks(&mut service.talk("kept"), b"back");
    asks(&mut kept, b"received data!!");
    assert_eq!(counted(&service)["config_invalid"], 1);
    assert_eq!(gauge(&service, "switchboard_config_reload_failing"), 0);
    // An editor that keeps the old one under another name.
    fs::rename(file(&service), service.home().join("switchboard.toml~")).unwrap();
    fs::write(file(&service), ack("kept", "reply = \"edited\"")).unwrap();
    reloaded(&service, 2);
    asks(&mut service.talk("kept"), b"edited");
}

/// How somebody writes a file, slowly.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// Over the old one.
    InPlace,
    /// A new one of its name, empty at first.
    Anew,
    /// Over the old one, while others come and go beside it all the time.
    AmongOthers,
}

/// Only what ran before and what is written in the end ever runs, though what is there in between could be read.
fn is_not_read_before_it_is_written(way: Way) {
    if no_grpcurl() {
        return;
    }
    let text = |reply: &str| {
        let labels: String = (0..12)
            .map(|i| format!("label-{i} = \"{reply}\"\n"))
            .collect();
        let first = ack("first", &format!("[listeners.first.labels]\n{labels}"));
        first + &ack("last", &format!("reply = \"{reply}\""))
    };
    let service = Service::start(&text("old"));
    let mut last = service.talk("last");
    asks(&mut last, b"old");
    let before = revision(&service);
    let written = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !written.load(Ordering::Relaxed) {
                seen.insert(revision(&service).to_string());
            }
            seen
        });
        write_slowly(way, &service, &text("new"));
        written.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    assert!(seen.contains(&before.to_string()));
    reloaded(&service, 1);
    assert_eq!(told(&service, NOT_RELOADED).len(), 0);
    let after = &told(&service, RELOADED)[0]["revision"];
    assert_eq!(revision(&service), *after);
    let allowed: BTreeSet<_> = [before.to_string(), after.to_string()].into();
    assert!(seen.is_subset(&allowed), "{seen:?} {allowed:?}");
    assert_eq!(
        service.listener("first")["labels"]
            .as_object()
            .unwrap()
            .len(),
        12
    );
    asks(&mut last, b"old");
    asks(&mut service.talk("last"), b"new");
}

/// Byte by byte, with pauses longer than whatever waits for quiet; among others, longer than whatever waits for an end.
fn write_slowly(way: Way, service: &Service, text: &str) {
    use std::io::Write;
    let path = file(service);
    if way == Way::Anew {
        fs::remove_file(&path).unwrap();
    }
    let mut file = fs::File::create(&path).unwrap();
    let whole = Duration::from_millis(if way == Way::AmongOthers { 2400 } else { 100 });
    let pause = whole / u32::try_from(text.len()).unwrap();
    for (index, byte) in text.bytes().enumerate() {
        if index == 0 || index == text.len() / 2 {
            std::thread::sleep(Duration::from_millis(600));
        }
        file.write_all(&[byte]).unwrap();
        file.flush().unwrap();
        std::thread::sleep(pause);
        if way == Way::AmongOthers {
            let other = service.home().join("other.toml");
            fs::write(&other, "").unwrap();
            fs::remove_file(other).unwrap();
        }
    }
}

#[test]
fn a_file_written_in_place_is_not_read_before_it_is_written() {
    is_not_read_before_it_is_written(Way::InPlace);
}

#[test]
fn a_file_written_anew_is_not_read_before_it_is_written() {
    is_not_read_before_it_is_written(Way::Anew);
}

#[test]
fn a_file_written_among_others_is_not_read_before_it_is_written() {
    is_not_read_before_it_is_written(Way::AmongOthers);
}
