//! Operators through the generated types: each seat is read by a task of its own and handed over one event at a time.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use futures_util::stream::{Stream, poll_fn};
use switchboard::grpc::api;
use switchboard::grpc::api::attach_desk_request::Input;
use switchboard::grpc::api::attach_desk_response::Event;
use switchboard::grpc::api::chat_service_client::ChatServiceClient;
use switchboard::grpc::api::reply_conversation_request::Body;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};
use tonic_types::StatusExt;

use crate::support::{Service, TIMEOUT};

/// One connection.
pub(super) struct Client {
    runtime: Runtime,
    pub(super) calls: ChatServiceClient<Channel>,
}

/// A seat. Dropping it ends the call.
pub(super) struct Seat {
    say: Option<mpsc::UnboundedSender<api::AttachDeskRequest>>,
    told: Receiver<Result<Event, Status>>,
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
        Self {
            runtime,
            calls: ChatServiceClient::new(channel),
        }
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

    /// A seat whose first input is this one, read as fast as it comes.
    pub(super) fn attach(&self, first: Input) -> Seat {
        let (say, mut stream) = self.open(first);
        let (tell, told) = channel();
        let task = self.runtime.spawn(async move {
            loop {
                let next = match stream.message().await {
                    Ok(Some(told)) => Ok(told.event.expect("an event that is known")),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let over = next.is_err();
                if tell.send(next).is_err() || over {
                    return;
                }
            }
        });
        Seat {
            say: Some(say),
            told,
            task,
        }
    }

    /// Why there is no seat, if there is none.
    pub(super) fn no_seat(&self, first: Input) -> Option<Status> {
        let (_say, said) = saying(first);
        let mut calls = self.calls.clone();
        let opened = self.wait(async move { calls.attach_desk(said).await });
        opened.err()
    }

    /// A seat that nobody reads, until it is asked for its next event.
    pub(super) fn stall(&self, start: api::AttachStart) -> Stalled {
        let (say, stream) = self.open(Input::Start(start));
        Stalled { _say: say, stream }
    }

    fn open(
        &self,
        first: Input,
    ) -> (
        mpsc::UnboundedSender<api::AttachDeskRequest>,
        Streaming<api::AttachDeskResponse>,
    ) {
        let (say, said) = saying(first);
        let mut calls = self.calls.clone();
        let stream = self.wait(async move { calls.attach_desk(said).await });
        (say, stream.unwrap())
    }

    /// The next event of a seat that was stalled.
    pub(super) fn read(&self, seat: &mut Stalled) -> Event {
        let next = async { tokio::time::timeout(TIMEOUT, seat.stream.message()).await };
        let next = self.runtime.block_on(next).expect("an event in time");
        next.unwrap().expect("the stream goes on").event.unwrap()
    }
}

pub(super) struct Stalled {
    _say: mpsc::UnboundedSender<api::AttachDeskRequest>,
    stream: Streaming<api::AttachDeskResponse>,
}

impl Seat {
    pub(super) fn say(&self, input: Input) {
        self.say.as_ref().unwrap().send(asked(input)).unwrap();
    }

    /// Ends the inputs.
    pub(super) fn leave(&mut self) {
        self.say = None;
    }

    /// The next event.
    pub(super) fn next(&self) -> Event {
        self.next_within(TIMEOUT)
    }

    pub(super) fn next_within(&self, time: Duration) -> Event {
        match self.told.recv_timeout(time) {
            Ok(Ok(event)) => event,
            Ok(Err(error)) => panic!("instead of an event: {error}"),
            Err(RecvTimeoutError::Timeout) => panic!("no event within {time:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the stream is over"),
        }
    }

    /// All up to `synced`, without it.
    pub(super) fn synced(&self) -> Vec<Event> {
        let told = std::iter::repeat_with(|| self.next());
        told.take_while(|event| !matches!(event, Event::Synced(_)))
            .collect()
    }

    /// The answer of an input, and the events before it.
    pub(super) fn answer(&self) -> (Vec<Event>, Result<api::DeskDone, api::DeskError>) {
        let mut before = Vec::new();
        loop {
            match self.next() {
                Event::Done(done) => return (before, Ok(done)),
                Event::Error(error) => return (before, Err(error)),
                Event::Heartbeat(_) => {}
                event => before.push(event),
            }
        }
    }

    /// The answer of an input that is obeyed, if it has come.
    pub(super) fn answered(&self) -> Option<api::DeskDone> {
        match self.told.try_recv().ok()?.unwrap() {
            Event::Done(done) => Some(done),
            Event::Error(error) => panic!("{error:?}"),
            _ => None,
        }
    }

    /// An input that is obeyed.
    pub(super) fn done(&self, input: Input) -> api::DeskDone {
        self.say(input);
        self.answer().1.unwrap()
    }

    /// The reason that an input is refused for.
    pub(super) fn refused(&self, input: Input) -> String {
        self.say(input);
        let error = self.answer().1.unwrap_err();
        assert!(!error.message.is_empty(), "{error:?}");
        error.reason
    }

    /// The next conversation that is told of, and that alone.
    pub(super) fn conversation(&self) -> api::Conversation {
        match self.next() {
            Event::Conversation(conversation) => conversation,
            event => panic!("{event:?}"),
        }
    }

    /// The next message that is told of, whatever is told before.
    pub(super) fn message(&self) -> api::ChatMessage {
        loop {
            if let Event::Message(message) = self.next() {
                return message;
            }
        }
    }

    /// The next conversation for which this holds, whatever is told before.
    pub(super) fn until(&self, holds: impl Fn(&api::Conversation) -> bool) -> api::Conversation {
        loop {
            if let Event::Conversation(conversation) = self.next()
                && holds(&conversation)
            {
                return conversation;
            }
        }
    }

    /// How it ends, whatever is told before.
    pub(super) fn end(self) -> Result<(), Status> {
        loop {
            match self.told.recv_timeout(TIMEOUT) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => panic!("no end within {TIMEOUT:?}"),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}

/// Inputs that begin with this one.
fn saying(
    first: Input,
) -> (
    mpsc::UnboundedSender<api::AttachDeskRequest>,
    impl Stream<Item = api::AttachDeskRequest>,
) {
    let (say, mut said) = mpsc::unbounded_channel();
    say.send(asked(first)).unwrap();
    (say, poll_fn(move |cx| said.poll_recv(cx)))
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn asked(input: Input) -> api::AttachDeskRequest {
    api::AttachDeskRequest { input: Some(input) }
}

/// Sits down at a listener's desk.
pub(super) fn start(listener: &str, operator: &str) -> api::AttachStart {
    api::AttachStart {
        parent: format!("listeners/{listener}"),
        operator: operator.to_owned(),
        ..api::AttachStart::default()
    }
}

/// The same, as an input.
pub(super) fn sit(listener: &str, operator: &str) -> Input {
    Input::Start(start(listener, operator))
}

pub(super) fn claim(name: &str) -> Input {
    Input::Claim(api::ClaimConversationRequest {
        name: name.to_owned(),
        ..api::ClaimConversationRequest::default()
    })
}

pub(super) fn release(name: &str) -> Input {
    Input::Release(api::ReleaseConversationRequest {
        name: name.to_owned(),
        ..api::ReleaseConversationRequest::default()
    })
}

/// An answer; `to` 0 for the oldest message.
pub(super) fn reply(name: &str, to: u64, text: &str) -> api::ReplyConversationRequest {
    api::ReplyConversationRequest {
        name: name.to_owned(),
        in_reply_to: to,
        body: Some(Body::Text(text.to_owned())),
        ..api::ReplyConversationRequest::default()
    }
}

/// The word of an error's reason.
pub(super) fn reason(error: &Status) -> String {
    let info = error.get_details_error_info();
    info.unwrap_or_else(|| panic!("no reason: {error}")).reason
}
