//! What is read of the service at one moment: never more of it than is looked at.

use std::time::SystemTime;

use super::super::client::Client;
use super::super::exit::Failure;
use super::super::list;
use super::figures::Figures;
use crate::grpc::api;

/// Listeners that are read at most.
const MOST_LISTENERS: usize = 1_000;

/// The key that says what the node is called.
const NODE: &str = "node.name";

/// What a service is, as long as it runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Server {
    /// Its version and its age.
    pub(super) info: api::GetServerInfoResponse,
    /// What it is called.
    pub(super) node: String,
}

/// What is looked at, beside the listeners.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Wanted {
    /// Which sessions, if any.
    pub(super) sessions: Option<api::ListSessionsRequest>,
    /// Which conversations, if any.
    pub(super) conversations: Option<api::ListConversationsRequest>,
    /// Whether sessions that come and go are told.
    pub(super) happenings: bool,
}

/// The beginning of a list.
#[derive(Debug, Clone)]
pub(super) struct Page<Item> {
    pub(super) items: Vec<Item>,
    /// How many there are in all.
    pub(super) total: usize,
}

/// What was looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Lists {
    pub(super) sessions: Option<Page<api::Session>>,
    pub(super) conversations: Option<Page<api::Conversation>>,
}

/// All of it at one moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// When it was read, by this machine's clock.
    pub(super) time: SystemTime,
    pub(super) figures: Figures,
    pub(super) listeners: Vec<api::Listener>,
    pub(super) lists: Lists,
}

/// What the service is.
pub(super) async fn server(client: &Client) -> Result<Server, Failure> {
    let info = client.call(api::GetServerInfoRequest {}).await?;
    let asked = api::GetEffectiveConfigRequest {
        key_prefix: NODE.to_owned(),
        ..Default::default()
    };
    let settings = client.call(asked).await?.settings;
    let node = settings.into_iter().find(|setting| setting.key == NODE);
    let node = node.and_then(|node| serde_json::from_str(&node.value_json).ok());
    Ok(Server {
        info,
        node: node.unwrap_or_default(),
    })
}

/// Reads all that is wanted, given the measurements.
pub(super) async fn sample(
    client: &Client,
    snapshot: &api::MetricSnapshot,
    wanted: &Wanted,
) -> Result<Sample, Failure> {
    let asked = api::ListListenersRequest::default();
    let listeners = list::read(client, &asked, Some(MOST_LISTENERS)).await?;
    Ok(Sample {
        listeners,
        lists: lists(client, wanted).await?,
        figures: Figures::of(snapshot),
        time: SystemTime::now(),
    })
}

/// Reads what is looked at.
pub(super) async fn lists(client: &Client, wanted: &Wanted) -> Result<Lists, Failure> {
    let mut lists = Lists::default();
    let total = |size: i32| usize::try_from(size).unwrap_or_default();
    if let Some(asked) = wanted.sessions.clone() {
        let answer = client.call(asked).await?;
        lists.sessions = Some(Page {
            items: answer.sessions,
            total: total(answer.total_size),
        });
    }
    if let Some(asked) = wanted.conversations.clone() {
        let answer = client.call(asked).await?;
        lists.conversations = Some(Page {
            items: answer.conversations,
            total: total(answer.total_size),
        });
    }
    Ok(lists)
}
