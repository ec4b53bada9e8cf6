//! `session close`: one session by its name, or many by what they have in common.
//!
//! Many are closed only with `--force`: without it the answer says how many there would be, and names some.

use std::time::Duration;

use clap::{ArgGroup, Args};

use super::super::client::Client;
use super::super::complete;
use super::super::exit::{Failure, complain};
use super::super::mutation::Why;
use super::super::name::parent;
use super::super::output::{self, Format};
use super::super::spec::duration;
use super::super::table::Table;
use super::Which;
use crate::grpc::api;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("of").args(["name", "filter"]).required(true)))]
pub(super) struct CloseArgs {
    /// listeners/LISTENER/sessions/ID, or the id alone
    #[arg(add = complete::sessions())]
    name: Option<String>,
    /// All for which this holds, as in `ls`; '*' for all
    #[arg(long)]
    filter: Option<String>,
    /// Only those of this listener
    #[arg(long, conflicts_with = "name", add = complete::listeners())]
    listener: Option<String>,
    /// Close what the filter finds, instead of saying what it finds
    #[arg(long, conflicts_with = "name")]
    force: bool,
    /// Say what the filter finds and close nothing, as without --force
    #[arg(long, conflicts_with_all = ["name", "force"])]
    dry_run: bool,
    /// Close none if there are more than this many
    #[arg(long, value_name = "N", conflicts_with = "name", value_parser = clap::value_parser!(i32).range(1..))]
    max: Option<i32>,
    /// Close them evenly over this long; by default together
    #[arg(long, value_name = "DURATION", conflicts_with = "name", value_parser = humantime::parse_duration)]
    pace: Option<Duration>,
    /// How long each may finish what it owes; 0s resets it now
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    why: Why,
}

/// Closes one and shows it, or many and says how many.
pub(super) async fn close(args: CloseArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let Some(name) = args.name.clone() else {
        return close_many(args, client, format).await;
    };
    let asked = api::CloseSessionRequest {
        name: Which { name }.locate(client).await?,
        grace: duration(args.grace)?,
        reason: args.why.reason,
        request_id: args.why.once.request_id,
    };
    let answer = client.call_with_grace(args.grace, asked).await?;
    output::answered(format, answer.session)
}

async fn close_many(args: CloseArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let force = args.force;
    let long = args.pace.unwrap_or_default() + args.grace.unwrap_or_default();
    let answer = client.call_with_grace(Some(long), args.request()?).await?;
    if format.is_document() {
        return output::whole(format, &answer);
    }
    let names = answer.close_sample.iter().cloned();
    output::rows(format, names, |_| sample(&answer.close_sample))?;
    let said = if force { "closed" } else { "would close" };
    let count = usize::try_from(answer.close_count).unwrap_or_default();
    complain(&match count.saturating_sub(answer.close_sample.len()) {
        0 => format!("{said} {count}"),
        more => format!("{said} {count}, {more} more than are shown"),
    });
    if !force {
        complain("nothing was closed; --force closes them");
    }
    Ok(())
}

impl CloseArgs {
    fn request(self) -> Result<api::CloseSessionsRequest, Failure> {
        Ok(api::CloseSessionsRequest {
            parent: parent(self.listener.as_deref()),
            filter: self.filter.unwrap_or_default(),
            force: self.force,
            max_closes: self.max.unwrap_or_default(),
            pace_over: duration(self.pace)?,
            grace: duration(self.grace)?,
            reason: self.why.reason,
            request_id: self.why.once.request_id,
        })
    }
}

fn sample(names: &[String]) -> Table {
    let mut table = Table::new(&["SESSION"]);
    for name in names {
        table.row([name.clone()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        close: CloseArgs,
    }

    fn typed(words: &[&str]) -> Result<CloseArgs, clap::Error> {
        let line = [&["close"], words].concat();
        Line::try_parse_from(line).map(|line| line.close)
    }

    #[test]
    fn many_are_closed_as_was_typed() {
        let filter = "peer : \"10.0.0.7\"";
        let words = [
            "--filter",
            filter,
            "--listener",
            "ack",
            "--force",
            "--max",
            "5",
            "--pace",
            "5s",
            "--grace",
            "0s",
            "--reason",
            "flood",
        ];
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let expected = api::CloseSessionsRequest {
            parent: "listeners/ack".into(),
            filter: filter.into(),
            force: true,
            max_closes: 5,
            pace_over: seconds(5),
            grace: seconds(0),
            reason: "flood".into(),
            ..Default::default()
        };
        assert_eq!(typed(&words).unwrap().request().unwrap(), expected);
        let preview = typed(&["--filter", "*"]).unwrap().request().unwrap();
        assert_eq!((&*preview.parent, preview.force), ("listeners/-", false));
    }

    #[test]
    fn one_or_many_and_not_both() {
        for words in [
            &[][..],
            &["x", "--filter", "*"],
            &["x", "--force"],
            &["--force"],
            &["--filter", "*", "--force", "--dry-run"],
            &["--filter", "*", "--max", "0"],
        ] {
            assert!(typed(words).is_err(), "{words:?}");
        }
    }
}
