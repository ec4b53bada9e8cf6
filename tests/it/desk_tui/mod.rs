//! The desk from a command line: its verbs, its transcripts, and a seat that is had line by line. What is drawn on a
//! screen is tried in a terminal, in `tests/peers`.

mod plain;

use serde_json::Value;

use super::chat::waiting;
use super::support::{Ended, Service};

/// A desk whose clients read lines, one whose pace is free, and one over UDP.
const DESK: &str = "\
[listeners.chat]\nprotocol = \"chat\"\nframing = \"line\"\nbind = \"127.0.0.1:0\"\nunattended_after = \"10m\"\n\
[listeners.chat.canned_replies]\nhello = \"Hello, how can I help?\"\n\
[listeners.free]\nprotocol = \"chat\"\npace = \"free\"\nbind = \"127.0.0.1:0\"\nunattended_after = \"10m\"\n\
[listeners.qq]\nprotocol = \"chat\"\ntransport = \"udp\"\nbind = \"127.0.0.1:0\"\nunattended_after = \"10m\"\n";

fn chat(service: &Service, args: &[&str]) -> Ended {
    service.cli(&[&["chat"], args].concat(), &[])
}

/// What a command answers that succeeds.
fn told(service: &Service, args: &[&str]) -> Value {
    let done = chat(service, &[args, &["-o", "json"]].concat());
    assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
    serde_json::from_str(&done.stdout).unwrap()
}

#[test]
fn a_conversation_is_claimed_by_one_and_given_back() {
    let service = Service::start(DESK);
    let (mut first, mut second) = (service.talk("chat"), service.talk("chat"));
    first.send("first\n");
    waiting(&service, "chat", 1);
    second.send("second\n");
    let taken = told(&service, &["claim", "chat", "--operator", "ann"]);
    assert_eq!(taken["peer"], first.local().to_string(), "it waits longest");
    assert_eq!(
        (&taken["state"], &taken["operator"]),
        (&"STATE_CLAIMED".into(), &"ann".into())
    );

    let name = taken["name"].as_str().unwrap();
    let id = name.rsplit('/').next().unwrap();
    let refused = chat(&service, &["claim", id, "--operator", "bob"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("ann"), "{}", refused.stderr);
    let refused = chat(&service, &["reply", id, "mine", "--operator", "bob"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);

    let forced = told(&service, &["claim", id, "--operator", "bob", "--force"]);
    assert_eq!(forced["operator"], "bob");
    let inbox = chat(&service, &["inbox", "chat", "-o", "wide"]);
    let row = inbox
        .stdout
        .lines()
        .find(|line| line.starts_with(id))
        .unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        (cells[4], cells[5], cells[7]),
        ("claimed", "bob", "2m"),
        "{}",
        inbox.stdout
    );
    let released = told(&service, &["release", id]);
    assert_eq!(
        (&released["state"], &released["operator"]),
        (&"STATE_WAITING".into(), &Value::Null)
    );

    assert_eq!(told(&service, &["mute", id])["muted"], true);
    assert_eq!(told(&service, &["unmute", id])["muted"], Value::Null);
    for (args, code) in [
        (&["claim", "nowhere", "--operator", "ann"][..], 3),
        (&["release", "nobody"], 3),
        (&["claim", "chat", "--operator", ""], 2),
        (&["mute", "nobody"], 3),
    ] {
        assert_eq!(chat(&service, args).code, code, "{args:?}");
    }
}

#[test]
fn a_broadcast_goes_to_everybody_whose_pace_is_free() {
    let service = Service::start(DESK);
    let mut clients = [service.talk("free"), service.talk("free")];
    for client in &mut clients {
        client.send("hello\n");
    }
    super::support::eventually("both are here", || {
        let inbox = told(&service, &["inbox", "free"]);
        inbox["conversations"]
            .as_array()
            .is_some_and(|all| all.len() == 2)
    });
    let said = chat(
        &service,
        &["broadcast", "free", "closing soon", "--operator", "ann"],
    );
    assert_eq!(
        said.stdout, "LISTENER  RECIPIENTS\nfree      2\n",
        "{}",
        said.stderr
    );
    for client in &mut clients {
        client.expect("closing soon\n");
    }
    let refused = chat(&service, &["broadcast", "chat", "one byte too many"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("PACE_LOCKSTEP"),
        "{}",
        refused.stderr
    );
}

/// Rows of RFC 4180 whose cells all stand in quotes.
fn rows(csv: &str) -> Vec<Vec<String>> {
    let lines = csv.split_terminator("\r\n").skip(1);
    let cells = |line: &str| {
        let inside = line
            .strip_prefix('"')
            .and_then(|line| line.strip_suffix('"'));
        let cells = inside.unwrap_or_else(|| panic!("{line}")).split("\",\"");
        cells.map(|cell| cell.replace("\"\"", "\"")).collect()
    };
    lines.map(cells).collect()
}

#[test]
fn a_transcript_is_taken_elsewhere_whole_and_harmless() {
    let service = Service::start(DESK);
    let mut client = service.talk("chat");
    let said = ["=1+1 \"a\", b", "\u{1b}]0;x\u{7}\u{202e}", "grüß dich"];
    client.send(format!("{}\n", said.join("\n")));
    let name = waiting(&service, "chat", 3)["name"]
        .as_str()
        .unwrap()
        .to_owned();
    told(
        &service,
        &["reply", &name, "@SUM(A1)", "--operator", "=ann"],
    );

    let csv = chat(&service, &["history", "chat", "-o", "csv"]);
    assert!(
        csv.stdout
            .starts_with("time,conversation,sequence,author,operator,in_reply_to,text\r\n")
    );
    let rows = rows(&csv.stdout);
    let texts: Vec<_> = rows.iter().map(|row| &*row[6]).collect();
    assert_eq!(
        texts,
        [
            "'=1+1 \"a\", b",
            "\\u{1b}]0;x\\u{7}\\u{202e}",
            "grüß dich",
            "'@SUM(A1)"
        ]
    );
    assert_eq!(
        (&*rows[3][3], &*rows[3][4], &*rows[3][5]),
        ("operator", "'=ann", "1")
    );
    let time = &rows[0][0];
    assert!(
        time.len() == 27 && time.ends_with('Z') && time.contains('T'),
        "{time}"
    );

    let ndjson = chat(&service, &["history", &name, "-o", "ndjson"]);
    let lines: Vec<Value> = ndjson
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        (&lines[1]["raw"], &lines[1]["text"]),
        (&"G10wO3gH4oCu".into(), &"\\u{1b}]0;x\\u{7}\\u{202e}".into())
    );

    let text = chat(
        &service,
        &[
            "history",
            "chat",
            "-o",
            "text",
            "--filter",
            "author = AUTHOR_OPERATOR",
        ],
    );
    assert!(
        text.stdout.ends_with(" operator:=ann: @SUM(A1)\n"),
        "{}",
        text.stdout
    );
    assert_eq!(text.stdout.lines().count(), 1);
    let since = |when: &str| {
        chat(
            &service,
            &["history", "chat", "-o", "text", "--since", when],
        )
    };
    assert_eq!(since("1h").stdout.lines().count(), 4);
    assert_eq!(since("2999-01-01T00:00:00Z").stdout, "");
    assert_eq!(since("soon").code, 2);
    for out in [&csv.stdout, &ndjson.stdout, &text.stdout] {
        let hostile = |c: char| (c.is_control() && !"\r\n".contains(c)) || c == '\u{202e}';
        assert!(!out.contains(hostile), "{out:?}");
    }
    let other = service.cli(&["session", "ls", "-o", "csv"], &[]);
    assert_eq!(other.code, 2, "{}", other.stderr);
}

#[test]
fn a_transcript_may_be_longer_than_a_page() {
    let service = Service::start(DESK);
    let mut clients: Vec<_> = (0..11).map(|_| service.talk("free")).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(
            (0..200)
                .map(|line| format!("{n}-{line}\n"))
                .collect::<String>(),
        );
    }
    super::support::eventually("all of it was said", || {
        chat(&service, &["history", "free", "-o", "text"])
            .stdout
            .lines()
            .count()
            == 2_200
    });
    let some = chat(
        &service,
        &["history", "free", "-o", "ndjson", "--limit", "1500"],
    );
    assert_eq!(some.stdout.lines().count(), 1_500);
}
