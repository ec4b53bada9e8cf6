//! `grpc.health.v1`: `""` for the process, `listeners/NAME` for each listener.

use std::collections::BTreeSet;

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use super::convert::listener_name;
use crate::supervisor::{State, Supervisor};

pub(super) fn service() -> (HealthServer<impl Health>, HealthReporter) {
    let (reporter, service) = tonic_health::server::health_reporter();
    (service, reporter)
}

/// Follows the listeners for as long as there is a supervisor; the process itself is NOT_SERVING once it drains.
pub(super) async fn report(mut reporter: HealthReporter, supervisor: Supervisor) {
    let mut changes = supervisor.changes();
    let mut known = BTreeSet::new();
    loop {
        let process = if supervisor.is_stopping() {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        };
        reporter.set_service_status("", process).await;
        let mut current = BTreeSet::new();
        for view in supervisor.list() {
            let name = listener_name(view.name.as_str());
            let serving = view.life.state == State::Active && process == ServingStatus::Serving;
            let status = if serving {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            reporter.set_service_status(&name, status).await;
            current.insert(name);
        }
        for gone in known.difference(&current) {
            reporter.clear_service_status(gone).await;
        }
        known = current;
        if changes.changed().await.is_err() {
            return;
        }
    }
}
