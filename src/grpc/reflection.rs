//! Reflection: the descriptors that a caller with no file asks for, read when the first one does.
//!
//! To read them takes longer than all the rest of the start and leaves more behind, and few processes are ever asked.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::server::NamedService;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::v1alpha::{
    ServerReflection as AlphaReflection, ServerReflectionServer as AlphaReflectionServer,
};
use tonic_reflection::server::{Builder, Error};
use tower::Service;

use super::api;
use super::status::internal;

/// How a service is made.
type Make<S> = fn() -> Result<S, Error>;

/// A service that is made when it is first asked; its clones share it.
pub(super) struct Late<S>(Arc<LazyLock<Result<S, Error>, Make<S>>>);

impl<S> Late<S> {
    pub(super) fn new(make: Make<S>) -> Self {
        Self(Arc::new(LazyLock::new(make)))
    }
}

impl<S> Clone for Late<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: NamedService> NamedService for Late<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Result<http::Response<Body>, Infallible>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Asked = http::Request<Body>;

impl<S> Service<Asked> for Late<S>
where
    S: Service<Asked, Response = http::Response<Body>, Error = Infallible, Future = Answering>,
    S: Clone,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Reflection holds nothing that could be busy.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Asked) -> Answering {
        match &**self.0 {
            Ok(service) => service.clone().call(request),
            Err(error) => {
                let refusal = internal(&format!("the descriptors cannot be read: {error}"));
                Box::pin(ready(Ok(refusal.into_http())))
            }
        }
    }
}

/// `grpc.reflection.v1`.
pub(super) fn v1() -> Result<ServerReflectionServer<impl ServerReflection>, Error> {
    described().build_v1()
}

/// `grpc.reflection.v1alpha`, which older clients ask.
pub(super) fn v1alpha() -> Result<AlphaReflectionServer<impl AlphaReflection>, Error> {
    described().build_v1alpha()
}

/// With the descriptors of health and of error details, so that a caller with no file sees all.
fn described<'a>() -> Builder<'a> {
    Builder::configure()
        .include_reflection_service(false)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
