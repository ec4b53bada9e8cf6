//! `switchboard top`: the running service at one look, again and again on a screen, or once for a script.
//!
//! [`model`] is what is seen, [`link`] the way to the service; it reads the same whoever looks.

mod act;
mod column;
mod figures;
mod happening;
mod link;
mod model;
mod once;
mod pane;
mod press;
mod read;
mod rows;
mod screen;
mod shown;
mod view;

use std::time::Duration;

use clap::Args;

use super::client::Client;
use super::exit::Failure;
use super::output::Format;
use super::stage::unfit;
use link::{Link, measurements};
use model::{Seat, Top};
use pane::Tab;

/// How many sessions and conversations are read, unless told otherwise: more than a screen has rows.
const ON_SCREEN: i32 = 200;

/// The same for one look.
const AT_ONCE: i32 = 20;

/// What to look at.
#[derive(Debug, Args)]
#[command(
    after_help = "On a screen, ? shows the keys; what is done there is asked first, and the \
                        command that does the same is shown."
)]
pub(super) struct TopArgs {
    #[command(flatten)]
    pub(super) control: super::ControlArgs,
    /// Look once, print it and end; for scripts, which want -o json
    #[arg(long)]
    once: bool,
    /// How often the service is read; rates are over as long
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// Sort by this column, of each table that has it
    #[arg(long, value_name = "COLUMN")]
    sort: Option<String>,
    /// The other way round
    #[arg(long, requires = "sort")]
    reverse: bool,
    /// Only rows that contain this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// At most this many sessions and conversations, and rows with --once; by default 200, and 20
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1_000))]
    limit: Option<i32>,
    /// Only look on: pause, drain and close nothing
    #[arg(long)]
    read_only: bool,
}

/// Shows it.
pub(super) async fn run(args: &TopArgs) -> Result<(), Failure> {
    let format = args.control.output;
    format.not_export()?;
    if format == Format::Name {
        return Err(Failure::usage(
            "top has no names to print; --once takes table, json and yaml",
        ));
    }
    if !args.once && !args.control.print_grpcurl {
        if format.is_document() {
            return Err(Failure::usage("a screen is no document; --once prints one"));
        }
        if let Some(why) = unfit() {
            return Err(Failure::usage(format_args!(
                "{why}; --once prints one look as text"
            )));
        }
    }
    let client = Client::dial(&args.control).await?;
    let top = args.top(&client)?;
    if client.printed(&measurements(args.interval)?)? {
        return Ok(());
    }
    if args.once {
        let limit = usize::try_from(top.seat.limit).unwrap_or_default();
        return once::run(top, limit, &client, format).await;
    }
    let link = Link::new(&client, args.interval, top.wanted())?;
    screen::run(top, link).await
}

impl TopArgs {
    /// The model as it is to begin.
    fn top(&self, client: &Client) -> Result<Top, Failure> {
        let usual = if self.once { AT_ONCE } else { ON_SCREEN };
        let mut top = Top::new(Seat {
            endpoint: client.url().to_owned(),
            interval: self.interval,
            read_only: self.read_only,
            limit: self.limit.unwrap_or(usual),
        });
        for pane in &mut top.panes {
            let filter = self.filter.as_deref().unwrap_or_default();
            filter.chars().for_each(|c| pane.type_in(c));
        }
        if let Some(sort) = &self.sort {
            let mut is_known = false;
            for pane in &mut top.panes {
                if pane.sort_by(sort) {
                    is_known = true;
                    pane.is_reversed = self.reverse;
                }
            }
            if !is_known {
                return Err(Failure::usage(format_args!(
                    "no column is called {sort:?}; there are {}",
                    sortable()
                )));
            }
        }
        Ok(top)
    }
}

/// The columns that a table can be sorted by, each once.
fn sortable() -> String {
    let mut names: Vec<&str> = Vec::new();
    for tab in Tab::ALL {
        for column in tab.columns().iter().filter(|column| tab.sorts_by(column)) {
            if !names.contains(&column.name) {
                names.push(column.name);
            }
        }
    }
    names.join(", ")
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let bounds = Duration::from_millis(500)..=Duration::from_secs(3_600);
    match bounds.contains(&interval) {
        true => Ok(interval),
        false => Err("it is at least 500ms and at most 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests;
