//! What is said to peers: `reply` to one, `broadcast` to all of a listener.

use std::io::Read;

use clap::Args;

use super::super::client::Client;
use super::super::complete;
use super::super::exit::{Failure, complain};
use super::super::mutation::Once;
use super::super::name::qualified;
use super::super::output::{self, Format, legible};
use super::super::table::Table;
use super::{Operator, Which};
use crate::grpc::api;
use crate::grpc::api::reply_conversation_request::Body;

#[derive(Debug, Args)]
pub(super) struct ReplyArgs {
    #[command(flatten)]
    which: Which,
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
    #[command(flatten)]
    by: Operator,
    #[command(flatten)]
    once: Once,
}

#[derive(Debug, Args)]
pub(super) struct BroadcastArgs {
    /// Whose sessions
    #[arg(add = complete::listeners())]
    listener: String,
    /// What to say; `-` reads it from stdin
    text: String,
    #[command(flatten)]
    by: Operator,
    #[command(flatten)]
    once: Once,
}

/// Answers, and shows the answer as it was taken.
pub(super) async fn reply(args: ReplyArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let asked = api::ReplyConversationRequest {
        name: args.which.locate(client).await?,
        body: Some(Body::Text(said(args.text)?)),
        in_reply_to: args.to,
        operator: args.by.operator,
        request_id: args.once.request_id,
    };
    let answer = client.call(asked).await?;
    for warning in answer.warnings {
        complain(&format!("warning: {}", legible(warning.as_bytes(), b"\\")));
    }
    output::answered(format, answer.message)
}

/// Says it, and how many it went to.
pub(super) async fn broadcast(
    args: BroadcastArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let parent = qualified(&args.listener);
    let asked = api::BroadcastRequest {
        parent: parent.clone(),
        text: said(args.text)?,
        operator: args.by.operator,
        request_id: args.once.request_id,
    };
    let answer = client.call(asked).await?;
    if format.is_document() {
        return output::whole(format, &answer);
    }
    output::rows(format, [parent.clone()], |_| {
        let mut table = Table::new(&["LISTENER", "RECIPIENTS"]);
        table.row([args.listener.clone(), answer.recipients.to_string()]);
        table
    })
}

/// The text to send; `-` is stdin, without the line feed that an editor or `echo` ends it with.
fn said(text: String) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text);
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::error(format_args!("cannot read the text: {error}")))?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}
