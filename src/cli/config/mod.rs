//! `switchboard config`: what the configuration is, where each value comes from, and what a change of it would do.

mod diff;
mod document;
mod local;
mod show;

use clap::{Args, Subcommand};

use super::client::{Client, ControlArgs};
use super::exit::Failure;
use super::output;

/// What is so without any configuration, with comments.
const DEFAULT: &str = include_str!("../../../deploy/switchboard.toml");

/// What to do with the configuration.
#[derive(Debug, Args)]
pub(super) struct Verb {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the values in force
    Show(show::ShowArgs),
    /// Print the commented default file; no service is asked
    Default,
    /// Compare two sides: what runs, what the files say, what a restart would give
    Diff(diff::DiffArgs),
    /// Read the files again, and apply what changed
    Reload(diff::ReloadArgs),
    /// Print the configuration of the running service as one document
    Export(document::ExportArgs),
    /// Have the running service check a document; nothing is changed
    Validate(document::ValidateArgs),
}

/// Does it. Only what asks the service needs one.
pub(super) async fn run(verb: Verb, control: &ControlArgs) -> Result<(), Failure> {
    let format = control.output;
    let dial = Client::dial(control);
    match verb.action {
        Action::Show(args) => show::show(&args, control).await,
        Action::Default => {
            control.calls_nothing()?;
            output::print(DEFAULT)
        }
        Action::Diff(args) => diff::diff(&args, &dial.await?, format).await,
        Action::Reload(args) => diff::reload(&args, &dial.await?, format).await,
        Action::Export(args) => document::export(&args, &dial.await?, format).await,
        Action::Validate(args) => document::validate(&args, &dial.await?, format).await,
    }
}

/// A value of the configuration as people write it: texts without quotes, unless nothing would be left.
fn plain(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(serde_json::Value::String(text)) if !text.is_empty() => text,
        _ => json.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_no_quotes() {
        let values = ["\"a b\"", "\"\"", "5", "[\"a\"]", ""].map(plain);
        assert_eq!(values, ["a b", "\"\"", "5", "[\"a\"]", ""]);
    }
}
