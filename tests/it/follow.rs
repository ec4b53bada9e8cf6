//! What is followed from the command line: what is, then a line for each change, and an end by Ctrl-C.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::{Ended, Service, eventually, program};

const LISTENERS: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
     [listeners.desk]\nprotocol = \"chat\"\nbind = \"127.0.0.1:0\"\n";

/// A command that has no end of its own.
struct Follower {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Follower {
    fn of(service: &Service, line: &str) -> Self {
        let mut child = Command::new(program())
            .args(line.split(' '))
            .env("SWITCHBOARD_ENDPOINT", service.grpc().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line; none when it has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).unwrap();
        (read > 0).then_some(line)
    }

    /// The next line that tells so.
    fn until(&mut self, what: &str) -> String {
        loop {
            let line = self.line();
            let line = line.unwrap_or_else(|| panic!("it ended without {what:?}"));
            if line.contains(what) {
                return line;
            }
        }
    }

    fn object(&mut self) -> Value {
        serde_json::from_str(&self.line().unwrap()).unwrap()
    }

    /// The exit code of one that ends by itself.
    fn code(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }

    /// Presses Ctrl-C; the exit code.
    fn interrupt(mut self) -> i32 {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends what goes on until it is told, even when the test has failed.
struct Told<'a>(&'a AtomicBool);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn succeeds(service: &Service, line: &str) -> Ended {
    let ended = service.cli(&line.split(' ').collect::<Vec<_>>(), &[]);
    assert_eq!(ended.code, 0, "{line}: {}", ended.stderr);
    ended
}

#[test]
fn a_list_that_is_watched_goes_on() {
    let service = Service::start(LISTENERS);
    let mut all = Follower::of(&service, "listener ls --watch");
    let header = all.line().unwrap();
    assert!(header.starts_with("EVENT     NAME  PROTO"), "{header}");
    for name in ["ack ", "desk"] {
        let row = all.line().unwrap();
        assert!(row.starts_with(&format!("existing  {name}")), "{row}");
    }
    let mut one = Follower::of(&service, "listener get ack -w -o name");
    assert_eq!(one.line().unwrap(), "listeners/ack\n");
    succeeds(
        &service,
        "listener create door --protocol ack --bind 127.0.0.1:0",
    );
    all.until("created   door");
    succeeds(&service, "listener delete door --force");
    all.until("deleted   door");
    succeeds(&service, "listener stop ack");
    assert_eq!(one.line().unwrap(), "listeners/ack\n");
    assert_eq!((all.interrupt(), one.interrupt()), (130, 130));
}

#[test]
fn events_tell_of_listeners_and_of_sessions() {
    let service = Service::start(LISTENERS);
    let mut events = Follower::of(&service, "events");
    // Both of its streams are open once each has told something.
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _told = Told(&enough);
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                succeeds(&service, "listener stop desk --grace 0s");
                succeeds(&service, "listener start desk");
                let mut talk = service.talk("ack");
                talk.send("hello");
                talk.expect("received data!!");
            }
        });
        events.until("listeners/ack/sessions/");
        events.until("listeners/desk");
    });
    let mut talk = service.talk("ack");
    talk.send("hello");
    talk.expect("received data!!");
    let name = succeeds(&service, "session ls -o name").stdout;
    let name = name.trim_end();
    succeeds(&service, &format!("session close {name}"));
    let line = events.until(": kicked");
    assert!(line.contains(name) && line.contains("deleted"), "{line}");
    assert_eq!(events.interrupt(), 130);
}

#[test]
fn a_watch_in_json_is_an_object_a_line() {
    let service = Service::start(LISTENERS);
    let mut watch = Follower::of(&service, "session watch ack -o json");
    assert_eq!(watch.object()["changeType"], "CHANGE_TYPE_SYNCED");
    let mut talk = service.talk("ack");
    talk.send("hello");
    talk.expect("received data!!");
    let event = watch.object();
    assert_eq!(event["changeType"], "CHANGE_TYPE_CREATED");
    let listed = succeeds(&service, "session ls -o name").stdout;
    assert_eq!(event["session"]["name"], listed.trim_end());
}

#[test]
fn a_wait_tells_by_its_exit_code() {
    let service = Service::start(LISTENERS);
    let wait = |condition: &str| {
        let arguments = ["listener", "wait", "ack", condition, "--timeout", "200ms"];
        service.cli(&arguments, &[])
    };
    assert_eq!(wait("state = STATE_ACTIVE").code, 0);
    let late = wait("state = STATE_STOPPED");
    assert_eq!(late.code, 5);
    assert_eq!(late.stderr, "not in time: state = STATE_STOPPED\n");
    assert_eq!(wait("stat = STATE_STOPPED").code, 2);
    let mut waiting = Follower::of(&service, "listener wait ack state=STATE_STOPPED -o name");
    succeeds(&service, "listener stop ack");
    assert_eq!(waiting.line().unwrap(), "listeners/ack\n");
    assert!(waiting.child.wait().unwrap().success());
}

#[test]
fn metrics_that_are_watched_have_rates() {
    let service = Service::start(LISTENERS);
    let line = "metrics --watch --interval 500ms --filter metric:\"session.messages\" -o json";
    let mut metrics = Follower::of(&service, line);
    let first = metrics.object();
    assert_eq!(first["snapshot"]["series"][0]["rate"], Value::Null);
    let second = metrics.object();
    assert_eq!(second["snapshot"]["series"][0]["rate"], 0.0);
    assert_eq!(metrics.interrupt(), 130);
}

#[test]
fn a_tap_shows_what_is_said() {
    let service = Service::start(LISTENERS);
    let mut talk = service.talk("ack");
    talk.send("hello");
    talk.expect("received data!!");
    let name = succeeds(&service, "session ls -o name").stdout;
    let tap = format!("session tap {} --payload --for 20s", name.trim_end());
    let mut tap = Follower::of(&service, &tap);
    // It is audited before it begins, and what is said from then on is copied.
    eventually("the tap is open", || {
        let audit = succeeds(&service, "audit -o json").stdout;
        audit.contains("TapSession")
    });
    let mut line = String::new();
    while line.is_empty() {
        talk.send("tell \x1b[2J");
        talk.expect("received data!!");
        line = tap.until("receive");
    }
    assert!(line.ends_with("tell \\u{1b}[2J\n"), "{line}");
    tap.until("transmit");
    assert_eq!(tap.interrupt(), 130);
}

#[test]
fn many_sessions_are_closed_only_by_force() {
    let service = Service::start(LISTENERS);
    let mut talks: Vec<_> = (0..3).map(|_| service.talk("ack")).collect();
    for talk in &mut talks {
        talk.send("hello");
        talk.expect("received data!!");
    }
    let close = ["session", "close", "--filter", "received_bytes = 5"];
    let preview = service.cli(&close, &[]);
    assert_eq!(preview.code, 0, "{}", preview.stderr);
    assert_eq!(preview.stdout.lines().count(), 4, "{}", preview.stdout);
    let told = "would close 3\nnothing was closed; --force closes them\n";
    assert_eq!(preview.stderr, told);
    let few = service.cli(&[&close[..], &["--force", "--max", "2"]].concat(), &[]);
    assert_eq!(few.code, 4, "{}", few.stderr);
    let closed = service.cli(&[&close[..], &["--force"]].concat(), &[]);
    assert_eq!((closed.code, &*closed.stderr), (0, "closed 3\n"));
    for talk in &mut talks {
        talk.expect_closed();
    }
}

#[test]
fn bans_are_made_shown_and_lifted() {
    let service = Service::start(LISTENERS);
    succeeds(
        &service,
        "session ban 127.0.0.2 --listener ack --for 1h --reason flood",
    );
    let bans = succeeds(&service, "session bans ack").stdout;
    assert!(
        bans.contains("127.0.0.2/32") && bans.contains("flood"),
        "{bans}"
    );
    succeeds(&service, "session unban 127.0.0.2/32 --listener ack");
    let none = succeeds(&service, "session bans -o json").stdout;
    assert_eq!(none, "{\n  \"bans\": []\n}\n");
    // Whether one stood is not known: nothing is called lifted.
    let again = succeeds(&service, "session unban 127.0.0.2/32 --listener ack");
    assert_eq!(again.stderr, "no ban from ack stands: 127.0.0.2/32\n");
    let all = succeeds(&service, "session unban 127.0.0.2/32");
    assert_eq!(
        all.stderr,
        "no ban from all listeners stands: 127.0.0.2/32\n"
    );
}

#[test]
fn who_follows_one_is_told_that_it_is_not_there_and_when_it_has_ended() {
    let service = Service::start(LISTENERS);
    let nobody = ["listener", "get", "nobody", "--watch"];
    let nobody = service.cli(&nobody, &[]);
    assert_eq!((nobody.code, &*nobody.stdout), (3, ""));
    assert_eq!(nobody.stderr, "error: listeners/nobody is not there\n");
    let mut talk = service.talk("ack");
    talk.send("hello");
    talk.expect("received data!!");
    let name = succeeds(&service, "session ls -o name").stdout;
    let get = format!("session get {} --watch", name.trim_end());
    let mut session = Follower::of(&service, &get);
    session.until("existing");
    succeeds(
        &service,
        &format!("session close {} --reason enough", name.trim_end()),
    );
    assert!(session.until("deleted").ends_with("kicked: enough\n"));
    assert_eq!(session.line(), None);
    assert_eq!(session.code(), 0);
    // It is remembered, and there is nothing to follow.
    let line: Vec<_> = get.split(' ').collect();
    assert_eq!(service.cli(&line, &[]).code, 3);
    let mut listener = Follower::of(&service, "listener get ack --watch -o name");
    listener.until("listeners/ack");
    succeeds(&service, "listener delete ack --force");
    while listener.line().is_some() {}
    assert_eq!(listener.code(), 0);
}
