//! `switchboard audit commands`: what shell listeners were asked to run.

use std::time::Duration;

use clap::Args;

use super::super::client::Client;
use super::super::complete;
use super::super::exit::{Failure, complain};
use super::super::list;
use super::super::name::{ANY_LISTENER, id, listener, parent, qualified};
use super::super::output::{Format, Resource, View};
use super::super::table::{Table, age, size, span};
use crate::grpc::api;

/// Which commands to show.
#[derive(Debug, Args)]
pub(super) struct CommandsArgs {
    /// Only those of this listener
    #[arg(long, value_name = "NAME", add = complete::listeners())]
    listener: Option<String>,
    /// Only those of this session: listeners/LISTENER/sessions/ID, or the id alone
    #[arg(long, value_name = "NAME", conflicts_with = "listener", add = complete::sessions())]
    session: Option<String>,
    /// Only those for which this holds, such as 'command : "rm" AND exit_code = 0'
    #[arg(long, default_value = "", hide_default_value = true)]
    filter: String,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// Shows them, newest first.
pub(super) async fn list(
    args: CommandsArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let parent = match args.session {
        Some(session) if session.contains('/') => qualified(&session),
        Some(id) => format!("{ANY_LISTENER}/sessions/{id}"),
        None => parent(args.listener.as_deref()),
    };
    let asked = api::ListCommandsRequest {
        parent,
        filter: args.filter,
        ..Default::default()
    };
    list::show(client, format, &asked, Some(args.limit)).await?;
    let info = client.call(api::GetServerInfoRequest {}).await?;
    if !info.capabilities.iter().any(|word| word == "store") {
        complain("the store is in memory: commands are forgotten with the process");
    }
    Ok(())
}

impl Resource for api::CommandRecord {
    /// That of the session which sent it; it has none of its own.
    fn name(&self) -> String {
        self.session.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut columns = vec!["AGE", "LISTENER", "PEER", "TOOK", "END"];
        if view.wide {
            columns.extend(["OUT", "ERR", "SESSION", "TRACE"]);
        }
        columns.push("COMMAND");
        let mut table = Table::new(&columns);
        for record in items {
            let took = record
                .duration
                .and_then(|took| Duration::try_from(took).ok());
            let mut cells = vec![
                age(record.start_time, view.now),
                listener(&record.session).to_owned(),
                record.peer.clone(),
                took.map(span).unwrap_or_default(),
                record.end(),
            ];
            if view.wide {
                cells.push(size(record.stdout_bytes));
                cells.push(size(record.stderr_bytes));
                cells.push(id(&record.session).to_owned());
                cells.push(record.trace_id.clone());
            }
            cells.push(record.command.clone());
            table.row(cells);
        }
        table
    }
}

impl api::CommandRecord {
    /// What became of it: `0`, `SIGKILL (timed out)`, `refused: busy`; empty while that is not known.
    fn end(&self) -> String {
        if !self.refused.is_empty() {
            return format!("refused: {}", self.refused);
        }
        let mut end = match self.exit_code {
            Some(code) => code.to_string(),
            None => self.signal.clone(),
        };
        if self.timed_out {
            end.push_str(" (timed out)");
        }
        if self.truncated {
            end.push_str(" (cut)");
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::table::Screen;
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_command_says_who_sent_it_and_what_became_of_it() {
        let record = |end: api::CommandRecord| api::CommandRecord {
            session: "listeners/shell/sessions/n-1".into(),
            peer: "127.0.0.1:9".into(),
            start_time: Some(prost_types::Timestamp {
                seconds: 40,
                nanos: 0,
            }),
            command: "id\\n".into(),
            ..end
        };
        let took = Some(prost_types::Duration {
            seconds: 2,
            nanos: 0,
        });
        let records = [
            api::CommandRecord::default(),
            api::CommandRecord {
                duration: took,
                exit_code: Some(0),
                ..Default::default()
            },
            api::CommandRecord {
                duration: took,
                signal: "SIGKILL".into(),
                timed_out: true,
                ..Default::default()
            },
            api::CommandRecord {
                refused: "busy".into(),
                ..Default::default()
            },
        ]
        .map(record);
        let view = View {
            wide: false,
            watched: false,
            now: UNIX_EPOCH + Duration::from_secs(100),
        };
        let shown = api::CommandRecord::table(&records, &view).render(&Screen::default());
        let expected = "AGE  LISTENER  PEER         TOOK  END                  COMMAND\n\
                        1m   shell     127.0.0.1:9  -     -                    id\\n\n\
                        1m   shell     127.0.0.1:9  2s    0                    id\\n\n\
                        1m   shell     127.0.0.1:9  2s    SIGKILL (timed out)  id\\n\n\
                        1m   shell     127.0.0.1:9  -     refused: busy        id\\n\n";
        assert_eq!(shown, expected);
    }
}
