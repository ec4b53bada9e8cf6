//! `switchboard audit`: who changed what, and who ran what.

mod commands;

use clap::{Args, Subcommand};

use super::client::Client;
use super::exit::Failure;
use super::list;
use super::output::{Format, Resource, View};
use super::table::{Table, age};
use crate::grpc::api;
use commands::CommandsArgs;

/// Which changes to show.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    trail: Option<Trail>,
    /// Only those for which this holds, such as 'resource = "listeners/ack"'
    #[arg(long, default_value = "", hide_default_value = true)]
    filter: String,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// A trail of something else than changes.
#[derive(Debug, Subcommand)]
enum Trail {
    /// Show what shell listeners were asked to run, and what became of it
    Commands(CommandsArgs),
}

/// Shows them, newest first.
pub(super) async fn run(args: AuditArgs, client: &Client, format: Format) -> Result<(), Failure> {
    if let Some(Trail::Commands(args)) = args.trail {
        return commands::list(args, client, format).await;
    }
    let asked = api::ListAuditEventsRequest {
        filter: args.filter,
        ..Default::default()
    };
    list::show(client, format, &asked, Some(args.limit)).await
}

impl Resource for api::AuditEvent {
    fn name(&self) -> String {
        self.resource.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut columns = vec!["AGE", "ACTOR", "METHOD", "RESOURCE", "STATUS"];
        if view.wide {
            columns.extend(["BEFORE", "AFTER", "TRACE"]);
        }
        columns.push("REASON");
        let mut table = Table::new(&columns);
        for event in items {
            let method = event.method.rsplit('/').next().unwrap_or_default();
            let mut cells = vec![
                age(event.event_time, view.now),
                event.actor.clone(),
                method.to_owned(),
                event.resource.clone(),
                event.status_code.clone(),
            ];
            if view.wide {
                cells.push(event.before_etag.clone());
                cells.push(event.after_etag.clone());
                cells.push(event.trace_id.clone());
            }
            cells.push(event.reason.clone());
            table.row(cells);
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
    fn a_change_says_who_what_and_why() {
        let event = api::AuditEvent {
            event_time: Some(prost_types::Timestamp {
                seconds: 40,
                nanos: 0,
            }),
            actor: "127.0.0.1:9".into(),
            method: "switchboard.v1.ListenerService/StopListener".into(),
            resource: "listeners/ack".into(),
            reason: "fire".into(),
            status_code: "OK".into(),
            before_etag: "e1".into(),
            ..Default::default()
        };
        let text = |wide| {
            let view = View {
                wide,
                watched: false,
                now: UNIX_EPOCH + Duration::from_secs(100),
            };
            api::AuditEvent::table(std::slice::from_ref(&event), &view).render(&Screen::default())
        };
        let expected = "AGE  ACTOR        METHOD        RESOURCE       STATUS  REASON\n\
                        1m   127.0.0.1:9  StopListener  listeners/ack  OK      fire\n";
        assert_eq!(text(false), expected);
        assert!(text(true).contains("OK      e1      -      -      fire\n"));
    }
}
