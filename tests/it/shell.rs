//! The framed shell as its keeper sees it: nothing that it started outlives its peer, turns are taken, and what it
//! refuses is told to the client and counted by its reason.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::limits::{close_reason, session_of};
use super::support::{Service, eventually, no_grpcurl, uncaged};

/// A number that no other test of this machine has: a command that names it is found again.
fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(100);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}.{count}", 1_000_000 + std::process::id())
}

/// The live processes whose command line holds `mark`.
pub(crate) fn processes(mark: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    // What is no process has no command line, and one that has ended has an empty one.
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(mark))
        .count()
}

/// Something that sleeps for days unless it is ended: `sleep MARK`.
pub(crate) struct Sleeper(pub(crate) String);

impl Sleeper {
    pub(crate) fn new() -> Self {
        Self(unique())
    }

    /// A command that has a child in the background and one that it waits for.
    pub(crate) fn command(&self) -> String {
        format!("sleep {0} & sleep {0}; echo never", self.0)
    }

    /// Until the shell and both its children are there.
    pub(crate) fn wait_for_command(&self) {
        self.wait_for(1);
    }

    /// The same of so many of them.
    pub(crate) fn wait_for(&self, commands: usize) {
        let all = 3 * commands;
        eventually("the commands run", || processes(&self.0) == all);
    }

    pub(crate) fn expect_gone(&self) {
        eventually("the command is gone, whole", || processes(&self.0) == 0);
    }
}

/// A command that says `done` when the test opens it, in whatever cage: what it waits for is a child, which is ended.
pub(crate) struct Gate(String);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(unique())
    }

    pub(crate) fn command(&self) -> String {
        // Some shells tell of the child's end.
        format!("{{ sleep {}; }} 2>/dev/null; echo done", self.0)
    }

    /// Until the shell and its child are there.
    pub(crate) fn wait_for_command(&self) {
        eventually("the command runs", || processes(&self.0) == 2);
    }

    pub(crate) fn open(&self) {
        let child = format!("sleep\0{}\0", self.0);
        let is_child = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline"));
            line.is_ok_and(|line| line == child.as_bytes())
        };
        // It may be there and not yet have become what it is to be.
        eventually("the gate is there", || {
            let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
            let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            let pid = pids.find(is_child).and_then(Pid::from_raw);
            pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok())
        });
    }
}

#[test]
fn a_command_ends_with_its_peer_whole() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n",
    );
    let mut other = service.talk("shell");
    let (sleeper, mut talk) = (Sleeper::new(), service.talk("shell"));
    let peer = talk.local();
    talk.send(sleeper.command());
    sleeper.wait_for_command();
    talk.reset();
    sleeper.expect_gone();
    assert_eq!(close_reason(&service, "shell", peer), "client_reset");

    // The same of one that has said more than is read while its command runs, and of one that has said all.
    let junk = "x".repeat(200_000);
    for (more, half_closed) in [(&*junk, false), ("", true)] {
        let (sleeper, mut talk) = (Sleeper::new(), service.talk("shell"));
        let peer = talk.local();
        talk.send(sleeper.command());
        sleeper.wait_for_command();
        talk.send(more);
        if half_closed {
            talk.half_close();
        }
        talk.reset();
        sleeper.expect_gone();
        assert_eq!(close_reason(&service, "shell", peer), "client_reset");
    }

    let (sleeper, mut talk) = (Sleeper::new(), service.talk("shell"));
    talk.send(sleeper.command());
    sleeper.wait_for_command();
    let name = session_of(&service, "shell", talk.local());
    service.call(
        "SessionService/CloseSession",
        &json!({ "name": name }),
        "session",
    );
    talk.expect_closed();
    sleeper.expect_gone();

    // A peer that only ended its side is owed the answer.
    let (gate, mut talk) = (Gate::new(), service.talk("shell"));
    talk.send(gate.command());
    talk.half_close();
    gate.wait_for_command();
    gate.open();
    assert_eq!(talk.frame().stdout, b"done\n");
    talk.expect_closed();
    assert_eq!(
        close_reason(&service, "shell", talk.local()),
        "client_closed"
    );

    assert_eq!(other.command("echo unharmed").stdout, b"unharmed\n");
}

#[test]
fn a_command_over_its_limits_is_ended_whole_and_its_session_goes_on() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.shell]
        protocol = "shell"
        policy = "any"
        bind = "127.0.0.1:0"
        command_timeout = "1500ms"
        max_output_bytes = 1000
        "#,
    );
    let mut talk = service.talk("shell");
    let sleeper = Sleeper::new();
    let frame = talk.command(format!("echo early; {}", sleeper.command()));
    assert_eq!(frame.header["timed_out"], true);
    assert_eq!(
        (frame.error(), &*frame.stdout),
        ("timed_out", &b"early\n"[..])
    );
    assert!(!frame.stderr.is_empty(), "the oldest client reads why");
    sleeper.expect_gone();

    let frame = talk.command("yes");
    assert_eq!(frame.header["truncated"], true);
    assert_eq!(frame.header["len"], 1000);

    // The command has ended; what it left behind is not waited for.
    let sleeper = Sleeper::new();
    let frame = talk.command(format!("sleep {} & echo done", sleeper.0));
    assert_eq!((frame.error(), &*frame.stdout), ("", &b"done\n"[..]));
    assert_eq!(frame.header["exit_code"], 0);
    sleeper.expect_gone();
    assert_eq!(service.rejected("shell", "timed_out"), 1);
    assert_eq!(service.count("shell", "activeSessions"), 1);
}

#[test]
fn commands_take_turns_and_who_waits_too_long_is_told() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.shell]
        protocol = "shell"
        policy = "any"
        bind = "127.0.0.1:0"
        queue_timeout = "200ms"
        sandbox = { max_concurrent_commands = 1 }
        [listeners.patient]
        protocol = "shell"
        policy = "any"
        bind = "127.0.0.1:0"
        queue_timeout = "1min"
        sandbox = { max_concurrent_commands = 1 }
        "#,
    );
    let (mut first, mut second) = (service.talk("shell"), service.talk("shell"));
    let gate = Gate::new();
    first.send(gate.command());
    gate.wait_for_command();
    let frame = second.command("echo mine");
    assert_eq!(frame.error(), "busy");
    assert_eq!(frame.header["exit_code"], serde_json::Value::Null);
    gate.open();
    assert_eq!(first.frame().stdout, b"done\n");
    assert_eq!(second.command("echo mine").stdout, b"mine\n");
    assert_eq!(service.rejected("shell", "busy"), 1);

    // Who leaves the queue is not run for nobody.
    let (mut first, mut second) = (service.talk("patient"), service.talk("patient"));
    let mut third = service.talk("patient");
    let (gate, never) = (Gate::new(), Sleeper::new());
    first.send(gate.command());
    gate.wait_for_command();
    second.send(never.command());
    let peer = second.local();
    eventually("the second command waits", || {
        let all = super::limits::sessions(&service, "patient");
        let own = all.iter().find(|s| s["peer"] == peer.to_string());
        own.is_some_and(|s| s["receivedMessages"] == "1")
    });
    second.reset();
    assert_eq!(close_reason(&service, "patient", peer), "client_reset");
    third.send("echo turn");
    gate.open();
    assert_eq!(first.frame().stdout, b"done\n");
    // It would have the only turn, for days.
    assert_eq!(third.frame().stdout, b"turn\n");
    assert_eq!(processes(&never.0), 0);
}

#[test]
fn only_the_programs_named_are_run_and_nothing_is_expanded() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.shell]
        protocol = "shell"
        programs = ["echo", "/usr/bin/env", "no-such-program"]
        bind = "127.0.0.1:0"
        sandbox = { environment = { GREETING = "hello" } }
        "#,
    );
    let mut talk = service.talk("shell");
    for (command, output) in [
        ("echo $HOME '$(id)' *; id", "$HOME $(id) *; id\n"),
        ("/usr/bin/echo path", "path\n"),
        ("echo one\r\n", "one\n"),
    ] {
        let frame = talk.command(command);
        assert_eq!(
            (frame.error(), &*frame.stdout),
            ("", output.as_bytes()),
            "{command}"
        );
    }
    // Nothing of the service's own environment reaches a command.
    let environment = String::from_utf8(talk.command("env").stdout).unwrap();
    let mut names: Vec<_> = environment
        .lines()
        .filter_map(|l| l.split('=').next())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["GREETING", "HOME", "PATH", "TMPDIR"],
        "{environment}"
    );

    for (command, code) in [
        (&b"id"[..], "not_allowed"),
        (b"/tmp/echo", "not_allowed"),
        (b"../bin/echo", "not_allowed"),
        (b"ECHO=1 echo", "not_allowed"),
        (b"no-such-program", "not_found"),
        (b"echo 'open", "bad_quotes"),
        (b"echo \0", "nul_byte"),
        (b"echo \xff", "invalid_utf8"),
        (b" \r\n", "empty_command"),
    ] {
        let shown = command.escape_ascii().to_string();
        let frame = talk.command(command);
        assert_eq!(frame.error(), code, "{shown}");
        assert!(
            frame.stdout.is_empty() && frame.stderr.ends_with(b"\n"),
            "{shown}"
        );
        assert!(service.rejected("shell", code) > 0, "{shown}");
    }
    assert_eq!(service.rejected("shell", "not_allowed"), 4);
    assert_eq!(service.count("shell", "activeSessions"), 1);
}

#[test]
fn what_a_browser_sends_is_never_run() {
    if no_grpcurl() {
        return;
    }
    // Where no cage would keep the command from leaving a sign.
    let sandbox = uncaged();
    let service = Service::start(&format!(
        r#"
        [listeners.raw]
        protocol = "shell"
        policy = "any"
        bind = "127.0.0.1:0"
        {sandbox}
        [listeners.line]
        protocol = "shell"
        policy = "any"
        framing = "line"
        bind = "127.0.0.1:0"
        {sandbox}
        "#,
    ));
    let sign = service.home().join("sign");
    for listener in ["raw", "line"] {
        let mut talk = service.talk(listener);
        let body = format!("touch {}\n", sign.display());
        talk.send(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        talk.expect_closed();
        assert_eq!(close_reason(&service, listener, talk.local()), "bad_frame");
        assert_eq!(service.rejected(listener, "http_request"), 1);
    }
    assert!(!sign.exists());
}

#[test]
fn what_cannot_be_a_command_gets_a_whole_frame_and_the_end() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        r#"
        [listeners.shell]
        protocol = "shell"
        policy = "any"
        framing = "length"
        bind = "127.0.0.1:0"
        limits = { max_message_bytes = 100 }
        "#,
    );
    for (length, reason) in [(101, "message_too_large"), (-1, "bad_frame")] {
        let mut talk = service.talk("shell");
        talk.send(i32::to_le_bytes(7));
        talk.send("echo hi");
        assert_eq!(talk.frame().stdout, b"hi\n");
        talk.send(i32::to_le_bytes(length));
        let frame = talk.frame();
        assert_eq!(frame.error(), reason);
        talk.expect_closed();
        let peer = talk.local();
        drop(talk);
        assert_eq!(close_reason(&service, "shell", peer), reason);
        assert_eq!(service.rejected("shell", reason), 1);
    }
}

#[test]
fn both_outputs_are_read_at_the_same_time() {
    let service = Service::start(
        "[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n",
    );
    // Either alone fills its pipe: whoever reads one after the other never ends.
    let frame = service.talk("shell").command(
        "head -c 1000000 /dev/zero >&2; head -c 1000000 /dev/zero; \
         head -c 1000000 /dev/zero >&2; exit 3",
    );
    assert_eq!(
        (frame.stdout.len(), frame.stderr.len()),
        (1_000_000, 2_000_000)
    );
    assert_eq!(frame.header["exit_code"], 3);
}

#[test]
fn an_answer_waits_ten_seconds_for_a_peer_that_does_not_read_and_no_longer() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(
        "[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n\
         limits = { idle_timeout = \"1s\" }\n",
    );
    let (mut deaf, mut leaving) = (service.talk("shell"), service.talk("shell"));
    // More than all the buffers on the way hold.
    for talk in [&mut deaf, &mut leaving] {
        talk.send("head -c 60000000 /dev/zero");
    }
    let peer = leaving.local();
    leaving.read(1_000_000);
    leaving.reset();
    assert_eq!(close_reason(&service, "shell", peer), "client_reset");
    let began = std::time::Instant::now();
    let closed = || service.count("shell", "activeSessions") == 0;
    eventually("nine seconds have passed", || {
        began.elapsed() > Duration::from_secs(9) || closed()
    });
    assert!(!closed(), "{:?}", began.elapsed());
    assert_eq!(
        close_reason(&service, "shell", deaf.local()),
        "slow_consumer"
    );
}
