//! Changes of what the files define, and files that change beneath them.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    FILES, ack, again, again_with, ask, cli, definitions, difference, lasting, names, on, tell,
    update, warnings,
};
use crate::support::{Service, Talk, no_grpcurl};

const NONE: [&str; 0] = [];

fn stop(service: &Service, listener: &str, reason: &str) {
    tell(
        service,
        "StopListener",
        &on(listener, &json!({ "reason": reason })),
    );
}

#[test]
fn a_listener_that_was_stopped_stays_stopped_and_says_why() {
    if no_grpcurl() {
        return;
    }
    let mut service = Service::start(FILES);
    stop(&service, "web", "the disk\nis changed");
    let why = service.listener("web")["desiredStateReason"].clone();
    let said = why.as_str().unwrap();
    assert!(said.starts_with("StopListener by 127.0.0.1:"), "{said}");
    assert!(said.ends_with(": the disk\\nis changed"), "{said}");
    for signal in [Signal::KILL, Signal::TERM] {
        service = again(service, signal);
        let web = service.listener("web");
        assert_eq!(web["state"], "STATE_STOPPED");
        assert_eq!(web["origin"]["layer"], "LAYER_FILE");
        assert_eq!(web["desiredStateReason"], why);
        assert_eq!(service.announced("web"), format!("stopped: {said}"));
        let shown = [
            "config",
            "show",
            "--running",
            "--origin",
            "listeners.web.desired_state",
        ];
        let shown = cli(&service, &shown).stdout;
        let call = said.split(" at ").next().unwrap();
        assert!(shown.contains(call), "{call} in {shown}");
    }

    // Started again it is as the files say, and nothing is left over.
    tell(&service, "StartListener", &on("web", &json!({})));
    assert!(service.listener("web")["desiredStateReason"].is_null());
    assert_eq!(difference(&service, "FILES", "RUNNING").unwrap(), NONE);
    let stopped_by_the_file = |text: &mut String| {
        *text = text.replace(
            "[listeners.web]",
            "[listeners.web]\ndesired_state = \"stopped\"",
        );
    };
    let service = again_with(service, Signal::TERM, stopped_by_the_file, &[], &[]);
    assert_eq!(service.announced("web"), "stopped");
}

#[test]
fn a_listener_that_the_files_stop_stays_started() {
    if no_grpcurl() {
        return;
    }
    let files = FILES.replace(
        "[listeners.web]",
        "[listeners.web]\ndesired_state = \"stopped\"",
    );
    let service = Service::start(&files);
    assert_eq!(service.announced("web"), "stopped");
    tell(&service, "StartListener", &on("web", &json!({})));
    let service = again(service, Signal::KILL);
    let mut talk = service.talk("web");
    talk.send("hello");
    talk.expect("of the files");
    stop(&service, "web", "");
    assert_eq!(difference(&service, "FILES", "RUNNING").unwrap(), NONE);
}

#[test]
fn a_listener_that_was_deleted_stays_away_and_the_files_are_told() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    stop(&service, "web", "");
    tell(&service, "DeleteListener", &on("web", &json!({})));
    let told = [("DELETED_AT_RUN_TIME".to_owned(), "listeners.web".to_owned())];
    assert_eq!(warnings(&service), told);
    let service = again(service, Signal::KILL);
    assert_eq!(names(&service), ["other".to_owned()].into());
    assert_eq!(warnings(&service), told);
    assert!(
        service.stderr().contains("DELETED_AT_RUN_TIME"),
        "{}",
        service.stderr()
    );
    assert_eq!(
        difference(&service, "RUNNING", "AFTER_RESTART").unwrap(),
        NONE
    );

    // A file that says more of it does not bring it back; another listener of its name may be made.
    let service = again_with(
        service,
        Signal::TERM,
        |text| *text = text.replace("of the files", "of the files again"),
        &[],
        &[],
    );
    assert_eq!(names(&service), ["other".to_owned()].into());
    let made = json!({ "ack": { "reply": "bmV3" } });
    tell(&service, "CreateListener", &ack("web", &made));
    assert_eq!(warnings(&service), []);
    let service = again(service, Signal::KILL);
    let mut talk = Talk::to(service.bound("web"));
    talk.send("hello");
    talk.expect("new");
    assert_eq!(
        service.listener("web")["origin"]["source"],
        "CreateListener"
    );

    // Nor does the end of that one.
    tell(
        &service,
        "DeleteListener",
        &on("web", &json!({ "force": true })),
    );
    let service = again(service, Signal::KILL);
    assert_eq!(names(&service), ["other".to_owned()].into());
}

#[test]
fn the_built_in_listeners_are_changed_one_by_one() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start("[store]\npath = \"\"\n");
    let built_in = ["ack", "chat", "qq", "shell", "uppercase"];
    assert_eq!(names(&service), built_in.map(String::from).into());
    // Their ports may be taken: what they should be is what counts.
    stop(&service, "chat", "");
    tell(
        &service,
        "DeleteListener",
        &on("qq", &json!({ "force": true })),
    );
    tell(&service, "CreateListener", &ack("made", &json!({})));
    let wanted = |service: &Service| -> Vec<(Value, Value)> {
        let mut all = definitions(service);
        let pair = |l: &mut Value| (l["name"].take(), l["desiredState"].take());
        all.iter_mut().map(pair).collect()
    };
    let before = wanted(&service);
    let mut service = service;
    for signal in [Signal::KILL, Signal::TERM] {
        service = again(service, signal);
        assert_eq!(
            names(&service),
            ["ack", "chat", "made", "shell", "uppercase"]
                .map(String::from)
                .into()
        );
        assert_eq!(wanted(&service), before);
        assert_eq!(
            service.listener("chat")["desiredState"],
            "DESIRED_STATE_STOPPED"
        );
    }
    assert_eq!(
        difference(&service, "RUNNING", "AFTER_RESTART").unwrap(),
        NONE
    );
}

/// The change is set aside, and both the log and whoever asks are told.
fn is_set_aside(service: &Service, keys: &[&str]) {
    let expected: Vec<_> = keys
        .iter()
        .map(|key| ("CHANGE_SET_ASIDE".to_owned(), (*key).to_owned()))
        .collect();
    assert_eq!(warnings(service), expected);
    let log = service.stderr();
    for key in keys {
        let mut lines = log.lines();
        let told = |line: &str| line.contains("CHANGE_SET_ASIDE") && line.contains(key);
        assert!(lines.any(told), "{key} in {log}");
    }
}

#[test]
fn a_change_of_what_is_gone_waits_for_its_return() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    let fields = json!({ "display_name": "changed" });
    tell(
        &service,
        "UpdateListener",
        &update("web", "display_name", &fields),
    );
    stop(&service, "web", "maintenance");
    let before = definitions(&service);
    let web =
        &FILES[FILES.find("[listeners.web]").unwrap()..FILES.find("[listeners.other]").unwrap()];
    let without = |text: &mut String| *text = text.replace(web, &"\n".repeat(4));
    let service = again_with(service, Signal::TERM, without, &[], &[]);
    assert_eq!(names(&service), ["other".to_owned()].into());
    is_set_aside(
        &service,
        &["listeners.web.desired_state", "listeners.web.display_name"],
    );
    // Other changes are made meanwhile.
    stop(&service, "other", "");
    tell(&service, "StartListener", &on("other", &json!({})));
    let service = again_with(
        service,
        Signal::KILL,
        |text| *text = FILES.to_owned(),
        &[],
        &[],
    );
    assert_eq!(definitions(&service), before);
    assert_eq!(warnings(&service), []);
}

#[test]
fn a_change_that_fits_no_more_waits_until_it_does() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    let fields = json!({ "display_name": "changed", "ack": { "reply": "bmV3" } });
    tell(
        &service,
        "UpdateListener",
        &update("web", "display_name,ack.reply", &fields),
    );
    let before = definitions(&service);
    let web = "protocol = \"ack\"\nbind = \"127.0.0.1:0\"\nreply = \"of the files\"";
    let other = "protocol = \"chat\"\nbind = \"127.0.0.1:0\"";
    let service = again_with(
        service,
        Signal::TERM,
        |text| *text = text.replace(web, other),
        &[],
        &[],
    );
    let shown = service.listener("web");
    assert!(
        !shown["chat"].is_null() && shown["ack"].is_null(),
        "{shown}"
    );
    // What fits both is in force.
    assert_eq!(shown["displayName"], "changed");
    is_set_aside(&service, &["listeners.web.reply"]);
    let service = again_with(
        service,
        Signal::KILL,
        |text| *text = text.replace(other, web),
        &[],
        &[],
    );
    assert_eq!(definitions(&service), before);
}

#[test]
fn a_change_that_the_files_outgrew_does_not_keep_the_process_from_starting() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    let open = json!({ "bind": "0.0.0.0:0", "limits": { "allow_cidrs": ["127.0.0.0/8"] } });
    tell(&service, "CreateListener", &ack("made", &open));
    let fields = json!({ "limits": { "max_message_bytes": 1_000_000 } });
    tell(
        &service,
        "UpdateListener",
        &update("web", "limits.max_message_bytes", &fields),
    );
    // A datagram carries no such message.
    let web = "protocol = \"ack\"\nbind = \"127.0.0.1:0\"\nreply = \"of the files\"";
    let udp = "protocol = \"uppercase\"\nbind = \"127.0.0.1:0\"";
    let service = again_with(
        service,
        Signal::KILL,
        |text| *text = text.replace(web, udp),
        &[],
        &[],
    );
    is_set_aside(&service, &["listeners.web.limits.max_message_bytes"]);
    let peer = service.peer("web");
    peer.send("hello");
    peer.expect("HELLO");
    assert_eq!(service.listener("made")["bind"], "0.0.0.0:0");
}

#[test]
fn a_shell_that_is_no_longer_allowed_is_set_aside() {
    if no_grpcurl() {
        return;
    }
    let shell =
        "[listeners.shell]\nprotocol = \"shell\"\nbind = \"127.0.0.1:0\"\nprograms = [\"true\"]\n";
    let service = Service::start(&format!("{FILES}{shell}[grpc]\nallow_shell = true\n"));
    let made = json!({ "listener_id": "made", "listener": {
        "bind": "127.0.0.1:0", "shell": { "policy": "POLICY_ANY" },
    } });
    tell(&service, "CreateListener", &made);
    let fields = json!({ "shell": { "policy": "POLICY_ANY" }, "limits": { "max_sessions": 3 } });
    let mask = "shell.policy,shell.programs,limits.max_sessions";
    tell(&service, "UpdateListener", &update("shell", mask, &fields));
    let service = again(service, Signal::KILL);
    assert_eq!(service.listener("shell")["shell"]["policy"], "POLICY_ANY");
    assert_eq!(service.listener("made")["state"], "STATE_ACTIVE");

    let forbidden =
        |text: &mut String| *text = text.replace("allow_shell = true", "allow_shell = false");
    let service = again_with(service, Signal::KILL, forbidden, &[], &[]);
    assert_eq!(
        names(&service),
        ["other", "shell", "web"].map(String::from).into()
    );
    is_set_aside(
        &service,
        &[
            "listeners.made",
            "listeners.shell.policy",
            "listeners.shell.programs",
        ],
    );
    let shown = service.listener("shell");
    assert_ne!(shown["shell"]["policy"], "POLICY_ANY");
    // To let in fewer is no right to run commands.
    assert_eq!(shown["limits"]["maxSessions"], 3);
    let ephemeral = lasting(made.clone(), "EPHEMERAL");
    let refused = ask(&service, "CreateListener", &ephemeral).unwrap_err();
    assert_eq!(
        (refused.code, refused.reason()),
        ("PERMISSION_DENIED", "SHELL_NOT_ALLOWED")
    );

    let allowed =
        |text: &mut String| *text = text.replace("allow_shell = false", "allow_shell = true");
    let service = again_with(service, Signal::TERM, allowed, &[], &[]);
    assert_eq!(service.listener("made")["state"], "STATE_ACTIVE");
    assert_eq!(service.listener("shell")["shell"]["policy"], "POLICY_ANY");
}

#[test]
fn what_passes_is_deleted_though_the_files_define_it_by_now_and_they_have_it_again_after_a_restart()
{
    if no_grpcurl() {
        return;
    }
    let service = Service::start(FILES);
    let made = json!({
        "listener_id": "late",
        "listener": { "bind": "127.0.0.1:0", "ack": {} },
        "persistence": "PERSISTENCE_EPHEMERAL",
    });
    tell(&service, "CreateListener", &made);
    let file = service.home().join("switchboard.toml");
    let late =
        "[listeners.late]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\nreply = \"of the files\"\n";
    std::fs::write(&file, format!("{FILES}{late}")).unwrap();
    service
        .grpcurl("ConfigService/ReloadConfig", &json!({}))
        .unwrap();
    let delete = json!({ "name": "late", "force": true });
    tell(&service, "DeleteListener", &delete);
    let gone = ask(&service, "GetListener", &json!({ "name": "late" })).unwrap_err();
    assert_eq!(gone.code, "NOT_FOUND");
    let service = again(service, Signal::TERM);
    assert_eq!(service.listener("late")["origin"]["layer"], "LAYER_FILE");
}
