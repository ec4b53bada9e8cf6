//! `switchboard session`: who is there, who is sent away, and who is kept away.

mod bans;
mod close;
mod rows;
mod tap;

use clap::{Args, Subcommand};

use super::client::Client;
use super::complete;
use super::exit::{Failure, NOT_FOUND};
use super::list::{self, Selection};
use super::name::{ANY_LISTENER, id, listener, parent, qualified};
use super::output::{self, Format};
use super::watch;
use crate::grpc::api;
use crate::grpc::api::SessionView;
use bans::{BanArgs, BansArgs, UnbanArgs};
use close::CloseArgs;
use tap::TapArgs;

/// What to do with sessions.
#[derive(Debug, Args)]
pub(super) struct Verb {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List those of one listener, or all
    Ls(LsArgs),
    /// Show one; everything about it with -o yaml
    Get {
        #[command(flatten)]
        which: Which,
        /// Then a line when it ends
        #[arg(short, long)]
        watch: bool,
    },
    /// End one, or all that a filter finds
    Close(CloseArgs),
    /// Show those of one listener, or all, then a line for each change, as `ls --watch` does
    Watch {
        #[arg(add = complete::listeners())]
        listener: Option<String>,
        /// Only those for which this holds, as in `ls`
        #[arg(long, default_value = "", hide_default_value = true)]
        filter: String,
    },
    /// Copy what crosses one session's socket: when and how much, and with --payload what
    Tap(TapArgs),
    /// Keep a network away
    Ban(BanArgs),
    /// Let a network in again
    Unban(UnbanArgs),
    /// List the networks that are kept away
    Bans(BansArgs),
}

/// One session.
#[derive(Debug, Args)]
struct Which {
    /// listeners/LISTENER/sessions/ID, or the id alone
    #[arg(add = complete::sessions())]
    name: String,
}

#[derive(Debug, Args)]
struct LsArgs {
    #[arg(add = complete::listeners())]
    listener: Option<String>,
    /// Also those that closed lately, with the reason
    #[arg(long)]
    closed: bool,
    #[command(flatten)]
    selection: Selection,
    /// Fields to sort by, such as 'send_queue_bytes desc, open_time'
    #[arg(
        long,
        value_name = "FIELDS",
        default_value = "",
        hide_default_value = true
    )]
    order_by: String,
    /// Then a line for each change
    #[arg(short, long, conflicts_with_all = ["limit", "order_by", "closed"])]
    watch: bool,
}

/// Does it.
pub(super) async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb.action {
        Action::Ls(args) => ls(args, client, format).await,
        Action::Get { which, watch } => get(&which, watch, client, format).await,
        Action::Close(args) => close::close(args, client, format).await,
        Action::Watch { listener, filter } => {
            watch(parent(listener.as_deref()), filter, client, format).await
        }
        Action::Tap(args) => tap::tap(args, client, format).await,
        Action::Ban(args) => bans::ban(args, client, format).await,
        Action::Unban(args) => bans::unban(args, client, format).await,
        Action::Bans(args) => bans::list(args, client, format).await,
    }
}

async fn ls(args: LsArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let parent = parent(args.listener.as_deref());
    let Selection { filter, limit } = args.selection;
    if args.watch {
        return watch(parent, filter, client, format).await;
    }
    let asked = api::ListSessionsRequest {
        parent,
        filter,
        order_by: args.order_by,
        view: view(format).into(),
        show_closed: args.closed,
        ..Default::default()
    };
    list::show(client, format, &asked, limit).await
}

async fn get(which: &Which, watched: bool, client: &Client, format: Format) -> Result<(), Failure> {
    let name = which.locate(client).await?;
    if watched {
        let asked = api::WatchSessionsRequest {
            parent: qualified(listener(&name)),
            filter: format!("name = {name:?}"),
            ..Default::default()
        };
        return watch::show_one(client, format, asked, &name).await;
    }
    let asked = api::GetSessionRequest {
        name,
        view: view(format).into(),
    };
    output::answered(format, client.call(asked).await?.session)
}

async fn watch(
    parent: String,
    filter: String,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let asked = api::WatchSessionsRequest {
        parent,
        filter,
        ..Default::default()
    };
    watch::show(client, format, asked).await
}

/// What the kernel says costs a system call each: only where it is shown.
fn view(format: Format) -> SessionView {
    match format {
        Format::Wide | Format::Json | Format::Yaml => SessionView::Full,
        _ => SessionView::Unspecified,
    }
}

impl Which {
    /// The whole name; an id alone is looked for at every listener, among those that closed lately too.
    async fn locate(&self, client: &Client) -> Result<String, Failure> {
        let typed = &self.name;
        if typed.contains('/') {
            return Ok(qualified(typed));
        }
        let asked = api::ListSessionsRequest {
            parent: ANY_LISTENER.to_owned(),
            filter: format!("name : {:?}", format!("/sessions/{typed}")),
            show_closed: true,
            ..Default::default()
        };
        let found = list::read(&client.asking(), &asked, None).await?;
        let mut names = found.into_iter().map(|session| session.name);
        let found = names.find(|name| id(name) == typed);
        found.ok_or_else(|| Failure::Here(NOT_FOUND, format!("no session has the id {typed:?}")))
    }
}
