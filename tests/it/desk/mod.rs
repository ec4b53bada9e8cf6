//! What the desk promises whatever happens to it: claims lapse in time, what was shown or acknowledged is in the
//! transcript once and in order, and nobody is answered twice.

mod claims;
mod full;
mod kept;
mod killed;
mod order;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use switchboard::grpc::api;
use switchboard::grpc::api::chat_service_client::ChatServiceClient;
use switchboard::grpc::api::reply_conversation_request::Body;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use tonic_types::StatusExt;

use crate::support::{Service, TIMEOUT, eventually};

/// An operator who calls, one call after the other.
struct Operator {
    runtime: Runtime,
    calls: ChatServiceClient<Channel>,
}

async fn connect(address: SocketAddr) -> ChatServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let endpoint = endpoint.connect_timeout(TIMEOUT);
    let channel = endpoint.connect().await.unwrap();
    ChatServiceClient::new(channel).max_decoding_message_size(64 << 20)
}

impl Operator {
    fn of(service: &Service) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let calls = runtime.block_on(connect(service.grpc()));
        Self { runtime, calls }
    }

    fn wait<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        let called = async { tokio::time::timeout(TIMEOUT, call).await };
        let answered = self.runtime.block_on(called).expect("an answer in time");
        answered.map(Response::into_inner)
    }

    /// Conversations of a listener, the longest wait first.
    fn inbox(&self, listener: &str) -> Vec<api::Conversation> {
        let request = api::ListConversationsRequest {
            parent: format!("listeners/{listener}"),
            page_size: 1_000,
            ..api::ListConversationsRequest::default()
        };
        let mut calls = self.calls.clone();
        let page = self.wait(async move { calls.list_conversations(request).await });
        page.unwrap().conversations
    }

    /// The conversation that waits longest, once so many of its messages wait.
    fn waiting(&self, listener: &str, messages: u32) -> api::Conversation {
        let mut found = None;
        eventually(&format!("{messages} messages wait at {listener}"), || {
            let first = self.inbox(listener).into_iter().next();
            found = first.filter(|c| c.unanswered_messages == messages);
            found.is_some()
        });
        found.unwrap()
    }

    fn reply(&self, request: api::ReplyConversationRequest) -> Result<api::ChatMessage, Status> {
        let mut calls = self.calls.clone();
        let replied = self.wait(async move { calls.reply_conversation(request).await })?;
        Ok(replied.message.unwrap())
    }

    fn claim(&self, name: &str, operator: &str) -> Result<api::Conversation, Status> {
        let request = api::ClaimConversationRequest {
            name: name.to_owned(),
            operator: operator.to_owned(),
            ..api::ClaimConversationRequest::default()
        };
        let mut calls = self.calls.clone();
        let claimed = self.wait(async move { calls.claim_conversation(request).await })?;
        Ok(claimed.conversation.unwrap())
    }

    /// The transcripts of a listener by conversation. In each every line stands once and in order, and no line is answered
    /// by two.
    fn transcripts(&self, listener: &str) -> BTreeMap<String, Vec<api::ChatMessage>> {
        let (mut all, mut token) = (BTreeMap::<_, Vec<api::ChatMessage>>::new(), String::new());
        loop {
            let request = api::ListMessagesRequest {
                parent: format!("listeners/{listener}/conversations/-"),
                page_size: 1_000,
                page_token: token,
                ..api::ListMessagesRequest::default()
            };
            let mut calls = self.calls.clone();
            let page = self.wait(async move { calls.list_messages(request).await });
            let page = page.unwrap();
            for message in page.messages {
                let lines = all.entry(message.conversation.clone()).or_default();
                let last = lines.last().map_or(0, |last| last.sequence);
                assert!(last < message.sequence, "{message:?} behind {last}");
                let answers = |line: &api::ChatMessage| line.in_reply_to == message.in_reply_to;
                let twice = message.in_reply_to > 0 && lines.iter().any(answers);
                assert!(!twice, "a second answer: {message:?}");
                lines.push(message);
            }
            token = page.next_page_token;
            if token.is_empty() {
                return all;
            }
        }
    }
}

/// An answer; `to` 0 for the oldest message.
fn reply(name: &str, to: u64, text: &str) -> api::ReplyConversationRequest {
    api::ReplyConversationRequest {
        name: name.to_owned(),
        in_reply_to: to,
        body: Some(Body::Text(text.to_owned())),
        ..api::ReplyConversationRequest::default()
    }
}

/// The same under a name of its own.
fn named(name: &str, to: u64, text: &str, id: u64) -> api::ReplyConversationRequest {
    api::ReplyConversationRequest {
        request_id: format!("00000000-0000-4000-8000-{id:012x}"),
        operator: "ann".to_owned(),
        ..reply(name, to, text)
    }
}

fn reason(error: &Status) -> String {
    let info = error.get_details_error_info();
    info.unwrap_or_else(|| panic!("no reason: {error}")).reason
}

/// What the metric of this name adds up to.
fn metric(service: &Service, name: &str) -> f64 {
    let (_, text) = service.http_get("/metrics");
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
