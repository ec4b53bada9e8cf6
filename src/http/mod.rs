//! The HTTP side for scrapers and probes: `/metrics`, `/healthz`, `/readyz`.

mod accept;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::net::{Address, web};
use crate::supervisor::{self, Supervisor};
use crate::telemetry::{self, Telemetry};

/// What the HTTP side is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where it listens: loopback, since it is plain text and asks nobody who they are.
    pub address: Address,
    /// Lets that be an address that others reach, as a probe or a scraper of a container is: they read how the listeners
    /// are named and how much they are used, and can change nothing.
    pub allow_network: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: Address(([127, 0, 0, 1], 9_464).into()),
            allow_network: false,
        }
    }
}

impl Settings {
    /// What cannot be obeyed.
    pub fn check(&self) -> Vec<(&'static str, String)> {
        if self.allow_network || self.address.is_loopback() {
            return Vec::new();
        }
        let rule = format!(
            "{} is open to the network, and whoever reaches it reads the metrics; \
             bind it to loopback, such as 127.0.0.1:{}, or set allow_network to true",
            self.address,
            self.address.0.port()
        );
        vec![("address", rule)]
    }
}

#[derive(Clone)]
struct Speaker {
    supervisor: Supervisor,
    telemetry: Telemetry,
}

/// Serves until `stop`, then what is under way until `insist`.
pub async fn serve(
    site: web::Site,
    supervisor: Supervisor,
    telemetry: Telemetry,
    stop: CancellationToken,
    insist: CancellationToken,
) {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Speaker {
            supervisor,
            telemetry,
        });
    web::serve(site, web::Version::Http1, routes, stop, insist).await;
}

async fn metrics(State(speaker): State<Speaker>, headers: HeaderMap) -> Response {
    let (exposition, gzip) = (accept::exposition(&headers), accept::gzip(&headers));
    // A collection walks every session.
    let read = tokio::task::spawn_blocking(move || {
        let text = speaker.telemetry.exposition(exposition);
        match gzip {
            true => telemetry::gzip(text.as_bytes()),
            false => text.into_bytes(),
        }
    });
    let body = match read.await {
        Ok(body) => body,
        Err(failed) => {
            tracing::error!(%failed, "metrics cannot be collected");
            let words = "metrics cannot be collected; see the log\n";
            return (StatusCode::INTERNAL_SERVER_ERROR, words).into_response();
        }
    };
    let head = [
        (header::CONTENT_TYPE, exposition.content_type()),
        (header::VARY, "Accept, Accept-Encoding"),
    ];
    match gzip {
        true => (head, [(header::CONTENT_ENCODING, "gzip")], body).into_response(),
        false => (head, body).into_response(),
    }
}

/// Ready while it serves. Listeners that have failed or are ailing are named, and do not keep the others from
/// being sent peers.
async fn ready(State(speaker): State<Speaker>) -> Response {
    if speaker.supervisor.is_stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    let mut text = String::from("ready\n");
    for view in speaker.supervisor.list() {
        let state = match view.life.state {
            supervisor::State::Failed => "failed",
            _ if view.ailing => "is ailing",
            _ => continue,
        };
        let reason = view.failure.map(|f| f.message).unwrap_or_default();
        text.push_str(&format!("listener {} {state}: {reason}\n", view.name));
    }
    text.into_response()
}
