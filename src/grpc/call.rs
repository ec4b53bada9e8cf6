//! What surrounds every call: a span in its caller's trace, a duration in the metrics (both told by `ending`), and a
//! panic that ends the call with INTERNAL instead of its connection.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use prost::Message;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Request, Status};
use tower::Service;

use super::api;
use super::ending::Ending;
use super::load::Load;
use crate::telemetry::{Concerns, Telemetry, Trace, traced};

/// All services, with what surrounds their calls.
#[derive(Clone)]
pub(super) struct Layered {
    routes: Routes,
    telemetry: Telemetry,
    load: Load,
}

impl Layered {
    pub(super) fn new(routes: Routes, telemetry: Telemetry, load: Load) -> Self {
        Self {
            routes,
            telemetry,
            load,
        }
    }
}

type Answer = Result<http::Response<Body>, Infallible>;

impl Service<http::Request<Incoming>> for Layered {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes hold nothing that could be busy.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Incoming>) -> Self::Future {
        let (method, streams) = known(request.uri().path());
        let turn = match self.load.admit(method, streams, &request) {
            Ok(turn) => turn,
            Err(refusal) => {
                return Box::pin(async move {
                    pass_over(request.into_body()).await;
                    Ok(*refusal)
                });
            }
        };
        let (mut routes, telemetry) = (self.routes.clone(), self.telemetry.clone());
        Box::pin(async move {
            let header = |name| {
                request
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok())
            };
            let (parent, state) = (header("traceparent"), header("tracestate"));
            let span = telemetry.call(method, parent, state, is_mutation(method));
            // The trail says where a change was traced, and who answers which sessions it is about.
            let trace = span.trace();
            request.extensions_mut().insert(trace);
            request.extensions_mut().insert(span.concerns());
            let answering = turn.take(async move { routes.call(request).await });
            let ending = Ending::new(telemetry, method, span);
            let mut answer = answered(trace, answering).await;
            if let Some(bare) = without_reason(&answer) {
                answer = super::status::explained(&bare, word(bare.code())).into_http();
            }
            Ok(ending.of(answer))
        })
    }
}

/// Where to say which sessions a call is about.
pub(super) fn concerns<T>(request: &Request<T>) -> Concerns {
    request.extensions().get().cloned().unwrap_or_default()
}

/// How long what a refused call says may still be under way.
const UNREAD: Duration = Duration::from_millis(250);

/// Reads what a refused call says, and forgets it. Unread it would be reset, and HTTP/2 ends a connection on which much
/// comes for what was reset: an honest client that asks too fast would lose the answers to all of its calls.
async fn pass_over(mut said: Incoming) {
    let read =
        async { while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut said).poll_frame(cx)).await {} };
    // Whoever goes on talking is not listened to.
    let _ = tokio::time::timeout(UNREAD, read).await;
}

/// What it comes to, be it a panic; whatever is logged meanwhile, of the panic too, bears the trace.
async fn answered(trace: Trace, answering: impl Future<Output = Answer>) -> http::Response<Body> {
    traced(trace, Caught(Box::pin(AssertUnwindSafe(answering)))).await
}

/// A future whose panic is an answer.
struct Caught<F>(Pin<Box<AssertUnwindSafe<F>>>);

impl<F: Future<Output = Answer>> Future for Caught<F> {
    type Output = http::Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(answer))) => Poll::Ready(answer),
            Ok(Poll::Ready(Err(never))) => match never {},
            Err(_) => Poll::Ready(super::status::internal("a handler panicked").into_http()),
        }
    }
}

/// Every method that is served, by its full name, and whether it streams.
static METHODS: LazyLock<BTreeMap<String, bool>> = LazyLock::new(|| {
    let sets = [
        api::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    sets.into_iter().flat_map(methods).collect()
});

/// The full name of a method of ours: `switchboard.v1.ListenerService/StopListener` of `StopListener`. No two of our
/// services have one of the same name.
pub(super) fn full_name(method: &'static str) -> &'static str {
    let of_ours = |full: &&String| {
        let (service, name) = full.split_once('/').unwrap_or_default();
        service.starts_with("switchboard.v1.") && name == method
    };
    METHODS.keys().find(of_ours).map_or(method, String::as_str)
}

/// The method of a path, as its descriptor has it, and whether it streams. What a caller makes up is
/// no series and no span.
pub(super) fn known(path: &str) -> (&'static str, bool) {
    let method = METHODS.get_key_value(path.trim_start_matches('/'));
    method.map_or((OTHER, false), |(name, streams)| (name, *streams))
}

/// Every `package.Service/Method` of a descriptor set, and whether it streams.
fn methods(set: &[u8]) -> Vec<(String, bool)> {
    // Written by our own build: one that cannot be read has no methods to tell.
    let set = prost_types::FileDescriptorSet::decode(set).unwrap_or_default();
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let (package, service) = (file.package(), service.name());
                let name = format!("{package}.{service}/{}", method.name());
                let streams = method.server_streaming() || method.client_streaming();
                methods.push((name, streams));
            }
        }
    }
    methods
}

/// As the conventions call what is none of ours; sampled as something that only reads.
const OTHER: &str = "_OTHER";

/// What only reads is sampled; what changes something is always told.
fn is_mutation(method: &str) -> bool {
    let name = method.rsplit('/').next().unwrap_or_default();
    let reads = [
        OTHER,
        "Check",
        "Diff",
        "Export",
        "Get",
        "List",
        "ServerReflectionInfo",
        "Stream",
        "Validate",
        "Wait",
        "Watch",
    ];
    !reads.iter().any(|read| name.starts_with(read))
}

/// The status of an answer that is nothing but a status, and says no more than its message.
fn without_reason(answer: &http::Response<Body>) -> Option<Status> {
    let status = Status::from_header_map(answer.headers())?;
    (status.code() != Code::Ok && status.details().is_empty()).then_some(status)
}

/// The code as conventions write it.
pub(super) fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::current_trace;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::{self, Layer, SubscriberExt};
    use tracing_subscriber::registry;

    #[test]
    fn methods_are_known_by_their_descriptors() {
        let get = "/switchboard.v1.ListenerService/GetListener";
        assert_eq!(known(get), (&get[1..], false));
        let check = "grpc.health.v1.Health/Check";
        assert_eq!(known(&format!("/{check}")), (check, false));
        assert_eq!(known("/made.up/Method"), (OTHER, false));
        assert!(!is_mutation(OTHER));
    }

    #[test]
    fn a_method_of_ours_has_one_full_name() {
        let ours: Vec<_> = METHODS
            .keys()
            .filter(|full| full.starts_with("switchboard.v1."))
            .collect();
        let names: std::collections::BTreeSet<_> =
            ours.iter().map(|full| full.rsplit('/').next()).collect();
        assert_eq!(names.len(), ours.len());
        let full = full_name("StopListener");
        assert_eq!(full, "switchboard.v1.ListenerService/StopListener");
    }

    /// The traces that events are logged in.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<Trace>>>);

    impl<S: tracing::Subscriber> Layer<S> for Seen {
        fn on_event(&self, _: &tracing::Event<'_>, _: layer::Context<'_, S>) {
            self.0.lock().unwrap().push(current_trace());
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_is_told_in_the_trace_of_its_call() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let call = Telemetry::quiet().call("s.S/Get", Some(parent), None, false);
        let seen = Seen::default();
        let _guard = tracing::subscriber::set_default(registry().with(seen.clone()));
        let answer = answered(call.trace(), async { panic!("of a test") }).await;
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(*seen.0.lock().unwrap(), [call.trace()]);
    }

    #[test]
    fn what_changes_something_is_known_by_its_verb() {
        assert!(is_mutation("switchboard.v1.ListenerService/CreateListener"));
        assert!(!is_mutation("switchboard.v1.SessionService/ListSessions"));
        assert!(!is_mutation("grpc.health.v1.Health/Check"));
    }
}
