//! `switchboard chat`: the operator's side of the desk.

mod attach;
mod claim;
mod history;
mod reply;
mod rows;

use clap::{Args, Subcommand};

use super::client::Client;
use super::complete;
use super::exit::{Failure, NOT_FOUND};
use super::list::{self, Selection};
use super::name::{ANY_LISTENER, id, parent, qualified};
use super::output::Format;
use super::watch;
use crate::grpc::api;
use attach::AttachArgs;
use claim::{ClaimArgs, MuteArgs, ReleaseArgs};
use history::HistoryArgs;
use reply::{BroadcastArgs, ReplyArgs};

/// What to do at the desk.
#[derive(Debug, Args)]
pub(super) struct Verb {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the conversations of one listener, or all: who waits longest first
    Inbox {
        #[arg(add = complete::listeners())]
        listener: Option<String>,
        #[command(flatten)]
        selection: Selection,
        /// Then a line for each change
        #[arg(short, long, conflicts_with_all = ["filter", "limit"])]
        watch: bool,
    },
    /// Show the inbox, then a line for each change, as `inbox --watch` does
    Watch {
        #[arg(add = complete::listeners())]
        listener: Option<String>,
    },
    /// Sit down at the desk: who waits, what was said, and a line to answer in
    Attach(AttachArgs),
    /// Take a conversation, or the one of a listener that waits longest; nobody else answers it meanwhile
    Claim(ClaimArgs),
    /// Answer a message
    Reply(ReplyArgs),
    /// Give a conversation back
    Release(ReleaseArgs),
    /// Say something to every session of a listener whose pace is free
    Broadcast(BroadcastArgs),
    /// Discard what a peer says
    Mute(MuteArgs),
    /// Listen to a peer again
    Unmute(MuteArgs),
    /// Show what was said in one conversation, or at a whole listener
    History(HistoryArgs),
}

/// One conversation.
#[derive(Debug, Args)]
struct Which {
    /// listeners/LISTENER/conversations/ID, or the id alone
    #[arg(add = complete::conversations())]
    conversation: String,
}

/// Who acts.
#[derive(Debug, Args)]
struct Operator {
    /// Who acts: the name that others see beside a claim and an answer
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    operator: String,
}

/// Does it.
pub(super) async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    if !matches!(verb.action, Action::History(_)) {
        format.not_export()?;
    }
    match verb.action {
        Action::Inbox {
            listener,
            watch: true,
            ..
        }
        | Action::Watch { listener } => {
            let asked = api::WatchConversationsRequest {
                parent: parent(listener.as_deref()),
                ..Default::default()
            };
            watch::show(client, format, asked).await
        }
        Action::Inbox {
            listener,
            selection,
            ..
        } => {
            let asked = api::ListConversationsRequest {
                parent: parent(listener.as_deref()),
                filter: selection.filter,
                ..Default::default()
            };
            list::show(client, format, &asked, selection.limit).await
        }
        Action::Attach(args) => attach::attach(args, client).await,
        Action::Claim(args) => claim::claim(args, client, format).await,
        Action::Reply(args) => reply::reply(args, client, format).await,
        Action::Release(args) => claim::release(args, client, format).await,
        Action::Broadcast(args) => reply::broadcast(args, client, format).await,
        Action::Mute(args) => claim::mute(args, true, client, format).await,
        Action::Unmute(args) => claim::mute(args, false, client, format).await,
        Action::History(args) => history::show(args, client, format).await,
    }
}

impl Which {
    /// The whole name; an id alone is looked for at every listener.
    async fn locate(&self, client: &Client) -> Result<String, Failure> {
        let typed = &self.conversation;
        let none = || Failure::Here(NOT_FOUND, format!("no conversation has the id {typed:?}"));
        located(client, typed).await?.ok_or_else(none)
    }
}

/// The conversation's whole name, when a conversation was named; an id alone is looked for at every listener.
async fn located(client: &Client, typed: &str) -> Result<Option<String>, Failure> {
    if let Some(name) = whole(typed) {
        return Ok(Some(name));
    }
    if typed.contains('/') {
        return Ok(None);
    }
    let asked = api::ListConversationsRequest {
        parent: ANY_LISTENER.to_owned(),
        ..Default::default()
    };
    let all = list::read(&client.asking(), &asked, None).await?;
    Ok(all
        .into_iter()
        .map(|conversation| conversation.name)
        .find(|name| id(name) == typed))
}

/// A conversation has the id of its session, and may be named by the session's name too.
fn whole(typed: &str) -> Option<String> {
    let session = typed.contains("/sessions/");
    (session || typed.contains("/conversations/"))
        .then(|| qualified(&typed.replacen("/sessions/", "/conversations/", 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_goes_by_its_sessions_name_too() {
        let name = "listeners/chat/conversations/n-1";
        for typed in [
            name,
            "chat/conversations/n-1",
            "listeners/chat/sessions/n-1",
        ] {
            assert_eq!(whole(typed).as_deref(), Some(name));
        }
        assert_eq!(whole("n-1"), None);
        assert_eq!(whole("listeners/chat"), None);
    }
}
