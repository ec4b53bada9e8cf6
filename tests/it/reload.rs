//! The files are read again while it serves: wholly taken over or not at all, and nobody is harmed whose listener does
//! not change.

mod load;
mod watch;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::limits::{close_reason, session_of};
use super::shell::Gate;
use super::support::{GrpcError, Service, Talk, eventually, no_grpcurl, number};
use super::update::update;

const ANSWER: &[u8] = b"received data!!";

/// An ack listener with more keys of its own.
fn ack(name: &str, more: &str) -> String {
    format!("[listeners.{name}]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n{more}\n")
}

fn file(service: &Service) -> PathBuf {
    service.home().join("switchboard.toml")
}

/// Puts another file in the place of one, at once.
fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, path).unwrap();
}

/// The file, rewritten in place and left open: who watches it waits for its writer, so that only what a test asks for
/// reads it.
struct Held(File);

impl Held {
    fn open(service: &Service) -> Self {
        Self(OpenOptions::new().write(true).open(file(service)).unwrap())
    }

    fn write(&mut self, text: &str) {
        self.0.set_len(0).unwrap();
        self.0.rewind().unwrap();
        self.0.write_all(text.as_bytes()).unwrap();
    }
}

fn reload(service: &Service, request: &Value) -> Result<Value, GrpcError> {
    service.grpcurl("ConfigService/ReloadConfig", request)
}

/// Each change of an answer: from, to, scope and sessions by its key.
fn changes(answer: &Value) -> BTreeMap<String, (String, String, String, u64)> {
    let changes = answer["changes"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let change = |change: &Value| {
        let scope = text(&change["scope"]);
        let row = (
            text(&change["fromJson"]),
            text(&change["toJson"]),
            scope.trim_start_matches("SCOPE_").to_lowercase(),
            number(&change["sessionsAffected"]),
        );
        (text(&change["key"]), row)
    };
    changes.iter().map(change).collect()
}

/// Lines of the log that say this.
fn told(service: &Service, message: &str) -> Vec<Value> {
    let log = service.stderr();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

const RELOADED: &str = "configuration reloaded";
const NOT_RELOADED: &str = "configuration not reloaded";

/// Waits until so many reloads were taken over.
fn reloaded(service: &Service, times: usize) {
    eventually(&format!("{times} reloads"), || {
        told(service, RELOADED).len() >= times
    });
    assert_eq!(told(service, RELOADED).len(), times);
}

/// Reloads by why they failed; those that did not have no word.
fn counted(service: &Service) -> BTreeMap<String, u64> {
    let (_, metrics) = service.http_get("/metrics");
    let lines = metrics.lines();
    let lines = lines.filter_map(|line| line.strip_prefix("switchboard_config_reloads_total"));
    let count = |line: &str| {
        let (labels, count) = line.rsplit_once(' ').unwrap();
        let why = labels
            .split_once("error_type=\"")
            .map_or("", |(_, rest)| rest);
        let why = why.split('"').next().unwrap_or_default();
        (why.to_owned(), count.parse::<f64>().unwrap() as u64)
    };
    lines.map(count).collect()
}

/// A number of the metrics that has no labels of its own.
fn gauge(service: &Service, name: &str) -> u64 {
    let (_, metrics) = service.http_get("/metrics");
    let line = metrics.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

fn asks(talk: &mut Talk, answer: &[u8]) {
    talk.send("hello");
    talk.expect(answer);
}

fn refuses(address: SocketAddr) {
    let error = TcpStream::connect(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
}

/// What runs, to be compared: without what is counted.
fn all(service: &Service) -> Value {
    let mut all = service.call("ListenerService/ListListeners", &json!({}), "listeners");
    for listener in all.as_array_mut().unwrap() {
        listener.as_object_mut().unwrap().remove("status");
    }
    all
}

fn revision(service: &Service) -> Value {
    service.call("ServerService/GetServerInfo", &json!({}), "configRevision")
}

/// The code and reason of a refusal.
fn refusal(error: &GrpcError) -> (&str, &str) {
    (error.code, error.reason())
}

#[test]
fn each_trigger_takes_over_what_changed_and_nothing_else() {
    if no_grpcurl() {
        return;
    }
    let before = [ack("kept", ""), ack("changed", ""), ack("removed", "")].concat();
    let after = [
        ack("added", ""),
        ack("changed", "reply = \"new\""),
        ack("kept", ""),
    ]
    .concat();
    for trigger in ["signal", "call", "file"] {
        let service = Service::start(&before);
        let (mut kept, mut changed, mut removed) = (
            service.talk("kept"),
            service.talk("changed"),
            service.talk("removed"),
        );
        for talk in [&mut kept, &mut changed, &mut removed] {
            asks(talk, ANSWER);
        }
        let session = session_of(&service, "kept", kept.local());
        let shown = service.listener("kept");
        let mut held = Held::open(&service);
        match trigger {
            "signal" => {
                held.write(&after);
                service.signal(Signal::HUP);
            }
            "call" => {
                held.write(&after);
                reload(&service, &json!({})).unwrap();
            }
            _ => replace(&file(&service), &after),
        }
        reloaded(&service, 1);
        // Nobody noticed anything at the listener that stayed: its place in the file is another, its socket the same.
        asks(&mut kept, ANSWER);
        assert_eq!(session_of(&service, "kept", kept.local()), session);
        let now = service.listener("kept");
        for key in [
            "uid",
            "etag",
            "bound",
            "startTime",
            "createTime",
            "updateTime",
            "limits",
        ] {
            assert_eq!(now[key], shown[key], "{key}");
        }
        assert_ne!(now["origin"]["line"], shown["origin"]["line"]);
        asks(&mut service.talk("kept"), ANSWER);
        asks(&mut changed, ANSWER);
        asks(&mut service.talk("changed"), b"new");
        asks(&mut Talk::to(service.bound("added")), ANSWER);
        removed.expect_closed();
        refuses(service.address("removed"));
        eventually("it is gone", || {
            let gone = json!({ "name": "listeners/removed" });
            service
                .grpcurl("ListenerService/GetListener", &gone)
                .is_err()
        });
        assert_eq!(counted(&service), [(String::new(), 1)].into(), "{trigger}");
        // Once more there is nothing to do.
        let again = reload(&service, &json!({})).unwrap();
        assert!(changes(&again).is_empty(), "{again}");
        asks(&mut kept, ANSWER);
    }
}

#[test]
fn who_is_owed_an_answer_at_a_listener_that_goes_gets_it() {
    if no_grpcurl() {
        return;
    }
    let shell =
        "[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n";
    let service = Service::start(&(ack("kept", "") + shell));
    let (mut busy, gate) = (service.talk("shell"), Gate::new());
    busy.send(gate.command());
    gate.wait_for_command();
    let mut held = Held::open(&service);
    held.write(&ack("kept", ""));
    let answer = reload(&service, &json!({})).unwrap();
    assert_eq!(changes(&answer)["listeners.shell.protocol"].3, 1);
    refuses(service.address("shell"));
    gate.open();
    assert_eq!(busy.frame().stdout, b"done\n");
    busy.expect_closed();
}

#[test]
fn listeners_may_swap_their_addresses() {
    if no_grpcurl() {
        return;
    }
    let upper = |name: &str, bind: &str, more: &str| {
        format!("[listeners.{name}]\nbind = \"{bind}\"\nlimits.max_sessions = 9\n{more}\n")
    };
    let at = |one: &str, two: &str, three: &str, four: &str| {
        [
            upper("one", one, "protocol = \"ack\""),
            upper("two", two, "protocol = \"ack\"\nreply = \"two\""),
            upper("three", three, "protocol = \"uppercase\""),
            upper(
                "four",
                four,
                "protocol = \"chat\"\ntransport = \"udp\"\nunattended_reply = \"later\"",
            ),
        ]
        .concat()
    };
    let any = "127.0.0.1:0";
    let service = Service::start(&at(any, any, any, any));
    let address = |name: &str| service.address(name).to_string();
    let (one, two, three, four) = (
        address("one"),
        address("two"),
        address("three"),
        address("four"),
    );
    let (mut idle, waits) = (service.talk("one"), service.peer("four"));
    asks(&mut idle, ANSWER);
    waits.send("anybody?");
    super::chat::waiting(&service, "four", 1);
    let mut held = Held::open(&service);
    held.write(&at(&two, &one, &four, &three));
    let answer = reload(&service, &json!({})).unwrap();
    let told = changes(&answer);
    let quoted = |text: &str| format!("\"{text}\"");
    assert_eq!(
        told["listeners.one.bind"],
        (quoted(any), quoted(&two), "rebind".to_owned(), 1)
    );
    assert_eq!(
        told["listeners.two.bind"],
        (quoted(any), quoted(&one), "rebind".to_owned(), 0)
    );
    assert_eq!(
        told["listeners.four.bind"],
        (quoted(any), quoted(&three), "rebind".to_owned(), 1)
    );
    idle.expect_closed();
    waits.expect("later");
    for listener in all(&service).as_array().unwrap() {
        assert_eq!(listener["state"], "STATE_ACTIVE", "{listener}");
    }
    asks(&mut service.talk("one"), b"two");
    asks(&mut service.talk("two"), ANSWER);
    let peer = service.peer("four");
    peer.send("straße");
    peer.expect("STRASSE");
}

#[test]
fn a_port_of_another_kind_is_no_room_to_move_to() {
    if no_grpcurl() {
        return;
    }
    // On an address of its own: nobody else has the port of the other kind.
    let other = UdpSocket::bind("127.0.0.77:0").unwrap();
    let chat = |transport: &str| {
        let bind = other.local_addr().unwrap();
        format!(
            "[listeners.chat]\nprotocol = \"chat\"\ntransport = \"{transport}\"\nbind = \"{bind}\"\n"
        )
    };
    let service = Service::start(&chat("tcp"));
    let mut held = Held::open(&service);
    held.write(&chat("udp"));
    let error = reload(&service, &json!({})).unwrap_err();
    assert_eq!(error.reason(), "ADDRESS_IN_USE", "{error:?}");
    assert_eq!(service.listener("chat")["state"], "STATE_ACTIVE");
    drop(service.talk("chat"));
}

#[test]
fn what_would_change_is_told_and_nothing_has() {
    if no_grpcurl() {
        return;
    }
    let limits = "limits = { max_sessions = 5 }\nlabels = { a = \"b\" }";
    let service =
        Service::start(&[ack("kept", limits), ack("gone", ""), ack("moved", "")].concat());
    let (mut kept, mut gone, mut moved) = (
        service.talk("kept"),
        service.talk("gone"),
        service.talk("moved"),
    );
    for talk in [&mut kept, &mut gone, &mut moved] {
        asks(talk, ANSWER);
    }
    let mut second = service.talk("moved");
    asks(&mut second, ANSWER);
    let mut held = Held::open(&service);
    let limits = "limits = { max_sessions = 6, idle_timeout = \"1m\" }";
    let there = ack("moved", "").replace("127.0.0.1", "127.0.0.2");
    held.write(&[ack("kept", limits), ack("new", ""), there].concat());
    let before = (all(&service), revision(&service));

    let keep = json!({ "keep_sessions": true });
    let error = reload(&service, &keep).unwrap_err();
    assert_eq!(
        refusal(&error),
        ("FAILED_PRECONDITION", "RELOAD_WOULD_CLOSE_SESSIONS")
    );
    let violations = error.detail("PreconditionFailure")["violations"]
        .as_array()
        .unwrap();
    let subjects: Vec<_> = violations
        .iter()
        .filter_map(|v| v["subject"].as_str())
        .collect();
    assert_eq!(subjects, ["listeners/gone", "listeners/moved"]);
    assert_eq!(error.detail("ErrorInfo")["metadata"]["sessions"], "3");
    assert_eq!((all(&service), revision(&service)), before);

    let both = json!({ "keep_sessions": true, "validate_only": true });
    assert_eq!(
        refusal(&reload(&service, &both).unwrap_err()).1,
        "RELOAD_WOULD_CLOSE_SESSIONS"
    );
    let dry = reload(&service, &json!({ "validate_only": true })).unwrap();
    assert_eq!((all(&service), revision(&service)), before);
    assert!(told(&service, RELOADED).is_empty());
    for talk in [&mut kept, &mut gone, &mut moved, &mut second] {
        asks(talk, ANSWER);
    }
    let done = reload(&service, &json!({})).unwrap();
    assert_eq!(done["changes"], dry["changes"]);
    assert_eq!(revision(&service), done["revision"]);
    let told = changes(&done);
    let row = |from: &str, to: &str, scope: &str, sessions| {
        (from.to_owned(), to.to_owned(), scope.to_owned(), sessions)
    };
    assert_eq!(
        told["listeners.kept.limits.max_sessions"],
        row("5", "6", "new_sessions", 0)
    );
    assert_eq!(
        told["listeners.kept.limits.idle_timeout"],
        row("\"5m\"", "\"1m\"", "live", 0)
    );
    assert_eq!(told["listeners.kept.labels.a"], row("\"b\"", "", "live", 0));
    assert_eq!(
        told["listeners.moved.bind"],
        row("\"127.0.0.1:0\"", "\"127.0.0.2:0\"", "rebind", 2)
    );
    assert_eq!(told["listeners.gone.bind"].3, 1);
    assert_eq!(
        told["listeners.new.protocol"],
        row("", "\"ack\"", "rebind", 0)
    );
    assert!(
        told.keys()
            .all(|key| !key.starts_with("listeners.kept.bind")),
        "{told:?}"
    );
    asks(&mut kept, ANSWER);
    for talk in [&mut gone, &mut moved, &mut second] {
        talk.expect_closed();
    }
    assert_eq!(
        counted(&service),
        [(String::new(), 1), ("would_close_sessions".to_owned(), 1)].into()
    );
}

#[test]
fn sessions_that_leave_anyway_are_not_held_against_a_reload() {
    if no_grpcurl() {
        return;
    }
    let shell =
        "[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n";
    let service = Service::start(&(ack("kept", "") + shell));
    let (mut busy, gate) = (service.talk("shell"), Gate::new());
    busy.send(gate.command());
    gate.wait_for_command();
    let stop = json!({ "name": "listeners/shell", "grace": "60s" });
    std::thread::scope(|scope| {
        let stopping =
            scope.spawn(|| service.call("ListenerService/StopListener", &stop, "listener"));
        eventually("it drains", || {
            service.listener("shell")["state"] == "STATE_DRAINING"
        });
        let mut held = Held::open(&service);
        held.write(&(ack("kept", "reply = \"new\"") + shell));
        reload(&service, &json!({ "keep_sessions": true })).unwrap();
        asks(&mut service.talk("kept"), b"new");
        gate.open();
        assert_eq!(busy.frame().stdout, b"done\n");
        assert_eq!(stopping.join().unwrap()["state"], "STATE_STOPPED");
    });
}

#[test]
fn files_that_are_wrong_change_nothing_and_say_all_that_is() {
    if no_grpcurl() {
        return;
    }
    let good = ack("kept", "");
    let service = Service::start(&good);
    let mut kept = service.talk("kept");
    asks(&mut kept, ANSWER);
    let before = (all(&service), revision(&service));
    let mut held = Held::open(&service);
    assert_eq!(gauge(&service, "switchboard_config_reload_failing"), 0);
    let (one, two) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let taken = |listener: &TcpListener, name: &str| {
        ack(name, "").replace("127.0.0.1:0", &listener.local_addr().unwrap().to_string())
    };
    let path = file(&service).display().to_string();
    let mut failures = 0;
    let mut refuses = |text: &str, code: &str, reason: &str, places: &[(&str, &str)]| {
        held.write(text);
        let lines = told(&service, NOT_RELOADED).len();
        for validate_only in [true, false] {
            let error = reload(&service, &json!({ "validate_only": validate_only })).unwrap_err();
            assert_eq!(refusal(&error), (code, reason), "{text}");
            if reason == "CONFIG_INVALID" {
                let found = error.detail("BadRequest")["fieldViolations"]
                    .as_array()
                    .unwrap();
                assert_eq!(found.len(), places.len(), "{found:?}");
                for (violation, (key, place)) in found.iter().zip(places) {
                    assert_eq!(violation["field"].as_str().unwrap_or_default(), *key);
                    let described = violation["description"].as_str().unwrap();
                    assert!(
                        described.contains(&format!("{path}:{place}")),
                        "{place}: {described}"
                    );
                }
            }
        }
        failures += 1;
        // One line for each problem; a try is told to its caller alone.
        eventually("the log tells it", || {
            told(&service, NOT_RELOADED).len() > lines
        });
        assert_eq!(
            told(&service, NOT_RELOADED).len(),
            lines + places.len().max(1)
        );
        assert_eq!(gauge(&service, "switchboard_config_reload_failing"), 1);
        assert_eq!((all(&service), revision(&service)), before);
        asks(&mut kept, ANSWER);
        asks(&mut service.talk("kept"), ANSWER);
    };
    let (invalid, files) = ("INVALID_ARGUMENT", "CONFIG_INVALID");
    refuses(
        &format!("{good}x = = 1\n"),
        invalid,
        files,
        &[("", "5:5:"), ("", "5:7:")],
    );
    refuses(
        &format!("{good}repyl = \"x\"\n[grcp]\naddress = \"x\"\n"),
        invalid,
        files,
        &[("listeners.kept.repyl", "5:1"), ("grcp", "6:")],
    );
    let clash = format!("{}{}", taken(&one, "x"), taken(&one, "y"));
    refuses(
        &(good.clone() + &clash),
        invalid,
        files,
        &[("listeners.y.bind", "11:")],
    );
    let all_taken = format!("{}{}", taken(&one, "x"), taken(&two, "y"));
    refuses(
        &(good.clone() + &all_taken),
        invalid,
        files,
        &[("listeners.x.bind", "7:"), ("listeners.y.bind", "11:")],
    );
    let (state, used) = ("FAILED_PRECONDITION", "ADDRESS_IN_USE");
    refuses(
        &(good.clone() + &taken(&one, "x") + &ack("z", "")),
        state,
        used,
        &[],
    );
    // One that serves would have to move there.
    refuses(&taken(&two, "kept"), state, used, &[]);
    assert_eq!(failures, 6);
    let expected = [("", 0), ("bind_failed", 2), ("config_invalid", 4)];
    let expected: BTreeMap<_, _> = expected.map(|(why, n)| (why.to_owned(), n)).into();
    assert_eq!(counted(&service), expected);

    // The others tell it too, and do not end.
    held.write("listeners = 1\n");
    let lines = told(&service, NOT_RELOADED).len();
    service.signal(Signal::HUP);
    eventually("the log tells it", || {
        told(&service, NOT_RELOADED).len() > lines
    });
    replace(&file(&service), "listeners = 2\n");
    eventually("the log tells it again", || {
        counted(&service)["config_invalid"] == 6
    });
    asks(&mut kept, ANSWER);
    replace(&file(&service), &good);
    held = Held::open(&service);
    eventually("it does not fail any more", || {
        gauge(&service, "switchboard_config_reload_failing") == 0
    });
    assert_eq!((all(&service), revision(&service)), before);
    // What was taken is free.
    let freed = good + &taken(&one, "x");
    drop((one, two));
    held.write(&freed);
    reload(&service, &json!({})).unwrap();
    asks(&mut Talk::to(service.bound("x")), ANSWER);
}

#[test]
fn settings_of_the_process_are_obeyed_at_once_or_wait_for_a_restart() {
    if no_grpcurl() {
        return;
    }
    let shell =
        "[listeners.shell]\nprotocol = \"shell\"\npolicy = \"any\"\nbind = \"127.0.0.1:0\"\n";
    let kept = ack("kept", "") + shell;
    let service = Service::start(&format!("[shutdown]\ngrace = \"1h\"\n{kept}"));
    let made = json!({
        "listener_id": "made",
        "listener": { "bind": "127.0.0.1:0", "shell": { "programs": ["echo"] } },
    });
    let create = || service.grpcurl("ListenerService/CreateListener", &made);
    assert_eq!(create().unwrap_err().reason(), "SHELL_NOT_ALLOWED");
    let mut kept_session = service.talk("kept");
    asks(&mut kept_session, ANSWER);
    assert!(told(&service, "session opened").is_empty());
    let mut held = Held::open(&service);
    held.write(&format!(
        "[shutdown]\ngrace = \"150ms\"\n[telemetry]\nlog = \"debug\"\n[grpc]\nallow_shell = true\n{kept}"
    ));
    let told_changes = changes(&reload(&service, &json!({})).unwrap());
    let keys: Vec<_> = told_changes
        .iter()
        .map(|(key, row)| (&**key, &*row.2))
        .collect();
    assert_eq!(
        keys,
        [
            ("grpc.allow_shell", "live"),
            ("shutdown.grace", "live"),
            ("telemetry.log", "live")
        ]
    );
    create().unwrap();
    asks(&mut service.talk("kept"), ANSWER);
    eventually("the log is finer", || {
        !told(&service, "session opened").is_empty()
    });
    let (mut busy, gate) = (service.talk("shell"), Gate::new());
    busy.send(gate.command());
    gate.wait_for_command();
    let stopped = json!({ "name": "listeners/shell" });
    service.call("ListenerService/StopListener", &stopped, "listener");
    busy.expect_closed();
    assert_eq!(close_reason(&service, "shell", busy.local()), "drained");
    asks(&mut kept_session, ANSWER);
}

#[test]
fn what_only_a_restart_changes_stays_and_is_told() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&ack("kept", ""));
    let before = revision(&service);
    let session = {
        let mut talk = service.talk("kept");
        asks(&mut talk, ANSWER);
        session_of(&service, "kept", talk.local())
    };
    let drift = || gauge(&service, "switchboard_config_drift_count");
    assert_eq!(drift(), 0);
    let mut held = Held::open(&service);
    let restart = "[node]\nname = \"other\"\n[grpc]\naddress = \"127.0.0.2:0\"\n";
    held.write(&format!("{restart}{}", ack("kept", "reply = \"new\"")));
    for validate_only in [true, false] {
        let answer = reload(&service, &json!({ "validate_only": validate_only })).unwrap();
        let told = changes(&answer);
        let rows: Vec<_> = told
            .iter()
            .map(|(key, row)| (&**key, &*row.1, &*row.2))
            .collect();
        assert_eq!(
            rows,
            [
                ("grpc.address", "\"127.0.0.2:0\"", "restart"),
                ("listeners.kept.reply", "\"new\"", "new_sessions"),
                ("node.name", "\"other\"", "restart"),
            ]
        );
        let warnings = answer["warnings"].as_array().unwrap();
        let warned: Vec<_> = warnings.iter().map(|w| (&w["key"], &w["reason"])).collect();
        let needed = &json!("RESTART_NEEDED");
        assert_eq!(
            warned,
            [
                (&json!("grpc.address"), needed),
                (&json!("node.name"), needed)
            ]
        );
    }
    assert_ne!(revision(&service), before);
    assert_eq!(drift(), 2);
    let drifted = json!({ "drifted_only": true });
    let settings = service.call("ConfigService/GetEffectiveConfig", &drifted, "settings");
    let settings: Vec<_> = settings
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (&s["key"], &s["valueJson"]))
        .collect();
    assert_eq!(
        settings,
        [
            (&json!("grpc.address"), &json!("\"127.0.0.1:0\"")),
            (&json!("node.name"), &json!("\"local\""))
        ]
    );
    let mut talk = service.talk("kept");
    asks(&mut talk, b"new");
    let node = |session: &str| {
        session
            .split('/')
            .next_back()
            .unwrap()
            .split('-')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        node(&session_of(&service, "kept", talk.local())),
        node(&session)
    );
    held.write(&ack("kept", "reply = \"new\""));
    reload(&service, &json!({})).unwrap();
    assert_eq!(drift(), 0);
}

#[test]
fn what_calls_have_changed_holds_over_a_reload() {
    if no_grpcurl() {
        return;
    }
    let kept = tempfile::tempdir().unwrap();
    let store = format!("store.path={}", kept.path().join("state.db").display());
    let files = [ack("stopped", ""), ack("changed", ""), ack("deleted", "")].concat();
    let service = Service::start_with(&files, &["--set", &store], &[]);
    let stop = json!({ "name": "listeners/stopped", "reason": "maintenance" });
    service.call("ListenerService/StopListener", &stop, "listener");
    update(
        &service,
        "changed",
        &json!({ "ack": { "reply": "bWluZQ==" } }),
    );
    let delete = json!({ "name": "listeners/deleted", "force": true });
    service
        .grpcurl("ListenerService/DeleteListener", &delete)
        .unwrap();
    let made = json!({ "listener_id": "made", "listener": { "bind": "127.0.0.1:0", "ack": { "reply": "bWFkZQ==" } } });
    service
        .grpcurl("ListenerService/CreateListener", &made)
        .unwrap();
    let before = service.listener("made");
    let mut here = Talk::to(service.bound("made"));
    asks(&mut here, b"made");

    let mut held = Held::open(&service);
    let mine = "display_name = \"of the file\"\nreply = \"theirs\"";
    held.write(
        &["stopped", "changed", "deleted", "made"]
            .map(|name| ack(name, mine))
            .concat(),
    );
    let told = changes(&reload(&service, &json!({})).unwrap());
    // The name of the file stands beside what a call has changed; what a call has defined or deleted stays as it is.
    let keys: Vec<_> = told.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "listeners.changed.display_name",
            "listeners.stopped.display_name",
            "listeners.stopped.reply"
        ]
    );
    let stopped = service.listener("stopped");
    assert_eq!(
        (&stopped["state"], &stopped["displayName"]),
        (&json!("STATE_STOPPED"), &json!("of the file"))
    );
    let why = stopped["desiredStateReason"].as_str().unwrap();
    assert!(
        why.contains("StopListener") && why.contains("maintenance"),
        "{why}"
    );
    asks(&mut service.talk("changed"), b"mine");
    let gone = json!({ "name": "listeners/deleted" });
    assert_eq!(
        service
            .grpcurl("ListenerService/GetListener", &gone)
            .unwrap_err()
            .code,
        "NOT_FOUND"
    );
    let after = service.listener("made");
    for key in ["uid", "etag", "bound", "ack", "createTime", "origin"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    asks(&mut here, b"made");
    // Once the file says nothing of them, what calls have made is still there.
    held.write(&ack("changed", ""));
    reload(&service, &json!({})).unwrap();
    asks(&mut here, b"made");
    let names = all(&service);
    let names: Vec<_> = names
        .as_array()
        .unwrap()
        .iter()
        .map(|l| &l["name"])
        .collect();
    assert_eq!(names, ["listeners/changed", "listeners/made"]);
}

#[test]
fn a_reload_is_made_once() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&ack("kept", ""));
    let mut held = Held::open(&service);
    held.write(&ack("kept", "reply = \"one\""));
    let once = json!({ "request_id": "5f1c7a2e-54a4-4d8e-9d0b-0f3c5f4f8a13" });
    let first = reload(&service, &once).unwrap();
    assert_eq!(changes(&first).len(), 1);
    held.write(&ack("kept", "reply = \"two\""));
    assert_eq!(reload(&service, &once).unwrap(), first);
    asks(&mut service.talk("kept"), b"one");
    reload(&service, &json!({})).unwrap();
    asks(&mut service.talk("kept"), b"two");
    assert_eq!(counted(&service), [(String::new(), 2)].into());
}
