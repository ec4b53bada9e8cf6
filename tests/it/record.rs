//! The trail of commands: nothing runs that is not in it, it says what became of each, and it is found again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::durable::{Disk, on_a_small_disk};
use super::shell::Sleeper;
use super::support::{Service, Talk, eventually, no_grpcurl, program, soak, uncaged};

/// A shell for any command, one for echo alone, and a store. Commands leave traces outside: no cage holds them.
fn served(store: &str) -> String {
    format!(
        "[store]\npath = \"{store}\"\n\
         [listeners.any]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n\
         command_timeout = \"300ms\"\n{}\n\
         [listeners.echo]\nprotocol = \"shell\"\nprograms = [\"echo\"]\nbind = \"127.0.0.1:0\"\n{}\n",
        uncaged(),
        uncaged()
    )
}

/// One page of what is listed.
fn page(service: &Service, request: &Value) -> Value {
    match service.grpcurl("ServerService/ListCommands", request) {
        Ok(answer) => answer,
        Err(error) => panic!("{request}: {error:?}"),
    }
}

/// All that is listed, in pages of so many.
fn commands(service: &Service, parent: &str, filter: &str, size: usize) -> Vec<Value> {
    let (mut all, mut token) = (Vec::new(), Value::default());
    loop {
        let mut request = json!({ "parent": parent, "filter": filter, "page_size": size });
        if token.is_string() {
            request["page_token"] = token;
        }
        let mut answer = page(service, &request);
        let found = answer["commands"].as_array().cloned().unwrap_or_default();
        assert!(found.len() <= size);
        all.extend(found);
        token = answer["nextPageToken"].take();
        if !token.is_string() {
            return all;
        }
    }
}

fn texts(commands: &[Value]) -> Vec<&str> {
    let text = |command: &Value| command["command"].as_str().map(str::len);
    assert!(commands.iter().all(|command| text(command).is_some()));
    let texts = commands.iter().filter_map(|c| c["command"].as_str());
    texts.collect()
}

/// A folder in which commands can leave something, whoever they run as.
struct Slate(tempfile::TempDir);

impl Slate {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), open).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("ran")
    }

    /// A command that leaves this word.
    fn command(&self, word: &str) -> String {
        format!("echo {word} >> {}", self.file().display())
    }

    /// The words that commands have left.
    fn words(&self) -> BTreeSet<String> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// The words of the slate's commands that are in the trail.
fn recorded(service: &Service, slate: &Slate) -> BTreeSet<String> {
    let all = commands(service, "listeners/any", "", 1_000);
    let end = format!(" >> {}", slate.file().display());
    let word = |text: &str| Some(text.strip_prefix("echo ")?.strip_suffix(&end)?.to_owned());
    texts(&all).into_iter().filter_map(word).collect()
}

#[test]
fn every_command_says_who_sent_it_and_what_became_of_it() {
    if no_grpcurl() {
        return;
    }
    for store in ["", ":memory:"] {
        let service = Service::start(&served(store));
        let mut any = service.talk("any");
        let peer = any.local().to_string();
        let answers = [
            "echo out; echo more >&2",
            "exit 3",
            "kill -TERM $$",
            "sleep 5",
            "echo '\u{1b}[2J\\\\'",
        ]
        .map(|command| any.command(command));
        any.command(b"echo \xff");
        let mut echo = service.talk("echo");
        echo.command("echo let through");
        echo.command("rm -rf /");

        let all = commands(&service, "listeners/-", "", 3);
        let expected = [
            "rm -rf /",
            "echo let through",
            "echo \\xff",
            "echo '\\u{1b}[2J\\\\\\\\'",
            "sleep 5",
            "kill -TERM $$",
            "exit 3",
            "echo out; echo more >&2",
        ];
        assert_eq!(texts(&all), expected, "{store}");
        assert_eq!(all[0]["refused"], "not_allowed");
        assert_eq!(all[2]["refused"], "invalid_utf8");
        assert!(all[0].get("duration").is_none() && all[0]["startTime"].is_string());
        assert_eq!(all[4]["timedOut"], true);
        assert_eq!(all[4]["signal"], "SIGTERM");
        assert_eq!(all[5]["signal"], "SIGTERM");
        assert_eq!(all[6]["exitCode"], 3);
        let first = &all[7];
        assert_eq!(first["exitCode"], 0);
        assert_eq!(
            (&first["stdoutBytes"], &first["stderrBytes"]),
            (&json!("4"), &json!("5"))
        );
        assert_eq!(first["peer"], peer);
        assert!(first["duration"].as_str().is_some_and(|d| d.ends_with('s')));
        assert_eq!(first["traceId"], answers[0].header["trace_id"]);
        let session = first["session"].as_str().unwrap();
        assert!(session.starts_with("listeners/any/sessions/"), "{session}");

        let found = |parent: &str, filter: &str| commands(&service, parent, filter, 2).len();
        assert_eq!(found("listeners/any", ""), 6);
        assert_eq!(found("listeners/echo", ""), 2);
        assert_eq!(found("listeners/none", ""), 0);
        assert_eq!(found(session, ""), 6);
        let id = session.rsplit('/').next().unwrap();
        assert_eq!(found(&format!("listeners/-/sessions/{id}"), ""), 6);
        assert_eq!(found(&format!("listeners/echo/sessions/{id}"), ""), 0);
        for (filter, count) in [
            ("exit_code = 3", 1),
            ("timed_out = true", 1),
            ("refused = \"not_allowed\"", 1),
            ("command : \"echo\"", 4),
            ("stdout_bytes > 3 AND command : \"out\"", 1),
            ("signal = \"SIGTERM\" OR exit_code = 3", 3),
            ("start_time > \"2100-01-01T00:00:00Z\"", 0),
        ] {
            assert_eq!(found("listeners/-", filter), count, "{filter}");
        }
        for (request, reason) in [
            (json!({}), "PARENT_INVALID"),
            (
                json!({ "parent": "listeners/-", "filter": "nonsense = 1" }),
                "FILTER_INVALID",
            ),
            (
                json!({ "parent": "listeners/-", "page_token": "0" }),
                "PAGE_TOKEN_INVALID",
            ),
            (
                json!({ "parent": "listeners/-", "page_size": -1 }),
                "PAGE_SIZE_INVALID",
            ),
        ] {
            let refused = service.grpcurl("ServerService/ListCommands", &request);
            assert_eq!(refused.unwrap_err().reason(), reason, "{request}");
        }
    }
}

#[test]
fn a_command_that_runs_has_no_end_and_one_whose_peer_left_was_ended() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&served("").replace("300ms", "60s"));
    let (sleeper, mut talk) = (Sleeper::new(), service.talk("any"));
    talk.send(sleeper.command());
    sleeper.wait_for_command();
    let one = || commands(&service, "listeners/any", "", 10).remove(0);
    let runs = one();
    assert!(runs.get("duration").is_none() && runs.get("refused").is_none());
    talk.reset();
    sleeper.expect_gone();
    eventually("its end is in the trail", || one()["signal"] == "SIGTERM");
    assert!(one()["duration"].is_string());
}

#[test]
fn what_is_in_memory_goes_with_the_process_and_says_so() {
    if no_grpcurl() {
        return;
    }
    let in_memory = "audit trail of this shell is in memory";
    for (store, kept) in [("", 1), (":memory:", 0)] {
        let service = Service::start(&served(store));
        service.talk("any").command("echo \u{1b}hello");
        let listed = service.cli(&["audit", "commands"], &[]);
        assert!(listed.stdout.contains("echo \\u{1b}hello"), "{listed:?}");
        assert_eq!(listed.stderr.contains("forgotten"), kept == 0);
        let info = service.call("ServerService/GetServerInfo", &json!({}), "capabilities");
        let words = info.as_array().unwrap();
        assert_eq!(words.contains(&json!("store")), kept == 1);
        let (home, ended) = service.leave(Signal::TERM);
        assert_eq!(ended.stderr.contains(in_memory), kept == 0);
        let service = Service::start_in(home, &[], &[]);
        assert_eq!(commands(&service, "listeners/-", "", 10).len(), kept);
    }
}

#[test]
fn the_command_line_lists_them() {
    let service = Service::start(&served(""));
    let mut any = service.talk("any");
    for n in 0..5 {
        any.command(format!("exit {n}"));
    }
    service.talk("echo").command("id");
    let run = |args: &[&str]| {
        let ended = service.cli(&[&["audit", "commands"], args].concat(), &[]);
        assert_eq!(ended.code, 0, "{args:?}: {}", ended.stderr);
        assert_eq!(ended.stderr, "");
        ended.stdout
    };
    let table = run(&[]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 7, "{table}");
    assert!(lines[0].starts_with("AGE") && lines[0].ends_with("COMMAND"));
    assert!(lines[1].contains("refused: not_allowed") && lines[1].ends_with("id"));
    assert!(lines[2].contains(" 4 ") && lines[2].ends_with("exit 4"));
    assert!(run(&["-o", "wide"]).contains("TRACE"));
    assert_eq!(
        run(&["--listener", "any", "--limit", "2"]).lines().count(),
        3
    );
    assert_eq!(run(&["--filter", "exit_code >= 3"]).lines().count(), 3);
    let names = run(&["--listener", "echo", "-o", "name"]);
    let session = names.trim();
    assert!(session.starts_with("listeners/echo/sessions/"), "{names}");
    let id = session.rsplit('/').next().unwrap();
    for name in [session, id] {
        let found: Value = serde_json::from_str(&run(&["--session", name, "-o", "json"])).unwrap();
        assert_eq!(found["commands"][0]["command"], "id");
    }
    let yaml = run(&["--session", id, "-o", "yaml"]);
    assert!(yaml.contains("refused: not_allowed"), "{yaml}");
    // The trail of changes stands where it stood.
    assert_eq!(service.cli(&["audit", "--limit", "1"], &[]).code, 0);
}

#[test]
fn every_command_that_ran_is_in_the_trail_of_a_killed_process() {
    if no_grpcurl() {
        return;
    }
    let slate = Slate::new();
    let mut home = Service::home_for(&served(""));
    let (mut ran, rounds) = (0, if soak() { 50 } else { 4 });
    for round in 0..rounds {
        let service = Service::start_in(home, &[], &[]);
        let peers: Vec<_> = (0..6)
            .map(|n| {
                let (talk, slate) = (service.talk("any"), slate.file());
                thread::spawn(move || send_until_gone(talk, &slate, round, n))
            })
            .collect();
        let before = slate.words().len();
        eventually("commands run", || slate.words().len() > before + 20);
        home = service.leave(Signal::KILL).0;
        peers.into_iter().for_each(|peer| peer.join().unwrap());
        // What was running goes on for a moment.
        let service = Service::start_in(home, &[], &[]);
        let (words, entered) = (slate.words(), recorded(&service, &slate));
        let missing: Vec<_> = words.difference(&entered).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?}");
        ran = words.len();
        home = service.leave(Signal::TERM).0;
    }
    println!("{rounds} kills, {ran} commands that ran, all in the trail");
}

/// Sends commands until the connection breaks.
fn send_until_gone(mut talk: Talk, slate: &Path, round: usize, peer: usize) {
    use std::io::{Read, Write};
    for n in 0.. {
        let command = format!("echo {round}-{peer}-{n} >> {}", slate.display());
        let mut length = [0; 4];
        let asked = talk.0.write_all(command.as_bytes());
        if asked.and_then(|()| talk.0.read_exact(&mut length)).is_err() {
            return;
        }
        let mut rest = vec![0; 65_536];
        if !matches!(talk.0.read(&mut rest), Ok(1..)) {
            return;
        }
    }
}

#[test]
fn on_a_full_disk_nothing_runs_that_is_not_in_the_trail() {
    if no_grpcurl() {
        return;
    }
    let Some(program) = on_a_small_disk(&program()) else {
        eprintln!("SKIPPED: the system lets nobody mount a small disk");
        return;
    };
    let toml = format!(
        "{}[listeners.lax]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n\
         audit_best_effort = true\n{}\n",
        served(""),
        uncaged()
    );
    let home = Service::home_for(&toml);
    std::fs::create_dir(home.path().join("switchboard")).unwrap();
    let service = Service::spawn(home, program, &[], &[]);
    service.announced("http");
    let (slate, disk) = (Slate::new(), Disk::of(&service));
    let mut talk = service.talk("any");
    assert_eq!(talk.command(slate.command("before")).error(), "");
    disk.fill();
    let mut refused = 0;
    let mut answers = BTreeMap::new();
    let tries = 1_000;
    for n in 0..tries {
        let word = format!("full-{n}");
        let frame = talk.command(slate.command(&word));
        if frame.error().is_empty() {
            answers.insert(word, n);
            continue;
        }
        assert_eq!(frame.error(), "audit_unavailable", "{:?}", frame.header);
        let said = String::from_utf8_lossy(&frame.stderr).into_owned();
        assert!(
            said.contains("full") && said.contains("make room"),
            "{said}"
        );
        refused += 1;
    }
    assert!(refused > tries / 2, "{refused} refused");
    let listed = |name: &str| slate.words().contains(name);
    assert!(answers.keys().all(|word| listed(word)));
    assert_eq!(slate.words().len(), answers.len() + 1);

    // Who was told to runs them all the same, counts them, and tells the log once.
    let mut lax = service.talk("lax");
    for _ in 0..5 {
        assert_eq!(lax.command("echo lax").stdout, b"lax\n");
    }
    let shown = service.listener("lax");
    assert_eq!(shown["shell"]["auditBestEffort"], true);
    let (_, metrics) = service.http_get("/metrics");
    let lost = format!("switchboard_audit_lost_total {}\n", refused + 5);
    assert!(metrics.contains(&lost), "{metrics}");
    let told = |what: &str| service.stderr().matches(what).count();
    let lost = "commands run without being in the audit trail";
    eventually("the log has it", || told(lost) > 0);

    disk.make_room();
    let began = Instant::now();
    while !talk.command(slate.command("after")).error().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    let recovered = began.elapsed();
    lax.command("echo lax again");
    eventually("the log has it", || {
        told("commands are in the audit trail again") == 1
    });
    assert_eq!(told(lost), 1);
    let entered = recorded(&service, &slate);
    let missing: Vec<_> = slate.words().difference(&entered).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
    println!("{refused} of {tries} refused, none ran unrecorded, recovered after {recovered:?}");
}
