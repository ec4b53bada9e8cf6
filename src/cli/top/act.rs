//! What can be done to what is looked at: asked first, with the command that would do the same.

use super::super::client::Client;
use super::super::exit::Failure;
use super::super::name::{id, listener};
use crate::grpc::api;
use crate::grpc::api::listener::State;

/// What is said in the audit trail.
const REASON: &str = "from switchboard top";

/// Something that can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Keeps new peers of a listener away.
    Pause(String),
    /// Ends that, or a drain.
    Resume(String),
    /// Binds one that is not, if it is still as it was looked at.
    Start { name: String, etag: String },
    /// Ends a listener's sessions without haste, then the listener.
    Drain(String),
    /// Ends a session.
    Close(String),
}

/// The same with the id by which its repetition is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) act: Act,
}

impl Act {
    /// What brings new peers in or keeps them away, whichever of both a listener's state allows.
    pub(super) fn toggled(of: &api::Listener) -> Self {
        let name = of.name.clone();
        match of.state() {
            State::Active => Self::Pause(name),
            State::Paused | State::Draining => Self::Resume(name),
            _ => Self::Start {
                etag: of.etag.clone(),
                name,
            },
        }
    }

    /// What it is asked about, in a few words.
    pub(super) fn question(&self) -> String {
        match self {
            Self::Pause(name) => format!("pause listener {}?", id(name)),
            Self::Resume(name) => format!("resume listener {}?", id(name)),
            Self::Start { name, .. } => format!("start listener {}?", id(name)),
            Self::Drain(name) => format!("drain listener {}?", id(name)),
            Self::Close(name) => format!("close session {} of {}?", id(name), listener(name)),
        }
    }

    /// What will happen then; `sessions` of the listener are open.
    pub(super) fn effect(&self, sessions: u32) -> String {
        match self {
            Self::Pause(_) => format!(
                "New peers wait in the kernel's queue until it is resumed; its {sessions} sessions go on."
            ),
            Self::Resume(_) => {
                "New peers are let in again; a drain ends, and who was not asked to leave stays."
                    .into()
            }
            Self::Start { .. } => "It is bound, and peers are let in.".into(),
            Self::Drain(_) => format!(
                "No new peers; its {sessions} sessions may leave by themselves, the rest is cut after \
                 the service's grace. Then it is stopped, until it is started."
            ),
            Self::Close(_) => {
                "It is given what it is owed, then closed; its peer may come again.".into()
            }
        }
    }

    /// The command that does the same.
    pub(super) fn command(&self, endpoint: &str) -> String {
        let (verb, name) = match self {
            Self::Pause(name) => ("listener pause", id(name)),
            Self::Resume(name) => ("listener resume", id(name)),
            Self::Start { name, .. } => ("listener start", id(name)),
            Self::Drain(name) => ("listener drain", id(name)),
            Self::Close(name) => ("session close", &**name),
        };
        let etag = match self {
            Self::Start { etag, .. } if !etag.is_empty() => {
                format!(" --etag {}", shell_words::quote(etag))
            }
            _ => String::new(),
        };
        let [name, endpoint] = [name, endpoint].map(shell_words::quote);
        format!("switchboard {verb} {name}{etag} --endpoint {endpoint}")
    }

    /// What was done.
    pub(super) fn done(&self) -> String {
        match self {
            Self::Pause(name) => format!("{} is paused", id(name)),
            Self::Resume(name) => format!("{} is resumed", id(name)),
            Self::Start { name, .. } => format!("{} is started", id(name)),
            Self::Drain(name) => format!("{} drains", id(name)),
            Self::Close(name) => format!("{} is closed", id(name)),
        }
    }

    /// Does it; with the same id, once.
    pub(super) async fn call(&self, client: &Client, id: &str) -> Result<(), Failure> {
        let (request_id, reason) = (id.to_owned(), REASON.to_owned());
        match self.clone() {
            Self::Pause(name) => {
                let asked = api::PauseListenerRequest {
                    name,
                    reason,
                    request_id,
                    ..Default::default()
                };
                client.call(asked).await.map(drop)
            }
            Self::Resume(name) => {
                let asked = api::ResumeListenerRequest { name, request_id };
                client.call(asked).await.map(drop)
            }
            Self::Start { name, etag } => {
                let asked = api::StartListenerRequest {
                    name,
                    etag,
                    request_id,
                };
                client.call(asked).await.map(drop)
            }
            Self::Drain(name) => {
                let asked = api::DrainListenerRequest {
                    name,
                    reason,
                    request_id,
                    ..Default::default()
                };
                client.call(asked).await.map(drop)
            }
            Self::Close(name) => {
                let asked = api::CloseSessionRequest {
                    name,
                    reason,
                    request_id,
                    ..Default::default()
                };
                client.call(asked).await.map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_says_what_can_be_done() {
        let of = |state: State| {
            Act::toggled(&api::Listener {
                name: "listeners/a".into(),
                etag: "e".into(),
                state: state.into(),
                ..Default::default()
            })
        };
        assert_eq!(of(State::Active), Act::Pause("listeners/a".into()));
        assert_eq!(of(State::Draining), Act::Resume("listeners/a".into()));
        let start = Act::Start {
            name: "listeners/a".into(),
            etag: "e".into(),
        };
        assert_eq!(of(State::Failed), start);
        assert_eq!(
            start.command("http://127.0.0.1:1"),
            "switchboard listener start a --etag e --endpoint http://127.0.0.1:1"
        );
    }

    #[test]
    fn a_command_stands_in_a_shell_as_it_is() {
        let close = Act::Close("listeners/a/sessions/n-1".into());
        assert_eq!(
            close.command("unix:/run/my sock"),
            "switchboard session close listeners/a/sessions/n-1 --endpoint 'unix:/run/my sock'"
        );
    }
}
