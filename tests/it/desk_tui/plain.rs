//! `chat attach --plain`: an event is a line, and so is a command.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::process::Signal;

use super::DESK;
use crate::chat::waiting;
use crate::support::{Service, TIMEOUT, Talk, program};

/// A seat whose commands are written, and whose lines are read.
struct Seat {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Seat {
    fn at(endpoint: &str, args: &[&str]) -> Self {
        let mut child = Command::new(program())
            .args(["chat", "attach", "--plain", "--endpoint", endpoint])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let stdin = child.stdin.take();
        Self {
            child,
            stdin,
            lines,
        }
    }

    fn of(service: &Service, operator: &str) -> Self {
        let seat = Self::at(&service.grpc().to_string(), &["--operator", operator]);
        seat.until("synced");
        seat
    }

    fn say(&mut self, commands: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(commands.as_bytes()).unwrap();
    }

    /// Reads on to the line that begins like this.
    fn until(&self, begins: &str) -> String {
        let mut before = Vec::new();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with(begins) => return line,
                Ok(line) => before.push(line),
                Err(_) => panic!("no line begins with {begins:?}: {before:#?}"),
            }
        }
    }

    /// Ends its commands: the lines that are left, and the exit code.
    fn end(mut self) -> (Vec<String>, i32) {
        self.stdin = None;
        let code = self.child.wait().unwrap().code();
        (self.lines.iter().collect(), code.unwrap())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn asking(service: &Service, text: &str) -> Talk {
    let mut client = service.talk("chat");
    client.send(text);
    client
}

#[test]
fn commands_may_be_sent_all_at_once() {
    let service = Service::start(DESK);
    let mut client = asking(&service, "hello\nagain\n");
    waiting(&service, "chat", 2);
    let mut seat = Seat::of(&service, "ann");
    seat.say("claim\nreply one\n/hello\nrelease\n");
    seat.until("claimed ");
    client.expect("one\nHello, how can I help?\n");
    let (lines, code) = seat.end();
    let kinds: Vec<_> = lines
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    let expected = [
        "conversation",
        "message",
        "replied",
        "conversation",
        "message",
        "replied",
        "conversation",
        "released",
    ];
    assert_eq!((kinds, code), (expected.to_vec(), 0), "{lines:#?}");
}

#[test]
fn what_was_refused_is_said_and_counted() {
    let service = Service::start(DESK);
    let mut seat = Seat::of(&service, "ann");
    seat.say("reply to nobody\nclaim chat\nuse nobody\nbogus\n");
    assert!(seat.until("error ").contains("no conversation is in use"));
    assert!(seat.until("error ").starts_with("error NOTHING_WAITS "));
    assert!(seat.until("error ").contains("nobody"));
    assert!(seat.until("error ").contains("bogus"));
    assert_eq!(seat.end().1, 1);
    let looks = Seat::at(
        &service.grpc().to_string(),
        &["--read-only", "--operator", ""],
    );
    looks.until("synced");
    assert_eq!(looks.end().1, 0);
    for (listener, operator, code) in [("nowhere", "ann", 3), ("chat", "", 2)] {
        let args = [
            "chat",
            "attach",
            listener,
            "--plain",
            "--operator",
            operator,
        ];
        assert_eq!(service.cli(&args, &[]).code, code, "{args:?}");
    }
}

#[test]
fn two_seats_answer_one_message_once() {
    let service = Service::start(DESK);
    let mut client = asking(&service, "hello\n");
    waiting(&service, "chat", 1);
    let mut seats = [Seat::of(&service, "ann"), Seat::of(&service, "bob")];
    for (seat, text) in seats.iter_mut().zip(["from ann", "from bob"]) {
        seat.say(&format!("reply {text}\n"));
    }
    let answers = seats.map(|seat| {
        let (lines, code) = seat.end();
        let done = lines.iter().any(|line| line.starts_with("replied "));
        let refused = lines.iter().any(|line| {
            line.starts_with("error ALREADY_ANSWERED ")
                || line.starts_with("error NOTHING_TO_ANSWER ")
        });
        assert!(done != refused && (code == 0) == done, "{code} {lines:#?}");
        done
    });
    assert_eq!(answers.iter().filter(|done| **done).count(), 1);
    let text = if answers[0] {
        "from ann\n"
    } else {
        "from bob\n"
    };
    client.expect(text);
}

#[test]
fn no_line_is_more_than_a_line() {
    let service = Service::start(DESK);
    let mut seat = Seat::of(&service, "ann");
    let _client = asking(&service, "\u{1b}[2J\u{202e}\rerror forged\n");
    let line = seat.until("message ");
    assert!(
        line.ends_with(" peer \\u{1b}[2J\\u{202e}\\rerror forged"),
        "{line}"
    );
    seat.say("queue\n");
    seat.until("conversation ");
    assert_eq!(seat.end().1, 0);
}

#[test]
fn a_seat_is_taken_again_when_the_service_is_back() {
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("control");
    let toml = format!("[grpc]\nsocket = \"{}\"\n{DESK}", path.display());
    let service = Service::start(&toml);
    let mut seat = Seat::at(
        &format!("unix:{}", path.display()),
        &["chat", "--operator", "ann"],
    );
    assert_eq!(seat.until("attached"), "attached chat ann");
    seat.until("synced");
    let (home, _) = service.leave(Signal::KILL);
    seat.until("lost ");
    seat.say("claim\nreply kept\n");
    std::fs::remove_file(&path).ok();
    let service = Service::start_in(home, &[], &[]);
    let mut client = asking(&service, "anew\n");
    seat.until("attached");
    seat.until("synced");
    // Who came after the snapshot is not waited for by a command; one is given again until it is there.
    while !client_is_answered(&mut client) {
        seat.say("claim\nreply kept\n");
    }
    client.expect("kept\n");
}

/// Whether something has come, within a moment.
fn client_is_answered(client: &mut Talk) -> bool {
    let moment = std::time::Duration::from_millis(200);
    client.0.set_read_timeout(Some(moment)).unwrap();
    let answered = client.0.peek(&mut [0]).is_ok();
    client.0.set_read_timeout(Some(TIMEOUT)).unwrap();
    answered
}
