//! Lists: asked for page by page, read to their end, and shown.

use clap::Args;
use tonic::Code;

use super::call::Call;
use super::client::Client;
use super::exit::Failure;
use super::output::{self, Format, Resource};
use crate::grpc::api;

/// The largest page that the control plane gives.
const LARGEST_PAGE: usize = 1_000;

/// Which of them.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// Only those for which this holds, such as 'state = STATE_ACTIVE AND name : "desk"'; the fields are those of -o json,
    /// written as in the protos
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) filter: String,
    /// At most this many
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
}

/// A request for one page of a list.
pub(super) trait List: Call + Clone {
    /// What is listed.
    type Item: Resource;
    /// Their name in JSON.
    const PLURAL: &'static str;
    /// The same request for the page of this size behind a token.
    fn page(&self, size: i32, token: String) -> Self;
    /// What stands on a page, and the token of the next one.
    fn items(page: Self::Answer) -> (Vec<Self::Item>, String);
}

macro_rules! lists {
    ($($request:ident => $items:ident: $item:ident, $plural:literal;)+) => {
        $(impl List for api::$request {
            type Item = api::$item;
            const PLURAL: &'static str = $plural;

            fn page(&self, page_size: i32, page_token: String) -> Self {
                Self { page_size, page_token, ..self.clone() }
            }

            fn items(page: Self::Answer) -> (Vec<Self::Item>, String) {
                (page.$items, page.next_page_token)
            }
        })+
    };
}

lists! {
    ListListenersRequest => listeners: Listener, "listeners";
    ListSessionsRequest => sessions: Session, "sessions";
    ListBansRequest => bans: Ban, "bans";
    ListConversationsRequest => conversations: Conversation, "conversations";
    ListMessagesRequest => messages: ChatMessage, "messages";
    ListAuditEventsRequest => audit_events: AuditEvent, "auditEvents";
    ListCommandsRequest => commands: CommandRecord, "commands";
}

/// Reads a list to its end, or to `limit` items.
pub(super) async fn read<L: List>(
    client: &Client,
    asked: &L,
    limit: Option<usize>,
) -> Result<Vec<L::Item>, Failure> {
    let mut all = Vec::new();
    each(client, asked, limit, |items| {
        all.extend(items);
        Ok(())
    })
    .await?;
    Ok(all)
}

/// The same, a page at a time: what is long need not be held whole.
pub(super) async fn each<L: List>(
    client: &Client,
    asked: &L,
    limit: Option<usize>,
    take: impl FnMut(Vec<L::Item>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let page = async |size, token| Ok(L::items(client.call(asked.page(size, token)).await?));
    pages(limit, page, take).await
}

/// Reads a list as [`read`] does, and shows it.
pub(super) async fn show<L: List>(
    client: &Client,
    format: Format,
    asked: &L,
    limit: Option<usize>,
) -> Result<(), Failure> {
    output::many(format, L::PLURAL, &read(client, asked, limit).await?)
}

/// Reads a list to its end, or to `limit` items. `page` is given a page's size and token, and returns its items and
/// the next token. A page that is too large to be sent is asked for again in smaller ones.
async fn pages<T>(
    limit: Option<usize>,
    mut page: impl AsyncFnMut(i32, String) -> Result<(Vec<T>, String), Failure>,
    mut take: impl FnMut(Vec<T>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut left = limit.unwrap_or(usize::MAX);
    let (mut token, mut size) = (String::new(), LARGEST_PAGE);
    while left > 0 {
        let wanted = size.min(left);
        let asked = i32::try_from(wanted).unwrap_or(i32::MAX);
        match page(asked, token.clone()).await {
            Ok((mut items, next)) => {
                if !next.is_empty() && next == token {
                    return Err(Failure::error(
                        "the list does not end: a page leads to itself",
                    ));
                }
                items.truncate(left);
                left -= items.len();
                take(items)?;
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

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
        let mut all = Vec::new();
        let done = pages(limit, page, |items| {
            all.extend(items);
            Ok(())
        });
        done.await.unwrap();
        all
    }

    #[tokio::test]
    async fn every_page_is_read_once() {
        for fit in [1, 7, 10_000] {
            assert_eq!(list(None, fit).await, (0..25).collect::<Vec<_>>());
            assert_eq!(list(Some(10), fit).await, (0..10).collect::<Vec<_>>());
        }
        assert!(list(Some(0), 5).await.is_empty());
    }
}
