//! `switchboard chat`: the operator's side of the desk.

use std::io::Read;

use clap::{Args, Subcommand};

use super::client::Client;
use super::complete;
use super::exit::{Failure, NOT_FOUND, complain};
use super::list::{self, Selection};
use super::mutation::Once;
use super::name::{ANY_LISTENER, id, listener, parent, qualified};
use super::output::{self, Format, Resource, View, legible};
use super::table::{Table, age, word};
use super::watch;
use crate::grpc::api;
use crate::grpc::api::reply_conversation_request::Body;

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
    /// Answer a message
    Reply(ReplyArgs),
    /// Show what was said in one conversation, or at a whole listener
    History {
        /// A conversation's name or id, or a listener
        #[arg(value_name = "CONVERSATION|LISTENER", add = complete::conversations())]
        of: String,
        #[command(flatten)]
        selection: Selection,
    },
}

#[derive(Debug, Args)]
struct ReplyArgs {
    /// listeners/LISTENER/conversations/ID, or the id alone
    #[arg(add = complete::conversations())]
    conversation: String,
    /// The answer; `-` reads it from stdin
    text: String,
    /// The number of the message answered; the oldest unanswered one by default
    #[arg(
        long,
        value_name = "SEQUENCE",
        default_value_t = 0,
        hide_default_value = true
    )]
    to: u64,
    /// Who answers
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    operator: String,
    #[command(flatten)]
    once: Once,
}

/// Does it.
pub(super) async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
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
        Action::Reply(args) => reply(args, client, format).await,
        Action::History { of, selection } => {
            let name = locate(client, &of).await?;
            let parent = name.unwrap_or_else(|| format!("{}/conversations/-", qualified(&of)));
            let asked = api::ListMessagesRequest {
                parent,
                filter: selection.filter,
                ..Default::default()
            };
            list::show(client, format, &asked, selection.limit).await
        }
    }
}

async fn reply(args: ReplyArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let typed = &args.conversation;
    let name = locate(client, typed)
        .await?
        .ok_or_else(|| Failure::Here(NOT_FOUND, format!("no conversation has the id {typed:?}")))?;
    let asked = api::ReplyConversationRequest {
        name,
        body: Some(Body::Text(said(args.text)?)),
        in_reply_to: args.to,
        operator: args.operator,
        request_id: args.once.request_id,
    };
    let answer = client.call(asked).await?;
    for warning in answer.warnings {
        complain(&format!("warning: {}", legible(warning.as_bytes(), b"\\")));
    }
    output::answered(format, answer.message)
}

/// The conversation's whole name, when a conversation was named; an id alone is looked for at every listener.
async fn locate(client: &Client, typed: &str) -> Result<Option<String>, Failure> {
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

/// The text to send; `-` is stdin, without the line feed that an editor or `echo` ends it with.
fn said(text: String) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text);
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::error(format_args!("cannot read the answer: {error}")))?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

impl Resource for api::Conversation {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut table = Table::new(&[
            "CONVERSATION",
            "LISTENER",
            "FROM",
            "WAITING",
            "STATE",
            "UNANSWERED",
            "LAST",
        ]);
        for conversation in items {
            let last = conversation.last_message.as_ref();
            table.row([
                id(&conversation.name).to_owned(),
                listener(&conversation.name).to_owned(),
                conversation.peer.clone(),
                age(conversation.waiting_since_time, view.now),
                word(conversation.state().as_str_name(), "STATE_"),
                conversation.unanswered_messages.to_string(),
                last.map_or_else(String::new, |message| message.text.clone()),
            ]);
        }
        table
    }
}

impl Resource for api::ChatMessage {
    fn name(&self) -> String {
        self.conversation.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut table = Table::new(&["CONVERSATION", "SEQUENCE", "AGE", "AUTHOR", "TO", "TEXT"]);
        for message in items {
            let author = word(message.author().as_str_name(), "AUTHOR_");
            let author = match message.operator.as_str() {
                "" => author,
                operator => format!("{author}:{operator}"),
            };
            let to = message.in_reply_to;
            table.row([
                id(&message.conversation).to_owned(),
                message.sequence.to_string(),
                age(message.message_time, view.now),
                author,
                if to == 0 {
                    String::new()
                } else {
                    to.to_string()
                },
                message.text.clone(),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Screen;
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

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

    #[test]
    fn the_inbox_is_one_line_each_and_obeys_nobody() {
        let conversation = api::Conversation {
            name: "listeners/chat/conversations/n-1".into(),
            peer: "127.0.0.1:9".into(),
            state: api::conversation::State::Waiting.into(),
            waiting_since_time: Some(prost_types::Timestamp {
                seconds: 88,
                nanos: 0,
            }),
            unanswered_messages: 2,
            last_message: Some(api::ChatMessage {
                text: "hi\nthere \u{202e}\\u{1b}".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let view = View {
            wide: false,
            watched: false,
            now: UNIX_EPOCH + Duration::from_secs(100),
        };
        let text = api::Conversation::table(&[conversation], &view).render(&Screen::default());
        let expected = "CONVERSATION  LISTENER  FROM         WAITING  STATE    UNANSWERED  LAST\n\
                        n-1           chat      127.0.0.1:9  12s      waiting  2           hi\\nthere \\u{202e}\\u{1b}\n";
        assert_eq!(text, expected);
    }
}
