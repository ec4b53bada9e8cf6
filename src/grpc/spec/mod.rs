//! A listener's definition in the two vocabularies: every field that is wrong is named, and what
//! this version cannot obey is refused rather than passed over.

mod sandbox;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use tonic::Status;

use super::status::invalid_field;
use super::{Persistence, api};
use crate::net::{Address, Framing, Limits, PauseMode, Transport, parse_network};
use crate::protocol::{Fault, Protocol, ack, chat, shell, uppercase};
use crate::supervisor::{Desired, Spec, Violation};

pub(super) use sandbox::{isolation, show as show_sandbox};

/// Gathers what is wrong on the way.
#[derive(Default)]
struct Reader {
    violations: Vec<Violation>,
}

/// Reads a definition. Everything that is wrong comes at once: fields that cannot be read do not keep the others from
/// being checked.
pub(super) fn read(listener: api::Listener) -> Result<Spec, Vec<Violation>> {
    let mut reader = Reader::default();
    let spec = reader.spec(listener);
    if let Some(spec) = &spec {
        reader.obeyed(spec.limits.check(spec.protocol.transport()), "limits");
        let own = spec.protocol.check(spec.bind, &spec.limits);
        reader.obeyed(own, spec.protocol.word());
    }
    spec.filter(|_| reader.violations.is_empty())
        .ok_or(reader.violations)
}

/// Reads some fields of a definition, to be laid over another: only what cannot be read is wrong.
pub(super) fn read_part(listener: api::Listener) -> Result<Spec, Vec<Violation>> {
    let mut reader = Reader::default();
    let spec = reader.spec(listener);
    spec.filter(|_| reader.violations.is_empty())
        .ok_or(reader.violations)
}

/// Stands for an address that could not be read while the rest is checked.
const ANYWHERE: Address = Address(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)));

impl Reader {
    fn spec(&mut self, listener: api::Listener) -> Option<Spec> {
        let bind = listener.bind.parse().unwrap_or_else(|fault: String| {
            self.wrong::<()>("bind", fault);
            ANYWHERE
        });
        let limits = self.limits(listener.limits.unwrap_or_default());
        let desired_state = self.desired(listener.desired_state);
        let Some(protocol) = listener.protocol else {
            let words = Protocol::WORDS.join(", ");
            self.obeyed(limits.check(Transport::Tcp), "limits");
            return self.wrong("protocol", format!("one of {words} must be set"));
        };
        Some(Spec {
            bind,
            desired_state,
            pause_mode: PauseMode::default(),
            resume_time: None,
            display_name: listener.display_name,
            labels: listener.labels.into_iter().collect(),
            limits,
            protocol: self.protocol(protocol),
        })
    }

    fn wrong<T>(&mut self, field: &str, description: impl Into<String>) -> Option<T> {
        let field = format!("listener.{field}");
        self.violations.push(Violation {
            field,
            description: description.into(),
        });
        None
    }

    /// Values that can be read and not obeyed; their keys are as in files, where a protocol's keys
    /// stand beside the common ones.
    fn obeyed(&mut self, faults: Vec<Fault>, part: &str) {
        for (key, fault) in faults {
            let common = key == "bind" || key.starts_with("limits.");
            let field = if common {
                key.to_owned()
            } else {
                format!("{part}.{key}")
            };
            self.wrong::<()>(&field, fault);
        }
    }

    fn duration(&mut self, field: &str, asked: Option<prost_types::Duration>) -> Option<Duration> {
        match asked.map(Duration::try_from)? {
            Ok(duration) => Some(duration),
            Err(_) => self.wrong(field, "a duration is not negative"),
        }
    }

    /// A number that can be written down. One that cannot would pass for one that was left out.
    fn number(&mut self, field: &str, asked: f64) -> f64 {
        let finite = Some(asked).filter(|asked| asked.is_finite());
        let not = || self.wrong(field, format!("{asked} is not a finite number"));
        finite.or_else(not).unwrap_or_default()
    }

    /// The value of an enum; its unspecified one is the default.
    fn word<E: TryFrom<i32>, T: Default>(
        &mut self,
        field: &str,
        number: i32,
        read: impl FnOnce(E) -> Option<T>,
    ) -> T {
        match E::try_from(number) {
            Ok(word) => read(word).unwrap_or_default(),
            Err(_) => self
                .wrong(field, format!("{number} is no value of this enum"))
                .unwrap_or_default(),
        }
    }

    fn framing(&mut self, field: &str, number: i32) -> Option<Framing> {
        self.word(field, number, |word| match word {
            api::Framing::Unspecified => None,
            api::Framing::Raw => Some(Some(Framing::Raw)),
            api::Framing::Line => Some(Some(Framing::Line)),
            api::Framing::Length => Some(Some(Framing::Length)),
        })
    }

    fn desired(&mut self, desired: i32) -> Desired {
        use api::listener::DesiredState as D;
        match D::try_from(desired) {
            Ok(D::Unspecified | D::Active) => Desired::Active,
            Ok(D::Stopped) => Desired::Stopped,
            Ok(D::Paused) => Desired::Paused,
            Err(_) => self
                .wrong(
                    "desired_state",
                    format!("{desired} is no value of this enum"),
                )
                .unwrap_or_default(),
        }
    }

    fn limits(&mut self, asked: api::ListenerLimits) -> Limits {
        let mut allow_cidrs = Vec::new();
        for text in &asked.allow_cidrs {
            match parse_network(text) {
                Ok(network) => allow_cidrs.push(network),
                Err(fault) => drop(self.wrong::<()>("limits.allow_cidrs", fault)),
            }
        }
        Limits {
            max_sessions: asked.max_sessions,
            max_sessions_per_source: asked.max_sessions_per_source,
            max_accepts_per_second: self.number(
                "limits.max_accepts_per_second",
                asked.max_accepts_per_second,
            ),
            accept_backlog: asked.accept_backlog,
            idle_timeout: self
                .duration("limits.idle_timeout", asked.idle_timeout)
                .unwrap_or_default(),
            max_session_age: self
                .duration("limits.max_session_age", asked.max_session_age)
                .unwrap_or_default(),
            max_message_bytes: asked.max_message_bytes,
            max_message_rate: self.number("limits.max_message_rate", asked.max_message_rate),
            max_prefix_rate: self.number("limits.max_prefix_rate", asked.max_prefix_rate),
            outbox_bytes: asked.outbox_bytes,
            allow_cidrs,
        }
    }

    fn protocol(&mut self, protocol: api::listener::Protocol) -> Protocol {
        match protocol {
            api::listener::Protocol::Ack(asked) => Protocol::Ack(ack::Settings {
                framing: self
                    .framing("ack.framing", asked.framing)
                    .unwrap_or_default(),
                reply: asked.reply,
                once: asked.once,
            }),
            api::listener::Protocol::Uppercase(asked) => {
                use api::uppercase_protocol::Invalid as I;
                Protocol::Uppercase(uppercase::Settings {
                    invalid: self.word("uppercase.invalid", asked.invalid, |word| match word {
                        I::Unspecified | I::Drop => None,
                        I::Replace => Some(uppercase::Invalid::Replace),
                    }),
                    max_amplification: self
                        .number("uppercase.max_amplification", asked.max_amplification),
                })
            }
            api::listener::Protocol::Chat(asked) => Protocol::Chat(self.chat(asked)),
            api::listener::Protocol::Shell(asked) => Protocol::Shell(self.shell(asked)),
        }
    }

    fn chat(&mut self, asked: api::ChatProtocol) -> chat::Settings {
        use api::chat_protocol::Mode;
        let lease = self.duration("chat.claim_lease", asked.claim_lease);
        let after = self.duration("chat.unattended_after", asked.unattended_after);
        let transport = self.word("chat.transport", asked.transport, |word| match word {
            api::Transport::Unspecified | api::Transport::Tcp => None,
            api::Transport::Udp => Some(Some(Transport::Udp)),
        });
        chat::Settings {
            mode: self.word("chat.mode", asked.mode, |word| match word {
                Mode::Unspecified | Mode::Desk => None,
                Mode::Room => Some(chat::Mode::Room),
            }),
            transport: transport.unwrap_or(Transport::Tcp),
            pace: self.word("chat.pace", asked.pace, |word| match word {
                api::Pace::Unspecified | api::Pace::Lockstep => None,
                api::Pace::Free => Some(chat::Pace::Free),
            }),
            framing: self.framing("chat.framing", asked.framing),
            unattended_after: after.unwrap_or_default(),
            unattended_reply: asked.unattended_reply,
            encoding: asked.encoding,
            greeting: asked.greeting,
            claim_lease: lease.unwrap_or_default(),
            canned_replies: asked.canned_replies.into_iter().collect(),
        }
    }

    fn shell(&mut self, asked: api::ShellProtocol) -> shell::Settings {
        use api::shell_protocol::Policy;
        shell::Settings {
            policy: self.word("shell.policy", asked.policy, |word| match word {
                Policy::Unspecified | Policy::Programs => None,
                Policy::Any => Some(shell::Policy::Any),
            }),
            programs: asked.programs,
            command_timeout: self
                .duration("shell.command_timeout", asked.command_timeout)
                .unwrap_or_default(),
            max_output_bytes: asked.max_output_bytes,
            linger: self.duration("shell.linger", asked.linger),
            filename: asked.filename,
            output_encoding: asked.output_encoding,
            framing: self
                .framing("shell.framing", asked.framing)
                .unwrap_or_default(),
            raw_quiet: self
                .duration("shell.raw_quiet", asked.raw_quiet)
                .unwrap_or_default(),
            wait_for_background: asked.wait_for_background,
            audit_best_effort: asked.audit_best_effort,
            allow_cleartext: asked.allow_cleartext,
            queue_timeout: self.duration("shell.queue_timeout", asked.queue_timeout),
            sandbox: Box::new(self.sandbox(asked.sandbox.unwrap_or_default())),
        }
    }
}

/// Whether what is asked for is to outlive the process.
pub(super) fn persistence(number: i32) -> Result<Persistence, Status> {
    match api::Persistence::try_from(number) {
        Ok(api::Persistence::Durable) => Ok(Persistence::Durable),
        Ok(api::Persistence::Ephemeral) => Ok(Persistence::Ephemeral),
        Ok(api::Persistence::Unspecified) => Ok(Persistence::Unspecified),
        Err(_) => {
            let rule = format!("{number} is no value of this enum");
            Err(invalid_field("PERSISTENCE_INVALID", "persistence", rule))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(listener: api::Listener) -> Vec<String> {
        read(listener)
            .unwrap_err()
            .into_iter()
            .map(|v| v.field)
            .collect()
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let wrong = api::Listener {
            bind: "nowhere".into(),
            desired_state: 77,
            limits: Some(api::ListenerLimits {
                idle_timeout: Some(prost_types::Duration {
                    seconds: -1,
                    nanos: 0,
                }),
                allow_cidrs: vec!["10.0.0.0/40".into()],
                ..Default::default()
            }),
            protocol: Some(api::listener::Protocol::Ack(api::AckProtocol {
                framing: 9,
                ..Default::default()
            })),
            ..Default::default()
        };
        let mut named = fields(wrong);
        named.sort();
        assert_eq!(
            named,
            [
                "listener.ack.framing",
                "listener.bind",
                "listener.desired_state",
                "listener.limits.allow_cidrs",
                "listener.limits.idle_timeout"
            ]
        );
        assert_eq!(
            fields(api::Listener::default()),
            ["listener.bind", "listener.protocol"]
        );
    }

    fn shell(sandbox: api::Sandbox) -> api::Listener {
        api::Listener {
            bind: "127.0.0.1:0".into(),
            protocol: Some(api::listener::Protocol::Shell(api::ShellProtocol {
                policy: api::shell_protocol::Policy::Any.into(),
                sandbox: Some(sandbox),
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    #[test]
    fn a_cage_is_shown_as_it_was_asked_for_but_for_its_secrets() {
        let mut asked = api::Sandbox {
            run_as: "65534:65534".into(),
            working_directory: "/srv".into(),
            environment: [("TOKEN".into(), "hush".into())].into(),
            readable: vec!["/usr".into(), "/bin".into()],
            writable: vec!["/srv".into()],
            network: true,
            max_memory_bytes: 1 << 28,
            max_processes: 8,
            max_open_files: 32,
            max_cpu_time: Some(prost_types::Duration {
                seconds: 3,
                nanos: 0,
            }),
            max_concurrent_commands: 5,
            min_isolation: api::Isolation::Userns.into(),
            isolation: api::Isolation::Full.into(),
        };
        let spec = read(shell(asked.clone())).unwrap();
        asked.environment.insert("TOKEN".into(), "(set)".into());
        let api::listener::Protocol::Shell(shown) = super::super::show::protocol(&spec.protocol)
        else {
            panic!("no shell")
        };
        assert_eq!(shown.sandbox, Some(asked));
    }

    #[test]
    fn what_no_cage_can_be_is_named_by_its_field() {
        let wrong = api::Sandbox {
            run_as: "root".into(),
            working_directory: "srv".into(),
            environment: [("LD_PRELOAD".into(), "/x.so".into())].into(),
            writable: vec!["/".into()],
            max_open_files: 3,
            isolation: api::Isolation::Landlock.into(),
            min_isolation: api::Isolation::Full.into(),
            ..Default::default()
        };
        let mut named = fields(shell(wrong));
        named.sort();
        let sandbox = [
            "environment",
            "isolation",
            "max_open_files",
            "run_as",
            "working_directory",
            "writable",
        ];
        assert_eq!(
            named,
            sandbox.map(|f| format!("listener.shell.sandbox.{f}"))
        );
        let wrong = api::Sandbox {
            min_isolation: 9,
            ..Default::default()
        };
        assert_eq!(
            fields(shell(wrong)),
            ["listener.shell.sandbox.min_isolation"]
        );
    }

    #[test]
    fn what_is_read_is_shown_again() {
        let asked = api::listener::Protocol::Chat(api::ChatProtocol {
            mode: api::chat_protocol::Mode::Room.into(),
            transport: api::Transport::Tcp.into(),
            pace: api::Pace::Free.into(),
            framing: api::Framing::Line.into(),
            unattended_after: Some(prost_types::Duration {
                seconds: 5,
                nanos: 0,
            }),
            encoding: "gbk".into(),
            greeting: "hello".into(),
            ..Default::default()
        });
        let listener = api::Listener {
            bind: "127.0.0.1:0".into(),
            protocol: Some(asked.clone()),
            ..Default::default()
        };
        let spec = read(listener).unwrap();
        assert_eq!(spec.desired_state, Desired::Active);
        assert_eq!(super::super::show::protocol(&spec.protocol), asked);
    }
}
