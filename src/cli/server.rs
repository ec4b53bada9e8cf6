//! `switchboard server`: the process itself.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use super::client::Client;
use super::exit::{Failure, complain};
use super::mutation::{Once, Why};
use super::output::{self, Format, Resource, View, legible, print};
use super::spec::duration;
use super::table::{Table, age, word};
use crate::grpc::api;

/// What to do with the process.
#[derive(Debug, Args)]
pub(super) struct Verb {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show its version, its age and what it has left
    Info,
    /// Change what is logged, for a time or for good; says what was logged before
    Log {
        /// A level, or TARGET=LEVEL with commas between, such as info,switchboard::net=debug
        directive: String,
        /// Go back by itself after this long
        #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
        revert_after: Option<Duration>,
        #[command(flatten)]
        once: Once,
    },
    /// End it, as SIGTERM does: drain, then leave; answers at once
    Shutdown {
        /// How long sessions may finish; 0s cuts them at once, and the default is the service's own
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
        #[command(flatten)]
        why: Why,
    },
}

/// Does it.
pub(super) async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb.action {
        Action::Info => {
            let info = client.call(api::GetServerInfoRequest {}).await?;
            output::one(format, &info)
        }
        Action::Log {
            directive,
            revert_after,
            once,
        } => {
            let asked = api::SetLogFilterRequest {
                directive,
                revert_after: duration(revert_after)?,
                request_id: once.request_id,
            };
            let answer = client.call(asked).await?;
            if format.is_document() {
                return output::whole(format, &answer);
            }
            // Alone on stdout, so that a script can put it back.
            print(&(legible(answer.previous_directive.as_bytes(), b"") + "\n"))
        }
        Action::Shutdown { grace, why } => {
            let asked = api::ShutdownServerRequest {
                grace: duration(grace)?,
                reason: why.reason,
                request_id: why.once.request_id,
            };
            let answer = client.call(asked).await?;
            if format.is_document() {
                return output::whole(format, &answer);
            }
            let end = answer
                .deadline_time
                .and_then(|end| SystemTime::try_from(end).ok());
            let left = end.and_then(|end| end.duration_since(SystemTime::now()).ok());
            let left = left.unwrap_or_default().as_secs_f64().ceil();
            complain(&format!("going; what is left in {left}s is cut"));
            Ok(())
        }
    }
}

impl Resource for api::GetServerInfoResponse {
    fn name(&self) -> String {
        self.instance_id.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut table = Table::new(&["FACT", "VALUE"]);
        for info in items {
            let descriptors = format!(
                "{}/{}",
                info.file_descriptors_used, info.file_descriptors_limit
            );
            for (fact, value) in [
                ("version", info.version.clone()),
                ("instance", info.instance_id.clone()),
                ("up", age(info.start_time, view.now)),
                ("configuration", info.config_revision.clone()),
                ("descriptors", descriptors),
                ("capabilities", info.capabilities.join(", ")),
                (
                    "isolation",
                    word(info.isolation().as_str_name(), "ISOLATION_"),
                ),
                ("isolation lacks", info.isolation_missing.join("; ")),
            ] {
                table.row([fact.to_owned(), value]);
            }
        }
        table
    }
}
