//! Listeners and services that end while commands run: what ends in time is answered, and nothing survives.

use std::fs;
use std::time::Duration;

use serde_json::json;

use super::super::shell::{Gate, processes};
use super::super::support::{Service, Talk, eventually, no_grpcurl};
use super::{gone_within, in_cages, launchers, mark, name, shell};

/// Two commands, of which one ends when its gate is opened, and the other never, whoever asks it to.
struct Pair {
    gate: Gate,
    answered: Talk,
    _lost: Talk,
    mark: String,
}

impl Pair {
    fn start(service: &Service, name: &str) -> Self {
        let (gate, mark) = (Gate::new(), mark());
        let (mut answered, mut lost) = (service.talk(name), service.talk(name));
        answered.send(gate.command());
        lost.send(format!(
            "trap '' TERM; : {mark}; (setsid sh -c 'sleep 100; : {mark}' &); sleep 100; :"
        ));
        gate.wait_for_command();
        eventually("it runs", || processes(&mark) >= 2);
        Self {
            gate,
            answered,
            _lost: lost,
            mark,
        }
    }

    /// One is answered, the other is gone.
    fn finish(mut self) {
        self.gate.open();
        assert_eq!(self.answered.frame().stdout, b"done\n");
        self.answered.expect_closed();
        gone_within(&self.mark, Duration::from_secs(4));
    }
}

/// Ends a listener or the service while commands run, which have a moment.
fn ended(how: &str, act: impl Fn(&Service, &str) + Sync) {
    in_cages(|cage| {
        let name = name();
        let toml = format!(
            "[shutdown]\ngrace = \"700ms\"\n{}",
            shell(&name, cage, "", "")
        );
        let service = Service::start(&toml);
        let pair = Pair::start(&service, &name);
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| act(&service, &name));
            pair.finish();
            ending.join().unwrap();
        });
        eventually(how, || launchers(&service).is_empty());
        drop(service);
        assert_eq!(
            super::traces(&name),
            Vec::<std::path::PathBuf>::new(),
            "{cage}: {how}"
        );
    });
}

#[test]
fn nothing_survives_a_stopped_listener() {
    if no_grpcurl() {
        return;
    }
    ended("stopped", |service, name| {
        let stop = json!({ "name": format!("listeners/{name}") });
        service
            .grpcurl("ListenerService/StopListener", &stop)
            .unwrap();
    });
}

#[test]
fn nothing_survives_a_deleted_listener() {
    if no_grpcurl() {
        return;
    }
    ended("deleted", |service, name| {
        let delete = json!({ "name": format!("listeners/{name}"), "force": true });
        service
            .grpcurl("ListenerService/DeleteListener", &delete)
            .unwrap();
    });
}

#[test]
fn nothing_survives_a_replaced_listener() {
    ended("replaced", |service, name| {
        let next = format!("[listeners.{name}]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n");
        fs::write(service.home().join("switchboard.toml"), next).unwrap();
        let reloaded = service.cli(&["config", "reload"], &[]);
        assert_eq!(reloaded.code, 0, "{}", reloaded.stderr);
    });
}

#[test]
fn nothing_survives_a_drained_service() {
    ended("drained", |service, _| service.terminate());
}
