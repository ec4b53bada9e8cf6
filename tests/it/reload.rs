//! Files that change beside a running service: taken over wholly or not at all, and never at a bystander's cost.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{GrpcError, Service, Talk, eventually, no_grpcurl};

const WEB: &str = "[listeners.web]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

fn ack(name: &str, bind: &str, more: &str) -> String {
    format!("[listeners.{name}]\nprotocol = \"ack\"\nbind = \"{bind}\"\n{more}\n")
}

fn file(service: &Service) -> PathBuf {
    service.home().join("switchboard.toml")
}

/// Puts another file in the place of the service's own, as editors do.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

fn reload(service: &Service, request: &Value) -> Result<Value, GrpcError> {
    service.grpcurl("ConfigService/ReloadConfig", request)
}

fn changed_keys(answer: &Value) -> Vec<&str> {
    let changes = answer["changes"].as_array().map_or(&[][..], Vec::as_slice);
    changes.iter().map(|c| c["key"].as_str().unwrap()).collect()
}

fn name_of(service: &Service, listener: &str) -> Value {
    service.listener(listener)["displayName"].clone()
}

fn bound(service: &Service, listener: &str) -> SocketAddr {
    let bound = service.listener(listener)["bound"].clone();
    bound.as_str().unwrap().parse().unwrap()
}

/// A metric of `/metrics` by the beginning of its line.
fn metric(service: &Service, line: &str) -> Option<f64> {
    let (_, text) = service.http_get("/metrics");
    let found = text
        .lines()
        .find(|l| l.starts_with(line) && l[line.len()..].starts_with(' '))?;
    found.rsplit(' ').next().unwrap().parse().ok()
}

#[test]
fn each_way_of_telling_takes_an_edited_file_over_and_keeps_bystanders() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!("{WEB}{}", ack("other", "127.0.0.1:0", "")));
    let mut open = service.talk("web");
    open.send("1");
    open.expect("received data!!");
    let (socket, uid) = (
        bound(&service, "web"),
        service.listener("web")["uid"].clone(),
    );
    let by_file = |name: &str| {
        put(
            &file(&service),
            &format!(
                "{WEB}{}",
                ack("other", "127.0.0.1:0", &format!("display_name = {name:?}"))
            ),
        );
    };
    by_file("watched");
    eventually("the file is seen", || {
        name_of(&service, "other") == "watched"
    });
    by_file("asked");
    reload(&service, &json!({})).unwrap();
    assert_eq!(name_of(&service, "other"), "asked");
    by_file("signalled");
    service.signal(Signal::HUP);
    eventually("the signal is heard", || {
        name_of(&service, "other") == "signalled"
    });
    assert_eq!(
        (
            bound(&service, "web"),
            service.listener("web")["uid"].clone()
        ),
        (socket, uid)
    );
    open.send("2");
    open.expect("received data!!");
}

#[test]
fn a_reload_says_what_it_would_do_and_does_that_and_no_more() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!("{WEB}{}", ack("gone", "127.0.0.1:0", "")));
    let (mut open, _there) = (service.talk("web"), service.talk("gone"));
    open.send("x");
    open.expect("received data!!");
    eventually("both are in", || {
        service.listener("gone")["status"]["activeSessions"] == 1
    });
    let edited = format!("{WEB}reply = \"hello\"\n{}", ack("new", "127.0.0.1:0", ""));
    // Written in place and not closed yet: only who asks looks.
    let mut writer = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(file(&service))
        .unwrap();
    std::io::Write::write_all(&mut writer, edited.as_bytes()).unwrap();
    let told = reload(&service, &json!({ "validate_only": true })).unwrap();
    let keys = changed_keys(&told);
    assert!(
        keys.contains(&"listeners.web.reply") && keys.contains(&"listeners.gone.bind"),
        "{keys:?}"
    );
    assert!(keys.contains(&"listeners.new.protocol"), "{keys:?}");
    let of = |key: &str| {
        let changes = told["changes"].as_array().unwrap();
        changes.iter().find(|c| c["key"] == key).unwrap().clone()
    };
    let reply = of("listeners.web.reply");
    assert_eq!(
        (&reply["fromJson"], &reply["toJson"]),
        (&json!("\"received data!!\""), &json!("\"hello\""))
    );
    assert_eq!(reply["scope"], "SCOPE_NEW_SESSIONS");
    assert_eq!(of("listeners.gone.bind")["sessionsAffected"], 1);
    // Nothing has changed.
    assert!(
        service
            .grpcurl(
                "ListenerService/GetListener",
                &json!({ "name": "listeners/new" })
            )
            .is_err()
    );
    let kept = reload(&service, &json!({ "keep_sessions": true })).unwrap_err();
    assert_eq!(
        (kept.code, kept.reason()),
        ("FAILED_PRECONDITION", "RELOAD_WOULD_CLOSE_SESSIONS")
    );
    assert!(
        kept.message.contains("gone") && !kept.message.contains("web"),
        "{}",
        kept.message
    );
    assert_eq!(service.listener("gone")["status"]["activeSessions"], 1);

    let done = reload(&service, &json!({})).unwrap();
    assert_eq!(changed_keys(&done), keys);
    open.send("x");
    open.expect("received data!!");
    let mut later = Talk::to(bound(&service, "web"));
    later.send("x");
    later.expect("hello");
    Talk::to(bound(&service, "new"));
    eventually("it is gone", || {
        service
            .grpcurl(
                "ListenerService/GetListener",
                &json!({ "name": "listeners/gone" }),
            )
            .is_err()
    });
    let again = reload(&service, &json!({})).unwrap();
    assert_eq!(
        (changed_keys(&again), &again["revision"]),
        (Vec::new(), &done["revision"])
    );
}

#[test]
fn two_listeners_change_places() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!(
        "{}{}",
        ack("one", "127.0.0.1:0", "reply = \"1\""),
        ack("two", "127.0.0.1:0", "reply = \"2\"")
    ));
    let (one, two) = (
        bound(&service, "one").to_string(),
        bound(&service, "two").to_string(),
    );
    // First each at its own port, by name; then exchanged.
    for (first, second) in [(&one, &two), (&two, &one)] {
        put(
            &file(&service),
            &format!(
                "{}{}",
                ack("one", first, "reply = \"1\""),
                ack("two", second, "reply = \"2\"")
            ),
        );
        reload(&service, &json!({})).unwrap();
        for (address, reply) in [(first, "1"), (second, "2")] {
            let mut talk = Talk::to(address.parse().unwrap());
            talk.send("x");
            talk.expect(reply);
        }
    }
    for name in ["one", "two"] {
        assert_eq!(service.listener(name)["state"], "STATE_ACTIVE");
    }
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_is_told_everywhere() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(WEB);
    let mut open = service.talk("web");
    let revision = || service.call("ServerService/GetServerInfo", &json!({}), "configRevision");
    let before = revision();
    put(
        &file(&service),
        &format!("{WEB}rply = \"x\"\nonce = 1\n[listners.two]\n"),
    );
    let wrong = reload(&service, &json!({})).unwrap_err();
    assert_eq!(
        (wrong.code, wrong.reason()),
        ("INVALID_ARGUMENT", "CONFIG_INVALID")
    );
    for part in [
        "switchboard.toml:4:1",
        "did you mean `reply`?",
        "listeners.web.once",
        "did you mean `listeners`?",
    ] {
        assert!(wrong.message.contains(part), "{part}: {}", wrong.message);
    }
    assert_eq!(wrong.fields().len(), 3, "{}", wrong.message);
    assert_eq!(revision(), before);
    let failed = "switchboard_config_reloads_total{error_type=\"config_invalid\"}";
    assert!(metric(&service, failed).is_some_and(|count| count >= 1.0));
    assert_eq!(
        metric(&service, "switchboard_config_reload_failing"),
        Some(1.0)
    );
    assert!(service.stderr().contains("configuration not reloaded"));
    assert!(service.stderr().contains("did you mean `reply`?"));
    let problems = service.call("ConfigService/ValidateConfig", &json!({}), "problems");
    assert_eq!(problems.as_array().unwrap().len(), 3);

    // An address that somebody else has, beside a change that could be made.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    put(
        &file(&service),
        &format!("{WEB}reply = \"new\"\n{}", ack("two", &address, "")),
    );
    let taken_error = reload(&service, &json!({})).unwrap_err();
    assert_eq!(taken_error.reason(), "ADDRESS_IN_USE");
    assert_eq!(revision(), before);
    let mut later = service.talk("web");
    for talk in [&mut open, &mut later] {
        talk.send("x");
        talk.expect("received data!!");
    }
    drop(taken);
    reload(&service, &json!({})).unwrap();
    assert_ne!(revision(), before);
    assert_eq!(
        metric(&service, "switchboard_config_reload_failing"),
        Some(0.0)
    );
}

#[test]
fn settings_beside_the_listeners_are_obeyed_at_once_or_wait_for_a_restart() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(WEB);
    let more = "[node]\nname = \"another\"\n[grpc]\nallow_shell = true\n[telemetry]\nlog = \"debug\"\n[shutdown]\ngrace = \"1s\"\n";
    put(&file(&service), &format!("{more}{WEB}"));
    let answer = reload(&service, &json!({})).unwrap();
    let changes = answer["changes"].as_array().unwrap();
    let scope = |key: &str| {
        changes
            .iter()
            .find(|c| c["key"] == key)
            .map(|c| c["scope"].clone())
    };
    assert_eq!(scope("node.name"), Some(json!("SCOPE_RESTART")));
    assert_eq!(scope("grpc.allow_shell"), Some(json!("SCOPE_LIVE")));
    let warnings = answer["warnings"].as_array().unwrap();
    assert!(
        warnings
            .iter()
            .any(|w| w["key"] == "node.name" && w["reason"] == "RESTART_NEEDED"),
        "{warnings:?}"
    );
    let drifted = service.call(
        "ConfigService/GetEffectiveConfig",
        &json!({ "drifted_only": true }),
        "settings",
    );
    assert_eq!(drifted[0]["key"], "node.name");
    assert_eq!(
        (&drifted[0]["valueJson"], drifted.as_array().unwrap().len()),
        (&json!("\"local\""), 1)
    );
    assert_eq!(
        metric(&service, "switchboard_config_drift_count"),
        Some(1.0)
    );
    // A shell may be made now, and what is told in detail is told.
    let shell = json!({ "bind": "127.0.0.1:0", "shell": { "programs": ["date"] } });
    service.call(
        "ListenerService/CreateListener",
        &json!({ "listener_id": "s", "listener": shell }),
        "listener",
    );
    let mut talk = service.talk("web");
    talk.send("x");
    talk.expect("received data!!");
    eventually("details are told", || {
        service.stderr().contains("session opened")
    });
}

#[test]
fn a_mounted_volume_that_is_exchanged_whole_is_seen() {
    if no_grpcurl() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    // As Kubernetes does it: FILE -> ..data/FILE, and ..data -> a folder that is new each time.
    let version = |n: u32| {
        fs::create_dir(at(&format!("..{n}"))).unwrap();
        fs::write(
            at(&format!("..{n}/site.toml")),
            format!("{WEB}display_name = \"{n}\"\n"),
        )
        .unwrap();
        symlink(format!("..{n}"), at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    version(1);
    symlink("..data/site.toml", at("site.toml")).unwrap();
    let named = at("site.toml");
    let service = Service::start_with("", &["--config", named.to_str().unwrap()], &[]);
    assert_eq!(name_of(&service, "web"), "1");
    for n in 2..5 {
        version(n);
        fs::remove_dir_all(at(&format!("..{}", n - 1))).unwrap();
        eventually("the volume is seen", || {
            name_of(&service, "web") == json!(n.to_string())
        });
    }
}

#[test]
fn a_file_that_is_gone_changes_nothing_until_it_is_back() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(WEB);
    fs::remove_file(file(&service)).unwrap();
    eventually("its absence is told", || {
        service.stderr().contains("configuration not reloaded")
    });
    assert_eq!(service.listener("web")["state"], "STATE_ACTIVE");
    put(&file(&service), &format!("{WEB}display_name = \"back\"\n"));
    eventually("it is back", || name_of(&service, "web") == "back");
}

#[test]
fn a_file_that_is_still_being_written_is_not_taken_over() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!("{WEB}display_name = \"0\"\n"));
    // Nearly every beginning of it is a whole file in itself, with another name.
    let text = format!(
        "{WEB}display_name = \"1\"\nlabels.a = \"1\"\nlabels.b = \"2\"\nlabels.c = \"3\"\n"
    );
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let listener = service.listener("web");
                let state = (listener["displayName"].clone(), listener["labels"].clone());
                if seen.last() != Some(&state) {
                    seen.push(state);
                }
            }
            seen
        });
        let mut writer = fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(file(&service))
            .unwrap();
        for byte in text.as_bytes() {
            std::io::Write::write_all(&mut writer, &[*byte]).unwrap();
            // The pauses of a slow writer are what is tried.
            thread::sleep(Duration::from_millis(8));
        }
        drop(writer);
        eventually("it is taken over", || name_of(&service, "web") == "1");
        stop.store(true, Ordering::SeqCst);
        let seen = watcher.join().unwrap();
        let whole = json!({ "a": "1", "b": "2", "c": "3" });
        for state in seen {
            assert!(
                state == (json!("0"), Value::Null) || state == (json!("1"), whole.clone()),
                "{state:?}"
            );
        }
    });
}

#[test]
fn changes_of_run_time_hold_over_a_reload() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(&format!("{WEB}{}", ack("other", "127.0.0.1:0", "")));
    service.call(
        "ListenerService/StopListener",
        &json!({ "name": "listeners/other" }),
        "listener",
    );
    let made = json!({ "bind": "127.0.0.1:0", "display_name": "made", "ack": {} });
    service.call(
        "ListenerService/CreateListener",
        &json!({ "listener_id": "made", "listener": made }),
        "listener",
    );
    let text = format!(
        "{WEB}display_name = \"x\"\n{}{}",
        ack("other", "127.0.0.1:0", "once = true"),
        ack("made", "127.0.0.1:0", "display_name = \"of the file\"")
    );
    put(&file(&service), &text);
    reload(&service, &json!({})).unwrap();
    assert_eq!(service.listener("other")["state"], "STATE_STOPPED");
    assert_eq!(service.listener("other")["ack"]["once"], true);
    assert_eq!(name_of(&service, "made"), "made");
    assert_eq!(name_of(&service, "web"), "x");
}

/// Sessions of a listener that does not change, and those that come, while another changes all the time.
#[test]
fn many_reloads_harm_no_bystander() {
    use switchboard::grpc::api;
    use switchboard::grpc::api::config_service_client::ConfigServiceClient;
    let rounds: u32 = if std::env::var_os("SWITCHBOARD_SOAK").is_some() {
        1_000
    } else {
        60
    };
    let service = Service::start(&format!("{WEB}{}", ack("other", "127.0.0.1:0", "")));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let endpoint = format!("http://{}", service.grpc());
    let mut client = runtime
        .block_on(ConfigServiceClient::connect(endpoint))
        .unwrap();
    let address = service.address("web");
    let (stop, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let proc = |what: &str| PathBuf::from(format!("/proc/{}/{what}", service.pid()));
    let descriptors = || fs::read_dir(proc("fd")).unwrap().count();
    let resident = || {
        let pages: u64 = fs::read_to_string(proc("statm"))
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        pages * 4096
    };
    let (mut early, mut good) = (None, 0);
    thread::scope(|scope| {
        for n in 0..8 {
            let (stop, answers) = (&stop, &answers);
            scope.spawn(move || {
                let mut talk = Talk::to(address);
                while !stop.load(Ordering::SeqCst) {
                    // Half of them stay, half come anew each time.
                    if n % 2 == 0 {
                        talk = Talk::to(address);
                    }
                    talk.send("hello");
                    talk.expect("received data!!");
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 1..=rounds {
            let is_good = round % 2 == 0;
            let other = match round % 6 {
                // Comes, goes, changes its words, its limits and its place.
                0 => String::new(),
                2 => ack("other", "127.0.0.1:0", &format!("reply = \"{round}\"")),
                _ => ack(
                    "other",
                    "127.0.0.1:0",
                    &format!("limits = {{ max_sessions = {round} }}"),
                ),
            };
            let wrong = if is_good { "" } else { "[listners]\n" };
            put(&file(&service), &format!("{WEB}{other}{wrong}"));
            let answer =
                runtime.block_on(client.reload_config(api::ReloadConfigRequest::default()));
            assert_eq!(answer.is_ok(), is_good, "round {round}: {answer:?}");
            good += u64::from(is_good);
            if round == rounds / 10 {
                early = Some((descriptors(), resident()));
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    let web = runtime.block_on(async {
        let endpoint = format!("http://{}", service.grpc());
        let mut listeners = api::listener_service_client::ListenerServiceClient::connect(endpoint)
            .await
            .unwrap();
        let request = api::GetListenerRequest {
            name: "listeners/web".into(),
        };
        listeners
            .get_listener(request)
            .await
            .unwrap()
            .into_inner()
            .listener
            .unwrap()
    });
    assert_eq!(web.bound, address.to_string());
    assert_eq!(web.status.unwrap().rejected_connections, 0);
    // The files are watched too: a file that was seen by the watcher first is not taken over twice.
    let (_, text) = service.http_get("/metrics");
    let applied: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("switchboard_config_reloads_total "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(applied >= good as f64, "{applied} of {good}");
    let (files, memory) = early.unwrap();
    let grown = resident().saturating_sub(memory);
    let (now, answers) = (descriptors(), answers.load(Ordering::SeqCst));
    assert!(now <= files + 4, "{files} descriptors, then {now}");
    assert!(grown < 8 << 20, "{memory} bytes, then {grown} more");
    println!(
        "{rounds} reloads, {good} good, {applied} taken over; {answers} answers; {files} then {now} descriptors; {grown} bytes more than {memory}"
    );
}
