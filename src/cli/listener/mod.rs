//! `switchboard listener`: the named doors.

mod define;
mod flow;
mod rows;

use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::Client;
use super::complete;
use super::exit::{Failure, complain};
use super::list::{self, Selection};
use super::mutation::{Once, Why};
use super::name::qualified;
use super::output::{self, Format};
use super::spec::duration;
use super::watch;
use crate::grpc::api;
use define::{CreateArgs, UpdateArgs};
use flow::{DrainArgs, PauseArgs, WaitArgs};

/// What to do with listeners.
#[derive(Debug, Args)]
pub(super) struct Verb {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List them
    Ls(LsArgs),
    /// Show one; everything about it with -o yaml
    Get {
        #[command(flatten)]
        which: Which,
        /// Then a line for each change, until it is deleted
        #[arg(short, long)]
        watch: bool,
    },
    /// Define one and start it
    Create(Box<CreateArgs>),
    /// Change the settings that are named, lists as a whole; says when each takes effect
    Update(Box<UpdateArgs>),
    /// Forget one that is stopped
    Delete(DeleteArgs),
    /// Bind it and take peers; one that runs already is left as it is
    Start {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        etag: Etag,
        #[command(flatten)]
        once: Once,
    },
    /// Close its door, let its sessions finish, then cut the rest
    Stop(StopArgs),
    /// Keep new peers away; sessions go on
    Pause(PauseArgs),
    /// Let new peers in again: ends a pause, and a drain that has not finished
    Resume {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        once: Once,
    },
    /// Keep new peers away and end the sessions without haste; `wait` waits for the end
    Drain(DrainArgs),
    /// Wait until something holds, an hour at most; exits with 5 when it does not within --timeout
    Wait(WaitArgs),
    /// Show them all, then a line for each change, as `ls --watch` does
    Watch(WatchArgs),
}

/// One listener.
#[derive(Debug, Args)]
struct Which {
    /// Its name, with or without listeners/
    #[arg(add = complete::listeners())]
    name: String,
}

impl Which {
    fn name(&self) -> String {
        qualified(&self.name)
    }
}

#[derive(Debug, Args)]
struct Etag {
    /// Only if the listener still has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

#[derive(Debug, Args)]
struct LsArgs {
    #[command(flatten)]
    selection: Selection,
    /// Fields to sort by, such as 'status.active_sessions desc, name'
    #[arg(
        long,
        value_name = "FIELDS",
        default_value = "",
        hide_default_value = true
    )]
    order_by: String,
    /// Then a line for each change
    #[arg(short, long, conflicts_with_all = ["limit", "order_by"])]
    watch: bool,
    /// How often a change of the counters alone is told; by default never
    #[arg(long, value_name = "DURATION", requires = "watch", value_parser = humantime::parse_duration)]
    interval: Option<Duration>,
}

#[derive(Debug, Args)]
struct WatchArgs {
    /// Only those for which this holds, as in `ls`
    #[arg(long, default_value = "", hide_default_value = true)]
    filter: String,
    /// How often a change of the counters alone is told; by default never
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    interval: Option<Duration>,
}

#[derive(Debug, Args)]
struct StopArgs {
    #[command(flatten)]
    which: Which,
    /// How long sessions may finish; 0s cuts them at once, and the default is the service's own
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    etag: Etag,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    #[command(flatten)]
    which: Which,
    /// Even while it runs, closing its sessions
    #[arg(long)]
    force: bool,
    /// Run every check and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    etag: Etag,
    #[command(flatten)]
    once: Once,
}

/// Does it.
pub(super) async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb.action {
        Action::Ls(args) => ls(args, client, format).await,
        Action::Get { which, watch: true } => {
            let name = which.name();
            let asked = api::WatchListenersRequest {
                filter: format!("name = {name:?}"),
                ..Default::default()
            };
            watch::show_one(client, format, asked, &name).await
        }
        Action::Get { which, .. } => output::answered(format, get(client, which.name()).await?),
        Action::Create(args) => define::create(*args, client, format).await,
        Action::Update(args) => define::update(*args, client, format).await,
        Action::Delete(args) => delete(args, client, format).await,
        Action::Start { which, etag, once } => {
            let asked = api::StartListenerRequest {
                name: which.name(),
                etag: etag.etag,
                request_id: once.request_id,
            };
            let answer = client.call_with_grace(None, asked).await?;
            output::answered(format, answer.listener)
        }
        Action::Stop(args) => {
            let asked = api::StopListenerRequest {
                name: args.which.name(),
                etag: args.etag.etag,
                grace: duration(args.grace)?,
                reason: args.why.reason,
                request_id: args.why.once.request_id,
            };
            let answer = client.call_with_grace(args.grace, asked).await?;
            output::answered(format, answer.listener)
        }
        Action::Pause(args) => flow::pause(args, client, format).await,
        Action::Resume { which, once } => {
            let asked = api::ResumeListenerRequest {
                name: which.name(),
                request_id: once.request_id,
            };
            output::answered(format, client.call(asked).await?.listener)
        }
        Action::Drain(args) => flow::drain(args, client, format).await,
        Action::Wait(args) => flow::wait(args, client, format).await,
        Action::Watch(args) => watch(args.filter, args.interval, client, format).await,
    }
}

async fn ls(args: LsArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let Selection { filter, limit } = args.selection;
    if args.watch {
        return watch(filter, args.interval, client, format).await;
    }
    let asked = api::ListListenersRequest {
        filter,
        order_by: args.order_by,
        ..Default::default()
    };
    list::show(client, format, &asked, limit).await
}

async fn watch(
    filter: String,
    interval: Option<Duration>,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let asked = api::WatchListenersRequest {
        filter,
        status_interval: duration(interval)?,
        ..Default::default()
    };
    watch::show(client, format, asked).await
}

async fn delete(args: DeleteArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let name = args.which.name();
    let asked = api::DeleteListenerRequest {
        name: name.clone(),
        etag: args.etag.etag,
        force: args.force,
        validate_only: args.dry_run,
        request_id: args.once.request_id,
    };
    client.call_with_grace(None, asked).await?;
    if args.dry_run {
        complain("dry run: nothing was changed");
        return output::gone(format, "would delete", &name);
    }
    output::gone(format, "deleted", &name)
}

async fn get(client: &Client, name: String) -> Result<Option<api::Listener>, Failure> {
    let asked = api::GetListenerRequest { name };
    Ok(client.call(asked).await?.listener)
}
