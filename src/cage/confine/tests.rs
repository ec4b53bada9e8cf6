//! What holds inside: every test has this very program confine itself, and run a script there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::*;
use crate::cage::kernel::{can_clone, in_child};

/// Set for the programs that confine themselves: what to.
const VARIABLE: &str = "SWITCHBOARD_TEST_CONFINED";
/// The slot that they confine.
const SLOT: u32 = 7;
/// What stands before their answer.
const ANSWER: &str = "confined: ";

#[derive(Serialize, Deserialize)]
struct Case {
    profile: Profile,
    tier: Isolation,
    script: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    missing: Vec<String>,
    /// Whether the folder could be emptied, and had been before the script.
    emptied: bool,
    failure: Option<Failure>,
}

fn profile() -> Profile {
    Profile {
        listener: "test".into(),
        isolation: None,
        run_as: rustix::process::geteuid().is_root().then(|| User {
            name: "nobody".into(),
            uid: 65534,
            gid: 65534,
        }),
        working_directory: None,
        environment: BTreeMap::new(),
        readable: Vec::new(),
        writable: Vec::new(),
        network: false,
        max_memory_bytes: 256 << 20,
        max_processes: 32,
        max_open_files: 128,
        max_cpu_time: Duration::ZERO,
    }
}

fn again(case: &Case) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["cage::confine::tests::confined", "--exact", "--ignored"])
        .args(["--nocapture", "--test-threads=1"])
        .env(VARIABLE, serde_json::to_string(case).unwrap());
    command
}

fn answered(case: &Case) -> Answer {
    let output = again(case).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .split_once(ANSWER)
        .and_then(|(_, rest)| rest.lines().next());
    let line = line.unwrap_or_else(|| {
        panic!(
            "{:?}: {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
    });
    serde_json::from_str(line).unwrap()
}

/// Runs a script in a tier.
fn run_in(profile: &Profile, tier: Isolation, script: &str) -> Answer {
    let answer = answered(&Case {
        profile: profile.clone(),
        tier,
        script: script.into(),
    });
    assert!(answer.failure.is_none(), "{tier:?}: {answer:?}");
    answer
}

fn run(tier: Isolation, script: &str) -> Answer {
    run_in(&profile(), tier, script)
}

/// Runs a script and asserts what it writes.
fn writes(tier: Isolation, script: &str, output: &str) {
    let answer = run(tier, script);
    assert_eq!(answer.stdout, output, "{tier:?}: {script}: {answer:?}");
}

/// Not a test by itself: the program that the others start.
#[test]
#[ignore = "started by the other tests"]
fn confined() {
    let Ok(case) = std::env::var(VARIABLE) else {
        return;
    };
    let case: Case = serde_json::from_str(&case).unwrap();
    in_child(0, || match leave(&case.profile, case.tier, SLOT) {
        Ok(missing) => in_child(0, || {
            // As clone with CLONE_PARENT has it, this would be the launcher's child.
            answer(match enter(&case.profile, case.tier, SLOT, missing) {
                Ok(confined) => command(confined, &case.script),
                Err(failure) => failed(failure),
            });
        })
        .unwrap(),
        Err(failure) => answer(failed(failure)),
    })
    .unwrap();
    leave_behind(&case.profile, SLOT);
}

fn answer(answer: Answer) {
    let line = format!("\n{ANSWER}{}\n", serde_json::to_string(&answer).unwrap());
    for piece in line.as_bytes().chunks(4096) {
        assert_eq!(
            rustix::io::write(rustix::stdio::stdout(), piece).unwrap(),
            piece.len()
        );
    }
}

fn failed(failure: Failure) -> Answer {
    Answer {
        code: None,
        stdout: String::new(),
        stderr: String::new(),
        missing: Vec::new(),
        emptied: false,
        failure: Some(failure),
    }
}

fn command(mut confined: Confined, script: &str) -> Answer {
    let emptied = confined.scratch.empty();
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", script])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", &confined.home)
        .current_dir(&confined.directory)
        .stdin(Stdio::null());
    if let Some((uid, gid)) = confined.become_user {
        shell.uid(uid).gid(gid);
    }
    let result = if script.is_empty() {
        worker(&confined)
    } else {
        let output = shell.output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, stdout, stderr) = result;
    Answer {
        code,
        stdout,
        stderr,
        missing: confined.missing.clone(),
        emptied: emptied && confined.scratch.empty() && empty(&confined),
        failure: None,
    }
}

fn empty(confined: &Confined) -> bool {
    fs::read_dir(&confined.home).unwrap().next().is_none()
}

/// What a worker goes on doing once it is confined.
fn worker(confined: &Confined) -> (Option<i32>, String, String) {
    let mut refused = Vec::new();
    let mut check = |what: &str, done: std::io::Result<()>| {
        if let Err(error) = done {
            refused.push(format!("{what}: {error}"));
        }
    };
    let namespace = if confined.home == Path::new("/tmp") {
        libc::CLONE_NEWPID
    } else {
        0
    };
    check("clone", can_clone(namespace));
    check("vfork", can_clone(namespace | libc::CLONE_VFORK));
    let mut child = Command::new("/bin/sleep").arg("100").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    let kill = pidfd.and_then(|pidfd| {
        rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL)
    });
    check("pidfd", kill.map_err(Into::into));
    check("wait", child.wait().map(drop));
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let sent = rustix::net::send(&one, b"x", rustix::net::SendFlags::empty());
    check("send", sent.map(drop).map_err(Into::into));
    let received = rustix::net::recv(&other, &mut [0; 1][..], rustix::net::RecvFlags::empty());
    check("recv", received.map(drop).map_err(Into::into));
    let nice = rustix::process::setpriority_process(None, 5);
    check("setpriority", nice.map_err(Into::into));
    if let Some((uid, gid)) = confined.become_user {
        use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
        let (uid, gid) = (
            rustix::thread::Uid::from_raw(uid),
            rustix::thread::Gid::from_raw(gid),
        );
        check("setgroups", set_thread_groups(&[]).map_err(Into::into));
        check(
            "setresgid",
            set_thread_res_gid(gid, gid, gid).map_err(Into::into),
        );
        check(
            "setresuid",
            set_thread_res_uid(uid, uid, uid).map_err(Into::into),
        );
    }
    (None, refused.join("\n"), String::new())
}

const CAGES: [Isolation; 3] = [Isolation::Full, Isolation::Userns, Isolation::Landlock];

#[test]
fn a_worker_can_go_on_with_its_work() {
    for tier in Isolation::ALL {
        writes(tier, "", "");
    }
}

#[test]
fn ordinary_programs_work_in_every_cage() {
    for tier in Isolation::ALL {
        let id = run(tier, "id -u; id -g; id -G; pwd >&2; echo $HOME >&2");
        let user = profile()
            .run_as
            .map_or(rustix::process::geteuid().as_raw(), |user| user.uid);
        assert_eq!(
            id.stdout,
            format!("{user}\n{user}\n{user}\n"),
            "{tier:?}: {id:?}"
        );
        let (pwd, home) = id.stderr.trim().split_once('\n').unwrap();
        assert_eq!(pwd, home);
        for script in [
            "uptime",
            "free",
            "ps",
            "date",
            "ls -la",
            "python3 -c 'import os, multiprocessing, ssl'",
            "echo a > a && mkdir b && mv a b && cat b/a",
            "cat /dev/null",
            "head -c 9 /dev/urandom | wc -c",
            "echo x > /dev/null",
            "echo $(echo y)",
            "(sleep 0 & wait)",
            "mkfifo f && rm f",
        ] {
            let answer = run(tier, script);
            assert_eq!(
                (answer.code, answer.stderr.as_str()),
                (Some(0), ""),
                "{tier:?}: {script}: {answer:?}"
            );
            assert!(answer.emptied, "{tier:?}: {script}");
        }
    }
}
