//! `switchboard chat`: the operator's side of the desk.

use std::io::Read;

use clap::{Args, Subcommand};

use super::client::{Client, pages};
use super::exit::{Failure, NOT_FOUND};
use super::name::{ANY_LISTENER, id, listener, parent, qualified};
use super::output::{self, Format, Resource, View, legible};
use super::table::{Table, age, word};
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
        listener: Option<String>,
        /// At most this many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Answer a message
    Reply {
        /// listeners/LISTENER/conversations/ID, or the id alone
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
    },
    /// Show what was said in one conversation, or at a whole listener
    History {
        /// A conversation's name or id, or a listener
        #[arg(value_name = "CONVERSATION|LISTENER")]
        of: String,
        /// At most this many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
}

/// Does it.
pub(super) async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb.action {
        Action::Inbox { listener, limit } => {
            let all = conversations(client, &parent(listener.as_deref()), limit).await?;
            output::many(format, "conversations", &all)
        }
        Action::Reply {
            conversation,
            text,
            to,
            operator,
        } => {
            let found = locate(client, &conversation).await?;
            let name = found.ok_or_else(|| {
                Failure::Here(
                    NOT_FOUND,
                    format!("no conversation has the id {conversation:?}"),
                )
            })?;
            let asked = api::ReplyConversationRequest {
                name,
                body: Some(Body::Text(said(text)?)),
                in_reply_to: to,
                operator,
                ..Default::default()
            };
            let answer = client.call(client.chat().reply_conversation(asked)).await?;
            for warning in answer.warnings {
                eprintln!("warning: {}", legible(warning.as_bytes(), b"\\"));
            }
            let message = answer
                .message
                .ok_or_else(|| Failure::error("the answer holds no message"))?;
            output::one(format, &message)
        }
        Action::History { of, limit } => {
            let name = locate(client, &of).await?;
            let name = name.unwrap_or_else(|| format!("{}/conversations/-", qualified(&of)));
            output::many(format, "messages", &messages(client, &name, limit).await?)
        }
    }
}

async fn conversations(
    client: &Client,
    parent: &str,
    limit: Option<usize>,
) -> Result<Vec<api::Conversation>, Failure> {
    pages(limit, async |page_size, page_token| {
        let parent = parent.to_owned();
        let asked = api::ListConversationsRequest {
            parent,
            page_size,
            page_token,
            ..Default::default()
        };
        let page = client.call(client.chat().list_conversations(asked)).await?;
        Ok((page.conversations, page.next_page_token))
    })
    .await
}

async fn messages(
    client: &Client,
    parent: &str,
    limit: Option<usize>,
) -> Result<Vec<api::ChatMessage>, Failure> {
    pages(limit, async |page_size, page_token| {
        let parent = parent.to_owned();
        let asked = api::ListMessagesRequest {
            parent,
            page_size,
            page_token,
            ..Default::default()
        };
        let page = client.call(client.chat().list_messages(asked)).await?;
        Ok((page.messages, page.next_page_token))
    })
    .await
}

/// The conversation's whole name, when a conversation was named; an id alone is looked for at every listener.
async fn locate(client: &Client, typed: &str) -> Result<Option<String>, Failure> {
    if let Some(name) = whole(typed) {
        return Ok(Some(name));
    }
    if typed.contains('/') {
        return Ok(None);
    }
    let all = conversations(client, ANY_LISTENER, None).await?;
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
    const MESSAGE: &'static str = "Conversation";

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
    const MESSAGE: &'static str = "ChatMessage";

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
            now: UNIX_EPOCH + Duration::from_secs(100),
        };
        let text = api::Conversation::table(&[conversation], &view).render(&Screen::default());
        let expected = "CONVERSATION  LISTENER  FROM         WAITING  STATE    UNANSWERED  LAST\n\
                        n-1           chat      127.0.0.1:9  12s      waiting  2           hi\\nthere \\u{202e}\\u{1b}\n";
        assert_eq!(text, expected);
    }
}
