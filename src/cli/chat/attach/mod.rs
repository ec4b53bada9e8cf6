//! `chat attach`: a seat at the desk, on a whole screen or line by line.
//!
//! Both have one model, [`desk`], and one way to the control plane, [`link`]; only what is between them and a person
//! differs.

mod act;
mod ask;
mod desk;
mod draft;
mod hear;
mod link;
mod manner;
mod plain;
mod press;
mod screen;
mod transcript;
mod view;
mod words;

use clap::Args;

use super::super::client::Client;
use super::super::complete;
use super::super::exit::{Failure, complain};
use super::super::name::parent;
use super::super::stage::unfit;
use super::Operator;
use crate::grpc::api;
use crate::grpc::api::attach_desk_request::Input;
use desk::{Desk, Seat};
use link::Link;

#[derive(Debug, Args)]
#[command(after_help = words::HELP)]
pub(super) struct AttachArgs {
    /// Whose desk; `-`, which is the default, for all of them
    #[arg(add = complete::listeners())]
    listener: Option<String>,
    #[command(flatten)]
    by: Operator,
    /// Only look on: claim and answer nothing
    #[arg(long)]
    read_only: bool,
    /// Line by line, for pipes and screen readers; so it is too when this is no terminal, or TERM is `dumb`
    #[arg(long)]
    plain: bool,
}

/// Sits down until the operator leaves.
pub(super) async fn attach(args: AttachArgs, client: &Client) -> Result<(), Failure> {
    let start = api::AttachStart {
        parent: parent(args.listener.as_deref()),
        operator: args.by.operator,
        read_only: args.read_only,
        ..Default::default()
    };
    let first = api::AttachDeskRequest {
        input: Some(Input::Start(start.clone())),
    };
    if client.printed(&first)? {
        return Ok(());
    }
    let desk = Desk::new(Seat {
        parent: start.parent.clone(),
        operator: start.operator.clone(),
        read_only: start.read_only,
        endpoint: client.url().to_owned(),
    });
    let why = unfit().filter(|_| !args.plain);
    if let Some(why) = why {
        complain(&format!("{why}; line by line, as with --plain:"));
    }
    let is_plain = args.plain || why.is_some();
    // What is asked before something must be known is never printed.
    let link = Link::new(&client.asking(), start);
    match is_plain {
        true => plain::run(desk, link).await,
        false => screen::run(desk, link).await,
    }
}

#[cfg(test)]
mod tests;
