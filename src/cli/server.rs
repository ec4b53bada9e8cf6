//! `switchboard server`: the process itself.

use clap::{Args, Subcommand};

use super::client::Client;
use super::exit::Failure;
use super::output::{self, Format, Resource, View};
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
}

/// Does it.
pub(super) async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb.action {
        Action::Info => {
            let asked = api::GetServerInfoRequest {};
            let info = client.call(client.server().get_server_info(asked)).await?;
            output::one(format, &info)
        }
    }
}

impl Resource for api::GetServerInfoResponse {
    const MESSAGE: &'static str = "GetServerInfoResponse";

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
                ("isolation lacks", info.isolation_missing.join(", ")),
            ] {
                table.row([fact.to_owned(), value]);
            }
        }
        table
    }
}
