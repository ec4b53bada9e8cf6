//! `switchboard config` and `listener update` against a running service: what they print, and where, and how they end.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::origins::says;
use crate::support::{Service, program};

const OWN: &str = "[node]\nname = \"one\"\n[listeners.a]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\nreply = \"old\"\n\
    [listeners.b]\nprotocol = \"chat\"\nbind = \"127.0.0.1:0\"\n";

const WRONG: &str = "[listeners.a]\nprotocl = \"ack\"\nbind = \"127.0.0.1:0\"\n[nod]\n";

/// Writes the file of the service whole, as an editor does that moves it into its place.
fn edit(service: &Service, text: &str) {
    let own = service.home().join("switchboard.toml");
    let fresh = service.home().join("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, own).unwrap();
}

/// The exit code, stdout and stderr of a command.
fn run(service: &Service, args: &[&str]) -> (i32, String, String) {
    let ended = service.cli(args, &[]);
    (ended.code, ended.stdout, ended.stderr)
}

/// The first column of a table's rows.
fn keys(table: &str) -> Vec<&str> {
    let rows = table.lines().skip(1);
    rows.filter_map(|row| row.split_whitespace().next())
        .collect()
}

#[test]
fn an_update_prints_the_listener_and_when_each_field_takes_effect() {
    let service = Service::start(OWN);
    let update = [
        "listener",
        "update",
        "a",
        "--set",
        "reply=new",
        "--max-sessions",
        "20",
        "--ephemeral",
    ];
    let (code, stdout, stderr) = run(&service, &update);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(keys(&stdout), ["a"], "{stdout}");
    assert!(stdout.contains("0/20"), "{stdout}");
    let mut effects: Vec<_> = stderr.lines().collect();
    effects.sort_unstable();
    assert_eq!(
        effects,
        [
            "ack.reply: new sessions",
            "limits.max_sessions: new sessions"
        ]
    );
    let (code, _, stderr) = run(
        &service,
        &[
            "listener",
            "update",
            "b",
            "--set",
            "pace=free",
            "--dry-run",
            "--ephemeral",
        ],
    );
    let told = stderr.lines();
    let told: Vec<_> = told.filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(code, 0);
    assert!(
        told.contains(&"chat.pace: rebind") && told.ends_with(&["dry run: nothing was changed"]),
        "{stderr}"
    );
    let whole = says(service.cli(
        &[
            "listener",
            "update",
            "a",
            "--set",
            "labels.team=x",
            "--ephemeral",
            "-o",
            "json",
        ],
        &[],
    ));
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(whole["effects"][0]["scope"], "SCOPE_LIVE", "{whole}");
    assert_eq!(whole["listener"]["labels"]["team"], "x");
    // Without a store a lasting change does not last, which is said where stdout is not.
    let (_, _, stderr) = run(
        &service,
        &["listener", "update", "b", "--set", "labels.team=x"],
    );
    assert!(
        stderr.contains("warning: listeners.b: the store is in memory"),
        "{stderr}"
    );
    for (args, code) in [
        (&["nobody", "--max-sessions", "1"][..], 3),
        (&["a", "--etag", "stale", "--max-sessions", "1"], 4),
        (&["a", "--set", "nothing=1"], 2),
    ] {
        let args = [&["listener", "update"], args].concat();
        let (ended, stdout, stderr) = run(&service, &args);
        assert_eq!((ended, &*stdout), (code, ""), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
}

#[test]
fn a_diff_is_a_table_and_an_exit_code_when_that_is_asked_for() {
    let service = Service::start(OWN);
    let same = (0, String::new(), "nothing differs\n".to_owned());
    assert_eq!(run(&service, &["config", "diff"]), same);
    assert_eq!(run(&service, &["config", "diff", "--exit-code"]), same);
    says(service.cli(
        &[
            "listener",
            "update",
            "a",
            "--set",
            "reply=new",
            "--ephemeral",
        ],
        &[],
    ));
    let expected = "KEY                FROM  TO   TAKES-EFFECT  SESSIONS\n\
                    listeners.a.reply  new   old  new sessions  0\n";
    let differs = |code| (code, expected.to_owned(), String::new());
    assert_eq!(run(&service, &["config", "diff"]), differs(0));
    assert_eq!(
        run(&service, &["config", "diff", "--exit-code"]),
        differs(1)
    );
    assert_eq!(
        run(&service, &["config", "diff", "--to", "files"]),
        differs(0)
    );
    let (code, stdout, _) = run(&service, &["config", "diff", "--exit-code", "-o", "json"]);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &answer["changes"][0]["key"]),
        (1, &Value::from("listeners.a.reply"))
    );
    assert_eq!(run(&service, &["config", "diff", "--to", "nowhere"]).0, 2);
}

#[test]
fn a_reload_tells_what_changes_and_a_wrong_file_is_no_wrong_command() {
    let service = Service::start(OWN);
    let (code, stdout, stderr) = run(&service, &["config", "reload"]);
    assert_eq!((code, &*stdout), (0, ""));
    assert!(
        stderr.starts_with("nothing differs\nrevision: "),
        "{stderr}"
    );
    // What only a restart changes differs from what runs for as long as it runs, whoever reloads.
    edit(&service, &OWN.replace("one", "two"));
    for more in [&["--dry-run"][..], &["--keep-sessions"], &[]] {
        let (code, stdout, stderr) = run(&service, &[&["config", "reload"], more].concat());
        assert_eq!(code, 0, "{stderr}");
        let expected =
            "KEY        FROM  TO   TAKES-EFFECT  SESSIONS\nnode.name  one   two  restart       0\n";
        assert_eq!(stdout, expected);
        let warning = "warning: node.name: it takes effect when the process is started again\n";
        assert!(stderr.starts_with(warning), "{stderr}");
        assert_eq!(
            stderr.contains("dry run: nothing was changed\n"),
            !more.is_empty() && more[0] == "--dry-run"
        );
        assert!(
            stderr.lines().last().unwrap().starts_with("revision: "),
            "{stderr}"
        );
    }
    edit(&service, WRONG);
    let own = service.home().join("switchboard.toml");
    for args in [
        &["config", "reload"][..],
        &["config", "reload", "--dry-run"],
        &["config", "diff"],
    ] {
        let (code, stdout, stderr) = run(&service, args);
        assert_eq!((code, &*stdout), (78, ""), "{args:?}: {stderr}");
        let own = own.display();
        let expected = format!(
            "error: the configuration is invalid\n  listeners.a.protocl: {own}:2:1: unknown key; did you mean `protocol`?\n  \
             nod: {own}:4:2: unknown key; did you mean `node`?\n  reason: CONFIG_INVALID\n"
        );
        assert_eq!(stderr, expected, "{args:?}");
    }
    let (code, _, stderr) = run(&service, &["config", "reload", "-o", "json"]);
    let error: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!((code, &error["error"]["exitCode"]), (78, &Value::from(78)));
    std::fs::remove_file(&own).unwrap();
    let (code, _, stderr) = run(&service, &["config", "reload"]);
    assert_eq!(code, 78);
    assert!(
        stderr.contains(&format!("\n  {}: cannot be read: ", own.display())),
        "{stderr}"
    );
    // All the while it serves.
    let mut talk = service.talk("a");
    talk.send("hello");
    talk.expect("old");
}

#[test]
fn a_document_is_checked_under_the_name_of_its_file() {
    let service = Service::start(OWN);
    let file = |name: &str, text: &str| std::fs::write(service.home().join(name), text).unwrap();
    file("good.toml", OWN);
    file("wrong.toml", WRONG);
    file("wrong", WRONG);
    file("empty.toml", "");
    let valid = (0, "the configuration is valid\n".to_owned(), String::new());
    assert_eq!(run(&service, &["config", "validate", "good.toml"]), valid);
    assert_eq!(run(&service, &["config", "validate", "empty.toml"]), valid);
    for args in [
        &["wrong.toml"][..],
        &["wrong", "--format", "toml"],
        &["wrong"],
    ] {
        let (code, stdout, stderr) = run(&service, &[&["config", "validate"], args].concat());
        let name = args[0];
        let expected = format!(
            "{name}:2:1: listeners.a.protocl: unknown key; did you mean `protocol`?\n{name}:4:2: nod: unknown key; did you mean `node`?\n"
        );
        assert_eq!((code, &*stdout, stderr), (78, "", expected));
    }
    let (code, stdout, _) = run(
        &service,
        &["config", "validate", "wrong.toml", "-o", "json"],
    );
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    let problem = &answer["problems"][1];
    assert_eq!(
        (code, &problem["key"], &problem["source"]),
        (78, &Value::from("nod"), &Value::from("wrong.toml"))
    );
    let (code, _, stderr) = run(&service, &["config", "validate", "absent.toml"]);
    assert_eq!(code, 78);
    assert!(
        stderr.starts_with("error: cannot read absent.toml: "),
        "{stderr}"
    );
    assert_eq!(
        run(
            &service,
            &["config", "validate", "good.toml", "--format", "ini"]
        )
        .0,
        2
    );
    let mut piped = Command::new(program())
        .args([
            "config",
            "validate",
            "-",
            "--endpoint",
            &service.grpc().to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    piped
        .stdin
        .take()
        .unwrap()
        .write_all(WRONG.as_bytes())
        .unwrap();
    let output = piped.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stderr.starts_with(b"-:2:1: listeners.a.protocl: "));
}

#[test]
fn what_asks_the_service_says_when_there_is_none_and_what_does_not_needs_none() {
    let service = Service::start(OWN);
    assert_eq!(run(&service, &["config", "export", "--format", "ini"]).0, 2);
    assert_eq!(run(&service, &["config", "show", "--drifted"]).0, 2);
    for nothing in [
        &["config", "show", "--running", "listeners.c"][..],
        &["config", "show", "listeners.c", "-o", "json"],
    ] {
        let (code, stdout, stderr) = run(&service, nothing);
        assert_eq!((code, &*stdout), (3, ""), "{nothing:?}");
        assert!(stderr.contains("no key is"), "{stderr}");
    }
    assert_eq!(
        run(
            &service,
            &["config", "show", "--running", "--set", "node.name=x"]
        )
        .0,
        2
    );
    let nowhere = |args: &[&str]| {
        run(
            &service,
            &[args, &["--endpoint", "http://127.0.0.1:1"]].concat(),
        )
    };
    std::fs::write(service.home().join("own.toml"), OWN).unwrap();
    for args in [
        &["config", "show", "--running"][..],
        &["config", "diff"],
        &["config", "reload"],
        &["config", "export"],
        &["config", "validate", "own.toml"],
    ] {
        let (code, stdout, stderr) = nowhere(args);
        assert_eq!((code, &*stdout), (5, ""), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with("error: cannot reach the control plane"),
            "{stderr}"
        );
    }
    for args in [
        &["config", "default"][..],
        &["config", "show"],
        &["config", "show", "--config", "own.toml"],
    ] {
        assert_eq!(nowhere(args).0, 0, "{args:?}");
    }
    let (code, stdout, stderr) = nowhere(&["config", "show", "--set", "node.naem=x"]);
    assert_eq!((code, &*stdout), (78, ""));
    assert_eq!(
        stderr,
        "--set: node.naem: unknown key; did you mean `name`?\n"
    );
}
