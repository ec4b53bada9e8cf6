//! `session ban`, `unban` and `bans`: networks that are kept away.

use std::time::Duration;

use clap::Args;

use super::super::client::Client;
use super::super::complete;
use super::super::exit::{Failure, complain};
use super::super::list;
use super::super::mutation::{Once, Why};
use super::super::name::{ANY_LISTENER, id, parent};
use super::super::output::{self, Format, Resource, View};
use super::super::spec::duration;
use super::super::table::{Table, left};
use crate::grpc::api;

#[derive(Debug, Args)]
pub(super) struct BanArgs {
    /// A network or an address, such as 192.0.2.0/24
    network: String,
    /// Only from this listener; by default from all
    #[arg(long, add = complete::listeners())]
    listener: Option<String>,
    /// How long; by default until it is lifted
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    expire_after: Option<Duration>,
    /// Also close the sessions that come from there
    #[arg(long)]
    close: bool,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
pub(super) struct UnbanArgs {
    /// The network, as `bans` shows it
    #[arg(add = complete::networks())]
    network: String,
    /// The listener that it was banned from; by default the ban from all is lifted
    #[arg(long, add = complete::listeners())]
    listener: Option<String>,
    #[command(flatten)]
    once: Once,
}

#[derive(Debug, Args)]
pub(super) struct BansArgs {
    #[arg(add = complete::listeners())]
    listener: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Bans one, and shows the ban.
pub(super) async fn ban(args: BanArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let asked = api::BanSourceRequest {
        parent: parent(args.listener.as_deref()),
        cidr: args.network,
        expire_after: duration(args.expire_after)?,
        reason: args.why.reason,
        close_sessions: args.close,
        request_id: args.why.once.request_id,
    };
    let answer = client.call(asked).await?;
    if format.is_document() {
        return output::whole(format, &answer);
    }
    output::answered(format, answer.ban)?;
    if args.close {
        complain(&format!("closed {}", answer.close_count));
    }
    Ok(())
}

/// Lifts a ban.
pub(super) async fn unban(args: UnbanArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let asked = api::UnbanSourceRequest {
        parent: parent(args.listener.as_deref()),
        cidr: args.network.clone(),
        request_id: args.once.request_id,
    };
    client.call(asked).await?;
    // Lifting what does not stand succeeds too, so no more is known than this.
    let from = args.listener.as_deref().map_or("all listeners", id);
    output::gone(
        format,
        &format!("no ban from {from} stands:"),
        &args.network,
    )
}

/// Lists them.
pub(super) async fn list(args: BansArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let asked = api::ListBansRequest {
        parent: parent(args.listener.as_deref()),
        ..Default::default()
    };
    list::show(client, format, &asked, args.limit).await
}

impl Resource for api::Ban {
    fn name(&self) -> String {
        self.cidr.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut table = Table::new(&["NETWORK", "LISTENER", "ENDS-IN", "BY", "REASON"]);
        for ban in items {
            let listener = match &*ban.parent {
                ANY_LISTENER => "all",
                parent => id(parent),
            };
            let left = left(ban.expire_time, view.now);
            table.row([
                ban.cidr.clone(),
                listener.to_owned(),
                if left.is_empty() {
                    "never".to_owned()
                } else {
                    left
                },
                ban.actor.clone(),
                ban.reason.clone(),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::table::Screen;
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_ban_says_of_whom_until_when_and_why() {
        let ban = |parent: &str, seconds: Option<i64>| api::Ban {
            parent: parent.into(),
            cidr: "192.0.2.0/24".into(),
            expire_time: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
            reason: "flood".into(),
            actor: "me".into(),
        };
        let view = View {
            wide: false,
            watched: false,
            now: UNIX_EPOCH + Duration::from_secs(100),
        };
        let bans = [ban("listeners/-", None), ban("listeners/ack", Some(700))];
        let expected = "\
            NETWORK       LISTENER  ENDS-IN  BY  REASON\n\
            192.0.2.0/24  all       never    me  flood\n\
            192.0.2.0/24  ack       10m      me  flood\n";
        let text = api::Ban::table(&bans, &view).render(&Screen::default());
        assert_eq!(text, expected);
    }
}
