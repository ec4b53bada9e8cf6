//! `switchboard metrics`: the instruments that are exported elsewhere, read once, or again and again with rates.

use std::time::{Duration, SystemTime};

use clap::Args;

use super::client::Client;
use super::exit::Failure;
use super::output::{self, Format, Resource, View, on_a_terminal, print};
use super::spec::duration;
use super::table::{Screen, Table};
use super::watch::{Follow, document, follow, until_interrupted};
use crate::grpc::api;

/// What makes a terminal empty: the cursor first, then everything behind it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Which metrics to show.
#[derive(Debug, Args)]
pub(super) struct MetricsArgs {
    /// Only those for which this holds, such as 'metric : "session"'
    #[arg(long, default_value = "", hide_default_value = true)]
    filter: String,
    /// Read them again and again, with rates
    #[arg(short, long)]
    watch: bool,
    /// How often; by default every second
    #[arg(long, value_name = "DURATION", requires = "watch", value_parser = humantime::parse_duration)]
    interval: Option<Duration>,
}

/// Shows them, in the order of their names.
pub(super) async fn run(args: MetricsArgs, client: &Client, format: Format) -> Result<(), Failure> {
    if args.watch {
        return watch(args, client, format).await;
    }
    let asked = api::GetMetricSnapshotRequest {
        filter: args.filter,
    };
    let answer = client.call(asked).await?;
    output::many(format, "series", &sorted(answer.snapshot))
}

async fn watch(args: MetricsArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let asked = api::StreamMetricSnapshotsRequest {
        filter: args.filter,
        interval: duration(args.interval)?,
    };
    let mut widths = Vec::new();
    let followed = follow(client, asked, |answer| {
        if format.is_document() {
            return print(&document(format, answer)?);
        }
        let series = sorted(answer.snapshot.clone());
        if format == Format::Name {
            return output::many(format, "series", &series);
        }
        let view = View {
            wide: format == Format::Wide,
            watched: true,
            now: SystemTime::now(),
        };
        // One snapshot at a time where it can be; otherwise they stand apart.
        match (on_a_terminal(), widths.is_empty()) {
            (true, _) => print(CLEAR)?,
            (false, true) => {}
            (false, false) => print("\n")?,
        }
        widths.clear();
        let table = api::MetricSeries::table(&series, &view);
        print(&table.go_on(&Screen::stdout(), &mut widths))
    });
    until_interrupted(followed).await
}

impl Follow for api::StreamMetricSnapshotsRequest {
    /// Every snapshot is whole.
    fn go_on(&mut self, _: &Self::Answer) {}

    fn anew(&mut self) -> bool {
        false
    }
}

fn sorted(snapshot: Option<api::MetricSnapshot>) -> Vec<api::MetricSeries> {
    let mut series = snapshot.unwrap_or_default().series;
    series.sort_by_cached_key(|one| (one.metric.clone(), attributes(one)));
    series
}

fn attributes(series: &api::MetricSeries) -> String {
    // In the order of their keys, as the map is.
    let pairs: Vec<_> = series
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

impl Resource for api::MetricSeries {
    fn name(&self) -> String {
        self.metric.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut columns = vec!["METRIC", "ATTRIBUTES", "VALUE"];
        if view.watched {
            columns.push("RATE");
        }
        columns.push("UNIT");
        let mut table = Table::new(&columns);
        for series in items {
            let mut cells = vec![
                series.metric.clone(),
                attributes(series),
                series.value.to_string(),
            ];
            if view.watched {
                let rate = series.rate.map(|rate| format!("{rate:.1}/s"));
                cells.push(rate.unwrap_or_default());
            }
            cells.push(series.unit.clone());
            table.row(cells);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(watched: bool) -> String {
        let series = api::MetricSeries {
            metric: "switchboard.sessions".into(),
            unit: "{session}".into(),
            attributes: [("b", "2"), ("a", "1")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            value: 3.0,
            rate: Some(0.25),
        };
        let view = View {
            wide: false,
            watched,
            now: SystemTime::now(),
        };
        api::MetricSeries::table(&[series], &view).render(&Screen::default())
    }

    #[test]
    fn attributes_are_in_order_and_whole_numbers_plain() {
        let expected = "METRIC                ATTRIBUTES  VALUE  UNIT\n\
                        switchboard.sessions  a=1,b=2     3      {session}\n";
        assert_eq!(text(false), expected);
    }

    #[test]
    fn what_is_read_again_has_a_rate() {
        let expected = "METRIC                ATTRIBUTES  VALUE  RATE   UNIT\n\
                        switchboard.sessions  a=1,b=2     3      0.2/s  {session}\n";
        assert_eq!(text(true), expected);
    }
}
