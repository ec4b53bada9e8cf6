//! `switchboard listener`: the named doors.

mod define;
mod rows;

use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::{Client, pages};
use super::exit::Failure;
use super::name::qualified;
use super::output::{self, Format};
use super::spec;
use crate::grpc::api;
use define::{CreateArgs, UpdateArgs};

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
    /// Change the settings that are named, lists as a whole; says when each takes effect
    Update(Box<UpdateArgs>),
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

/// Does it.
pub(super) async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb.action {
        Action::Ls { limit } => output::many(format, "listeners", &list(client, limit).await?),
        Action::Get { name } => output::answered(format, get(client, &name).await?),
        Action::Create(args) => define::create(*args, client, format).await,
        Action::Update(args) => define::update(*args, client, format).await,
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

async fn get(client: &Client, name: &str) -> Result<Option<api::Listener>, Failure> {
    let asked = api::GetListenerRequest {
        name: qualified(name),
    };
    let answer = client.call(client.listeners().get_listener(asked)).await?;
    Ok(answer.listener)
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
