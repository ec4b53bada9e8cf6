//! `switchboard listener`: the named doors.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::{Client, pages};
use super::exit::Failure;
use super::name::{id, qualified};
use super::output::{self, Format, Resource, View, legible};
use super::spec::{self, Fields};
use super::table::{Table, age, size, word};
use crate::grpc::api;
use crate::grpc::api::listener::{DesiredState, Protocol};

/// What to do with listeners.
#[derive(Debug, Args)]
pub(super) struct Verb {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List them all
    Ls {
        /// At most this many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Show one; everything about it with -o yaml
    Get { name: String },
    /// Define one and start it
    Create(Box<CreateArgs>),
    /// Bind it and take peers; one that runs already is left as it is
    Start { name: String },
    /// Close its door, let its sessions finish, then cut the rest
    Stop {
        name: String,
        /// How long sessions may finish; 0s cuts them at once, and the default is the service's own
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
        /// Why, for the audit trail
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Forget one that is stopped
    Delete {
        name: String,
        /// Even while it runs, closing its sessions
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// A lower-case letter, then letters, digits and hyphens; at most 63
    name: String,
    /// What is spoken there: ack, shell, uppercase or chat
    #[arg(long)]
    protocol: String,
    /// Where: host:port or [v6]:port; port 0 lets the kernel choose
    #[arg(long, value_name = "ADDRESS")]
    bind: String,
    #[command(flatten)]
    fields: Box<Fields>,
    /// Define it without starting it
    #[arg(long)]
    stopped: bool,
    /// Run every check and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Does it.
pub(super) async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb.action {
        Action::Ls { limit } => output::many(format, "listeners", &list(client, limit).await?),
        Action::Get { name } => {
            let asked = api::GetListenerRequest {
                name: qualified(&name),
            };
            let answer = client.call(client.listeners().get_listener(asked)).await?;
            output::answered(format, answer.listener)
        }
        Action::Create(args) => create(*args, client, format).await,
        Action::Start { name } => {
            let asked = api::StartListenerRequest {
                name: qualified(&name),
                ..Default::default()
            };
            let answer = client
                .call_with_grace(None, client.listeners().start_listener(asked))
                .await?;
            output::answered(format, answer.listener)
        }
        Action::Stop {
            name,
            grace,
            reason,
        } => {
            let asked = api::StopListenerRequest {
                name: qualified(&name),
                grace: spec::duration(grace)?,
                reason,
                ..Default::default()
            };
            let mut listeners = client.listeners();
            let sent = client.call_with_grace(grace, listeners.stop_listener(asked));
            output::answered(format, sent.await?.listener)
        }
        Action::Delete { name, force } => {
            let name = qualified(&name);
            let asked = api::DeleteListenerRequest {
                name: name.clone(),
                force,
                ..Default::default()
            };
            client
                .call_with_grace(None, client.listeners().delete_listener(asked))
                .await?;
            output::gone(format, &name)
        }
    }
}

async fn list(client: &Client, limit: Option<usize>) -> Result<Vec<api::Listener>, Failure> {
    pages(limit, async |page_size, page_token| {
        let asked = api::ListListenersRequest {
            page_size,
            page_token,
            ..Default::default()
        };
        let page = client
            .call(client.listeners().list_listeners(asked))
            .await?;
        Ok((page.listeners, page.next_page_token))
    })
    .await
}

async fn create(args: CreateArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let mut listener = spec::listener(&args.protocol, &args.bind, &args.fields.settings()?)?;
    if args.stopped {
        listener.set_desired_state(DesiredState::Stopped);
    }
    let asked = api::CreateListenerRequest {
        listener_id: id(&args.name).to_owned(),
        listener: Some(listener),
        validate_only: args.dry_run,
        ..Default::default()
    };
    let answer = client
        .call(Box::pin(client.listeners().create_listener(asked)))
        .await?;
    for warning in answer.warnings {
        eprintln!("warning: {}", legible(warning.message.as_bytes(), b"\\"));
    }
    if args.dry_run {
        eprintln!("dry run: nothing was changed");
    }
    output::answered(format, answer.listener)
}

impl Resource for api::Listener {
    const MESSAGE: &'static str = "Listener";

    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut columns = vec![
            "NAME",
            "PROTOCOL",
            "TRANSPORT",
            "BOUND",
            "STATE",
            "SESSIONS",
            "IN",
            "OUT",
            "REJECTED",
            "AGE",
        ];
        if view.wide {
            columns.extend(["DESIRED", "UID", "LAST-FAILURE"]);
        }
        let mut table = Table::new(&columns);
        for listener in items {
            let mut cells = listener.cells(view);
            if view.wide {
                let desired = listener.desired_state().as_str_name();
                let failure = listener.last_failure.as_ref();
                cells.push(word(desired, "DESIRED_STATE_"));
                cells.push(listener.uid.clone());
                cells.push(
                    failure.map_or_else(String::new, |f| format!("{}: {}", f.reason, f.message)),
                );
            }
            table.row(cells);
        }
        table
    }
}

impl api::Listener {
    fn cells(&self, view: &View) -> Vec<String> {
        let protocol = match self.protocol {
            Some(Protocol::Ack(_)) => "ack",
            Some(Protocol::Shell(_)) => "shell",
            Some(Protocol::Uppercase(_)) => "uppercase",
            Some(Protocol::Chat(_)) => "chat",
            None => "",
        };
        let status = self.status.clone().unwrap_or_default();
        let most = self.limits.as_ref().map_or(0, |limits| limits.max_sessions);
        let sessions = match (protocol, most) {
            ("uppercase", _) => String::new(),
            (_, 0) => status.active_sessions.to_string(),
            (_, most) => format!("{}/{most}", status.active_sessions),
        };
        // What is not bound shows where it would be, so that nobody has to ask twice.
        let place = if self.bound.is_empty() {
            &self.bind
        } else {
            &self.bound
        };
        vec![
            id(&self.name).to_owned(),
            protocol.to_owned(),
            word(self.transport().as_str_name(), "TRANSPORT_"),
            place.clone(),
            word(self.state().as_str_name(), "STATE_"),
            sessions,
            size(status.received_bytes),
            size(status.sent_bytes),
            rejected(&status).to_string(),
            age(self.create_time, view.now),
        ]
    }
}

/// Everything that was turned away: the reasons cover datagrams and messages too, which are no connections.
fn rejected(status: &api::ListenerStatus) -> u64 {
    let by_reason = status
        .rejected_by_reason
        .values()
        .fold(0u64, |sum, n| sum.saturating_add(*n));
    by_reason.max(status.rejected_connections)
}

#[cfg(test)]
mod tests {
    use super::super::table::Screen;
    use super::*;
    use crate::grpc::api::listener::State;
    use std::time::{SystemTime, UNIX_EPOCH};

    fn failed() -> api::Listener {
        api::Listener {
            name: "listeners/ack".into(),
            uid: "u1".into(),
            bind: "127.0.0.1:8080".into(),
            protocol: Some(Protocol::Ack(api::AckProtocol::default())),
            limits: Some(api::ListenerLimits {
                max_sessions: 10,
                ..Default::default()
            }),
            desired_state: DesiredState::Active.into(),
            state: State::Failed.into(),
            transport: api::Transport::Tcp.into(),
            status: Some(api::ListenerStatus {
                active_sessions: 2,
                sent_bytes: 2048,
                ..Default::default()
            }),
            last_failure: Some(api::FailureInfo {
                reason: "ADDRESS_IN_USE".into(),
                message: "taken".into(),
                ..Default::default()
            }),
            create_time: Some(prost_types::Timestamp {
                seconds: 40,
                nanos: 0,
            }),
            ..Default::default()
        }
    }

    fn text(wide: bool) -> String {
        let now: SystemTime = UNIX_EPOCH + Duration::from_secs(100);
        api::Listener::table(&[failed()], &View { wide, now }).render(&Screen::default())
    }

    #[test]
    fn a_row_says_what_matters() {
        let expected = "NAME  PROTOCOL  TRANSPORT  BOUND           STATE   SESSIONS  IN  OUT   REJECTED  AGE\n\
                        ack   ack       tcp        127.0.0.1:8080  failed  2/10      0B  2.0K  0         1m\n";
        assert_eq!(text(false), expected);
    }

    #[test]
    fn wide_says_why() {
        let text = text(true);
        assert!(text.contains("DESIRED  UID  LAST-FAILURE"), "{text}");
        assert!(
            text.contains("active   u1   ADDRESS_IN_USE: taken"),
            "{text}"
        );
    }
}
