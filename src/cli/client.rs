//! The way to the control plane: where it is, how long an answer is waited for, and lists read to their end.

use std::error::Error;
use std::time::Duration;

use clap::Args;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::exit::{Failure, UNAVAILABLE};
use super::output::Format;
use crate::grpc::api::chat_service_client::ChatServiceClient;
use crate::grpc::api::config_service_client::ConfigServiceClient;
use crate::grpc::api::listener_service_client::ListenerServiceClient;
use crate::grpc::api::metric_service_client::MetricServiceClient;
use crate::grpc::api::server_service_client::ServerServiceClient;
use crate::grpc::api::session_service_client::SessionServiceClient;

/// Where the control plane listens unless told otherwise.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:50051";

/// What a call may take, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a call with a grace may take beyond it.
const MARGIN: Duration = Duration::from_secs(10);

/// How often a silent control plane is asked whether it lives, and how long it may take to say so.
const PULSE: Duration = Duration::from_secs(10);

/// The largest page that the control plane gives.
const LARGEST_PAGE: usize = 1_000;

/// What every control command takes.
#[derive(Debug, Clone, Args)]
pub(super) struct ControlArgs {
    /// Where the control plane listens: a URL, HOST:PORT or unix:PATH
    #[arg(long, global = true, value_name = "URL", env = "SWITCHBOARD_ENDPOINT")]
    #[arg(
        default_value = DEFAULT_ENDPOINT,
        help_heading = "Control plane"
    )]
    endpoint: String,
    /// How long to wait for an answer; by default 30s, and where there is a grace as much longer
    #[arg(long, global = true, value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[arg(help_heading = "Control plane")]
    timeout: Option<Duration>,
    /// How to show the answer
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    #[arg(help_heading = "Control plane")]
    pub(super) output: Format,
}

/// A connection to the control plane.
#[derive(Debug)]
pub(super) struct Client {
    channel: Channel,
    timeout: Option<Duration>,
}

impl Client {
    /// Connects.
    pub(super) async fn dial(args: &ControlArgs) -> Result<Self, Failure> {
        let url = url(&args.endpoint)?;
        let unreachable = |error: &dyn Error| {
            let message = format!("cannot reach the control plane at {url}: {}", root(error));
            Failure::Here(UNAVAILABLE, message)
        };
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| {
            Failure::usage(format_args!("{url:?} is no endpoint: {}", root(&error)))
        })?;
        // A call with a grace may be long; one whose peer has fallen silent is not waited for.
        let endpoint = endpoint
            .connect_timeout(args.timeout.unwrap_or(PATIENCE))
            .http2_keep_alive_interval(PULSE)
            .keep_alive_timeout(PULSE)
            .keep_alive_while_idle(true);
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| unreachable(&error))?;
        Ok(Self {
            channel,
            timeout: args.timeout,
        })
    }

    /// Waits for the answer of a call as long as the user is willing to.
    pub(super) async fn call<T>(
        &self,
        sent: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        answer(Some(self.timeout.unwrap_or(PATIENCE)), sent).await
    }

    /// The same for a call that is answered after a grace. Without one the service's own counts, which is not known
    /// here and bounds the wait all the same.
    pub(super) async fn call_with_grace<T>(
        &self,
        grace: Option<Duration>,
        sent: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let longer = grace.map(|grace| grace.saturating_add(MARGIN).max(PATIENCE));
        answer(self.timeout.or(longer), sent).await
    }

    pub(super) fn config(&self) -> ConfigServiceClient<Channel> {
        ConfigServiceClient::new(self.channel.clone())
    }

    pub(super) fn listeners(&self) -> ListenerServiceClient<Channel> {
        ListenerServiceClient::new(self.channel.clone())
    }

    pub(super) fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel.clone())
    }

    pub(super) fn chat(&self) -> ChatServiceClient<Channel> {
        ChatServiceClient::new(self.channel.clone())
    }

    pub(super) fn metrics(&self) -> MetricServiceClient<Channel> {
        MetricServiceClient::new(self.channel.clone())
    }

    pub(super) fn server(&self) -> ServerServiceClient<Channel> {
        ServerServiceClient::new(self.channel.clone())
    }
}

/// Reads a list to its end, or to `limit` items. `page` is given a page's size and token, and returns its items and
/// the next token. A page that is too large to be sent is asked for again in smaller ones.
pub(super) async fn pages<T>(
    limit: Option<usize>,
    mut page: impl AsyncFnMut(i32, String) -> Result<(Vec<T>, String), Failure>,
) -> Result<Vec<T>, Failure> {
    let limit = limit.unwrap_or(usize::MAX);
    let (mut all, mut token, mut size) = (Vec::new(), String::new(), LARGEST_PAGE);
    while all.len() < limit {
        let wanted = size.min(limit - all.len());
        let asked = i32::try_from(wanted).unwrap_or(i32::MAX);
        match page(asked, token.clone()).await {
            Ok((items, next)) => {
                if !next.is_empty() && next == token {
                    return Err(Failure::error(
                        "the list does not end: a page leads to itself",
                    ));
                }
                all.extend(items);
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            Err(Failure::Refused(status)) if status.code() == Code::OutOfRange && wanted > 1 => {
                size = wanted.div_ceil(8);
            }
            Err(failure) => return Err(failure),
        }
    }
    all.truncate(limit);
    Ok(all)
}

async fn answer<T>(
    limit: Option<Duration>,
    sent: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    let answered = match limit {
        None => sent.await,
        Some(limit) => tokio::time::timeout(limit, sent).await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(limit);
            Err(Status::deadline_exceeded(format!(
                "no answer within {limit}; it may still be done"
            )))
        }),
    };
    answered
        .map(Response::into_inner)
        .map_err(|status| match status.source() {
            // It was not answered by a control plane at all.
            Some(error) => {
                let message = format!(
                    "what listens there does not speak gRPC, or left: {}",
                    root(error)
                );
                Failure::Here(UNAVAILABLE, message)
            }
            None => status.into(),
        })
}

/// An address without a scheme is one in clear text.
fn url(endpoint: &str) -> Result<String, Failure> {
    match endpoint.split_once("://") {
        // Set and empty, as a script does that has nothing to say.
        None if endpoint.is_empty() => Ok(DEFAULT_ENDPOINT.to_owned()),
        None if endpoint.starts_with("unix:") => Ok(endpoint.to_owned()),
        None => Ok(format!("http://{endpoint}")),
        Some(("http" | "unix", _)) => Ok(endpoint.to_owned()),
        // Not to be taken for encrypted when it is not.
        Some((scheme, _)) => Err(Failure::usage(format_args!(
            "{scheme}:// is not spoken here: the control plane is plain text on loopback; use http:// or unix:"
        ))),
    }
}

/// What an error comes down to: its outer layers say no more than that there was one.
fn root(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_goes_without_saying() {
        assert_eq!(url("localhost:50051").unwrap(), "http://localhost:50051");
        assert_eq!(url("").unwrap(), DEFAULT_ENDPOINT);
        for whole in [
            "http://[::1]:50051",
            "unix:/run/switchboard.sock",
            "unix:///run/x",
        ] {
            assert_eq!(url(whole).unwrap(), whole);
        }
        for other in ["https://127.0.0.1:50051", "ftp://127.0.0.1"] {
            assert!(url(other).is_err(), "{other}");
        }
    }

    /// A list of 25 numbers whose pages of more than `fit` are too large.
    async fn list(limit: Option<usize>, fit: i32) -> Vec<usize> {
        let page = async |size: i32, token: String| {
            if size > fit {
                return Err(Status::out_of_range("too large").into());
            }
            let from = token.parse().unwrap_or(0);
            let to = 25.min(from + usize::try_from(size).unwrap_or(0));
            let next = if to < 25 {
                to.to_string()
            } else {
                String::new()
            };
            Ok(((from..to).collect(), next))
        };
        pages(limit, page).await.unwrap()
    }

    #[tokio::test]
    async fn every_page_is_read_once() {
        for fit in [1, 7, 10_000] {
            assert_eq!(list(None, fit).await, (0..25).collect::<Vec<_>>());
            assert_eq!(list(Some(10), fit).await, (0..10).collect::<Vec<_>>());
        }
        assert!(list(Some(0), 5).await.is_empty());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let limit = Some(Duration::from_millis(1));
        let Err(Failure::Refused(status)) = answer::<()>(limit, std::future::pending()).await
        else {
            panic!("it was answered");
        };
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
}
