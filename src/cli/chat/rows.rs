//! The columns of conversations and messages.

use super::super::name::{id, listener};
use super::super::output::{Resource, View};
use super::super::table::{Table, age, left, word};
use crate::grpc::api;

impl Resource for api::Conversation {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut columns = vec![
            "CONVERSATION",
            "LISTENER",
            "FROM",
            "WAITING",
            "STATE",
            "OPERATOR",
            "UNANSWERED",
        ];
        if view.wide {
            columns.extend(["CLAIM", "MUTED"]);
        }
        columns.push("LAST");
        let mut table = Table::new(&columns);
        for conversation in items {
            let mut cells = vec![
                id(&conversation.name).to_owned(),
                listener(&conversation.name).to_owned(),
                conversation.peer.clone(),
                age(conversation.waiting_since_time, view.now),
                word(conversation.state().as_str_name(), "STATE_"),
                conversation.operator.clone(),
                conversation.unanswered_messages.to_string(),
            ];
            if view.wide {
                cells.push(left(conversation.claim_expire_time, view.now));
                cells.push(if conversation.muted { "yes" } else { "" }.to_owned());
            }
            let last = conversation.last_message.as_ref();
            cells.push(last.map_or_else(String::new, |message| message.text.clone()));
            table.row(cells);
        }
        table
    }
}

impl Resource for api::ChatMessage {
    fn name(&self) -> String {
        self.conversation.clone()
    }

    fn table(items: &[Self], view: &View) -> Table {
        let mut table = Table::new(&["CONVERSATION", "SEQUENCE", "AGE", "AUTHOR", "TO", "TEXT"]);
        for message in items {
            let author = word(message.author().as_str_name(), "AUTHOR_");
            let author = match message.operator.as_str() {
                "" => author,
                operator => format!("{author}:{operator}"),
            };
            let to = message.in_reply_to;
            table.row([
                id(&message.conversation).to_owned(),
                message.sequence.to_string(),
                age(message.message_time, view.now),
                author,
                if to == 0 {
                    String::new()
                } else {
                    to.to_string()
                },
                message.text.clone(),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::table::Screen;
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn inbox(wide: bool) -> String {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let conversation = api::Conversation {
            name: "listeners/chat/conversations/n-1".into(),
            peer: "127.0.0.1:9".into(),
            state: api::conversation::State::Claimed.into(),
            operator: "ann".into(),
            claim_expire_time: at(190),
            waiting_since_time: at(88),
            unanswered_messages: 2,
            last_message: Some(api::ChatMessage {
                text: "hi\nthere \u{202e}\\u{1b}".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let view = View {
            wide,
            watched: false,
            now: UNIX_EPOCH + Duration::from_secs(100),
        };
        api::Conversation::table(&[conversation], &view).render(&Screen::default())
    }

    #[test]
    fn the_inbox_is_one_line_each_and_obeys_nobody() {
        let expected = "CONVERSATION  LISTENER  FROM         WAITING  STATE    OPERATOR  UNANSWERED  LAST\n\
                        n-1           chat      127.0.0.1:9  12s      claimed  ann       2           hi\\nthere \\u{202e}\\u{1b}\n";
        assert_eq!(inbox(false), expected);
        assert!(inbox(true).contains("UNANSWERED  CLAIM  MUTED  LAST\n"));
        assert!(inbox(true).contains("  2           1m     -      hi"));
    }
}
