//! What holds inside: every test has this very program confine itself, and run a script there.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
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
    /// Who the service is; root when there is none.
    service: Option<u32>,
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

/// Runs a script in a tier.
fn answered(profile: &Profile, tier: Isolation, script: &str, service: Option<u32>) -> Answer {
    let case = &Case {
        profile: profile.clone(),
        tier,
        script: script.into(),
        service,
    };
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

fn run_in(profile: &Profile, tier: Isolation, script: &str) -> Answer {
    let answer = answered(profile, tier, script, None);
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
    if let Some(service) = case.service {
        use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
        let (uid, gid) = (Uid::from_raw(service), Gid::from_raw(service));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
    }
    in_child(0, || match leave(&case.profile, case.tier, SLOT) {
        Ok(missing) => in_child(libc::CLONE_PARENT, || {
            answer(match enter(&case.profile, case.tier, SLOT, missing) {
                Ok(confined) => command(confined, &case.script),
                Err(failure) => failed(failure),
            });
        })
        .unwrap(),
        Err(failure) => answer(failed(failure)),
    })
    .unwrap();
    while rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok() {}
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
    assert_eq!(confined.cpu_seconds, None);
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
            .map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
        assert_eq!(
            id.stdout,
            format!("{user}\n{user}\n{user}\n"),
            "{tier:?}: {id:?}"
        );
        let (pwd, home) = id.stderr.trim().split_once('\n').unwrap();
        assert_eq!(pwd, home);
        let scripts = [
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
        ];
        let all = scripts.map(|script| {
            format!("({script}) > out 2> err && [ ! -s err ] || (echo \"{script}\"; cat err)\n")
        });
        let answer = run(tier, &all.concat());
        assert_eq!(
            (answer.code, answer.stdout.as_str()),
            (Some(0), ""),
            "{tier:?}"
        );
        assert!(answer.emptied, "{tier:?}");
    }
}

/// None of the scripts works.
fn holds(profile: &Profile, tier: Isolation, scripts: &[String]) {
    let tried = scripts.iter().enumerate();
    let tried = tried.map(|(at, script)| format!("({script}) > /dev/null 2>&1 && echo {at}\n"));
    let tried = tried.collect::<String>() + "echo all";
    let answer = run_in(profile, tier, &tried);
    let open = answer.stdout.lines().filter_map(|line| line.parse().ok());
    let open: Vec<_> = open.map(|at: usize| &scripts[at]).collect();
    assert!(open.is_empty(), "{tier:?}: {open:?}");
    assert!(answer.stdout.ends_with("all\n"), "{answer:?}");
}

#[test]
fn what_is_not_listed_cannot_be_read_or_written() {
    let secret = tempfile::tempdir().unwrap();
    let secret = secret.path();
    fs::set_permissions(secret, Permissions::from_mode(0o777)).unwrap();
    fs::write(secret.join("file"), "x").unwrap();
    fs::set_permissions(secret.join("file"), Permissions::from_mode(0o666)).unwrap();
    let secret = secret.display();
    let files = [
        format!("cat {secret}/file"),
        format!("ls {secret}"),
        format!("echo x > {secret}/file"),
        format!("echo x > {secret}/new"),
        format!("rm {secret}/file"),
        format!("ln {secret}/file mine"),
    ];
    let others = [
        "cat /etc/shadow",
        "ls /root",
        "echo x > /usr/x",
        "echo x >> /etc/passwd",
        "touch /x",
        "mkdir /dev/x",
        "echo x > /dev/shm/../x",
        "cat /proc/1/environ",
        "echo 1 > /proc/sys/kernel/domainname",
        "echo c > /proc/sysrq-trigger",
        "mknod d c 1 3",
        "mknod d b 7 0",
        "cat /dev/vda | head -c 1 | grep -q .",
        "mount -t tmpfs x .",
        "umount /proc",
        "unshare -r true",
        "unshare -m true",
        "chroot . true",
        "nsenter -t $$ -m true",
        "sudo -n true",
        "date -s 12:00",
        "hostname x",
        "dmesg",
        "renice -n -5 $$",
        "ulimit -n 100000",
        "ulimit -c 1",
        "setpriv --reuid 0 true",
        "ipcmk -M 100",
        "ipcmk -S 1",
        "ipcmk -Q",
        "python3 -c 'import socket; socket.socketpair(socket.AF_TIPC)'",
        "python3 -c 'import socket; socket.socket()'",
        "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)'",
        "python3 -c 'import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)'",
    ]
    .map(str::to_owned);
    let scripts = [&files[..], &others[..]].concat();
    for tier in CAGES {
        holds(&profile(), tier, &scripts);
    }
}

#[test]
fn calls_that_would_widen_the_cage_are_refused() {
    let script = r#"python3 -c '
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_long(a) for a in arguments])
    return errno.errorcode.get(ctypes.get_errno(), str(result))
for number in (165, 166, 155, 429, 428, 430, 431, 432, 433, 442, 161, 272, 308, 101, 310, 311, 440, 312, 438,
        321, 298, 425, 426, 427, 323, 250, 248, 249, 300, 304, 303, 246, 320, 175, 313, 176, 169, 167, 168, 164, 227,
        159, 305, 163, 179, 443, 103, 153, 170, 171, 172, 173):
    print(number, call(number, 0, 0, 0, 0, 0))
for flag in (0x10000000, 0x20000, 0x40000000, 0x8000000, 0x4000000, 0x2000000):
    print("clone", call(56, flag | 17, 0, 0, 0, 0))
print("personality", call(135, 0x0040000), call(135, 0xffffffff) != "EPERM")
print("tiocsti", call(16, 0, 0x5412, 0))
print("clone3", call(435, 0, 0))
print("x32", call(0x40000000 + 39))
'"#;
    for tier in CAGES {
        let answer = run(tier, script);
        let lines: Vec<_> = answer.stdout.lines().collect();
        assert_eq!(lines.len(), 62, "{answer:?}");
        for line in lines {
            let (call, result) = line.split_once(' ').unwrap();
            let expected = match call {
                "personality" => "EPERM True",
                "clone3" | "x32" => "ENOSYS",
                _ => "EPERM",
            };
            assert_eq!(result, expected, "{tier:?}: {call}");
        }
    }
    // A new namespace for processes takes a right that commands lack.
    let script =
        "python3 -c 'import ctypes; print(ctypes.CDLL(None).syscall(56, 0x20000011, 0, 0, 0, 0))'";
    for tier in CAGES {
        writes(tier, script, "-1\n");
    }
}

#[test]
fn a_command_has_no_capabilities_and_gets_none() {
    for tier in CAGES {
        let script = "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; umask";
        let answer = run(tier, script);
        for line in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let line = format!("{line}:\t0000000000000000\n");
            assert!(answer.stdout.contains(&line), "{tier:?}: {answer:?}");
        }
        assert!(
            answer
                .stdout
                .ends_with("NoNewPrivs:\t1\nSeccomp:\t2\n0077\n"),
            "{answer:?}"
        );
    }
}

#[test]
fn only_what_is_listed_is_there() {
    let host = tempfile::tempdir().unwrap();
    let open = |path: &Path| {
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    };
    open(host.path());
    for name in ["read", "write", "write/read"] {
        fs::create_dir(host.path().join(name)).unwrap();
        open(&host.path().join(name));
    }
    fs::write(host.path().join("read/file"), "x").unwrap();
    std::os::unix::fs::symlink("read", host.path().join("link")).unwrap();
    let path = |name: &str| host.path().join(name);
    let listed = Profile {
        readable: vec![
            "/usr".into(),
            "/bin".into(),
            "/lib".into(),
            "/lib64".into(),
            path("link"),
            path("write/read"),
            path("none"),
        ],
        writable: vec![path("write"), path("none")],
        working_directory: Some(path("write")),
        ..profile()
    };
    for tier in [Isolation::Full, Isolation::Userns] {
        let answer = run_in(
            &listed,
            tier,
            "ls -A / | tr '\\n' ' '; pwd; echo x > file && cat file; cat ../read/file",
        );
        assert_eq!(
            answer.stdout,
            format!(
                "bin dev lib lib64 proc tmp usr {}\nx\nx",
                path("write").display()
            ),
            "{answer:?}"
        );
        assert_eq!(fs::read(path("write/file")).unwrap(), b"x\n");
        for script in [
            "cat /etc/passwd",
            "echo x > ../read/file",
            "echo x > read/file",
        ] {
            let answer = run_in(&listed, tier, script);
            assert!(answer.code != Some(0), "{tier:?}: {script}: {answer:?}");
        }
        run_in(&listed, tier, "mkdir ../x; touch ../../x");
        assert!(!path("x").exists());
        // What is mounted in the scratch folder is nobody's to empty.
        assert!(path("write/file").exists() && path("read/file").exists());
    }
    let answer = run_in(
        &listed,
        Isolation::Landlock,
        "echo y > file; cat ../link/file; echo x > read/z; echo x > ../read/file",
    );
    assert_eq!(answer.stdout, "x", "{answer:?}");
    assert_eq!(fs::read(path("write/file")).unwrap(), b"y\n");
    // Under Landlock what may be written below one folder may be written below all that is in it.
    assert!(path("write/read/z").exists());
}

#[test]
fn a_command_is_held_to_its_limits() {
    for tier in Isolation::ALL {
        let answer = run(tier, "ulimit -n; ulimit -c; ulimit -f");
        assert_eq!(answer.stdout, "128\n0\n2097152\n", "{answer:?}");
        let bomb = run(tier, "python3 -c 'x = bytearray(1 << 30)'; echo $?");
        assert!(
            matches!(bomb.stdout.trim(), "137" | "1"),
            "{tier:?}: {bomb:?}"
        );
        let forks = "python3 -c '
import os, time
made = 0
try:
    for _ in range(100):
        if os.fork() == 0: time.sleep(100)
        made += 1
except OSError: pass
print(made, flush=True)
os.killpg(0, 9)'";
        // Besides those there are the shell and python.
        let forks = run(tier, &format!("setsid {forks}"));
        let made: u32 = forks.stdout.trim().parse().unwrap();
        assert!((28..=31).contains(&made), "{tier:?}: {forks:?}");
        assert_eq!(
            forks
                .missing
                .iter()
                .filter(|phrase| phrase.contains("control group"))
                .count(),
            0
        );
    }
}

/// What is left when the service is nobody special and has no groups to give.
#[test]
fn a_service_without_rights_has_all_but_control_groups() {
    let own = Profile {
        run_as: None,
        ..profile()
    };
    let service = Some(65533);
    let full = answered(&own, Isolation::Full, "true", service);
    assert_eq!(full.failure.unwrap().step, "make a mount namespace");
    for tier in [Isolation::Userns, Isolation::Landlock, Isolation::None] {
        let answer = answered(
            &own,
            tier,
            "id -u; mkdir -p a/b; chmod 0 a/b a; ulimit -v; cat /etc/shadow",
            service,
        );
        let (id, memory) = answer.stdout.trim().split_once('\n').unwrap();
        assert_eq!(id, "65533", "{tier:?}: {answer:?}");
        assert!(memory.parse::<u64>().unwrap() >= 256 << 10, "{answer:?}");
        assert!(
            answer.emptied && answer.stderr.contains("denied"),
            "{tier:?}: {answer:?}"
        );
        let groups = answer
            .missing
            .iter()
            .filter(|phrase| phrase.starts_with("no control group"));
        assert_eq!(groups.count(), 3, "{answer:?}");
        // Its workers and those of others are the same user's.
        assert_eq!(answered(&own, tier, "", service).stdout, "", "{tier:?}");
    }
    // Where a command sees its fellows, their lots are not its to change.
    let lots = "prlimit -n -p $PPID; prlimit -n5 -p $PPID; taskset -p 1 $PPID; renice -n 3 $PPID; ionice -c 3 -p $PPID";
    let lots = format!("({lots}) 2>&1 | grep -ci permitted; nice true; ulimit -n 9");
    let lots = answered(&own, Isolation::Landlock, &lots, service);
    assert_eq!(
        (lots.code, lots.stdout.as_str()),
        (Some(0), "5\n"),
        "{lots:?}"
    );
    let limits = |tier| answered(&own, tier, "ulimit -p", service).stdout;
    assert_eq!(limits(Isolation::Userns), "34\n");
    assert_ne!(limits(Isolation::Landlock), "33\n");
}

#[test]
fn root_runs_nothing_in_a_cage() {
    let root = Profile {
        run_as: None,
        ..profile()
    };
    for tier in CAGES {
        let failure = answered(&root, tier, "true", None).failure.unwrap();
        assert_eq!(failure.step, "run commands as root", "{tier:?}");
    }
    let answer = run_in(
        &root,
        Isolation::None,
        "id -u; grep NoNew /proc/self/status",
    );
    assert_eq!(answer.stdout, "0\nNoNewPrivs:\t0\n");
}

#[test]
fn commands_start_where_they_are_told_or_nothing_does() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let mut there = Profile {
        working_directory: Some(folder.path().into()),
        ..profile()
    };
    for tier in Isolation::ALL {
        let answer = run_in(&there, tier, "pwd; ls -a; mkdir x || mkdir $HOME/x");
        assert_eq!(
            answer.stdout,
            format!("{}\n.\n..\n", folder.path().display()),
            "{tier:?}"
        );
        assert_eq!(answer.code, Some(0));
    }
    there.working_directory = Some("/not/there".into());
    for tier in Isolation::ALL {
        let failure = answered(&there, tier, "true", None).failure.unwrap();
        assert_eq!(failure.step, "find the working directory /not/there");
    }
}

#[test]
fn the_network_is_the_hosts_when_asked_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port})); print(1)'"
    );
    let reaching = Profile {
        network: true,
        ..profile()
    };
    for tier in Isolation::ALL {
        assert_eq!(run_in(&reaching, tier, &script).stdout, "1\n", "{tier:?}");
        if tier != Isolation::None {
            let kinds = ["AF_PACKET, 3", "AF_VSOCK, 1", "AF_NETLINK, 3"];
            let kinds = kinds
                .map(|kind| format!("python3 -c 'import socket; socket.socket(socket.{kind})'"));
            holds(&reaching, tier, &kinds);
        }
    }
}

#[test]
fn all_of_the_host_can_be_listed() {
    let all = Profile {
        readable: vec!["/".into()],
        writable: vec!["/dev".into(), "/tmp".into(), "/proc".into()],
        ..profile()
    };
    for tier in [Isolation::Full, Isolation::Userns] {
        let answer = run_in(
            &all,
            tier,
            "ls /etc/passwd /tmp; ls -A /dev | tr '\\n' ' '; echo x > x; ps | wc -l; touch /x /var/x /dev/x",
        );
        assert_eq!(answer.code, Some(1), "{answer:?}");
        assert!(
            answer.stdout.starts_with(
                "/etc/passwd\n\n/tmp:\nfd full null random shm stderr stdin stdout urandom zero "
            ),
            "{answer:?}"
        );
        assert_eq!(answer.stderr.matches("Read-only").count(), 3, "{answer:?}");
        assert!(answer.emptied);
    }
}

#[test]
fn what_killed_launchers_have_left_is_swept() {
    let gone = Profile {
        listener: "swept away".into(),
        ..profile()
    };
    let dead = {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id() as i32
    };
    let name = group::name(&gone, dead, 3);
    assert_eq!(name, format!("switchboard-swept_away.{dead}.3"));
    // As the command line of a launcher ends.
    let mut launcher = Command::new("sh");
    launcher.args(["-c", "read x", "sh", super::WORD]);
    let mut launcher = launcher
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let living = group::name(&gone, launcher.id() as i32, 3);
    let (user, _) = runner(&gone);
    let make = |name: &str| {
        let (_, path) = scratch::make(name, &user).unwrap();
        fs::create_dir_all(path.join("a/b")).unwrap();
        path
    };
    let (left, used) = (make(&name), make(&living));
    let left_group = in_group(&gone, &name);
    sweep(&gone);
    assert!(!left.exists() && used.exists());
    launcher.stdin.take();
    launcher.wait().unwrap();
    assert!(
        left_group.iter().all(|group| !group.exists()),
        "{left_group:?}"
    );
    scratch::remove(&gone, |other| other.starts_with(&living));
    assert!(!used.exists());
}

/// The groups of that name, which a process has been in.
fn in_group(profile: &Profile, name: &str) -> Vec<PathBuf> {
    in_child(0, || {
        let (held, missing) = group::join(profile, Isolation::Full, name);
        assert!(
            held.memory && held.processes && missing.is_empty(),
            "{missing:?}"
        );
        let share = held.share.unwrap();
        let weights = |little| {
            let told = fs::read_to_string("/proc/self/cgroup").unwrap();
            let groups = told.lines().filter_map(|line| line.split_once(":/"));
            let at = |group| format!("/sys/fs/cgroup/cpu/{group}/cpu.shares");
            let found = groups.filter(|(of, _)| of.ends_with(":cpu"));
            let all = found.filter_map(|(_, group)| fs::read_to_string(at(group)).ok());
            all.for_each(|weight| assert_eq!(weight, if little { "113\n" } else { "1024\n" }));
        };
        let little = share.little();
        weights(true);
        drop(little);
        weights(false);
    })
    .unwrap();
    let groups = group::named(|other| other == name);
    assert!([1, 3].contains(&groups.len()), "{groups:?}");
    groups
}
