//! What a shell's commands are held in, as those who run the service meet it: what is shown, what is refused, and when
//! launchers come and go.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::{Value, json};

use super::support::{Service, Talk, eventually, no_grpcurl, program, run};

const SHELL: &str =
    "[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n";

/// A shell with these keys of its sandbox.
fn shell(sandbox: &str) -> String {
    format!("{SHELL}[listeners.shell.sandbox]\n{sandbox}\n")
}

/// The launchers of a service, by number.
fn launchers(service: &Service) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{}/task", service.pid())).unwrap() {
        let children = fs::read_to_string(thread.unwrap().path().join("children"));
        let children = children.unwrap_or_default();
        let launches = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.ends_with(b"\0launcher\0")
        };
        let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
        found.extend(pids.filter(launches));
    }
    found
}

fn has_launchers(service: &Service, count: usize, when: &str) {
    eventually(when, || launchers(service).len() == count);
}

fn kill(pid: i32) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// Writes the file of a running service anew.
fn rewrite(service: &Service, toml: &str) {
    let file = service.home().join("switchboard.toml");
    let next = service.home().join("next");
    fs::write(&next, toml).unwrap();
    fs::rename(next, file).unwrap();
    let reloaded = service.cli(&["config", "reload"], &[]);
    assert_eq!(reloaded.code, 0, "{}", reloaded.stderr);
}

fn isolation(listener: &Value) -> &str {
    listener["status"]["isolation"].as_str().unwrap_or_default()
}

fn serves(service: &Service, name: &str) -> bool {
    let request = json!({ "service": format!("listeners/{name}") });
    service.call("grpc.health.v1.Health/Check", &request, "status") == "SERVING"
}

#[test]
fn what_commands_are_held_in_is_told() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&shell(""));
    let listener = service.listener("shell");
    let achieved = isolation(&listener).to_owned();
    assert!(achieved.starts_with("ISOLATION_"), "{listener}");
    assert_ne!(achieved, "ISOLATION_NONE");
    let info = service
        .grpcurl("ServerService/GetServerInfo", &json!({}))
        .unwrap();
    assert_eq!(info["isolation"], achieved);
    assert_eq!(
        info["isolationMissing"],
        listener["status"]["isolationMissing"]
    );
    let word = achieved.trim_start_matches("ISOLATION_").to_lowercase();
    let told = service.cli(&["server", "info"], &[]).stdout;
    assert!(told.contains(&format!("isolation        {word}")), "{told}");
    let wide = service.cli(&["listener", "ls", "-o", "wide"], &[]).stdout;
    assert!(wide.contains("ISOLATION") && wide.contains(&word), "{wide}");
}

#[test]
fn a_host_without_shells_is_asked_what_it_offers() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start("[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n");
    assert_eq!(launchers(&service).len(), 0);
    let asked = || {
        service
            .grpcurl("ServerService/GetServerInfo", &json!({}))
            .unwrap()
    };
    let info = asked();
    let offers = info["isolation"].as_str().unwrap();
    assert!(!["", "ISOLATION_NONE"].contains(&offers), "{info}");
    has_launchers(&service, 0, "nothing is left of the question");
    assert_eq!(asked()["isolation"], info["isolation"]);
    assert_eq!(isolation(&service.listener("ack")), "");
}

#[test]
fn one_cage_and_no_other_is_what_is_asked_for() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&shell("isolation = \"landlock\""));
    let listener = service.listener("shell");
    assert_eq!(isolation(&listener), "ISOLATION_LANDLOCK");
    assert_eq!(
        listener["shell"]["sandbox"]["isolation"],
        "ISOLATION_LANDLOCK"
    );
    assert_eq!(service.talk("shell").command("echo held").stdout, b"held\n");
}

#[test]
fn a_cage_that_is_off_is_said_aloud() {
    if no_grpcurl() {
        return;
    }
    let off = shell("isolation = \"none\"\nmin_isolation = \"none\"");
    let checked = run(&[("a.toml", &off)], &["check", "--config", "a.toml"], &[]);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    let warning = "warning: listeners.shell.sandbox.isolation: commands run without a cage";
    assert!(checked.stderr.contains(warning), "{}", checked.stderr);
    let half = shell("isolation = \"none\"");
    let checked = run(&[("a.toml", &half)], &["check", "--config", "a.toml"], &[]);
    assert_eq!(checked.code, 78);
    assert!(
        checked.stderr.contains("min_isolation = \"none\" too"),
        "{}",
        checked.stderr
    );
    let service = Service::start(&off);
    assert!(service.stderr().contains("commands run without a cage"));
    assert_eq!(isolation(&service.listener("shell")), "ISOLATION_NONE");
    assert_eq!(service.talk("shell").command("echo free").stdout, b"free\n");
}

#[test]
fn what_commands_could_not_run_is_told_beforehand() {
    let toml = SHELL.replace("policy = \"any\"", "programs = [\"echo\", \"/root/tool\"]");
    let checked = run(&[("a.toml", &toml)], &["check", "--config", "a.toml"], &[]);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    let warning = "listeners.shell.programs: no command can read /root/tool";
    assert!(checked.stderr.contains(warning), "{}", checked.stderr);
    assert!(!checked.stderr.contains("echo"), "{}", checked.stderr);
}

/// A service that is somebody without rights, whoever runs the tests; none where nobody can become that.
fn without_rights(toml: &str) -> Option<Service> {
    let home = Service::home_for(toml);
    if !geteuid().is_root() {
        return Some(Service::start_in(home, &[], &[]));
    }
    let is_there = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    if !is_there("setpriv") {
        return None;
    }
    for place in [
        home.path().to_owned(),
        home.path().join("base.toml"),
        home.path().join("switchboard.toml"),
    ] {
        std::os::unix::fs::chown(place, Some(65_534), Some(65_534)).unwrap();
    }
    // Where the program is may be closed to others.
    let own = home.path().join("switchboard");
    fs::copy(program(), &own).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(own);
    let service = Service::spawn(Arc::clone(&home), command, &[], &[]);
    service.announced("http");
    Some(service)
}

#[test]
fn a_host_that_offers_less_than_is_asked_for_fails_the_listener_until_less_is_asked() {
    if no_grpcurl() {
        return;
    }
    for asked in ["isolation = \"full\"", "min_isolation = \"full\""] {
        let Some(service) = without_rights(&shell(asked)) else {
            return;
        };
        let failed = service.listener("shell");
        assert_eq!(failed["state"], "STATE_FAILED", "{failed}");
        let failure = &failed["lastFailure"];
        assert_eq!(failure["reason"], "ISOLATION_UNAVAILABLE", "{failed}");
        let message = failure["message"].as_str().unwrap();
        for part in ["held in `full`", "no isolation `full`: ", "min_isolation"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(service.announced("shell").contains(message));
        let missing = &failed["status"]["isolationMissing"];
        assert!(
            missing[0].as_str().unwrap().contains("no isolation `full`"),
            "{failed}"
        );
        assert!(
            service
                .http_get("/readyz")
                .1
                .contains("listener shell failed: ")
        );
        assert!(!serves(&service, "shell"));
        has_launchers(&service, 0, "what failed has no launcher");
        // It is tried again, and never seems to serve meanwhile.
        let first = failure["failTime"].clone();
        eventually("it is tried again", || {
            let now = service.listener("shell");
            assert_eq!(now["state"], "STATE_FAILED", "{now}");
            assert!(!now["lastFailure"]["nextRetryTime"].is_null(), "{now}");
            now["lastFailure"]["failTime"] != first
        });
        rewrite(&service, &shell("min_isolation = \"landlock\""));
        let active = service.listener("shell");
        assert_eq!(active["state"], "STATE_ACTIVE", "{active}");
        assert!(active["lastFailure"].is_null(), "{active}");
        let mut talk = Talk::to(service.bound("shell"));
        assert_eq!(talk.command("echo held").stdout, b"held\n");
    }
}

#[test]
fn a_launcher_that_ends_leaves_its_listener_ailing_until_the_next() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&shell(""));
    let mut talk = service.talk("shell");
    assert_eq!(talk.command("echo before").stdout, b"before\n");
    assert!(serves(&service, "shell"));
    eventually("it is ailing", || {
        launchers(&service).into_iter().for_each(kill);
        !serves(&service, "shell")
    });
    let mut ailing = Value::Null;
    eventually("it is shown to be", || {
        launchers(&service).into_iter().for_each(kill);
        ailing = service.listener("shell");
        ailing["lastFailure"]["reason"] == "LAUNCHER_FAILED"
    });
    assert_eq!(ailing["state"], "STATE_ACTIVE", "{ailing}");
    // What is asked meanwhile waits.
    assert_eq!(talk.command("echo after").stdout, b"after\n");
    eventually("it is well again", || serves(&service, "shell"));
    assert!(service.listener("shell")["lastFailure"].is_null());
    let (_, metrics) = service.http_get("/metrics");
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let restarts = value("switchboard_shell_launcher_restarts_total{");
    assert!((0.9..1.1).contains(&restarts), "one ended: {restarts}");
    assert!(value("switchboard_shell_workers{") >= 1.0);
}

#[test]
fn a_listener_has_a_launcher_while_it_serves_and_at_no_other_time() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&shell(""));
    has_launchers(&service, 1, "it serves");
    let first = launchers(&service);
    let mut talk = service.talk("shell");
    assert_eq!(talk.command("echo one").stdout, b"one\n");

    // What is not of the cage leaves it as it is.
    rewrite(
        &service,
        &SHELL.replace("bind", "command_timeout = \"9s\"\nbind"),
    );
    assert_eq!(launchers(&service), first);

    // A session keeps the cage that it began with, and the last one takes it along.
    rewrite(&service, &shell("max_open_files = 64"));
    has_launchers(&service, 2, "the session has its own");
    assert_eq!(talk.command("ulimit -n").stdout, b"256\n");
    assert_eq!(service.talk("shell").command("ulimit -n").stdout, b"64\n");
    drop(talk);
    has_launchers(&service, 1, "the session has left");
    assert!(launchers(&service).is_disjoint(&first));

    let act = |method: &str, more: Value| {
        let mut request = json!({ "name": "listeners/shell" });
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        service
            .grpcurl(&format!("ListenerService/{method}"), &request)
            .unwrap()
    };
    act("StopListener", json!({ "grace": "0s" }));
    has_launchers(&service, 0, "it has stopped");
    act("StartListener", json!({}));
    assert_eq!(launchers(&service).len(), 1);
    act("DeleteListener", json!({ "force": true }));
    has_launchers(&service, 0, "it is gone");
}

/// Where nobody but this machine may come from, and where others may.
const INSIDE: [&str; 4] = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"];
const OUTSIDE: [&str; 6] = [
    "0.0.0.0",
    "[::]",
    "[::ffff:0.0.0.0]",
    "192.0.2.1",
    "[2001:db8::1]",
    "[fe80::1]",
];

#[test]
fn a_shell_off_loopback_takes_clear_words_and_no_cage_lets_root_in() {
    let root = geteuid().is_root();
    let (mut toml, mut expected, mut port) = (String::new(), BTreeSet::new(), 7000);
    for (bind, outside) in INSIDE
        .map(|bind| (bind, false))
        .into_iter()
        .chain(OUTSIDE.map(|bind| (bind, true)))
    {
        for clear in [false, true] {
            for networks in ["", "\"10.0.0.0/8\""] {
                for user in ["", "nobody", "root"] {
                    port += 1;
                    let name = format!("l{port}");
                    write!(
                        toml,
                        "[listeners.{name}]\nprotocol = \"shell\"\nbind = \"{bind}:{port}\"\n\
                         allow_cleartext = {clear}\nsandbox = {{ run_as = \"{user}\" }}\n\
                         limits = {{ allow_cidrs = [{networks}] }}\n"
                    )
                    .unwrap();
                    for (wrong, key) in [
                        (outside && !clear, "bind"),
                        (outside && networks.is_empty(), "limits.allow_cidrs"),
                        (
                            user == "root" || (user == "nobody" && !root),
                            "sandbox.run_as",
                        ),
                    ] {
                        if wrong {
                            expected.insert(format!("listeners.{name}.{key}"));
                        }
                    }
                }
            }
        }
    }
    assert_eq!(port - 7000, 120);
    let check = ["check", "--config", "a.toml", "-o", "json"];
    let checked = run(&[("a.toml", &toml)], &check, &[]);
    assert_eq!(checked.code, 78);
    let told: Value = serde_json::from_str(&checked.stdout).unwrap();
    let problems = told["problems"].as_array().unwrap();
    let key = |problem: &Value| problem["key"].as_str().unwrap().to_owned();
    assert_eq!(problems.iter().map(key).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_shell_that_nobody_may_reach_so_does_not_start() {
    for (keys, named) in [
        (
            "bind = \"0.0.0.0:0\"\nlimits = { allow_cidrs = [\"10.0.0.0/8\"] }",
            "allow_cleartext",
        ),
        (
            "bind = \"[::]:0\"\nallow_cleartext = true",
            "limits.allow_cidrs",
        ),
        ("bind = \"unix:/run/shell.sock\"", "is not an address"),
        (
            "bind = \"127.0.0.1:0\"\nsandbox = { run_as = \"0\" }",
            "sandbox.run_as",
        ),
    ] {
        let toml = format!("[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\n{keys}\n");
        let began = std::time::Instant::now();
        let ended = run(&[("a.toml", &toml)], &["serve", "--config", "a.toml"], &[]);
        assert_eq!(ended.code, 78, "{keys}: {}", ended.stderr);
        assert!(ended.stderr.contains(named), "{keys}: {}", ended.stderr);
        assert!(began.elapsed() < Duration::from_secs(1), "{keys}");
    }
}

#[test]
fn a_caller_makes_and_sees_a_cage_as_it_was_asked_for_but_for_its_secrets() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start("[grpc]\nallow_shell = true\n");
    let made = service.cli(
        &[
            "listener",
            "create",
            "made",
            "--protocol",
            "shell",
            "--bind",
            "127.0.0.1:0",
            "--policy",
            "any",
            "--set",
            "sandbox.min_isolation=landlock",
            "--set",
            "sandbox.max_open_files=32",
            "--set",
            "sandbox.environment.TOKEN=hush",
            "--set",
            "sandbox.max_cpu_time=2s",
            "--set",
            "sandbox.max_memory_bytes=64MiB",
        ],
        &[],
    );
    assert_eq!(made.code, 0, "{}", made.stderr);
    let listener = service.listener("made");
    let shown = json!({
        "environment": { "TOKEN": "(set)" }, "maxOpenFiles": 32, "maxCpuTime": "2s",
        "maxMemoryBytes": "67108864", "minIsolation": "ISOLATION_LANDLOCK",
    });
    assert_eq!(listener["shell"]["sandbox"], shown);
    assert_ne!(isolation(&listener), "");
    let mut talk = Talk::to(service.bound("made"));
    assert_eq!(talk.command("ulimit -n; echo $TOKEN").stdout, b"32\nhush\n");
    let refused = service.cli(
        &[
            "listener",
            "update",
            "made",
            "--set",
            "sandbox.isolation=none",
        ],
        &[],
    );
    assert_ne!(refused.code, 0);
    let field = "listener.shell.sandbox.isolation: \"none\" is less than min_isolation";
    assert!(refused.stderr.contains(field), "{}", refused.stderr);
}
