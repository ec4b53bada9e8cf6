//! `MetricService`: the same instruments as the exporters.

use std::time::SystemTime;

use tonic::{Request, Response, Status};

use super::convert::time;
use super::filter::Filter;
use super::{Control, api};
use crate::telemetry::Series;

#[tonic::async_trait]
impl api::metric_service_server::MetricService for Control {
    async fn get_metric_snapshot(
        &self,
        request: Request<api::GetMetricSnapshotRequest>,
    ) -> Result<Response<api::GetMetricSnapshotResponse>, Status> {
        let filter = Filter::read::<api::MetricSeries>("filter", &request.get_ref().filter)?;
        let telemetry = self.telemetry.clone();
        // A collection walks every session.
        let series = tokio::task::spawn_blocking(move || {
            let all = telemetry.snapshot().into_iter().map(series);
            all.filter(|series| filter.admits(series)).collect()
        });
        let series = series
            .await
            .map_err(|fault| super::status::internal(&fault.to_string()))?;
        let snapshot = api::MetricSnapshot {
            snapshot_time: Some(time(SystemTime::now())),
            series,
        };
        Ok(Response::new(api::GetMetricSnapshotResponse {
            snapshot: Some(snapshot),
        }))
    }
}

fn series(series: Series) -> api::MetricSeries {
    api::MetricSeries {
        metric: series.metric,
        unit: series.unit,
        attributes: series.attributes.into_iter().collect(),
        value: series.value,
        rate: None,
    }
}
