//! `--watch` and its like: what is, then what happens, a line each, until somebody presses Ctrl-C.
//!
//! A stream whose connection broke is taken up again where it was left, a bounded number of times; that it broke, and
//! whatever was missed, is said on stderr.

use std::time::{Duration, SystemTime};

use prost::Name;
use prost_types::Timestamp;
use tonic::Code;

use super::call::Call;
use super::client::{Client, refused};
use super::document::{self, reflected};
use super::exit::{Failure, NOT_FOUND, OK, UNAVAILABLE, complain};
use super::output::{Format, Resource, View, legible, print};
use super::table::{Screen, word};
use crate::grpc::api::{self, ChangeType};

/// How often a stream that brings nothing is taken up again before that is an error.
const TRIES: u32 = 5;

/// How long before the first of them; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(200);

/// A request whose stream can be taken up again.
pub(super) trait Follow: Call + Clone {
    /// Makes it the request for what comes after an answer.
    fn go_on(&mut self, after: &Self::Answer);
    /// Makes it the request for everything anew; `false` when that is what it is.
    fn anew(&mut self) -> bool;
}

/// What one answer of a watch says.
pub(super) struct Event<'a, R> {
    /// What happened.
    pub(super) change: ChangeType,
    /// What to, as it is now.
    pub(super) item: Option<&'a R>,
    /// When.
    pub(super) time: Option<Timestamp>,
    /// How many events were not told before it.
    pub(super) missed: u64,
}

impl<R> Event<'_, R> {
    /// Says on stderr that this watch was too slow.
    pub(super) fn tell_missed(&self) {
        if self.missed > 0 {
            complain(&format!("events missed: {}", self.missed));
        }
    }
}

/// A watch of one kind of resource.
pub(super) trait Watch: Follow {
    /// What is watched.
    type Item: Resource + Clone;
    /// Reads an answer.
    fn event(answer: &Self::Answer) -> Event<'_, Self::Item>;
}

macro_rules! watches {
    ($($request:ident => $item:ident: $resource:ident, $missed:expr;)+) => {
        $(impl Follow for api::$request {
            fn go_on(&mut self, after: &Self::Answer) {
                if !after.resume_token.is_empty() {
                    self.resume_token.clone_from(&after.resume_token);
                }
            }

            fn anew(&mut self) -> bool {
                !std::mem::take(&mut self.resume_token).is_empty()
            }
        }

        impl Watch for api::$request {
            type Item = api::$resource;

            fn event(answer: &Self::Answer) -> Event<'_, Self::Item> {
                let missed: fn(&Self::Answer) -> u64 = $missed;
                Event {
                    change: answer.change_type(),
                    item: answer.$item.as_ref(),
                    time: answer.event_time,
                    missed: missed(answer),
                }
            }
        })+
    };
}

watches! {
    WatchListenersRequest => listener: Listener, |_| 0;
    WatchSessionsRequest => session: Session, |answer| answer.dropped_events;
    WatchConversationsRequest => conversation: Conversation, |_| 0;
}

/// Shows what is as a table, then a line for each change. As JSON and YAML, every event as it came.
pub(super) async fn show<W: Watch>(
    client: &Client,
    format: Format,
    asked: W,
) -> Result<(), Failure> {
    let mut feed = Feed::new(format);
    let followed = follow(client, asked, |answer| {
        W::event(answer).tell_missed();
        print(&feed.take::<W>(answer)?)
    });
    until_interrupted(followed).await
}

/// The same of a single one, which ends with it; one that is not there is an error that says so by its `name`.
pub(super) async fn show_one<W: Watch>(
    client: &Client,
    format: Format,
    asked: W,
    name: &str,
) -> Result<(), Failure> {
    let mut feed = Feed::new(format);
    let mut found = false;
    let followed = follow(client, asked, |answer| {
        let told = W::event(answer);
        let missing = told.change == ChangeType::Synced && !found;
        // A snapshot that is asked for anew finds it anew.
        found = told.change == ChangeType::Existing;
        if missing {
            let message = format!("{name} is not there");
            return Err(Failure::Here(NOT_FOUND, message));
        }
        told.tell_missed();
        print(&feed.take::<W>(answer)?)?;
        match told.change {
            ChangeType::Deleted => Err(Failure::Told(OK)),
            _ => Ok(()),
        }
    });
    match until_interrupted(followed).await {
        Err(Failure::Told(OK)) => Ok(()),
        ended => ended,
    }
}

/// Runs what has no end of its own; Ctrl-C is [`Failure::Interrupted`].
pub(super) async fn until_interrupted(
    task: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        done = task => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    }
}

/// Hands each answer of a stream on, through breaks of the connection.
pub(super) async fn follow<F: Follow>(
    client: &Client,
    mut asked: F,
    mut each: impl FnMut(&F::Answer) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut tries = 0;
    loop {
        let ended = async {
            let Some(mut stream) = client.stream(asked.clone()).await? else {
                return Ok(());
            };
            while let Some(answer) = stream.message().await.map_err(refused)? {
                tries = 0;
                asked.go_on(&answer);
                each(&answer)?;
            }
            Ok(())
        };
        let Err(failure) = ended.await else {
            return Ok(());
        };
        if is_too_late(&failure) && asked.anew() {
            complain("what happened meanwhile is no longer known; from the beginning:");
        } else if is_broken(&failure) && tries < TRIES {
            let pause = PAUSE * 2u32.pow(tries);
            tries += 1;
            let pause_said = humantime::format_duration(pause);
            complain(&format!("the connection broke; again in {pause_said}"));
            tokio::time::sleep(pause).await;
        } else {
            return Err(failure);
        }
    }
}

/// The connection is gone, or who is at its other end will be.
pub(super) fn is_broken(failure: &Failure) -> bool {
    match failure {
        Failure::Refused(status) => status.code() == Code::Unavailable,
        Failure::Here(code, _) => *code == UNAVAILABLE,
        _ => false,
    }
}

/// The token is too old to go on from.
fn is_too_late(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused(status) if status.code() == Code::OutOfRange)
}

/// One answer of a stream as a document of its own.
pub(super) fn document(format: Format, answer: &impl Name) -> Result<String, Failure> {
    let answer = reflected(answer)?;
    match format {
        Format::Yaml => Ok(format!("---\n{}", document::yaml(&answer)?)),
        _ => document::json_line(&answer),
    }
}

/// A table that grows.
struct Feed<R> {
    format: Format,
    /// What was there at the beginning, until all of it is known.
    snapshot: Vec<R>,
    /// Of the columns so far.
    widths: Vec<usize>,
}

impl<R: Resource + Clone> Feed<R> {
    fn new(format: Format) -> Self {
        Self {
            format,
            snapshot: Vec::new(),
            widths: Vec::new(),
        }
    }

    /// What an answer adds to what was printed.
    fn take<W: Watch<Item = R>>(&mut self, answer: &W::Answer) -> Result<String, Failure> {
        if self.format.is_document() {
            return document(self.format, answer);
        }
        let Event { change, item, .. } = W::event(answer);
        Ok(match (self.format, change, item) {
            (_, ChangeType::Synced, _) => {
                let snapshot = std::mem::take(&mut self.snapshot);
                self.rows(ChangeType::Existing, &snapshot)
            }
            (_, _, None) => String::new(),
            (Format::Name, _, Some(item)) => legible(item.name().as_bytes(), b"") + "\n",
            (_, ChangeType::Existing, Some(item)) => {
                self.snapshot.push(item.clone());
                String::new()
            }
            (_, change, Some(item)) => self.rows(change, std::slice::from_ref(item)),
        })
    }

    /// No header stands above nothing: its columns would be as narrow as their names.
    fn rows(&mut self, change: ChangeType, items: &[R]) -> String {
        if items.is_empty() {
            return String::new();
        }
        let view = View {
            wide: self.format == Format::Wide,
            watched: true,
            now: SystemTime::now(),
        };
        let event = event(change);
        let table = R::table(items, &view).led("EVENT", std::iter::repeat_n(event, items.len()));
        table.go_on(&Screen::stdout(), &mut self.widths)
    }
}

/// `existing`, `created`, `updated` or `deleted`.
pub(super) fn event(change: ChangeType) -> String {
    word(change.as_str_name(), "CHANGE_TYPE_")
}

#[cfg(test)]
mod tests {
    use super::super::client::ControlArgs;
    use super::*;
    use api::listener_service_server::{ListenerService, ListenerServiceServer};
    use std::sync::Mutex;
    use tonic::codegen::BoxStream;
    use tonic::{Request, Response, Status};

    fn told(change: ChangeType, name: &str, token: &str) -> api::WatchListenersResponse {
        let listener = api::Listener {
            name: format!("listeners/{name}"),
            state: api::listener::State::Active.into(),
            ..Default::default()
        };
        api::WatchListenersResponse {
            change_type: change.into(),
            listener: Some(listener).filter(|_| !name.is_empty()),
            resume_token: token.into(),
            ..Default::default()
        }
    }

    /// The token that a watch must come with, and what it is answered with.
    type Scene = (
        &'static str,
        Vec<Result<api::WatchListenersResponse, Status>>,
    );

    /// Answers the watches one after the other as it was told to.
    struct Scripted(Mutex<Vec<Scene>>);

    #[tonic::async_trait]
    impl ListenerService for Scripted {
        async fn watch_listeners(
            &self,
            request: Request<api::WatchListenersRequest>,
        ) -> Result<Response<BoxStream<api::WatchListenersResponse>>, Status> {
            let (token, answers) = self.0.lock().unwrap().remove(0);
            assert_eq!(request.into_inner().resume_token, token);
            let answers = futures_util::stream::iter(answers);
            Ok(Response::new(Box::pin(answers)))
        }
    }

    /// A client of such a control plane.
    async fn dialled(script: Scripted) -> Client {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::TcpListener::from_std(socket).unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(socket);
        let served = tonic::transport::Server::builder()
            .add_service(ListenerServiceServer::new(script))
            .serve_with_incoming(incoming);
        tokio::spawn(served);
        let args = ControlArgs::to(address.to_string(), Duration::from_secs(5));
        Client::dial(&args).await.unwrap()
    }

    #[tokio::test]
    async fn a_watch_goes_on_where_it_broke() {
        let script = vec![
            (
                "",
                vec![
                    Ok(told(ChangeType::Existing, "a", "")),
                    Ok(told(ChangeType::Synced, "", "t1")),
                    Err(Status::unavailable("going")),
                ],
            ),
            ("t1", vec![Err(Status::unavailable("gone"))]),
            (
                "t1",
                vec![
                    Ok(told(ChangeType::Updated, "a", "t2")),
                    Err(Status::out_of_range("old")),
                ],
            ),
            ("", vec![Ok(told(ChangeType::Existing, "b", "t3"))]),
        ];
        let client = dialled(Scripted(Mutex::new(script))).await;
        let mut names = Vec::new();
        let done = follow(&client, api::WatchListenersRequest::default(), |answer| {
            names.extend(answer.listener.as_ref().map(|l| l.name.clone()));
            Ok(())
        });
        done.await.unwrap();
        assert_eq!(names, ["listeners/a", "listeners/a", "listeners/b"]);
    }

    #[tokio::test]
    async fn what_is_refused_is_not_asked_again() {
        let script = vec![("", vec![Err(Status::invalid_argument("no filter"))])];
        let client = dialled(Scripted(Mutex::new(script))).await;
        let refused = follow(&client, api::WatchListenersRequest::default(), |_| Ok(())).await;
        assert!(matches!(refused, Err(Failure::Refused(_))), "{refused:?}");
    }

    #[test]
    fn what_is_comes_first_and_then_a_line_each() {
        let mut feed = Feed::new(Format::Table);
        let mut take = |change, name| {
            let answer = told(change, name, "t");
            feed.take::<api::WatchListenersRequest>(&answer).unwrap()
        };
        assert_eq!(take(ChangeType::Existing, "a"), "");
        assert_eq!(take(ChangeType::Existing, "bcd"), "");
        let table = take(ChangeType::Synced, "");
        let begins: Vec<_> = table.lines().map(|line| &line[..14]).collect();
        assert_eq!(
            begins,
            ["EVENT     NAME", "existing  a   ", "existing  bcd "]
        );
        assert_eq!(take(ChangeType::Bookmark, ""), "");
        assert!(take(ChangeType::Deleted, "a").starts_with("deleted   a     "));
        let mut feed = Feed::new(Format::Json);
        let answer = told(ChangeType::Synced, "", "t");
        let line = feed.take::<api::WatchListenersRequest>(&answer).unwrap();
        assert_eq!(
            line,
            "{\"changeType\":\"CHANGE_TYPE_SYNCED\",\"resumeToken\":\"t\"}\n"
        );
    }
}
