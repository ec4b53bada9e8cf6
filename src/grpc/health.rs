//! `grpc.health.v1`: `""` for the process, `listeners/NAME` for each listener.

use std::collections::{BTreeMap, BTreeSet};

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use super::convert::listener_name;
use crate::supervisor::{State, Supervisor};

pub(super) fn service() -> (HealthServer<impl Health>, HealthReporter) {
    let (reporter, service) = tonic_health::server::health_reporter();
    (service, reporter)
}

/// Follows the listeners until `stop`; the process itself is NOT_SERVING once it drains.
pub(super) async fn report(
    mut reporter: HealthReporter,
    supervisor: Supervisor,
    stop: CancellationToken,
) {
    let mut changes = supervisor.changes();
    let mut known = BTreeSet::<String>::new();
    loop {
        let process = if supervisor.is_stopping() {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        };
        let mut current = BTreeMap::from([(String::new(), process)]);
        for view in supervisor.list() {
            let serves = view.life.state == State::Active
                && !view.ailing
                && process == ServingStatus::Serving;
            let status = if serves {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            current.insert(listener_name(view.name.as_str()), status);
        }
        for (name, status) in &current {
            reporter.set_service_status(name, *status).await;
        }
        for gone in known.iter().filter(|name| !current.contains_key(*name)) {
            reporter.clear_service_status(gone).await;
        }
        known = current.into_keys().collect();
        let changed = stop.run_until_cancelled(changes.changed()).await;
        if !matches!(changed, Some(Ok(()))) {
            break;
        }
    }
}
