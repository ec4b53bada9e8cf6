//! The way to the control plane: where it is, how long an answer is waited for, and calls that are printed instead.

use std::error::Error;
use std::time::Duration;

use clap::Args;
use futures_util::Stream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::call::Call;
use super::exit::{Failure, OK, UNAVAILABLE};
use super::grpcurl;
use super::output::{Format, print};

/// Where the control plane listens unless told otherwise.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:50051";

/// What a call may take, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a call with a grace may take beyond it.
const MARGIN: Duration = Duration::from_secs(10);

/// How often a silent control plane is asked whether it lives, and how long it may take to say so.
const PULSE: Duration = Duration::from_secs(10);

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
    /// How long to wait for an answer; by default 30s, longer where sessions have a grace, and `wait` and watches have no end
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
    /// Print the grpcurl command that makes the same call, and do nothing; what it needs to know first is still asked
    #[arg(long, global = true, help_heading = "Control plane")]
    pub(super) print_grpcurl: bool,
}

impl ControlArgs {
    /// How to get to an endpoint within a time, without more words.
    pub(super) fn to(endpoint: String, timeout: Duration) -> Self {
        Self {
            endpoint,
            timeout: Some(timeout),
            output: Format::default(),
            print_grpcurl: false,
        }
    }

    /// Refuses to print the call of a command that makes none.
    pub(super) fn calls_nothing(&self) -> Result<(), Failure> {
        match self.print_grpcurl {
            true => Err(Failure::usage(
                "this asks no control plane: there is no call to print",
            )),
            false => Ok(()),
        }
    }
}

/// A connection to the control plane.
#[derive(Debug, Clone)]
pub(super) struct Client {
    channel: Channel,
    url: String,
    timeout: Option<Duration>,
    prints: bool,
}

impl Client {
    /// Connects; for a call that is printed, only if there is something to ask before.
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
        let channel = match args.print_grpcurl {
            true => endpoint.connect_lazy(),
            false => endpoint
                .connect()
                .await
                .map_err(|error| unreachable(&error))?,
        };
        Ok(Self {
            channel,
            url,
            timeout: args.timeout,
            prints: args.print_grpcurl,
        })
    }

    /// The same for what has to be known before a call can be made: it is never printed.
    pub(super) fn asking(&self) -> Self {
        Self {
            prints: false,
            ..self.clone()
        }
    }

    /// How long the user is willing to wait, if that was said.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.timeout
    }

    /// Calls, and waits for the answer as long as the user is willing to.
    pub(super) async fn call<R: Call>(&self, request: R) -> Result<R::Answer, Failure> {
        let limit = self.timeout.unwrap_or(PATIENCE);
        self.unary(Some(limit), request).await
    }

    /// The same for a call that is answered after a grace. Without one the service's own counts, which is not known
    /// here and bounds the wait all the same.
    pub(super) async fn call_with_grace<R: Call>(
        &self,
        grace: Option<Duration>,
        request: R,
    ) -> Result<R::Answer, Failure> {
        let longer = grace.map(|grace| grace.saturating_add(MARGIN).max(PATIENCE));
        self.unary(self.timeout.or(longer), request).await
    }

    /// The same for a call that waits by itself, as long as the user is willing to.
    pub(super) async fn call_that_waits<R: Call>(&self, request: R) -> Result<R::Answer, Failure> {
        let limit = self.timeout.map(|wait| wait.saturating_add(MARGIN));
        self.unary(limit, request).await
    }

    /// Begins a stream of answers; none when the call was printed instead.
    pub(super) async fn stream<R: Call>(
        &self,
        request: R,
    ) -> Result<Option<Streaming<R::Answer>>, Failure> {
        if self.printed(&request)? {
            return Ok(None);
        }
        let opened = async {
            let mut grpc = self.ready().await?;
            let codec = ProstCodec::default();
            let path = PathAndQuery::from_static(R::PATH);
            grpc.server_streaming(Request::new(request), path, codec)
                .await
        };
        answer(Some(self.timeout.unwrap_or(PATIENCE)), opened)
            .await
            .map(Some)
    }

    /// Begins a stream both ways; the first of the requests is at hand already.
    pub(super) async fn duplex<R: Call>(
        &self,
        requests: impl Stream<Item = R> + Send + 'static,
    ) -> Result<Streaming<R::Answer>, Failure> {
        let opened = async {
            let mut grpc = self.ready().await?;
            let codec = ProstCodec::default();
            let path = PathAndQuery::from_static(R::PATH);
            grpc.streaming(Request::new(requests), path, codec).await
        };
        answer(Some(self.timeout.unwrap_or(PATIENCE)), Box::pin(opened)).await
    }

    /// Prints the call that would begin a stream, when that was asked for.
    pub(super) fn printed<R: Call>(&self, first: &R) -> Result<bool, Failure> {
        if self.prints {
            print(&grpcurl::line(&self.url, first)?)?;
        }
        Ok(self.prints)
    }

    /// Where the control plane is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A call that is printed ends the command.
    async fn unary<R: Call>(
        &self,
        limit: Option<Duration>,
        request: R,
    ) -> Result<R::Answer, Failure> {
        if self.printed(&request)? {
            return Err(Failure::Told(OK));
        }
        let answered = async {
            let mut grpc = self.ready().await?;
            let codec = ProstCodec::default();
            let path = PathAndQuery::from_static(R::PATH);
            grpc.unary(Request::new(request), path, codec).await
        };
        // A request may be large, and its whole way would be laid out on the stack.
        answer(limit, Box::pin(answered)).await
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::from_error(error.into()))?;
        Ok(grpc)
    }
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
    answered.map(Response::into_inner).map_err(refused)
}

/// Why there was no answer, or no more of it.
pub(super) fn refused(status: Status) -> Failure {
    match status.source() {
        // It was not answered by a control plane at all.
        Some(error) => {
            let message = format!(
                "what listens there does not speak gRPC, or left: {}",
                root(error)
            );
            Failure::Here(UNAVAILABLE, message)
        }
        None => status.into(),
    }
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
    use tonic::Code;

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
