//! Who has a conversation, and whether its peer is heard: `claim`, `release`, `mute`, `unmute`.

use clap::Args;

use super::super::client::Client;
use super::super::complete;
use super::super::exit::Failure;
use super::super::mutation::Once;
use super::super::name::qualified;
use super::super::output::{self, Format};
use super::{Operator, Which, located};
use crate::grpc::api;

#[derive(Debug, Args)]
pub(super) struct ClaimArgs {
    /// A conversation's name or id; of a listener, the one that waits longest
    #[arg(value_name = "LISTENER|CONVERSATION", add = complete::desks())]
    of: String,
    /// Take it from whoever holds it; this is audited
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    by: Operator,
    #[command(flatten)]
    once: Once,
}

#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    once: Once,
}

#[derive(Debug, Args)]
pub(super) struct MuteArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    once: Once,
}

/// Takes one and shows it.
pub(super) async fn claim(args: ClaimArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let name = located(client, &args.of).await?;
    let asked = api::ClaimConversationRequest {
        name: name.unwrap_or_else(|| qualified(&args.of)),
        operator: args.by.operator,
        force: args.force,
        request_id: args.once.request_id,
    };
    output::answered(format, client.call(asked).await?.conversation)
}

/// Gives one back and shows it.
pub(super) async fn release(
    args: ReleaseArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let asked = api::ReleaseConversationRequest {
        name: args.which.locate(client).await?,
        request_id: args.once.request_id,
    };
    output::answered(format, client.call(asked).await?.conversation)
}

/// Stops listening to a peer, or listens again, and shows its conversation.
pub(super) async fn mute(
    args: MuteArgs,
    muted: bool,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let asked = api::MuteConversationRequest {
        name: args.which.locate(client).await?,
        muted,
        request_id: args.once.request_id,
    };
    output::answered(format, client.call(asked).await?.conversation)
}
