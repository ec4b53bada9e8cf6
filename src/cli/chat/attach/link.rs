//! The way between a seat and the desk: one stream, taken up again when it breaks, and calls beside it.
//!
//! What was asked over a stream that broke is asked again over the next one with the same request id, so that an answer
//! is neither lost nor said twice. Events wait in a bounded channel; whoever does not read them is told by the desk
//! what it missed, not served from a growing memory here.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, sleep_until};
use tonic::Streaming;

use super::super::super::client::{Client, refused};
use super::super::super::exit::{Failure, UNAVAILABLE};
use super::super::super::watch::is_broken;
use super::ask::{Asked, Outcome, called, input};
use crate::grpc::api;
use crate::grpc::api::attach_desk_request::Input;
use crate::grpc::api::attach_desk_response::Event;

/// How often the desk is told that the operator is there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a desk may be silent, whose heartbeats come as often.
const SILENCE: Duration = Duration::from_secs(45);

/// How long before the first try after a break, and before the later ones at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Inputs and events on their way.
const ON_THE_WAY: usize = 64;

/// What a seat hears.
#[derive(Debug)]
pub(super) enum News {
    /// The stream is open; a snapshot follows.
    Attached,
    /// Something happened at the desk.
    Event(Box<Event>),
    /// What was asked with this id has come to something.
    Answered(String, Outcome),
    /// The stream broke; the next try is made after the pause.
    Lost { why: String, pause: Duration },
    /// It will not be tried again.
    Ended(Failure),
}

/// A seat's end of it.
pub(super) struct Link {
    client: Client,
    inputs: Option<mpsc::Sender<Asked>>,
    news: mpsc::Receiver<News>,
    /// What follows the stream.
    task: JoinSet<()>,
    calls: FuturesUnordered<Pin<Box<dyn Future<Output = News>>>>,
}

impl Link {
    /// Sits down; whether that went well is the first of the news.
    pub(super) fn new(client: &Client, start: api::AttachStart) -> Self {
        let (inputs, asked) = mpsc::channel(ON_THE_WAY);
        let (tell, news) = mpsc::channel(ON_THE_WAY);
        let mut task = JoinSet::new();
        task.spawn(follow(client.clone(), start, asked, tell));
        Self {
            client: client.clone(),
            inputs: Some(inputs),
            news,
            task,
            calls: FuturesUnordered::new(),
        }
    }

    /// Asks; `false` when too much is on its way already.
    pub(super) fn ask(&mut self, asked: Asked) -> bool {
        match input(&asked) {
            Some(_) => {
                let inputs = self.inputs.as_ref();
                inputs.is_some_and(|inputs| inputs.try_send(asked).is_ok())
            }
            _ if self.calls.len() >= ON_THE_WAY => false,
            _ => {
                let client = self.client.clone();
                self.calls.push(Box::pin(async move {
                    let outcome = called(&client, &asked).await;
                    News::Answered(asked.id, outcome)
                }));
                true
            }
        }
    }

    /// Asks nothing more: what was asked is answered, then the news end.
    pub(super) fn finish(&mut self) {
        self.inputs = None;
    }

    /// What is heard next; nothing when the seat was left. May be dropped while it waits.
    pub(super) async fn news(&mut self) -> Option<News> {
        tokio::select! {
            Some(answered) = self.calls.next() => Some(answered),
            news = self.news.recv() => news,
        }
    }

    /// Leaves, without waiting for answers.
    pub(super) async fn leave(mut self) {
        self.task.shutdown().await;
    }
}

/// Attaches again and again, until the seat is left or there is no use in it.
async fn follow(
    client: Client,
    start: api::AttachStart,
    mut inputs: mpsc::Receiver<Asked>,
    tell: mpsc::Sender<News>,
) {
    let mut unanswered = VecDeque::new();
    let mut pause = PAUSE.0;
    loop {
        let mut seat = Seat {
            inputs: &mut inputs,
            unanswered: &mut unanswered,
            tell: &tell,
        };
        let begun = Instant::now();
        let Err(failure) = seat.sit(&client, &start).await else {
            return;
        };
        if !is_broken(&failure) {
            let _ = tell.send(News::Ended(failure)).await;
            return;
        }
        // Whoever has left, and is owed no answer, does not come back to leave again.
        if inputs.is_closed() && inputs.is_empty() && unanswered.is_empty() {
            return;
        }
        if begun.elapsed() > PAUSE.1 {
            pause = PAUSE.0;
        }
        let why = failure.sentence();
        if tell.send(News::Lost { why, pause }).await.is_err() {
            return;
        }
        sleep(pause).await;
        pause = (2 * pause).min(PAUSE.1);
    }
}

/// One stream of a seat.
struct Seat<'a> {
    inputs: &'a mut mpsc::Receiver<Asked>,
    /// What was asked and not answered, in order.
    unanswered: &'a mut VecDeque<Asked>,
    tell: &'a mpsc::Sender<News>,
}

impl Seat<'_> {
    /// Sits until the seat is left, which is well, or the stream ends otherwise, which is not.
    async fn sit(&mut self, client: &Client, start: &api::AttachStart) -> Result<(), Failure> {
        let (send, mut requests) = mpsc::channel(ON_THE_WAY);
        let first = [Input::Start(start.clone())].into_iter();
        let again: Vec<_> = first
            .chain(self.unanswered.iter().filter_map(input))
            .map(|input| api::AttachDeskRequest { input: Some(input) })
            .collect();
        let later = stream::poll_fn(move |cx| requests.poll_recv(cx));
        let requests = stream::iter(again).chain(later);
        let mut events = client.duplex(requests).await?;
        if self.tell.send(News::Attached).await.is_err() {
            return Ok(());
        }
        self.listen(&mut events, send).await
    }

    async fn listen(
        &mut self,
        events: &mut Streaming<api::AttachDeskResponse>,
        send: mpsc::Sender<api::AttachDeskRequest>,
    ) -> Result<(), Failure> {
        let mut send = Some(send);
        let mut pulse = interval(HEARTBEAT);
        let mut heard = tokio::time::Instant::now();
        loop {
            let free = self.unanswered.len() < ON_THE_WAY;
            tokio::select! {
                event = events.message() => match event.map_err(refused)? {
                    Some(api::AttachDeskResponse { event }) => {
                        heard = tokio::time::Instant::now();
                        if let Some(event) = event && self.hear(event).await.is_err() {
                            return Ok(());
                        }
                    }
                    None if send.is_none() => return Ok(()),
                    None => return Err(broken("the desk ended the stream")),
                },
                asked = self.inputs.recv(), if free && send.is_some() => match asked {
                    Some(asked) => {
                        let input = input(&asked);
                        self.unanswered.push_back(asked);
                        post(send.as_ref(), input);
                    }
                    // The desk answers what it was asked, and ends the stream.
                    None => send = None,
                },
                _ = pulse.tick() => post(send.as_ref(), Some(Input::Heartbeat(api::Heartbeat {}))),
                () = sleep_until(heard + SILENCE) => return Err(broken("the desk has fallen silent")),
            }
        }
    }

    /// Hands an event on; an error when nobody listens any more.
    async fn hear(&mut self, event: Event) -> Result<(), mpsc::error::SendError<News>> {
        let news = match event {
            Event::Done(done) => {
                let outcome = Outcome::Done {
                    conversation: done.conversation,
                    sequence: done.sequence,
                    warnings: done.warnings,
                };
                self.answered(done.request_id, outcome)
            }
            Event::Error(error) => {
                let (reason, message) = (error.reason, error.message);
                self.answered(error.request_id, Outcome::Refused { reason, message })
            }
            Event::Heartbeat(_) => return Ok(()),
            event => News::Event(Box::new(event)),
        };
        self.tell.send(news).await
    }

    fn answered(&mut self, id: String, outcome: Outcome) -> News {
        self.unanswered.retain(|asked| asked.id != id);
        News::Answered(id, outcome)
    }
}

/// Puts an input on its way. A stream that takes no more of them is about to end, and the next one gets it again.
fn post(send: Option<&mpsc::Sender<api::AttachDeskRequest>>, input: Option<Input>) {
    if let (Some(send), Some(input)) = (send, input) {
        let _ = send.try_send(api::AttachDeskRequest { input: Some(input) });
    }
}

fn broken(why: &str) -> Failure {
    Failure::Here(UNAVAILABLE, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::super::super::client::ControlArgs;
    use super::super::super::super::mutation::fresh_id;
    use super::super::ask::Ask;
    use super::*;
    use api::chat_service_server::{ChatService, ChatServiceServer};
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use tonic::codegen::BoxStream;
    use tonic::transport::server::{Server, TcpIncoming};
    use tonic::{Request, Response, Status};

    /// A desk whose first stream breaks when it has been asked something, which the second one answers. It remembers
    /// what each was asked, by its number.
    #[derive(Default, Clone)]
    struct Breaking(Arc<Mutex<BTreeMap<usize, Vec<Input>>>>);

    #[tonic::async_trait]
    impl ChatService for Breaking {
        async fn attach_desk(
            &self,
            request: Request<Streaming<api::AttachDeskRequest>>,
        ) -> Result<Response<BoxStream<api::AttachDeskResponse>>, Status> {
            let stream = self.0.lock().unwrap().len();
            self.0.lock().unwrap().insert(stream, Vec::new());
            let told = self.0.clone();
            let inputs = request.into_inner();
            let events = stream::unfold((inputs, told), move |(mut inputs, told)| async move {
                loop {
                    let input = inputs.message().await.ok()??.input?;
                    told.lock().unwrap().get_mut(&stream)?.push(input.clone());
                    let event = match input {
                        Input::Start(_) => Event::Synced(api::Synced {}),
                        Input::Reply(_) if stream == 0 => {
                            let broken = Err(Status::unavailable("gone"));
                            return Some((broken, (inputs, told)));
                        }
                        Input::Reply(reply) => Event::Done(api::DeskDone {
                            request_id: reply.request_id,
                            sequence: 7,
                            ..Default::default()
                        }),
                        _ => continue,
                    };
                    let event = Some(event);
                    return Some((Ok(api::AttachDeskResponse { event }), (inputs, told)));
                }
            });
            Ok(Response::new(Box::pin(events)))
        }
    }

    #[tokio::test]
    async fn what_was_asked_when_the_stream_broke_is_asked_again_and_answered_once() {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let desk = Breaking::default();
        let service = ChatServiceServer::new(desk.clone());
        let served = Server::builder().add_service(service);
        tokio::spawn(served.serve_with_incoming(TcpIncoming::from(socket)));
        let args = ControlArgs::to(address, Duration::from_secs(5));
        let client = Client::dial(&args).await.unwrap();

        let mut link = Link::new(&client, api::AttachStart::default());
        let (name, text) = ("listeners/chat/conversations/n-1".into(), "yes".into());
        let ask = Ask::Reply {
            name,
            text,
            in_reply_to: 1,
        };
        let id = fresh_id();
        assert!(link.ask(Asked {
            id: id.clone(),
            ask
        }));
        link.finish();
        let mut heard = Vec::new();
        while let Some(news) = link.news().await {
            heard.push(match news {
                News::Attached => "attached".to_owned(),
                News::Event(_) => "event".to_owned(),
                News::Answered(answered, Outcome::Done { sequence, .. }) if answered == id => {
                    format!("answered {sequence}")
                }
                News::Lost { .. } => "lost".to_owned(),
                other => panic!("{other:?}"),
            });
        }
        let expected = [
            "attached",
            "event",
            "lost",
            "attached",
            "event",
            "answered 7",
        ];
        assert_eq!(heard, expected);
        let asked = desk.0.lock().unwrap();
        let replies = asked.values().map(|inputs| {
            let reply =
                |input: &Input| matches!(input, Input::Reply(reply) if reply.request_id == id);
            inputs.iter().filter(|input| reply(input)).count()
        });
        assert_eq!(replies.collect::<Vec<_>>(), [1, 1]);
    }
}
