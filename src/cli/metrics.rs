//! `switchboard metrics`: the instruments that are exported elsewhere, read once.

use clap::Args;

use super::client::Client;
use super::exit::Failure;
use super::output::{self, Format, Resource, View};
use super::table::Table;
use crate::grpc::api;

/// Which metrics to show.
#[derive(Debug, Args)]
pub(super) struct MetricsArgs {
    /// Only those whose name begins so
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,
}

/// Shows them, in the order of their names.
pub(super) async fn run(args: MetricsArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let asked = api::GetMetricSnapshotRequest::default();
    let answer = client
        .call(client.metrics().get_metric_snapshot(asked))
        .await?;
    let mut series = answer.snapshot.unwrap_or_default().series;
    series.retain(|one| one.metric.starts_with(&args.filter));
    series.sort_by_cached_key(|one| (one.metric.clone(), attributes(one)));
    output::many(format, "series", &series)
}

fn attributes(series: &api::MetricSeries) -> String {
    let mut pairs: Vec<_> = series
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.sort();
    pairs.join(",")
}

impl Resource for api::MetricSeries {
    const MESSAGE: &'static str = "MetricSeries";

    fn name(&self) -> String {
        self.metric.clone()
    }

    fn table(items: &[Self], _: &View) -> Table {
        let mut table = Table::new(&["METRIC", "ATTRIBUTES", "VALUE", "UNIT"]);
        for series in items {
            let value = series.value.to_string();
            table.row([
                series.metric.clone(),
                attributes(series),
                value,
                series.unit.clone(),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Screen;
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn attributes_are_in_order_and_whole_numbers_plain() {
        let series = api::MetricSeries {
            metric: "switchboard.sessions".into(),
            unit: "{session}".into(),
            attributes: [("b", "2"), ("a", "1")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            value: 3.0,
            ..Default::default()
        };
        let view = View {
            wide: false,
            now: SystemTime::now(),
        };
        let text = api::MetricSeries::table(&[series], &view).render(&Screen::default());
        let expected = "METRIC                ATTRIBUTES  VALUE  UNIT\n\
                        switchboard.sessions  a=1,b=2     3      {session}\n";
        assert_eq!(text, expected);
    }
}
