//! Watches through the generated types: each stream is read by a task of its own and handed over one answer at a time.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use switchboard::grpc::api;
use switchboard::grpc::api::ChangeType;
use switchboard::grpc::api::chat_service_client::ChatServiceClient;
use switchboard::grpc::api::listener_service_client::ListenerServiceClient;
use switchboard::grpc::api::session_service_client::SessionServiceClient;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};
use tonic_types::StatusExt;

use crate::support::{Service, TIMEOUT};

/// One connection.
pub(super) struct Client {
    runtime: Runtime,
    pub(super) channel: Channel,
}

/// One answer of any watch.
pub(super) trait Answer: Send + 'static {
    fn kind(&self) -> ChangeType;
    /// The name of what it is about; empty when it is about nothing.
    fn name(&self) -> String;
    fn token(&self) -> &str;
}

macro_rules! answer {
    ($type:ident, $about:ident) => {
        impl Answer for api::$type {
            fn kind(&self) -> ChangeType {
                self.change_type()
            }
            fn name(&self) -> String {
                self.$about
                    .as_ref()
                    .map(|about| about.name.clone())
                    .unwrap_or_default()
            }
            fn token(&self) -> &str {
                &self.resume_token
            }
        }
    };
}

answer!(WatchSessionsResponse, session);
answer!(WatchListenersResponse, listener);
answer!(WatchConversationsResponse, conversation);

/// A watch that is read as fast as it comes. Dropping it ends the call.
pub(super) struct Following<A> {
    told: Receiver<Result<A, Status>>,
    task: JoinHandle<()>,
}

impl Client {
    pub(super) fn of(service: &Service) -> Self {
        Self::with_window(service, None)
    }

    /// A client that lets the service send so many bytes ahead.
    pub(super) fn with_window(service: &Service, window: Option<u32>) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc())).unwrap();
        let endpoint = endpoint
            .connect_timeout(TIMEOUT)
            .initial_stream_window_size(window)
            .initial_connection_window_size(window);
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self { runtime, channel }
    }

    /// One call.
    pub(super) fn wait<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        let called = async { tokio::time::timeout(TIMEOUT, call).await };
        let answered = self.runtime.block_on(called);
        answered
            .expect("an answer in time")
            .map(Response::into_inner)
    }

    /// The next answer of a stream that nobody reads meanwhile.
    pub(super) fn message<A: Answer>(&self, stream: &mut Streaming<A>) -> Option<A> {
        let next = async { tokio::time::timeout(TIMEOUT, stream.message()).await };
        let next = self.runtime.block_on(next);
        next.expect("an answer in time").unwrap()
    }

    fn follow<A: Answer>(
        &self,
        call: impl Future<Output = Result<Response<Streaming<A>>, Status>> + Send + 'static,
    ) -> Following<A> {
        let (tell, told) = channel();
        let task = self.runtime.spawn(async move {
            let mut stream = match call.await {
                Ok(stream) => stream.into_inner(),
                Err(error) => return drop(tell.send(Err(error))),
            };
            loop {
                let next = match stream.message().await {
                    Ok(Some(answer)) => Ok(answer),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let over = next.is_err();
                if tell.send(next).is_err() || over {
                    return;
                }
            }
        });
        Following { told, task }
    }

    pub(super) fn sessions(
        &self,
        request: api::WatchSessionsRequest,
    ) -> Following<api::WatchSessionsResponse> {
        let mut client = SessionServiceClient::new(self.channel.clone());
        self.follow(async move { client.watch_sessions(request).await })
    }

    pub(super) fn listeners(&self, filter: &str) -> Following<api::WatchListenersResponse> {
        self.listeners_as(api::WatchListenersRequest {
            filter: filter.to_owned(),
            ..api::WatchListenersRequest::default()
        })
    }

    pub(super) fn listeners_as(
        &self,
        request: api::WatchListenersRequest,
    ) -> Following<api::WatchListenersResponse> {
        let mut client = ListenerServiceClient::new(self.channel.clone());
        self.follow(async move { client.watch_listeners(request).await })
    }

    pub(super) fn conversations(
        &self,
        request: api::WatchConversationsRequest,
    ) -> Following<api::WatchConversationsResponse> {
        let mut client = ChatServiceClient::new(self.channel.clone());
        self.follow(async move { client.watch_conversations(request).await })
    }

    /// The names of all live sessions of a listener.
    pub(super) fn live(&self, listener: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut request = api::ListSessionsRequest {
            parent: format!("listeners/{listener}"),
            page_size: 1_000,
            ..api::ListSessionsRequest::default()
        };
        loop {
            let mut client = SessionServiceClient::new(self.channel.clone());
            let page = self.wait(client.list_sessions(request.clone())).unwrap();
            names.extend(page.sessions.into_iter().map(|session| session.name));
            if page.next_page_token.is_empty() {
                return names;
            }
            request.page_token = page.next_page_token;
        }
    }
}

impl<A: Answer> Following<A> {
    /// The next answer.
    pub(super) fn next(&self) -> A {
        match self.told.recv_timeout(TIMEOUT) {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => panic!("instead of an answer: {error}"),
            Err(RecvTimeoutError::Timeout) => panic!("no answer within {TIMEOUT:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the stream is over"),
        }
    }

    /// The next that is more than a sign of life.
    pub(super) fn change(&self) -> A {
        loop {
            let answer = self.next();
            if answer.kind() != ChangeType::Bookmark {
                return answer;
            }
        }
    }

    /// What came by now.
    pub(super) fn ready(&self) -> Option<A> {
        self.told.try_recv().ok().map(Result::unwrap)
    }

    /// All up to SYNCED, and that without the rest.
    pub(super) fn synced(&self) -> (Vec<A>, A) {
        let mut before = Vec::new();
        loop {
            let answer = self.next();
            if answer.kind() == ChangeType::Synced {
                return (before, answer);
            }
            assert!(answer.token().is_empty(), "a token before SYNCED");
            before.push(answer);
        }
    }

    /// How it ends, which it does without another answer.
    pub(super) fn end(self) -> Result<(), Status> {
        match self.told.recv_timeout(TIMEOUT) {
            Ok(Ok(answer)) => panic!("{} {}", answer.kind().as_str_name(), answer.name()),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => panic!("no end within {TIMEOUT:?}"),
            Err(RecvTimeoutError::Disconnected) => Ok(()),
        }
    }

    /// All that it tells until it ends with an error.
    pub(super) fn until_end(self) -> Vec<A> {
        let told = || match self.told.recv_timeout(TIMEOUT) {
            Ok(answer) => answer.ok(),
            Err(error) => panic!("no end: {error}"),
        };
        std::iter::from_fn(told).collect()
    }
}

impl<A> Drop for Following<A> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A watch of all sessions of a listener.
pub(super) fn sessions(listener: &str) -> api::WatchSessionsRequest {
    api::WatchSessionsRequest {
        parent: format!("listeners/{listener}"),
        ..api::WatchSessionsRequest::default()
    }
}

/// The same, from a place on.
pub(super) fn resumed(listener: &str, token: &str) -> api::WatchSessionsRequest {
    api::WatchSessionsRequest {
        resume_token: token.to_owned(),
        ..sessions(listener)
    }
}

/// The word of an error's reason.
pub(super) fn reason(error: &Status) -> String {
    let info = error.get_details_error_info();
    info.unwrap_or_else(|| panic!("no reason: {error}")).reason
}
